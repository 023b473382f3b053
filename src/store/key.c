/*
 * Keys: SHA-256 over named parts.
 */
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

struct key {
	struct sha256_ctx ctx;
};

struct key *key_new(void)
{
	struct key *k = xcalloc(1, sizeof(*k));

	sha256_init(&k->ctx);
	return k;
}

static void put_length(struct key *k, uint64_t n)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(n >> 8 * i);
	sha256_update(&k->ctx, sizeof(bytes), bytes);
}

static void put(struct key *k, const char *name, const void *data, size_t len)
{
	put_length(k, strlen(name));
	sha256_update(&k->ctx, strlen(name), (const uint8_t *)name);
	put_length(k, len);
	if (len && data)
		sha256_update(&k->ctx, len, data);
}

void key_add(struct key *k, const char *name, const void *data, size_t len)
{
	put(k, name, data, len);
	log_debug("key", "%s: %zu bytes", name, len);
}

void key_text(struct key *k, const char *name, const char *text)
{
	put(k, name, text, text ? strlen(text) : 0);
	put_length(k, text ? 1 : 0);	/* none is not the empty one */
	log_debug("key", "%s: %s", name, text ? text : "(none)");
}

void key_number(struct key *k, const char *name, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	key_text(k, name, text);
}

void key_end(struct key *k, char hex[KEY_SIZE])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(&k->ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	free(k);
}
