/*
 * The buffers of one system call: copied in, given addresses, read back.
 *
 * They are not in the heap: a call that writes past the end of the last one meets a page it cannot touch, not
 * the agent's own memory. One mapping is kept for the next call, because most need little.
 */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "buf.h"

#define TOTAL_MAX (48u << 20)	/* all of them go back in one frame */
#define KEEP_SIZE (256u << 10)

static uint8_t *kept;	/* a mapping of KEEP_SIZE that nobody uses now; for the main thread only */

static size_t round_up(size_t n, size_t align)
{
	return (n + align - 1) & ~(align - 1);
}

static int map(struct arena *ar, size_t need)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	ar->size = need <= KEEP_SIZE ? KEEP_SIZE : round_up(need, page);
	if (ar->size == KEEP_SIZE && kept) {
		ar->p = kept;
		kept = NULL;
		return 0;
	}
	ar->p = mmap(NULL, ar->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ar->p == MAP_FAILED) {
		ar->p = NULL;
		return -ENOMEM;
	}
	mprotect(ar->p + ar->size, page, PROT_NONE);
	return 0;
}

static struct bytes item_bytes(struct args *a, const msgpack_object *o)
{
	if (o->type == MSGPACK_OBJECT_BIN)
		return (struct bytes){o->via.bin.ptr, o->via.bin.size};
	if (o->type == MSGPACK_OBJECT_STR)
		return (struct bytes){o->via.str.ptr, o->via.str.size};
	if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= TOTAL_MAX)
		return (struct bytes){NULL, (size_t)o->via.u64};
	args_refuse(a, "`bufs`: each should be bytes, or a length of at most 48 MiB");
	return (struct bytes){NULL, 0};
}

int arena_build(struct arena *ar, struct args *a, const msgpack_object *const *items, uint32_t n,
	size_t align)
{
	size_t need = 0, page = (size_t)sysconf(_SC_PAGESIZE), shift;
	struct bytes b;

	if (n == 0)
		return 0;
	ar->n = n;
	ar->off = xcalloc(n, sizeof(*ar->off));
	ar->len = xcalloc(n, sizeof(*ar->len));
	for (uint32_t i = 0; i < n; i++) {
		ar->off[i] = round_up(need, align);
		ar->len[i] = item_bytes(a, items[i]).n;
		need = ar->off[i] + ar->len[i];
		if (need > TOTAL_MAX)
			args_refuse(a, "`bufs`: more than 48 MiB together");
		if (a->problem[0])
			return 0;
	}
	/* A mapping begins at a page: a stricter alignment is found within it. */
	if (map(ar, (need ? need : 1) + (align > page ? align : 0)) < 0)
		return -ENOMEM;
	shift = -(uintptr_t)ar->p & (align - 1);
	for (uint32_t i = 0; i < n; i++)
		ar->off[i] += shift;
	for (uint32_t i = 0; i < n; i++) {
		b = item_bytes(a, items[i]);
		if (b.p)
			memcpy(ar->p + ar->off[i], b.p, b.n);
		else
			memset(ar->p + ar->off[i], 0, b.n);
	}
	return 0;
}

uint8_t *arena_buf(const struct arena *ar, uint32_t i)
{
	return ar->p + ar->off[i];
}

void arena_free(struct arena *ar)
{
	if (ar->p && ar->size == KEEP_SIZE && !kept)
		kept = ar->p;
	else if (ar->p)
		munmap(ar->p, ar->size + (size_t)sysconf(_SC_PAGESIZE));
	free(ar->off);
	free(ar->len);
	*ar = (struct arena){0};
}
