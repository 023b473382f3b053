/*
 * Frames, and the pool of those of the usual size: a busy switch allocates nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "net/frame.h"

#define POOL_MAX 1024

static struct frame *pool;
static unsigned pooled;

struct frame *frame_new(size_t size)
{
	size_t room = size < FRAME_SMALL ? FRAME_SMALL : size;
	struct frame *f = pool;

	if (room == FRAME_SMALL && f) {
		pool = f->next;
		pooled--;
	} else {
		f = xmalloc(sizeof(*f) + room);
		f->size = (uint32_t)room;
	}
	f->next = NULL;
	f->refs = 1;
	f->len = (uint32_t)size;
	return f;
}

struct frame *frame_of(const void *data, size_t len)
{
	struct frame *f = frame_new(len);

	memcpy(f->data, data, len);
	return f;
}

struct frame *frame_copy(const struct frame *f)
{
	return frame_of(f->data, f->len);
}

void frame_unref(struct frame *f)
{
	if (!f || --f->refs > 0)
		return;
	if (f->size == FRAME_SMALL && pooled < POOL_MAX) {
		f->next = pool;
		pool = f;
		pooled++;
		return;
	}
	free(f);
}
