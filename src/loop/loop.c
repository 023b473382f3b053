/*
 * The event loop: one libevent base, the run queue's turn in it, deferred frees, the watchdog.
 *
 * A turn is: run what is runnable, wait for events and run their callbacks, free what was deferred.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/event_struct.h>

#include "loop/loop.h"
#include "loop/runqueue.h"

#define STALL_NS (50 * INT64_C(1000000))
#define ENDING_NS INT64_C(5000000000)	/* a process that the kernel cannot end must not hold us */

static void gave_up_cb(evutil_socket_t fd, short what, void *arg);
static void run_callbacks(struct loop *l);

struct deferred {
	TAILQ_ENTRY(deferred) entry;
	void (*fn)(void *arg);
	void *arg;
};

/* Freed by loop_free; everything that lives on the base must be gone by then. */
struct loop {
	struct event_base *base;
	struct runqueue *runq;
	TAILQ_HEAD(deferred_list, deferred) deferred;
	bool stopped;
	unsigned ending;
	void (*on_stall)(void *arg, int64_t ns, const char *traceback);
	void *on_stall_arg;
};

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

struct timeval timeval_from_ns(int64_t ns)
{
	/* Rounded up: a timer that fires early would be armed again and again. */
	int64_t us = ns <= 0 ? 0 : (ns - 1) / 1000 + 1;

	return (struct timeval){ .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
}

struct loop *loop_new(void)
{
	struct loop *l = xcalloc(1, sizeof(*l));
	struct event_config *cfg = event_config_new();

	/* Timers of a few milliseconds are the rule here: no cached coarse clock. */
	event_config_set_flag(cfg, EVENT_BASE_FLAG_NO_CACHE_TIME);
	event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
	event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
	l->base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	INVARIANT(l->base);
	l->runq = runqueue_new(l);
	TAILQ_INIT(&l->deferred);
	return l;
}

/* What these defer in turn waits for the next turn. */
static void run_deferred(struct loop *l)
{
	struct deferred *d, *last = TAILQ_LAST(&l->deferred, deferred_list);
	bool more = last != NULL;

	while (more && (d = TAILQ_FIRST(&l->deferred))) {
		more = d != last;
		TAILQ_REMOVE(&l->deferred, d, entry);
		d->fn(d->arg);
		free(d);
	}
}

void loop_ending(struct loop *l, int n)
{
	if (n > 0 || l->ending > 0)	/* it may end after we have given up on it */
		l->ending += n;
}

static void gave_up_cb(evutil_socket_t fd, short what, void *arg)
{
	struct loop *l = arg;

	(void)fd, (void)what;
	log_debug("loop", "cancel: %u processes have been killed and do not end", l->ending);
	l->ending = 0;
}

void loop_free(struct loop *l)
{
	struct event *limit = NULL;

	if (!l)
		return;
	if (l->ending)
		timer_start(l, &limit, ENDING_NS, gave_up_cb, l);
	while (l->ending) {
		run_deferred(l);
		run_callbacks(l);
	}
	timer_stop(&limit);
	while (!TAILQ_EMPTY(&l->deferred))
		run_deferred(l);
	runqueue_free(l->runq);
	event_base_free(l->base);
	free(l);
}

struct event_base *loop_base(struct loop *l)
{
	return l->base;
}

struct runqueue *loop_runqueue(struct loop *l)
{
	return l->runq;
}

void loop_report_stall(struct loop *l, int64_t ns, const char *traceback)
{
	log_debug("loop", "stalled for %lld ms%s%s", (long long)ns / 1000000, traceback ? "\n" : "",
		traceback ? traceback : "");
	if (l->on_stall)
		l->on_stall(l->on_stall_arg, ns, traceback);
}

/*
 * libevent tells nobody when its wait ended and its callbacks began, so their part of a turn is
 * measured in CPU time of this thread, which the wait does not use. Lua's part is measured by the
 * run queue in wall time, slice by slice.
 */
static void run_callbacks(struct loop *l)
{
	int64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), spent;

	event_base_loop(l->base, EVLOOP_ONCE |
		(runqueue_empty(l->runq) && TAILQ_EMPTY(&l->deferred) ? EVLOOP_NO_EXIT_ON_EMPTY : EVLOOP_NONBLOCK));
	spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	if (spent > STALL_NS)
		loop_report_stall(l, spent, NULL);
}

int loop_run(struct loop *l)
{
	l->stopped = false;
	while (!l->stopped) {
		runqueue_turn(l->runq);
		run_deferred(l);
		if (!l->stopped)
			run_callbacks(l);
		run_deferred(l);
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
	event_base_loopbreak(l->base);
}

void loop_defer(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct deferred *d = xcalloc(1, sizeof(*d));

	d->fn = fn;
	d->arg = arg;
	TAILQ_INSERT_TAIL(&l->deferred, d, entry);
}

void loop_on_stall(struct loop *l, void (*fn)(void *arg, int64_t ns, const char *traceback), void *arg)
{
	l->on_stall = fn;
	l->on_stall_arg = arg;
}

void timer_start(struct loop *l, struct event **ev, int64_t ns, event_callback_fn fn, void *arg)
{
	struct timeval tv = timeval_from_ns(ns);

	if (*ev)
		event_free(*ev);
	*ev = evtimer_new(l->base, fn, arg);
	INVARIANT(*ev);
	evtimer_add(*ev, &tv);
}

void timer_stop(struct event **ev)
{
	if (!*ev)
		return;
	event_free(*ev);
	*ev = NULL;
}
