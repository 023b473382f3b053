/*
 * A framed connection: frames in with back-pressure, frames out in two queues, the sync mark.
 */
#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "frame.h"

#define READ_SIZE (128u << 10)		/* at most this in one turn */
#define READ_MIN (16u << 10)
#define PORT_READ 4096			/* what a virtio-serial port gives in one read, at most */

static void conn_ready(void *arg, uint32_t events);
static void conn_report_broken(void *arg);

struct chunk {
	TAILQ_ENTRY(chunk) entry;
	struct buf b;
	size_t sent;
};
TAILQ_HEAD(chunks, chunk);

struct conn {
	struct ev *ev;
	struct ev_io io;
	struct ev_timer failed;		/* tells closed() from the loop when a write failed */
	int err;
	bool port, hung;		/* hung: nobody is at the port's other end */
	bool paused, dead, was_long;
	bool synced;			/* sync links: frames are taken */
	struct buf in;
	struct chunks out[2];
	struct chunk *head;		/* the one being sent, in neither queue */
	size_t queued;
	const struct conn_cbs *cbs;
	void *arg;
};

struct conn *conn_new(struct ev *ev, int fd, bool port, const struct conn_cbs *cbs, void *arg)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	c->ev = ev;
	c->port = port;
	c->synced = !cbs->synced;
	c->cbs = cbs;
	c->arg = arg;
	TAILQ_INIT(&c->out[0]);
	TAILQ_INIT(&c->out[1]);
	ev_io_init(&c->io, agent_high_fd(fd), conn_ready, c);
	ev_timer_init(&c->failed, conn_report_broken, c);
	ev_io_set(ev, &c->io, EPOLLIN);
	return c;
}

void conn_free(struct conn *c)
{
	if (!c || c->dead)
		return;
	c->dead = true;
	ev_io_set(c->ev, &c->io, 0);
	ev_timer_clear(&c->failed);
	close(c->io.fd);
	conn_drop_output(c, true);
	buf_free(&c->in);
	ev_free_later(c->ev, c);
}

/* A hung port is always readable: edges only, both ways, tell that somebody came. */
static void update_events(struct conn *c)
{
	uint32_t events = 0;

	if (!c->paused)
		events |= EPOLLIN;
	if (c->head)
		events |= EPOLLOUT;
	if (c->hung)
		events = EPOLLIN | EPOLLOUT | EPOLLET;
	if (!c->dead)
		ev_io_set(c->ev, &c->io, events);
}

/* ---- output ---- */

static void chunk_free(struct chunk *k)
{
	buf_free(&k->b);
	free(k);
}

static void fail(struct conn *c, int err)
{
	c->err = err;
	conn_drop_output(c, true);
	ev_timer_set(c->ev, &c->failed, 0);
}

static void conn_report_broken(void *arg)
{
	struct conn *c = arg;

	c->cbs->closed(c->arg, c->err);
}

static struct chunk *next_chunk(struct conn *c)
{
	struct chunks *q = &c->out[TAILQ_EMPTY(&c->out[CONN_EXPRESS]) ? CONN_BULK : CONN_EXPRESS];
	struct chunk *k = TAILQ_FIRST(q);

	if (k)
		TAILQ_REMOVE(q, k, entry);
	return k;
}

static void write_some(struct conn *c)
{
	struct chunk *k;
	ssize_t n;

	while (!c->err && (c->head || (c->head = next_chunk(c)))) {
		k = c->head;
		n = write(c->io.fd, k->b.p + k->sent, k->b.len - k->sent);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			fail(c, errno);
			return;
		}
		k->sent += (size_t)n;
		c->queued -= (size_t)n;
		if (k->sent == k->b.len) {
			chunk_free(k);
			c->head = NULL;
		}
	}
}

/* Takes frame; its first bytes may have been written. */
static void queue(struct conn *c, struct buf frame, size_t sent, enum conn_class class)
{
	struct chunk *k = xcalloc(1, sizeof(*k));
	bool idle = !c->head;

	k->b = frame;
	k->sent = sent;
	c->queued += frame.len - sent;
	if (sent)
		c->head = k;
	else
		TAILQ_INSERT_TAIL(&c->out[class], k, entry);
	if (idle) {
		write_some(c);
		update_events(c);
	}
	if (c->queued > CONN_LONG)
		c->was_long = true;
}

void conn_send(struct conn *c, struct buf frame, enum conn_class class)
{
	if (c->dead || c->err)
		buf_free(&frame);
	else
		queue(c, frame, 0, class);
}

/* What the descriptor does not take at once is copied. */
void conn_forward(struct conn *c, const uint8_t *p, size_t n, enum conn_class class)
{
	struct buf frame = {0};
	ssize_t sent = 0;

	if (c->dead || c->err)
		return;
	p -= 4;
	n += 4;
	if (!c->head)
		sent = write(c->io.fd, p, n);
	if (sent == (ssize_t)n)
		return;
	buf_append(&frame, p, n);
	queue(c, frame, sent > 0 ? (size_t)sent : 0, class);	/* an error shows again there */
}

size_t conn_queued(const struct conn *c)
{
	return c->queued;
}

void conn_drop_output(struct conn *c, bool all)
{
	struct chunk *k;

	while ((k = next_chunk(c))) {
		c->queued -= k->b.len;
		chunk_free(k);
	}
	if (c->head && (all || c->head->sent == 0)) {
		c->queued -= c->head->b.len - c->head->sent;
		chunk_free(c->head);
		c->head = NULL;
	}
}

