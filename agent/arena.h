/*
 * The buffers of one system call: copied in, given addresses, read back.
 */
#ifndef PROVIUM_AGENT_ARENA_H
#define PROVIUM_AGENT_ARENA_H

#include "args.h"

/* All zero is an empty one. Release with arena_free. */
struct arena {
	uint8_t *p;		/* all buffers, one after the other, before a page that cannot be touched */
	size_t size, *off, *len;
	uint32_t n;
};

/* Lays out n objects (bytes, or a length for zeros). Problems with them go into a; -ENOMEM when there is
 * no room. */
int arena_build(struct arena *ar, struct args *a, const msgpack_object *const *items, uint32_t n,
	size_t align);
uint8_t *arena_buf(const struct arena *ar, uint32_t i);
void arena_free(struct arena *ar);

#endif
