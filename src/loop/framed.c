/*
 * A framed connection: length-prefixed msgpack over a stream socket, checked before it is decoded.
 *
 * It reads into an evbuffer with events of its own: a bufferevent of libevent 2.1 takes 4 KiB from
 * the socket in a turn, and reads on while a turn's share of frames still waits to be delivered.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "agent/wire.h"
#include "loop/loop.h"

#define READ_MIN (16u << 10)
#define READ_MAX (256u << 10)
#define WRITE_MAX (256u << 10)
#define WRITE_VECS 16
#define LOW_WATER (256u << 10)

/* What one connection may deliver in one turn of the loop, so that no guest holds up the others. */
#define TURN_FRAMES 64
#define TURN_BYTES (1u << 20)

static void framed_readable_cb(evutil_socket_t fd, short what, void *arg);
static void framed_writable_cb(evutil_socket_t fd, short what, void *arg);
static void framed_again_cb(evutil_socket_t fd, short what, void *arg);

/*
 * Freed by framed_free: at once as far as anyone can see, in memory at the end of the turn, so that its
 * own callbacks may call it. The socket is read only while no whole frame is buffered, which bounds
 * the input buffer to one frame and one read.
 */
struct framed {
	struct loop *loop;
	int fd;
	struct framed_events ev;
	void *arg;
	struct event *readable, *writable;
	struct event *again;		/* timer: go on delivering in the next turn */
	bool again_armed;
	struct evbuffer *in, *out;
	uint8_t mark[WIRE_SYNC_LEN];
	bool syncing;			/* input is dropped until the mark comes */
	bool paused;
	bool above_low_water;
	bool over;			/* closed() was called, or framed_free() */
};

struct framed *framed_new(struct loop *l, int fd, const struct framed_events *ev, void *arg)
{
	struct framed *f = xcalloc(1, sizeof(*f));
	int flags = fcntl(fd, F_GETFL);

	f->loop = l;
	f->fd = fd;
	f->ev = *ev;
	f->arg = arg;
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	f->in = evbuffer_new();
	f->out = evbuffer_new();
	f->readable = event_new(loop_base(l), fd, EV_READ | EV_PERSIST, framed_readable_cb, f);
	f->writable = event_new(loop_base(l), fd, EV_WRITE | EV_PERSIST, framed_writable_cb, f);
	INVARIANT(f->in && f->out && f->readable && f->writable);
	event_add(f->readable, NULL);
	return f;
}

static void framed_stop(struct framed *f)
{
	f->over = true;
	event_del(f->readable);
	event_del(f->writable);
	timer_stop(&f->again);
}

static void framed_destroy(void *arg)
{
	struct framed *f = arg;

	event_free(f->readable);
	event_free(f->writable);
	evbuffer_free(f->in);
	evbuffer_free(f->out);
	free(f);
}

void framed_free(struct framed *f)
{
	if (!f)
		return;
	framed_stop(f);
	close(f->fd);
	loop_defer(f->loop, framed_destroy, f);
}

static void framed_fail(struct framed *f, struct err *e)
{
	framed_stop(f);
	log_debug("framed", "fd %d: finish: %s", f->fd, e->msg);
	f->ev.closed(f->arg, e);
	err_release(e);
}

/* ---- input ---- */

static void framed_go_on(struct framed *f)
{
	f->again_armed = true;
	timer_start(f->loop, &f->again, 0, framed_again_cb, f);
}

/* Drops what came before the mark. True when the mark was there. */
static bool framed_find_mark(struct framed *f)
{
	size_t have = evbuffer_get_length(f->in);
	struct evbuffer_ptr at = evbuffer_search(f->in, (const char *)f->mark, WIRE_SYNC_LEN, NULL);

	if (at.pos >= 0) {
		evbuffer_drain(f->in, (size_t)at.pos + WIRE_SYNC_LEN);
		return true;
	}
	/* The mark may have begun in the last bytes. */
	if (have >= WIRE_SYNC_LEN)
		evbuffer_drain(f->in, have - (WIRE_SYNC_LEN - 1));
	return false;
}

