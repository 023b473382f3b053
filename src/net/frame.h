/*
 * An Ethernet frame of the user backend, counted by references: a broadcast is one frame in many queues.
 *
 * Whoever holds a reference may read; only the one who made the frame writes, before passing it on.
 */
#ifndef PROVIUM_NET_FRAME_H
#define PROVIUM_NET_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER 14			/* destination, source, type */
#define FRAME_SMALL 2048		/* what a frame of the usual MTU fits into */
#define FRAME_MAX (65535 + FRAME_HEADER + 8)

struct frame {
	struct frame *next;		/* in the pool */
	unsigned refs;
	uint32_t size, len;		/* of data: room, used */
	uint8_t data[];
};

/* One reference, len = size. */
struct frame *frame_new(size_t size);
struct frame *frame_copy(const struct frame *f);
struct frame *frame_of(const void *data, size_t len);
static inline struct frame *frame_ref(struct frame *f) { f->refs++; return f; }
void frame_unref(struct frame *f);	/* NULL is fine */

#endif
