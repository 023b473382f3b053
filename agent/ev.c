/*
 * A small epoll loop: descriptors, timers, memory freed at the end of a turn.
 */
#include "ev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "agent.h"
#include "buf.h"

#define BATCH 32

/* Lives as long as its process. */
struct ev {
	int epoll;
	struct ev_io timer_io;		/* a timerfd for the nearest timer: epoll's timeout is too coarse */
	int64_t timer_at;		/* what it is set to; 0: not set */
	LIST_HEAD(, ev_timer) timers;
	struct epoll_event batch[BATCH];
	int batch_len;
	bool stop;
	void **garbage;
	size_t ngarbage, garbage_cap;
};

static void timer_ready(void *arg, uint32_t events);

struct ev *ev_new(void)
{
	struct ev *ev = xcalloc(1, sizeof(*ev));
	int fd;

	ev->epoll = epoll_create1(EPOLL_CLOEXEC);
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (ev->epoll < 0 || fd < 0)
		agent_die("cannot make an event loop: %s (the guest's kernel needs epoll and timerfd)",
			strerror(errno));
	ev->epoll = agent_high_fd(ev->epoll);
	LIST_INIT(&ev->timers);
	ev_io_init(&ev->timer_io, agent_high_fd(fd), timer_ready, ev);
	ev_io_set(ev, &ev->timer_io, EPOLLIN);
	return ev;
}

void ev_io_init(struct ev_io *io, int fd, void (*cb)(void *arg, uint32_t events), void *arg)
{
	*io = (struct ev_io){.fd = fd, .cb = cb, .arg = arg};
}

int ev_io_set(struct ev *ev, struct ev_io *io, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = io};
	int op = !events ? EPOLL_CTL_DEL : io->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (io->events == events)
		return 0;
	for (int i = 0; !events && i < ev->batch_len; i++)
		if (ev->batch[i].data.ptr == io)
			ev->batch[i].data.ptr = NULL;
	io->events = events;
	if (epoll_ctl(ev->epoll, op, io->fd, &e) == 0)
		return 0;
	io->events = 0;
	return -errno;
}

void ev_timer_init(struct ev_timer *t, void (*cb)(void *arg), void *arg)
{
	*t = (struct ev_timer){.cb = cb, .arg = arg};
}

void ev_timer_set(struct ev *ev, struct ev_timer *t, int64_t ns)
{
	int64_t now = agent_now();

	ev_timer_clear(t);
	t->at = ns < 0 ? now : ns > INT64_MAX - now ? INT64_MAX : now + ns;
	t->armed = true;
	LIST_INSERT_HEAD(&ev->timers, t, entry);
}

void ev_timer_clear(struct ev_timer *t)
{
	if (!t->armed)
		return;
	t->armed = false;
	LIST_REMOVE(t, entry);
}

static struct ev_timer *nearest_timer(struct ev *ev)
{
	struct ev_timer *t, *best = NULL;

	LIST_FOREACH(t, &ev->timers, entry)
		if (!best || t->at < best->at)
			best = t;
	return best;
}

static void timer_ready(void *arg, uint32_t events)
{
	struct ev *ev = arg;
	uint64_t n;

	(void)events;
	if (read(ev->timer_io.fd, &n, sizeof(n)) > 0)
		ev->timer_at = 0;
}

/* Only timers that were due when it began: one that re-arms itself for now waits for the next turn. */
static void run_timers(struct ev *ev)
{
	int64_t now;
	struct ev_timer *t = nearest_timer(ev);

	for (now = t ? agent_now() : 0; t && t->at <= now; t = nearest_timer(ev)) {
		ev_timer_clear(t);
		t->cb(t->arg);
	}
}

/*
 * Sets the timerfd to the nearest timer and gives epoll's timeout. A timer that is due needs none: an interrupt
 * for each turn of a transfer would cost an emulated processor more than the turn.
 */
static int arm_timerfd(struct ev *ev)
{
	struct ev_timer *t = nearest_timer(ev);
	struct itimerspec spec = {0};

	if (t && t->at <= agent_now())
		return 0;
	if ((t ? t->at : 0) == ev->timer_at)
		return -1;
	ev->timer_at = t ? t->at : 0;
	spec.it_value.tv_sec = ev->timer_at / 1000000000;
	spec.it_value.tv_nsec = ev->timer_at % 1000000000;
	timerfd_settime(ev->timer_io.fd, TFD_TIMER_ABSTIME, &spec, NULL);
	return -1;
}

static void free_garbage(struct ev *ev)
{
	while (ev->ngarbage)
		free(ev->garbage[--ev->ngarbage]);
}

void ev_run(struct ev *ev)
{
	for (ev->stop = false; !ev->stop; ) {
		ev->batch_len = epoll_wait(ev->epoll, ev->batch, BATCH, arm_timerfd(ev));
		if (ev->batch_len < 0 && errno != EINTR)
			agent_die("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < ev->batch_len && !ev->stop; i++) {
			struct ev_io *io = ev->batch[i].data.ptr;

			if (io)
				io->cb(io->arg, ev->batch[i].events);
		}
		ev->batch_len = 0;
		run_timers(ev);
		free_garbage(ev);
	}
}

void ev_stop(struct ev *ev)
{
	ev->stop = true;
}

void ev_free_later(struct ev *ev, void *p)
{
	if (ev->ngarbage == ev->garbage_cap) {
		ev->garbage_cap = ev->garbage_cap ? 2 * ev->garbage_cap : 16;
		ev->garbage = xrealloc(ev->garbage, ev->garbage_cap * sizeof(*ev->garbage));
	}
	ev->garbage[ev->ngarbage++] = p;
}