/*
 * The whole length of the first buffered frame with its prefix, 4 when not even the prefix is there; 0 and
 * *e when the prefix is impossible.
 */
static size_t framed_first_size(struct framed *f, struct err *e)
{
	uint8_t prefix[4];
	uint32_t len;

	if (evbuffer_copyout(f->in, prefix, sizeof(prefix)) < (ssize_t)sizeof(prefix))
		return sizeof(prefix);
	len = wire_get_u32(prefix);
	if (len == 0)
		err_set(e, EPROTO, "a frame of 0 bytes");
	else if (len > WIRE_FRAME_MAX)
		err_set(e, EPROTO, "a frame of %u bytes (the most is %u)", len, WIRE_FRAME_MAX);
	return len == 0 || len > WIRE_FRAME_MAX ? 0 : sizeof(prefix) + len;
}

/* Decodes and hands on the first frame, which is buffered whole. 0, or negative and *e. */
static int framed_deliver(struct framed *f, size_t size, struct err *e)
{
	const uint8_t *body = evbuffer_pullup(f->in, (ssize_t)size);
	const char *why = "";
	msgpack_unpacked frame;
	size_t off = 0, len = size - 4;
	int r = 0;

	INVARIANT(body);
	body += 4;
	if (wire_check_frame(body, len, &why) < 0)
		return err_set(e, EPROTO, "a malformed frame of %zu bytes: %s", len, why);
	msgpack_unpacked_init(&frame);
	if (msgpack_unpack_next(&frame, (const char *)body, len, &off) == MSGPACK_UNPACK_SUCCESS)
		f->ev.frame(f->arg, &frame.data);
	else
		r = err_set(e, EPROTO, "a malformed frame of %zu bytes: msgpack cannot decode it", len);
	msgpack_unpacked_destroy(&frame);
	evbuffer_drain(f->in, size);
	return r;
}

/*
 * Delivers what is buffered, at most a turn's share of it. Every callback may pause, sync or free the
 * connection.
 */
static void framed_pump(struct framed *f)
{
	size_t size, have, bytes = 0;
	struct err e = ERR_INIT;
	int frames = 0;

	while (!f->over && !f->paused) {
		if (f->syncing) {
			if (!framed_find_mark(f))
				return;
			f->syncing = false;
			f->ev.synced(f->arg);
			continue;
		}
		have = evbuffer_get_length(f->in);
		size = framed_first_size(f, &e);
		if (size > have)
			return;
		if (size && (frames == TURN_FRAMES || bytes >= TURN_BYTES)) {
			framed_go_on(f);
			return;
		}
		if (e.code || framed_deliver(f, size, &e) < 0) {
			framed_fail(f, &e);
			return;
		}
		frames++;
		bytes += size;
	}
}

/* Delivers, then reads the socket again unless something is still to be delivered. */
static void framed_advance(struct framed *f)
{
	framed_pump(f);
	if (f->over)
		return;
	if (f->paused || f->again_armed)
		event_del(f->readable);
	else
		event_add(f->readable, NULL);
}

static void framed_again_cb(evutil_socket_t fd, short what, void *arg)
{
	struct framed *f = arg;

	(void)fd;
	(void)what;
	f->again_armed = false;
	framed_advance(f);
}

/* The end of input. Whole frames have been delivered before: only a part of one can be left. */
static void framed_ended(struct framed *f, int error)
{
	size_t have = evbuffer_get_length(f->in), size;
	struct err e = ERR_INIT;

	if (error)
		err_set(&e, error, "cannot read: %s", strerror(error));
	else
		err_set(&e, ECONNRESET, "closed by the other side");
	if (f->syncing) {
		err_append(&e, " before it answered the sync mark");
	} else if (have) {
		size = framed_first_size(f, NULL);
		err_append(&e, " in the middle of a frame (%zu of %zu bytes%s)", have, size,
			have < 4 ? " of its length" : "");
	}
	framed_fail(f, &e);
}

