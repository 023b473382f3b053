/*
 * A net with bridges and ports for tests.
 */
#include "netrig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_MAX 2048
#define SLICE_NS INT64_C(1000000)

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	struct netrig *r = arg;

	(void)fd, (void)what;
	r->guard_fired = true;
	loop_stop(r->loop);
}

void netrig_open(struct netrig *r)
{
	memset(r, 0, sizeof(*r));
	r->loop = loop_new();
	r->net = net_new(r->loop);
}

void netrig_close(struct netrig *r)
{
	net_free(r->net);
	err_release(&r->err);
	loop_free(r->loop);
}

/* ---- replies ---- */

void netrig_done(void *arg, const struct err *e)
{
	struct netrig *r = arg;

	err_copy(&r->err, e);
	r->replied = true;
	loop_stop(r->loop);
}

void netrig_counted(void *arg, const struct net_counters *c, const struct err *e)
{
	struct netrig *r = arg;

	if (c)
		r->counters = *c;
	netrig_done(arg, e);
}

void netrig_wait(struct netrig *r)
{
	struct event *guard = NULL;

	timer_start(r->loop, &guard, NETRIG_GUARD_NS, guard_cb, r);
	while (!r->replied && !r->guard_fired)
		loop_run(r->loop);
	timer_stop(&guard);
	assert_false(r->guard_fired);
	r->replied = false;
}

void netrig_ok(struct netrig *r)
{
	netrig_wait(r);
	if (err_is_set(&r->err))
		fail_msg("unexpected error: %s", r->err.msg);
}

void netrig_fails(struct netrig *r, const char *text)
{
	netrig_wait(r);
	assert_true(err_is_set(&r->err));
	if (!strstr(r->err.msg, text))
		fail_msg("expected `%s` in: %s", text, r->err.msg);
}

void netrig_run_for(struct netrig *r, int64_t ns)
{
	struct event *timer = NULL;

	timer_start(r->loop, &timer, ns, stop_cb, r->loop);
	loop_run(r->loop);
	timer_stop(&timer);
}

struct net_bridge *netrig_bridge(struct netrig *r, const char *name)
{
	struct net_bridge *b = net_bridge_new(r->net, NET_KERNEL, name, 1, netrig_done, r);

	netrig_ok(r);
	return b;
}

struct net_port *netrig_port(struct netrig *r, struct net_bridge *b, unsigned n)
{
	uint8_t mac[6] = { 2, 0, 0, 0, 0, (uint8_t)n };
	char name[16];
	struct net_port *p;

	snprintf(name, sizeof(name), "vm%u", n);
	p = net_port_new(b, name, mac, netrig_done, r);
	netrig_ok(r);
	return p;
}

/* ---- frames ---- */

bool netrig_send(int fd, unsigned from, unsigned to, uint64_t number, size_t size)
{
	uint8_t frame[FRAME_MAX] = { 0 };
	uint16_t type = htons(NETRIG_TYPE);

	assert_in_range(size, NETRIG_HEADER, sizeof(frame));
	memset(frame, 0xff, 6);
	if (to)
		memcpy(frame, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)to }, 6);
	memcpy(frame + 6, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)from }, 6);
	memcpy(frame + 12, &type, 2);
	memcpy(frame + 14, &number, 8);
	return write(fd, frame, size) == (ssize_t)size;
}

bool netrig_receive(int fd, uint64_t *number, size_t *size)
{
	uint8_t frame[FRAME_MAX];
	uint16_t type;
	ssize_t n = read(fd, frame, sizeof(frame));

	if (n < 0) {
		assert_int_equal(errno, EAGAIN);
		return false;
	}
	assert_true(n >= NETRIG_HEADER);
	memcpy(&type, frame + 12, 2);
	assert_int_equal(ntohs(type), NETRIG_TYPE);
	if (number)
		memcpy(number, frame + 14, 8);
	if (size)
		*size = (size_t)n;
	return true;
}

bool netrig_receive_within(struct netrig *r, int fd, int64_t ns, uint64_t *number)
{
	int64_t end = now_ns() + ns;

	while (!netrig_receive(fd, number, NULL)) {
		if (now_ns() > end)
			return false;
		netrig_run_for(r, SLICE_NS);
	}
	return true;
}

unsigned netrig_pass(struct netrig *r, int from_fd, unsigned from, int to_fd, unsigned to, unsigned n,
	int64_t ns)
{
	unsigned came = 0;

	for (unsigned i = 0; i < n; i++) {
		assert_true(netrig_send(from_fd, from, to, i, 100));
		while (netrig_receive(to_fd, NULL, NULL))
			came++;
	}
	while (netrig_receive_within(r, to_fd, ns, NULL))
		came++;
	return came;
}

/* ---- a bridge with three guests ---- */

int netlan_setup(void **state)
{
	struct netlan *w = calloc(1, sizeof(*w));

	netrig_open(&w->r);
	w->lan = netrig_bridge(&w->r, "lan");
	for (unsigned i = 1; i <= 3; i++) {
		w->p[i] = netrig_port(&w->r, w->lan, i);
		w->fd[i] = net_port_fd(w->p[i]);
		assert_true(w->fd[i] >= 0);
	}
	/* So that the bridge knows where everybody is. */
	for (unsigned i = 1; i <= 3; i++) {
		assert_true(netrig_send(w->fd[i], i, 0, 0, 60));
		for (unsigned j = 1; j <= 3; j++)
			assert_int_equal(netrig_receive_within(&w->r, w->fd[j], i == j ? 0 : NETLAN_LONG, NULL), i != j);
	}
	*state = w;
	return 0;
}

int netlan_teardown(void **state)
{
	struct netlan *w = *state;

	netrig_close(&w->r);
	free(w);
	return 0;
}

bool netlan_passes(struct netlan *w, unsigned from, unsigned to)
{
	static uint64_t number;
	uint64_t got = 0;

	assert_true(netrig_send(w->fd[from], from, to, ++number, 100));
	if (!netrig_receive_within(&w->r, w->fd[to], NETLAN_SOON, &got))
		return false;
	assert_int_equal(got, number);
	return true;
}

void netlan_impair(struct netlan *w, unsigned from, unsigned to, struct net_impairment i)
{
	net_impair(w->lan, w->p[from], w->p[to], &i, netrig_done, &w->r);
	netrig_ok(&w->r);
}

void netlan_about(unsigned got, unsigned n, double p)
{
	double expected = n * p, variance = n * p * (1 - p), off = got - expected;

	if (off * off > 25 * variance)
		fail_msg("%u of %u, expected about %.0f", got, n, expected);
}
