/*
 * A sink: writes queued bytes to a descriptor when it takes them.
 */
#ifndef PROVIUM_AGENT_SINK_H
#define PROVIUM_AGENT_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "ev.h"

struct sink;

/* Called from the loop: the piece was written (err 0), or will not be (positive errno). Never after
 * sink_forget. */
typedef void sink_fn(void *arg, size_t n, int err);

/* Takes the descriptor. `blocking`: it blocks when full, so that only small pieces are written when it is
 * ready. */
struct sink *sink_new(struct ev *ev, int fd, bool blocking);
/* Copies; done may be NULL. */
void sink_write(struct sink *s, const void *p, size_t n, sink_fn *done, void *arg);
/* Closes the descriptor once everything is written. */
void sink_end(struct sink *s);
/* True until sink_end, or a failure. */
bool sink_open(const struct sink *s);
/* The pieces of this arg are written, but nobody is told. */
void sink_forget(struct sink *s, void *arg);
/* Closes; what is queued is dropped, and done() told so (EPIPE). */
void sink_free(struct sink *s);

#endif