static void framed_readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct framed *f = arg;
	struct evbuffer_iovec v[2];
	size_t want, first;
	ssize_t n;
	int nv;

	(void)what;
	want = f->syncing ? 0 : framed_first_size(f, NULL) - evbuffer_get_length(f->in);
	want = want > READ_MAX ? READ_MAX : want < READ_MIN ? READ_MIN : want;
	nv = evbuffer_reserve_space(f->in, (ssize_t)want, v, 2);
	INVARIANT(nv > 0);
	n = readv(fd, v, nv);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		framed_ended(f, n < 0 ? errno : 0);
		return;
	}
	first = v[0].iov_len;
	v[0].iov_len = (size_t)n < first ? (size_t)n : first;
	if (nv == 2)
		v[1].iov_len = (size_t)n - v[0].iov_len;
	evbuffer_commit_space(f->in, v, nv);
	framed_advance(f);
}

void framed_pause(struct framed *f, bool paused)
{
	if (f->over || f->paused == paused)
		return;
	f->paused = paused;
	if (paused)
		event_del(f->readable);
	else
		framed_go_on(f);
}

/* ---- output ---- */

/* One write of what is queued: what the socket took, or -1 and errno. */
static ssize_t framed_write(struct framed *f)
{
	struct evbuffer_iovec v[WRITE_VECS];
	struct msghdr m = { .msg_iov = v };
	ssize_t n;
	int nv;

	nv = evbuffer_peek(f->out, WRITE_MAX, NULL, v, WRITE_VECS);
	m.msg_iovlen = nv > WRITE_VECS ? WRITE_VECS : (size_t)nv;
	n = sendmsg(f->fd, &m, MSG_NOSIGNAL);
	if (n > 0)
		evbuffer_drain(f->out, (size_t)n);
	return n;
}

static void framed_writable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct framed *f = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	if (framed_write(f) < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return;
		err_set(&e, errno, "cannot write: %s", strerror(errno));
		framed_fail(f, &e);
		return;
	}
	if (evbuffer_get_length(f->out) == 0)
		event_del(f->writable);
	if (f->above_low_water && evbuffer_get_length(f->out) <= LOW_WATER) {
		f->above_low_water = false;
		if (f->ev.drained)
			f->ev.drained(f->arg);
	}
}

static void framed_queue(struct framed *f, const void *data, size_t len)
{
	INVARIANT(evbuffer_add(f->out, data, len) == 0);
}

/*
 * Writes at once when nothing is in line: a task that computes may be next, and the guest should not wait for
 * its slice to end. What fails here fails again when the socket is writable, and is told from there.
 */
static void framed_start_writing(struct framed *f)
{
	if (!event_pending(f->writable, EV_WRITE, NULL)) {
		framed_write(f);
		if (evbuffer_get_length(f->out) == 0)
			return;
		event_add(f->writable, NULL);
	}
	if (evbuffer_get_length(f->out) > LOW_WATER)
		f->above_low_water = true;
}

void framed_sync(struct framed *f)
{
	if (f->over)
		return;
	memcpy(f->mark, WIRE_SYNC_MAGIC, WIRE_SYNC_MAGIC_LEN);
	INVARIANT(getrandom(f->mark + WIRE_SYNC_MAGIC_LEN, WIRE_SYNC_LEN - WIRE_SYNC_MAGIC_LEN, 0) ==
		WIRE_SYNC_LEN - WIRE_SYNC_MAGIC_LEN);
	f->syncing = true;
	framed_queue(f, f->mark, WIRE_SYNC_LEN);
	framed_start_writing(f);
}

void framed_send(struct framed *f, const void *body, size_t len)
{
	uint8_t prefix[4];

	INVARIANT(len > 0 && len <= WIRE_FRAME_MAX);
	if (f->over)
		return;
	wire_put_u32(prefix, (uint32_t)len);
	framed_queue(f, prefix, sizeof(prefix));
	framed_queue(f, body, len);
	framed_start_writing(f);
}

size_t framed_backlog(const struct framed *f)
{
	return evbuffer_get_length(f->out);
}
