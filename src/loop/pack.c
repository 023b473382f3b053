/*
 * Entries of msgpack maps.
 */
#include <string.h>

#include "loop/pack.h"

void pack_text(msgpack_packer *pk, const char *s)
{
	msgpack_pack_str_with_body(pk, s, strlen(s));
}

void pack_key(msgpack_packer *pk, const char *key)
{
	pack_text(pk, key);
}

void pack_str(msgpack_packer *pk, const char *key, const char *s)
{
	pack_key(pk, key);
	pack_text(pk, s);
}

void pack_bin(msgpack_packer *pk, const char *key, const void *data, size_t len)
{
	pack_key(pk, key);
	msgpack_pack_bin_with_body(pk, data, len);
}

void pack_int(msgpack_packer *pk, const char *key, int64_t n)
{
	pack_key(pk, key);
	msgpack_pack_int64(pk, n);
}

void pack_bool(msgpack_packer *pk, const char *key, bool b)
{
	pack_key(pk, key);
	if (b)
		msgpack_pack_true(pk);
	else
		msgpack_pack_false(pk);
}

const msgpack_object *map_get(const msgpack_object *o, const char *key)
{
	size_t len = strlen(key);

	if (!o || o->type != MSGPACK_OBJECT_MAP)
		return NULL;
	for (uint32_t i = 0; i < o->via.map.size; i++) {
		const msgpack_object_kv *kv = &o->via.map.ptr[i];

		if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == len &&
		    memcmp(kv->key.via.str.ptr, key, len) == 0)
			return &kv->val;
	}
	return NULL;
}
