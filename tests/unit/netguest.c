/*
 * A guest's network stack for tests, without the guest.
 */
#include "netguest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/links.h"

#include <linux/if_tun.h>
#include <linux/netlink.h>

#define LINK 2
#define FRAME_MAX 65536
#define SLICE_NS INT64_C(1000000)

/* Owned by the test. */
struct netguest {
	struct netns *ns;
	int wire, tap;			/* the port's end, and ours */
	struct event *out, *in;
	unsigned net, host;
};

/* ---- the wire ---- */

static void carry(int from, int to)
{
	static char frame[FRAME_MAX];
	ssize_t n;

	while ((n = read(from, frame, sizeof(frame))) > 0)
		if (write(to, frame, (size_t)n) < 0)
			return;
}

static void out_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	carry(fd, ((struct netguest *)arg)->wire);
}

static void in_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	carry(fd, ((struct netguest *)arg)->tap);
}

/* ---- its stack ---- */

static void ask(struct nlbuf *b, const char *text)
{
	struct netlink_what what = { .text = text };
	struct err e = ERR_INIT;

	if (netlink_ask(NETLINK_ROUTE, b, &what, NULL, NULL, &e))
		fail_msg("%s", e.msg);
}

static int build(void *arg, struct err *e)
{
	struct netguest *g = arg;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	uint8_t v4[4] = { 10, 0, (uint8_t)g->net, (uint8_t)g->host }, v6[16] = { 0xfd };
	unsigned index = LINK;
	struct nlbuf b = NLBUF_INIT;

	(void)e;
	v6[3] = (uint8_t)g->net;
	v6[15] = (uint8_t)g->host;
	strcpy(ifr.ifr_name, "eth0");
	g->tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	assert_true(g->tap >= 0);
	assert_int_equal(ioctl(g->tap, TUNSETIFINDEX, &index), 0);
	assert_int_equal(ioctl(g->tap, TUNSETIFF, &ifr), 0);
	link_up(&b, 1, 0);
	ask(&b, "lo up");
	link_up(&b, LINK, 0);
	ask(&b, "eth0 up");
	address_add(&b, LINK, AF_INET, v4, 24);
	ask(&b, "IPv4 address");
	address_add(&b, LINK, AF_INET6, v6, 64);
	ask(&b, "IPv6 address");
	v4[3] = v6[15] = 1;
	route_add_default(&b, LINK, AF_INET, v4);
	ask(&b, "IPv4 route");
	route_add_default(&b, LINK, AF_INET6, v6);
	ask(&b, "IPv6 route");
	return 0;
}

struct netguest *netguest_new(struct netrig *r, struct net_port *p, unsigned net, unsigned host)
{
	struct netguest *g = calloc(1, sizeof(*g));
	struct err e = ERR_INIT;

	g->net = net;
	g->host = host;
	g->wire = dup(net_port_fd(p));
	g->ns = netns_new(&e);
	assert_non_null(g->ns);
	assert_int_equal(netns_run(g->ns, build, g, &e), 0);
	g->out = event_new(loop_base(r->loop), g->tap, EV_READ | EV_PERSIST, out_cb, g);
	g->in = event_new(loop_base(r->loop), g->wire, EV_READ | EV_PERSIST, in_cb, g);
	event_add(g->out, NULL);
	event_add(g->in, NULL);
	return g;
}

void netguest_free(struct netguest *g)
{
	if (!g)
		return;
	event_free(g->out);
	event_free(g->in);
	close(g->tap);
	close(g->wire);
	netns_free(g->ns);
	free(g);
}

struct netns *netguest_ns(struct netguest *g)
{
	return g->ns;
}

/* ---- the outside ---- */

static int build_outside(void *arg, struct err *e)
{
	struct nlbuf b = NLBUF_INIT;

	(void)arg, (void)e;
	link_new_veth(&b, LINK, "out0", 0, "eth0", netns_home(), NULL);
	ask(&b, "veth");
	address_add(&b, LINK, AF_INET, (uint8_t[]){ 203, 0, 113, 2 }, 24);
	ask(&b, "the outside's address");
	link_up(&b, LINK, 0);
	ask(&b, "the outside up");
	return 0;
}

struct netns *netguest_outside(void)
{
	struct nlbuf b = NLBUF_INIT;
	struct err e = ERR_INIT;
	struct netns *ns = netns_new(&e);
	int index;

	assert_non_null(ns);
	assert_int_equal(netns_run(ns, build_outside, NULL, &e), 0);
	index = (int)if_nametoindex("eth0");
	link_up(&b, 1, 0);
	ask(&b, "lo up");
	address_add(&b, index, AF_INET, (uint8_t[]){ 203, 0, 113, 1 }, 24);
	ask(&b, "our address");
	link_up(&b, index, 0);
	ask(&b, "eth0 up");
	route_add_default(&b, index, AF_INET, (uint8_t[]){ 203, 0, 113, 2 });
	ask(&b, "default route");
	return ns;
}

/* ---- sockets ---- */

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
	socklen_t len;
};

static struct address address_of(const char *text, unsigned port)
{
	struct address a = { 0 };

	if (text && strchr(text, ':')) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = htons((uint16_t)port);
		assert_int_equal(inet_pton(AF_INET6, text, &a.in6.sin6_addr), 1);
		a.len = sizeof(a.in6);
	} else {
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons((uint16_t)port);
		assert_int_equal(inet_pton(AF_INET, text ? text : "0.0.0.0", &a.in.sin_addr), 1);
		a.len = sizeof(a.in);
	}
	return a;
}

struct wanted {
	struct address a;
	int type, fd;
};

static int make_socket(void *arg, struct err *e)
{
	struct wanted *w = arg;

	(void)e;
	w->fd = socket(w->a.sa.sa_family, w->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return 0;
}

int netguest_socket(struct netns *ns, int type, const char *text, unsigned port)
{
	struct wanted w = { .a = address_of(text, port), .type = type };

	assert_int_equal(netns_run(ns, make_socket, &w, NULL), 0);
	assert_true(w.fd >= 0);
	if (port)
		assert_int_equal(bind(w.fd, &w.a.sa, w.a.len), 0);
	if (port && type == SOCK_STREAM)
		assert_int_equal(listen(w.fd, 8), 0);
	return w.fd;
}

int netguest_connect(int fd, const char *text, unsigned port)
{
	struct address a = address_of(text, port);

	return connect(fd, &a.sa, a.len) && errno != EINPROGRESS ? -errno : 0;
}

bool netguest_readable(struct netrig *r, int fd, int64_t ns)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t end = now_ns() + ns;

	while (poll(&p, 1, 0) < 1) {
		if (now_ns() > end)
			return false;
		netrig_run_for(r, SLICE_NS);
	}
	return true;
}
