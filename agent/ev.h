/*
 * A small epoll loop: descriptors, timers, memory freed at the end of a turn.
 */
#ifndef PROVIUM_AGENT_EV_H
#define PROVIUM_AGENT_EV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/queue.h>

struct ev;

/* Embedded in its owner, who removes it before closing the descriptor. */
struct ev_io {
	int fd;
	uint32_t events;	/* what epoll watches now; 0: not in epoll */
	void (*cb)(void *arg, uint32_t events);
	void *arg;
};

struct ev_timer {
	LIST_ENTRY(ev_timer) entry;
	int64_t at;
	bool armed;
	void (*cb)(void *arg);
	void *arg;
};

struct ev *ev_new(void);
void ev_run(struct ev *ev);	/* until ev_stop */
void ev_stop(struct ev *ev);

void ev_io_init(struct ev_io *io, int fd, void (*cb)(void *arg, uint32_t events), void *arg);
/* Watches for EPOLLIN, EPOLLOUT, EPOLLET; 0 removes. 0 or -errno (-EPERM: this kind of file is always
 * ready). */
int ev_io_set(struct ev *ev, struct ev_io *io, uint32_t events);

void ev_timer_init(struct ev_timer *t, void (*cb)(void *arg), void *arg);
void ev_timer_set(struct ev *ev, struct ev_timer *t, int64_t ns);	/* from now; replaces */
void ev_timer_clear(struct ev_timer *t);

/* free(p) once no callback of this turn can refer to it any more. */
void ev_free_later(struct ev *ev, void *p);

#endif
