/*
 * A sink: writes queued bytes to a descriptor when it takes them.
 */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"

#define BLOCKING_PIECE 4096	/* a pipe that is writable takes as much without blocking */

static void sink_ready(void *arg, uint32_t events);
static void sink_turn(void *arg);

struct piece {
	TAILQ_ENTRY(piece) entry;
	sink_fn *done;
	void *arg;
	size_t n, off;
	char data[];
};

struct sink {
	struct ev *ev;
	struct ev_io io;
	struct ev_timer turn;		/* done() never comes from inside sink_write */
	bool blocking, ended, dead;
	int err;
	TAILQ_HEAD(, piece) pieces;
};

struct sink *sink_new(struct ev *ev, int fd, bool blocking)
{
	struct sink *s = xcalloc(1, sizeof(*s));

	if (!blocking)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	s->ev = ev;
	s->blocking = blocking;
	TAILQ_INIT(&s->pieces);
	ev_io_init(&s->io, fd, sink_ready, s);
	ev_timer_init(&s->turn, sink_turn, s);
	return s;
}

static void close_fd(struct sink *s)
{
	if (s->io.fd < 0)
		return;
	ev_io_set(s->ev, &s->io, 0);
	close(s->io.fd);
	s->io.fd = -1;
}

static void update(struct sink *s)
{
	if (s->dead)
		return;
	if (s->err || TAILQ_EMPTY(&s->pieces)) {
		if (s->io.fd >= 0)
			ev_io_set(s->ev, &s->io, 0);
		if (s->err || s->ended)
			close_fd(s);
		if (!TAILQ_EMPTY(&s->pieces))
			ev_timer_set(s->ev, &s->turn, 0);
	} else if (ev_io_set(s->ev, &s->io, EPOLLOUT) == -EPERM) {
		ev_timer_set(s->ev, &s->turn, 0);
	}
}

void sink_write(struct sink *s, const void *p, size_t n, sink_fn *done, void *arg)
{
	struct piece *k = xmalloc(sizeof(*k) + n);

	k->done = done;
	k->arg = arg;
	k->n = n;
	k->off = 0;
	memcpy(k->data, p, n);
	if (s->ended && !s->err)
		s->err = EPIPE;
	TAILQ_INSERT_TAIL(&s->pieces, k, entry);
	update(s);
}

void sink_end(struct sink *s)
{
	s->ended = true;
	update(s);
}

bool sink_open(const struct sink *s)
{
	return !s->ended && !s->err;
}

void sink_forget(struct sink *s, void *arg)
{
	struct piece *k;

	TAILQ_FOREACH(k, &s->pieces, entry)
		if (k->arg == arg)
			k->done = NULL;
}

static void finish_piece(struct sink *s, struct piece *k)
{
	TAILQ_REMOVE(&s->pieces, k, entry);
	if (k->done)
		k->done(k->arg, k->n, s->err);
	free(k);
}

void sink_free(struct sink *s)
{
	struct piece *k;

	if (!s || s->dead)
		return;
	s->dead = true;
	close_fd(s);
	ev_timer_clear(&s->turn);
	s->err = s->err ? s->err : EPIPE;
	while ((k = TAILQ_FIRST(&s->pieces)))
		finish_piece(s, k);
	ev_free_later(s->ev, s);
}

/* A socket is told not to block for this write; other kinds get no more than what fits. */
static ssize_t put(struct sink *s, const char *p, size_t n)
{
	ssize_t sent;

	if (!s->blocking)
		return write(s->io.fd, p, n);
	sent = send(s->io.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent >= 0 || errno != ENOTSOCK)
		return sent;
	return write(s->io.fd, p, n < BLOCKING_PIECE ? n : BLOCKING_PIECE);
}

/* One write a turn, and whatever it finished. */
static void sink_turn(void *arg)
{
	struct sink *s = arg;
	struct piece *k = TAILQ_FIRST(&s->pieces);
	ssize_t n;

	if (k && !s->err) {
		n = k->n == k->off ? 0 : put(s, k->data + k->off, k->n - k->off);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			s->err = errno;
		if (n > 0)
			k->off += (size_t)n;
	}
	if (k && (s->err || k->off == k->n))
		finish_piece(s, k);
	update(s);
}

static void sink_ready(void *arg, uint32_t events)
{
	(void)events;
	sink_turn(arg);
}
