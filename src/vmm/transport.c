/*
 * The way to the agent: vsock first, a virtio-serial port when that does not come about.
 *
 * A CID is reserved by setting it on /dev/vhost-vsock ourselves and letting QEMU inherit the descriptor: the
 * kernel refuses one in use, so two runs on a host cannot collide. The port on virtio-serial is always
 * there: its opening tells at once that the agent is up, and it serves guests whose kernel has no vsock.
 * We keep our end of its socketpair and hand out duplicates, because a guest may open it again and again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vhost.h>
#include <linux/vm_sockets.h>

#include "agent/protocol.h"
#include "vmm/transport.h"

#define CID_TRIES 1000
#define RETRY_NS (100 * INT64_C(1000000))
#define FALL_BACK_NS (1000 * INT64_C(1000000))	/* the agent is up, but not by vsock */

static void connected_cb(evutil_socket_t fd, short what, void *arg);
static void retry_cb(evutil_socket_t fd, short what, void *arg);
static void fall_back_cb(evutil_socket_t fd, short what, void *arg);
static void port_opened(void *arg);

/* Owned by one machine. */
struct transport {
	struct loop *loop;
	int serial, serial_theirs;
	int vhost;			/* kept open: it holds the CID until the guest is gone */
	uint32_t cid;
	bool started, port_open, deferred, freed;
	enum { UNLINKED, BY_VSOCK, BY_SERIAL } link;
	int sock;			/* a vsock connection being made, or -1 */
	struct event *writable, *retry, *fall_back;
	void (*linked)(void *arg, int fd);
	void *arg;
};

/* Takes a free CID; vsock is not used when there is none or no device. */
static void reserve_cid(struct transport *t)
{
	int fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		log_debug("transport", "no vsock: /dev/vhost-vsock: %s", strerror(errno));
		return;
	}
	for (unsigned i = 0; i < CID_TRIES; i++) {
		uint64_t cid = 0;

		if (getrandom(&cid, 4, 0) != 4 || cid < 3 || cid >= UINT32_MAX)
			continue;
		if (ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &cid) == 0) {
			t->vhost = fd;
			t->cid = (uint32_t)cid;
			return;
		}
		if (errno != EADDRINUSE)
			break;
	}
	log_debug("transport", "no vsock: cannot reserve a CID: %s", strerror(errno));
	close(fd);
}

struct transport *transport_new(struct loop *l, void (*linked)(void *arg, int fd), void *arg, struct err *e)
{
	struct transport *t;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		err_set(e, errno, "cannot make a socket pair for the agent: %s", strerror(errno));
		return NULL;
	}
	t = xcalloc(1, sizeof(*t));
	t->loop = l;
	t->serial = sv[0];
	t->serial_theirs = sv[1];
	t->vhost = t->sock = -1;
	t->linked = linked;
	t->arg = arg;
	reserve_cid(t);
	return t;
}

int transport_serial_fd(const struct transport *t)
{
	return t->serial_theirs;
}

int transport_vhost_fd(const struct transport *t)
{
	return t->vhost;
}

uint32_t transport_cid(const struct transport *t)
{
	return t->cid;
}

static void stop_connecting(struct transport *t)
{
	timer_stop(&t->retry);
	timer_stop(&t->fall_back);
	timer_stop(&t->writable);
	if (t->sock >= 0)
		close(t->sock);
	t->sock = -1;
}

static void link_up(struct transport *t, int fd)
{
	stop_connecting(t);
	t->link = fd >= 0 ? BY_VSOCK : BY_SERIAL;
	if (fd < 0)
		fd = fcntl(t->serial, F_DUPFD_CLOEXEC, 3);
	log_debug("transport", "linked by %s", t->link == BY_VSOCK ? "vsock" : "virtio-serial");
	if (fd >= 0)
		t->linked(t->arg, fd);
}

static void attempt_over(struct transport *t, int error)
{
	int fd = t->sock;

	timer_stop(&t->writable);
	t->sock = -1;
	if (error == 0) {
		link_up(t, fd);
		return;
	}
	close(fd);
	timer_start(t->loop, &t->retry, RETRY_NS, retry_cb, t);
}

static void connected_cb(evutil_socket_t fd, short what, void *arg)
{
	struct transport *t = arg;
	socklen_t len = sizeof(int);
	int error = 0;

	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	attempt_over(t, error);
}

static void connect_vsock(struct transport *t)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_cid = t->cid, .svm_port = AGENT_VSOCK_PORT };

	if (t->sock >= 0)
		close(t->sock);
	timer_stop(&t->writable);
	timer_stop(&t->retry);
	t->sock = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->sock < 0) {
		log_debug("transport", "no vsock socket: %s", strerror(errno));
		timer_start(t->loop, &t->retry, RETRY_NS, retry_cb, t);
		return;
	}
	if (connect(t->sock, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EINPROGRESS) {
		attempt_over(t, errno);
		return;
	}
	t->writable = event_new(loop_base(t->loop), t->sock, EV_WRITE, connected_cb, t);
	event_add(t->writable, NULL);
}

static void retry_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	connect_vsock(arg);
}

static void fall_back_cb(evutil_socket_t fd, short what, void *arg)
{
	struct transport *t = arg;

	(void)fd, (void)what;
	if (t->link == UNLINKED && t->port_open)
		link_up(t, -1);
}

void transport_started(struct transport *t)
{
	close(t->serial_theirs);
	t->serial_theirs = -1;
	t->started = true;
	if (t->vhost >= 0)
		timer_start(t->loop, &t->retry, RETRY_NS, retry_cb, t);
}

static void free_now(struct transport *t)
{
	close(t->serial);
	free(t);
}

/* Whoever tells of the port need not expect the link before it returns. */
static void port_opened(void *arg)
{
	struct transport *t = arg;

	t->deferred = false;
	if (t->freed) {
		free_now(t);
		return;
	}
	if (t->link != UNLINKED || !t->port_open)
		return;
	if (t->vhost < 0) {
		link_up(t, -1);
		return;
	}
	timer_start(t->loop, &t->fall_back, FALL_BACK_NS, fall_back_cb, t);
	connect_vsock(t);
}

bool transport_port(struct transport *t, bool open)
{
	/* Events of the port are told at most once a second: "open" when it was open means that it was closed
	 * in between. */
	bool ends = t->link == BY_SERIAL && (!open || t->port_open);

	t->port_open = open;
	if (ends)
		transport_unlink(t);
	else if (open && !t->deferred) {
		t->deferred = true;
		loop_defer(t->loop, port_opened, t);
	}
	return ends;
}

void transport_unlink(struct transport *t)
{
	t->link = UNLINKED;
	stop_connecting(t);
	if (t->started && t->vhost >= 0)
		timer_start(t->loop, &t->retry, RETRY_NS, retry_cb, t);
	if (t->port_open && !t->deferred) {
		t->deferred = true;
		loop_defer(t->loop, port_opened, t);
	}
}

void transport_free(struct transport *t)
{
	if (!t)
		return;
	stop_connecting(t);
	if (t->serial_theirs >= 0)
		close(t->serial_theirs);
	if (t->vhost >= 0)
		close(t->vhost);
	t->freed = true;
	if (!t->deferred)
		free_now(t);
}