bool conn_drop_request(struct conn *c, uint32_t id)
{
	struct chunk *k;
	struct wire_head h;

	TAILQ_FOREACH(k, &c->out[CONN_EXPRESS], entry) {
		if (!wire_head(k->b.p + 4, k->b.len - 4, &h) || h.type != WIRE_REQUEST || h.id != id)
			continue;
		TAILQ_REMOVE(&c->out[CONN_EXPRESS], k, entry);
		c->queued -= k->b.len;
		chunk_free(k);
		return true;
	}
	return false;
}

/* ---- input ---- */

void conn_pause(struct conn *c, bool pause)
{
	c->paused = pause;
	update_events(c);
}

void conn_unsync(struct conn *c)
{
	c->synced = false;
	c->in.len = 0;
}

/* The next mark may have come already, after `pos`. */
static void garbage(struct conn *c, size_t pos, const char *why)
{
	buf_consume(&c->in, pos);
	c->synced = false;
	if (c->cbs->broken)
		c->cbs->broken(c->arg, why);
	else
		fail(c, EPROTO);
}

/* Bytes of the mark's magic that p, n begins with, if it is a beginning of it at all. */
static size_t magic_prefix(const uint8_t *p, size_t n)
{
	if (n > WIRE_SYNC_MAGIC_LEN)
		n = WIRE_SYNC_MAGIC_LEN;
	return memcmp(p, WIRE_SYNC_MAGIC, n) == 0 ? n : 0;
}

/* Looks for the mark anywhere, forgets what is before it. True when frames may be taken. */
static bool find_sync(struct conn *c)
{
	size_t at = 0;

	while (at < c->in.len && !magic_prefix(c->in.p + at, c->in.len - at))
		at++;
	buf_consume(&c->in, at);
	if (c->in.len < WIRE_SYNC_LEN)
		return false;
	c->synced = true;
	c->cbs->synced(c->arg, c->in.p);
	if (c->dead)
		return false;
	buf_consume(&c->in, WIRE_SYNC_LEN);
	return true;
}

/* Hands on every whole frame. */
static void take_frames(struct conn *c)
{
	size_t pos = 0, n, body;
	struct wire_head h;
	const char *why;

	while (c->in.len - pos >= 4) {
		const uint8_t *p = c->in.p + pos + 4;

		if (c->cbs->synced && magic_prefix(p - 4, 4)) {
			c->synced = false;	/* no frame: a mark, or its beginning */
			break;
		}
		n = wire_get_u32(c->in.p + pos);
		if (n == 0 || n > WIRE_FRAME_MAX) {
			garbage(c, pos + 4, n ? "a frame longer than 64 MiB" : "an empty frame");
			return;
		}
		if (c->in.len - pos - 4 < n)
			break;
		body = wire_head(p, n, &h);
		why = "no array [type, channel, id, body]";
		if (!body || (c->cbs->synced && wire_check_frame(p, n, &why) < 0)) {
			garbage(c, pos + 4 + n, why);
			return;
		}
		c->cbs->frame(c->arg, p, n, &h, body);
		if (c->dead || !c->synced)
			return;
		pos += 4 + n;
	}
	buf_consume(&c->in, pos);
	if (c->in.len == 0 && c->in.cap > 2 * READ_SIZE)
		buf_free(&c->in);
}

/* Sync links: a read that begins with the magic is a mark even in the middle of a frame. */
static void process_input(struct conn *c, size_t fresh)
{
	const uint8_t *p = c->in.p + fresh;
	size_t n = c->in.len - fresh;

	if (c->cbs->synced && c->synced && n >= WIRE_SYNC_MAGIC_LEN && magic_prefix(p, n)) {
		buf_consume(&c->in, fresh);
		c->synced = false;
	}
	do {
		if (!c->synced && !find_sync(c))
			return;
		take_frames(c);
	} while (!c->dead && !c->synced && !c->err);
}

/* True when there may be more to read. */
static bool read_once(struct conn *c)
{
	size_t fresh = c->in.len;
	ssize_t n;

	buf_reserve(&c->in, READ_MIN);
	n = c->in.cap - fresh < READ_SIZE ? (ssize_t)(c->in.cap - fresh) : (ssize_t)READ_SIZE;
	n = read(c->io.fd, c->in.p + fresh, (size_t)n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->hung = false;
		return false;
	}
	if (n == 0 && c->port) {
		/* The guest hears that a host goes and comes later than it gets its bytes: only a mark
		 * tells for sure, and it may have been read by now. */
		c->hung = true;
		return false;
	}
	if (n <= 0) {
		c->err = n < 0 ? errno : 0;
		ev_io_set(c->ev, &c->io, 0);
		c->cbs->closed(c->arg, c->err);
		return false;
	}
	c->hung = false;
	c->in.len += (size_t)n;
	process_input(c, fresh);
	return c->port && n == PORT_READ && !c->dead && !c->err && !c->paused;
}

static void read_some(struct conn *c)
{
	for (size_t n = 0; read_once(c) && n < READ_SIZE; n += PORT_READ)
		;
}

static void conn_ready(void *arg, uint32_t events)
{
	struct conn *c = arg;

	if (events & EPOLLOUT)
		write_some(c);
	if (!c->dead && !c->err && ((events & ~(uint32_t)EPOLLOUT) || c->hung))
		read_some(c);
	if (c->dead || c->err)
		return;
	update_events(c);
	if (c->was_long && c->queued < CONN_SHORT) {
		c->was_long = false;
		if (c->cbs->drained)
			c->cbs->drained(c->arg);
	}
}
