/*
 * The other side of an agent connection, for tests: answers sync and hello by itself, hands every other
 * frame to the test, and sends whatever the test says, well-formed or not.
 */
#ifndef PROVIUM_FAKE_AGENT_H
#define PROVIUM_FAKE_AGENT_H

#include "loop/loop.h"

struct fake_agent;

typedef void fake_frame_fn(struct fake_agent *fa, unsigned type, unsigned channel, uint32_t id,
	const msgpack_object *body, void *arg);

/* Owns fd. */
struct fake_agent *fake_agent_new(struct loop *l, int fd, fake_frame_fn *frame, void *arg);
/* Leave hello to frame(). */
void fake_agent_own_hello(struct fake_agent *fa, bool own);
void fake_agent_free(struct fake_agent *fa);
/* Bytes as they are. */
void fake_agent_raw(struct fake_agent *fa, const void *data, size_t len);
/* Packs values by a format: [N and {N begin an array or map of N (a digit), u takes a uint32_t, s a char *, b a
 * void * and a size_t, n is nil. */
void fake_pack(msgpack_sbuffer *b, const char *format, ...);
/* Sends the frame [type, channel, id, body], the body packed by the format. */
void fake_agent_send(struct fake_agent *fa, unsigned type, unsigned channel, uint32_t id, const char *format,
	...);

#endif
