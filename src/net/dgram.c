/*
 * Frames from and to one QEMU, many with each system call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/dgram.h"

#define SOCKET_BUFFER (4 << 20)		/* asked for; the host's limit may give less */

static void readable_cb(evutil_socket_t fd, short what, void *arg);
static void writable_cb(evutil_socket_t fd, short what, void *arg);

/* Owned by its port. */
struct dgram {
	struct loop *loop;
	const struct dgram_events *ev;
	void *arg;
	int fd, peer;
	struct event *readable, *writable;
	bool blocked;			/* the other end has no room: waits for writable */
	struct frame *queue[DGRAM_QUEUE];
	unsigned head, count;
	bool *freed;			/* of the input callback that runs */
};

/* What the next batch is received into, whoever it comes from; and where the rest of a frame of unusual size goes
 * before it gets a buffer of its own. */
static struct frame *ready[DGRAM_BATCH];
static uint8_t (*overflow)[FRAME_MAX - FRAME_SMALL];

static void close_pair(struct dgram *d)
{
	if (d->readable)
		event_free(d->readable);
	if (d->writable)
		event_free(d->writable);
	d->readable = d->writable = NULL;
	d->blocked = false;
	if (d->fd >= 0)
		close(d->fd);
	if (d->peer >= 0)
		close(d->peer);
	d->fd = d->peer = -1;
	for (; d->count > 0; d->count--, d->head = (d->head + 1) % DGRAM_QUEUE)
		frame_unref(d->queue[d->head]);
}

static int open_pair(struct dgram *d, struct err *e)
{
	int fds[2], size = SOCKET_BUFFER;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return err_set(e, errno, "a socket pair for a NIC: %s", strerror(errno));
	/* The sender's buffer is what limits a datagram socket. */
	for (int i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	d->fd = fds[0];
	d->peer = fds[1];
	d->readable = event_new(loop_base(d->loop), d->fd, EV_READ | EV_PERSIST, readable_cb, d);
	d->writable = event_new(loop_base(d->loop), d->fd, EV_WRITE, writable_cb, d);
	INVARIANT(d->readable && d->writable);
	event_add(d->readable, NULL);
	return 0;
}

struct dgram *dgram_new(struct loop *l, const struct dgram_events *ev, void *arg, struct err *e)
{
	struct dgram *d = xcalloc(1, sizeof(*d));

	d->loop = l;
	d->ev = ev;
	d->arg = arg;
	d->fd = d->peer = -1;
	if (open_pair(d, e) == 0)
		return d;
	free(d);
	return NULL;
}

int dgram_renew(struct dgram *d, struct err *e)
{
	close_pair(d);
	return open_pair(d, e);
}

void dgram_free(struct dgram *d)
{
	if (!d)
		return;
	if (d->freed)
		*d->freed = true;
	close_pair(d);
	free(d);
}

int dgram_peer(const struct dgram *d)
{
	return d->peer;
}

void dgram_given(struct dgram *d)
{
	if (d->peer >= 0)
		close(d->peer);
	d->peer = -1;
}

/* ---- from QEMU ---- */

static void cut_or_join(struct frame **f, unsigned i, unsigned len)
{
	struct frame *big;

	if (len <= FRAME_SMALL) {
		(*f)->len = len;
		return;
	}
	big = frame_new(len);
	memcpy(big->data, (*f)->data, FRAME_SMALL);
	memcpy(big->data + FRAME_SMALL, overflow[i], len - FRAME_SMALL);
	frame_unref(*f);
	*f = big;
}

static unsigned receive(struct dgram *d, struct frame **frames)
{
	struct mmsghdr msgs[DGRAM_BATCH];
	struct iovec iov[DGRAM_BATCH][2];
	int n;

	if (!overflow)
		overflow = xmalloc(DGRAM_BATCH * sizeof(*overflow));
	memset(msgs, 0, sizeof(msgs));
	for (unsigned i = 0; i < DGRAM_BATCH; i++) {
		if (!ready[i])
			ready[i] = frame_new(FRAME_SMALL);
		iov[i][0] = (struct iovec){ ready[i]->data, FRAME_SMALL };
		iov[i][1] = (struct iovec){ overflow[i], sizeof(*overflow) };
		msgs[i].msg_hdr.msg_iov = iov[i];
		msgs[i].msg_hdr.msg_iovlen = 2;
	}
	n = recvmmsg(d->fd, msgs, DGRAM_BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		frames[i] = ready[i];
		ready[i] = NULL;
		cut_or_join(&frames[i], (unsigned)i, msgs[i].msg_len);
	}
	return n < 0 ? 0 : (unsigned)n;
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct dgram *d = arg;
	struct frame *frames[DGRAM_BATCH];
	bool freed = false;
	unsigned n;

	(void)fd, (void)what;
	n = receive(d, frames);
	if (n == 0)
		return;
	d->freed = &freed;
	d->ev->input(d->arg, frames, n);
	if (!freed)
		d->freed = NULL;
	while (n > 0)
		frame_unref(frames[--n]);
}

/* ---- to QEMU ---- */

bool dgram_send(struct dgram *d, struct frame *f)
{
	if (d->count == DGRAM_QUEUE || d->fd < 0)
		return false;
	d->queue[(d->head + d->count++) % DGRAM_QUEUE] = frame_ref(f);
	return true;
}

static void drop_first(struct dgram *d, unsigned n)
{
	for (; n > 0; n--, d->count--, d->head = (d->head + 1) % DGRAM_QUEUE)
		frame_unref(d->queue[d->head]);
}

/* Returns how many left, or -errno. */
static int send_batch(struct dgram *d)
{
	struct mmsghdr msgs[DGRAM_BATCH];
	struct iovec iov[DGRAM_BATCH];
	unsigned n = d->count < DGRAM_BATCH ? d->count : DGRAM_BATCH;
	int sent;

	memset(msgs, 0, sizeof(*msgs) * n);
	for (unsigned i = 0; i < n; i++) {
		struct frame *f = d->queue[(d->head + i) % DGRAM_QUEUE];

		iov[i] = (struct iovec){ f->data, f->len };
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(d->fd, msgs, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sent < 0 ? -errno : sent;
}

void dgram_flush(struct dgram *d)
{
	while (d->count > 0 && !d->blocked) {
		int n = send_batch(d);

		if (n > 0) {
			drop_first(d, (unsigned)n);
		} else if (n == -EAGAIN) {
			d->blocked = true;
			event_add(d->writable, NULL);
		} else if (n == -EMSGSIZE || n == -ENOBUFS || n == -ENOMEM) {
			drop_first(d, 1);
			d->ev->dropped(d->arg, 1);
		} else if (n != -EINTR) {
			/* Nobody is at the other end (any more). */
			d->ev->dropped(d->arg, d->count);
			drop_first(d, d->count);
		}
	}
}

static void writable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct dgram *d = arg;

	(void)fd, (void)what;
	d->blocked = false;
	dgram_flush(d);
}
