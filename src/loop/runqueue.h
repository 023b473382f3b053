/*
 * The queue of runnable tasks, private to src/loop/: the one place that resumes Lua.
 */
#ifndef PROVIUM_RUNQUEUE_H
#define PROVIUM_RUNQUEUE_H

#include "loop/loop.h"

struct runqueue;

struct runqueue *runqueue_new(struct loop *l);
void runqueue_free(struct runqueue *q);
bool runqueue_empty(const struct runqueue *q);
/* Gives runnable tasks their slices, until events should be looked at again. */
void runqueue_turn(struct runqueue *q);

struct runqueue *loop_runqueue(struct loop *l);
void loop_report_stall(struct loop *l, int64_t ns, const char *traceback);

#endif
