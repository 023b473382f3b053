/*
 * Where a host may speak: vsock, the virtio-serial port whenever it appears, a unix socket, an inherited one.
 */
#include "mux.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"

#define PORTS_DIR "/sys/class/virtio-ports"
#define LOOK_AGAIN 1000000000		/* ns; only while nobody is connected */

static void listener_ready(void *arg, uint32_t events);
static void uevent_ready(void *arg, uint32_t events);
static void look(void *arg);
static void port_gone(void *arg);

/* Lives as long as the process. */
struct transports {
	struct mux *mux;
	unsigned port;
	bool guest, connected;
	bool port_open, vsock_busy;
	struct ev_io vsock, unix_socket, uevents;	/* fd -1: not open */
	struct ev_timer again;
};

/* ---- listeners ---- */

static void listener_ready(void *arg, uint32_t events)
{
	struct transports *t = arg;
	struct sockaddr_vm from;
	socklen_t len;
	int fd;

	(void)events;
	for (;;) {
		len = sizeof(from);
		fd = t->vsock.fd < 0 ? -1 :
			accept4(t->vsock.fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			break;
		/* Nobody inside the guest is the host. */
		if (from.svm_cid == VMADDR_CID_HOST)
			mux_add_transport(t->mux, fd, false, false, NULL, NULL);
		else
			close(fd);
	}
	while (t->unix_socket.fd >= 0) {
		fd = accept4(t->unix_socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			break;
		mux_add_transport(t->mux, fd, false, false, NULL, NULL);
	}
}

static void listen_vsock(struct transports *t)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = t->port};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0) {
		if (errno == EADDRINUSE)
			agent_complain("vsock port %u is in use by another program: "
				"only the virtio-serial port will be served", t->port);
		t->vsock_busy = errno == EADDRINUSE;
		close(fd);
		return;
	}
	ev_io_init(&t->vsock, agent_high_fd(fd), listener_ready, t);
	ev_io_set(mux_ev(t->mux), &t->vsock, EPOLLIN);
}

static void listen_unix(struct transports *t, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		agent_die("--socket %s: longer than %zu bytes, use a shorter path", path,
			sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 8) < 0)
		agent_die("--socket %s: %s", path, strerror(errno));
	ev_io_init(&t->unix_socket, agent_high_fd(fd), listener_ready, t);
	ev_io_set(mux_ev(t->mux), &t->unix_socket, EPOLLIN);
}

/* ---- the virtio-serial port ---- */

static bool read_attribute(const char *port, const char *name, char *text, size_t size)
{
	char path[320];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), PORTS_DIR "/%s/%s", port, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return n > 0;
}

/* Without devtmpfs there is no node: it is made from what sysfs says. */
static int open_port(const char *port)
{
	char path[320], dev[32];
	unsigned major, minor;
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", port);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	if (!read_attribute(port, "dev", dev, sizeof(dev)) || sscanf(dev, "%u:%u", &major, &minor) != 2)
		return -1;
	mkdir("/dev", 0755);
	if (mknod(path, S_IFCHR | 0600, makedev(major, minor)) < 0)
		return -1;
	return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

static void find_port(struct transports *t)
{
	DIR *dir = opendir(PORTS_DIR);
	struct dirent *d;
	char name[128];
	int fd;

	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || !read_attribute(d->d_name, "name", name, sizeof(name)) ||
		    strcmp(name, AGENT_SERIAL_PORT) != 0)
			continue;
		fd = open_port(d->d_name);
		if (fd < 0)
			continue;
		t->port_open = true;
		mux_add_transport(t->mux, fd, true, false, port_gone, t);
		break;
	}
	if (dir)
		closedir(dir);
}

static void port_gone(void *arg)
{
	struct transports *t = arg;

	t->port_open = false;
	ev_timer_set(mux_ev(t->mux), &t->again, 0);
}

/* ---- looking ---- */

static void look(void *arg)
{
	struct transports *t = arg;

	if (!t->guest)
		return;
	if (!t->port_open)
		find_port(t);
	if (t->vsock.fd < 0 && !t->vsock_busy)
		listen_vsock(t);
	if (!t->connected && (!t->port_open || t->vsock.fd < 0))
		ev_timer_set(mux_ev(t->mux), &t->again, LOOK_AGAIN);
}

static void open_uevents(struct transports *t)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd < 0)
		return;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return;
	}
	ev_io_init(&t->uevents, agent_high_fd(fd), uevent_ready, t);
	ev_io_set(mux_ev(t->mux), &t->uevents, EPOLLIN);
}

/* Device events come in hundreds while a guest boots: only those that can bring a transport count. */
static void uevent_ready(void *arg, uint32_t events)
{
	struct transports *t = arg;
	char text[4096];
	bool ours = false;
	ssize_t n;

	(void)events;
	while ((n = recv(t->uevents.fd, text, sizeof(text) - 1, 0)) >= 0 || errno == ENOBUFS) {
		if (n < 0) {
			ours = true;
			continue;
		}
		text[n] = '\0';
		if (strstr(text, "virtio-ports") || strstr(text, "vsock"))
			ours = true;
	}
	if (ours)
		look(t);
}

void transports_connected(struct transports *t, bool connected)
{
	t->connected = connected;
	if (connected)
		ev_timer_clear(&t->again);
	else
		ev_timer_set(mux_ev(t->mux), &t->again, 0);
}

struct transports *transports_new(struct mux *m, const struct transport_options *o)
{
	struct transports *t = xcalloc(1, sizeof(*t));

	t->mux = m;
	t->port = o->port;
	t->guest = o->guest;
	t->vsock.fd = t->unix_socket.fd = t->uevents.fd = -1;
	ev_timer_init(&t->again, look, t);
	if (o->fd >= 0)
		mux_add_transport(m, o->fd, false, true, NULL, NULL);
	if (o->socket)
		listen_unix(t, o->socket);
	if (o->guest) {
		open_uevents(t);
		look(t);
	}
	return t;
}
