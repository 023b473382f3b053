/*
 * The user backend: bridges that are a switch in the loop, ports that are datagram sockets to QEMU.
 *
 * The way of a frame: in from a port's socket; the queue of the port's own rate; the switch; for each port it is for,
 * what was set for that way; out into the queue of that port's socket. The gateway, where there is one, is a port
 * without a socket. Whatever enters a bridge ends with `finish`, at once or, when it came from another bridge, at the
 * end of the turn: queues are flushed with many frames in one call, and the timer is set to what is due next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/dgram.h"
#include "net/emulate.h"
#include "net/router.h"
#include "net/slirp.h"
#include "net/switch.h"
#include "net/user.h"

#define STEPS_OF_A_TURN 1024		/* of frames that were delayed */

static void switch_path_cb(void *arg, struct swport *from, struct swport *to, struct frame *f);
static void switch_dropped_cb(void *arg, struct swport *from);
static void emulator_forward_cb(void *arg, struct swport *from, struct frame *f, int64_t t);
static void emulator_deliver_cb(void *arg, struct swport *from, struct swport *to, struct frame *f);
static void port_input_cb(void *arg, struct frame *const *frames, unsigned n);
static void port_dropped_cb(void *arg, unsigned n);
static void port_output_cb(struct swport *sp, struct frame *f);
static void gateway_output_cb(struct swport *sp, struct frame *f);
static void router_send_cb(void *arg, struct frame *f);
static void uplink_packet_cb(void *arg, const struct packet *p);
static void timer_cb(evutil_socket_t fd, short what, void *arg);

struct user_bridge {
	struct net_bridge base;
	struct vswitch *sw;
	struct emulator *emulator;
	struct event *timer;
	int64_t armed;			/* for when; EMULATOR_NEVER: it is not */
	int64_t now;			/* of the frame that goes through the switch */
	struct swport gateway;
	struct router *router;		/* NULL: no gateway yet */
	struct slirpnet *uplink;
	struct net_address address;
	TAILQ_HEAD(, user_tap) taps;
	TAILQ_HEAD(, user_port) unflushed;
	bool busy, deferred, freed;	/* finish is to come: from the caller, from the end of the turn */
	struct net_counters counters;
};

struct user_port {
	struct net_port base;
	struct swport sp;
	struct dgram *socket;
	TAILQ_ENTRY(user_port) entry;	/* of unflushed */
	bool unflushed;
	struct net_counters counters;
};

static const struct switch_events switch_ev = { .path = switch_path_cb, .dropped = switch_dropped_cb };
static const struct emulator_events emulator_ev = {
	.forward = emulator_forward_cb,
	.deliver = emulator_deliver_cb,
	.dropped = switch_dropped_cb,
};
static const struct dgram_events dgram_ev = { .input = port_input_cb, .dropped = port_dropped_cb };
static const struct router_events router_ev = { .send = router_send_cb };

static struct user_bridge *bridge_of(struct net_bridge *b)
{
	return (struct user_bridge *)b;
}

static struct user_port *port_of(struct net_port *p)
{
	return (struct user_port *)p;
}

/* NULL for the gateway. */
static struct user_port *port_at(struct swport *sp)
{
	if (sp->output != port_output_cb)
		return NULL;
	return (struct user_port *)((char *)sp - offsetof(struct user_port, sp));
}

static struct swport *swport_of(struct net_port *p)
{
	return p ? &port_of(p)->sp : NULL;
}

/* ---- frames ---- */

static void show(struct user_bridge *b, struct net_port *port, const struct frame *f)
{
	struct user_tap *t;

	TAILQ_FOREACH(t, &b->taps, entry)
		if (t->port == port)
			t->frame(t, f->data, f->len);
}

/* While a setting may touch frames, the switch asks about each. */
static void start(struct user_bridge *b)
{
	b->now = now_ns();
	switch_set_impaired(b->sw, emulator_on_paths(b->emulator));
}

static void arm(struct user_bridge *b)
{
	int64_t due = emulator_due(b->emulator), now;
	struct timeval tv;

	if (due == b->armed)
		return;
	b->armed = due;
	if (due == EMULATOR_NEVER) {
		event_del(b->timer);
		return;
	}
	now = now_ns();
	tv = timeval_from_ns(due - now);
	event_add(b->timer, &tv);
}

static void finish(struct user_bridge *b)
{
	struct user_port *p;

	while ((p = TAILQ_FIRST(&b->unflushed))) {
		TAILQ_REMOVE(&b->unflushed, p, entry);
		p->unflushed = false;
		dgram_flush(p->socket);
	}
	arm(b);
}

static void deferred_cb(void *arg)
{
	struct user_bridge *b = arg;

	b->deferred = false;
	if (b->freed)
		net_bridge_base_free(&b->base);
	else
		finish(b);
}

static void finish_later(struct user_bridge *b)
{
	if (b->busy || b->deferred)
		return;
	b->deferred = true;
	loop_defer(b->base.net->loop, deferred_cb, b);
}

static void into_switch(struct user_bridge *b, struct swport *from, struct frame *f, int64_t now)
{
	if (!TAILQ_EMPTY(&b->taps))
		show(b, NULL, f);
	switch_input(from, f, now);
}

static void enter(struct user_bridge *b, struct swport *from, struct frame *f)
{
	if (emulator_at_entrances(b->emulator))
		emulator_enter(b->emulator, from, f, b->now);
	else
		into_switch(b, from, f, b->now);
}

static void port_input_cb(void *arg, struct frame *const *frames, unsigned n)
{
	struct user_port *p = arg;
	struct user_bridge *b = bridge_of(p->base.bridge);

	b->busy = true;
	start(b);
	for (unsigned i = 0; i < n; i++) {
		struct frame *f = frames[i];

		p->counters.rx_packets++;
		p->counters.rx_bytes += f->len;
		b->counters.rx_packets++;
		b->counters.rx_bytes += f->len;
		if (!TAILQ_EMPTY(&b->taps))
			show(b, &p->base, f);
		enter(b, &p->sp, f);
	}
	b->busy = false;
	finish(b);
}

static void port_dropped_cb(void *arg, unsigned n)
{
	struct user_port *p = arg;

	p->counters.dropped += n;
	bridge_of(p->base.bridge)->counters.dropped += n;
}

static void switch_dropped_cb(void *arg, struct swport *from)
{
	struct user_bridge *b = arg;
	struct user_port *p = port_at(from);

	b->counters.dropped++;
	if (p)
		p->counters.dropped++;
}

static void switch_path_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	struct user_bridge *b = arg;

	emulator_pass(b->emulator, from, to, f, b->now);
}

static void emulator_forward_cb(void *arg, struct swport *from, struct frame *f, int64_t t)
{
	struct user_bridge *b = arg;

	b->now = t;
	switch_set_impaired(b->sw, emulator_on_paths(b->emulator));
	into_switch(b, from, f, t);
}

/* A partition made while a frame was on its way stops that as well. */
static void emulator_deliver_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	if (switch_blocked(from, to))
		switch_dropped_cb(arg, from);
	else
		to->output(to, f);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct user_bridge *b = arg;

	(void)fd, (void)what;
	b->armed = EMULATOR_NEVER;
	b->busy = true;
	start(b);
	emulator_run(b->emulator, b->now, STEPS_OF_A_TURN);
	b->busy = false;
	finish(b);
}

static void port_output_cb(struct swport *sp, struct frame *f)
{
	struct user_port *p = port_at(sp);
	struct user_bridge *b = bridge_of(p->base.bridge);

	if (!TAILQ_EMPTY(&b->taps))
		show(b, &p->base, f);
	if (!p->socket || !dgram_send(p->socket, f)) {
		port_dropped_cb(p, 1);
		return;
	}
	p->counters.tx_packets++;
	p->counters.tx_bytes += f->len;
	b->counters.tx_packets++;
	b->counters.tx_bytes += f->len;
	if (!p->unflushed) {
		p->unflushed = true;
		TAILQ_INSERT_TAIL(&b->unflushed, p, entry);
		finish_later(b);
	}
}

/* ---- bridges ---- */

static void bridge_init(struct net_bridge *base, uint64_t seed, struct net_reply *r)
{
	struct user_bridge *b = bridge_of(base);

	TAILQ_INIT(&b->taps);
	TAILQ_INIT(&b->unflushed);
	b->sw = switch_new(&switch_ev, b);
	b->emulator = emulator_new(seed, &emulator_ev, b);
	b->armed = EMULATOR_NEVER;
	b->timer = evtimer_new(loop_base(base->net->loop), timer_cb, b);
	INVARIANT(b->timer);
	net_reply_done(r, NULL);
}

static void bridge_free(struct net_bridge *base)
{
	struct user_bridge *b = bridge_of(base);

	slirpnet_close(b->uplink);
	router_free(b->router);
	if (b->router)
		switch_remove(&b->gateway);
	switch_free(b->sw);
	emulator_free(b->emulator);
	event_free(b->timer);
	b->freed = true;
	if (!b->deferred)
		net_bridge_base_free(base);
}

static void bridge_counters(struct net_bridge *b, struct net_reply *r)
{
	net_reply_counters(r, &bridge_of(b)->counters, NULL);
}

/* ---- ports ---- */

static void port_init(struct net_port *base, struct net_reply *r)
{
	struct user_port *p = port_of(base);
	struct err e = ERR_INIT;

	p->sp.name = base->name;
	p->sp.output = port_output_cb;
	switch_add(bridge_of(base->bridge)->sw, &p->sp);
	p->socket = dgram_new(base->bridge->net->loop, &dgram_ev, p, &e);
	if (p->socket)
		net_reply_done(r, NULL);
	else
		net_reply_fail(r, e.code, "NIC of vm `%s` on bridge `%s`: %s", base->name, base->bridge->name, e.msg);
	err_release(&e);
}

static void port_free(struct net_port *base)
{
	struct user_port *p = port_of(base);
	struct user_bridge *b = bridge_of(base->bridge);

	if (p->unflushed)
		TAILQ_REMOVE(&b->unflushed, p, entry);
	dgram_free(p->socket);
	emulator_remove(b->emulator, &p->sp);
	switch_remove(&p->sp);
	arm(b);
	net_port_base_free(base);
}

static int port_fd(const struct net_port *p)
{
	const struct dgram *d = ((const struct user_port *)p)->socket;

	return d ? dgram_peer(d) : -1;
}

static void port_given(struct net_port *p)
{
	if (port_of(p)->socket)
		dgram_given(port_of(p)->socket);
}

static char *port_netdev(const struct net_port *p, const char *id, const char *fd)
{
	(void)p;
	return xasprintf("dgram,id=%s,local.type=fd,local.str=%s", id, fd);
}

static void port_renew(struct net_port *base, struct net_reply *r)
{
	struct user_port *p = port_of(base);
	struct err e = ERR_INIT;
	int rc = 0;

	if (p->socket)
		rc = dgram_renew(p->socket, &e);
	else
		p->socket = dgram_new(base->bridge->net->loop, &dgram_ev, p, &e);
	if (rc == 0 && p->socket)
		net_reply_done(r, NULL);
	else
		net_reply_fail(r, e.code, "NIC of vm `%s` on bridge `%s`: %s", base->name, base->bridge->name, e.msg);
	err_release(&e);
}

static void port_counters(struct net_port *p, struct net_reply *r)
{
	net_reply_counters(r, &port_of(p)->counters, NULL);
}

/* ---- settings ---- */

static void port_set_rate(struct net_port *p, uint64_t bps, struct net_reply *r)
{
	struct user_bridge *b = bridge_of(p->bridge);

	emulator_set_port_rate(b->emulator, &port_of(p)->sp, bps, now_ns());
	arm(b);
	net_reply_done(r, NULL);
}

static void impair(struct net_bridge *base, struct net_port *from, struct net_port *to,
	const struct net_impairment *i, struct net_reply *r)
{
	struct user_bridge *b = bridge_of(base);

	emulator_set(b->emulator, swport_of(from), swport_of(to), i, now_ns());
	arm(b);
	net_reply_done(r, NULL);
}

static void set_blocks(struct net_bridge *base, const struct net_block *blocks, size_t n, struct net_reply *r)
{
	struct vswitch *sw = bridge_of(base)->sw;

	switch_unblock_all(sw);
	for (size_t i = 0; i < n; i++)
		switch_block(sw, swport_of(blocks[i].from), swport_of(blocks[i].to));
	net_reply_done(r, NULL);
}

/* ---- the gateway ---- */

/* From the router: its frames go through the switch like a guest's. */
static void router_send_cb(void *arg, struct frame *f)
{
	struct user_bridge *b = arg;

	if (!b->busy)
		start(b);
	enter(b, &b->gateway, f);
	finish_later(b);
}

static void gateway_output_cb(struct swport *sp, struct frame *f)
{
	struct user_bridge *b = (struct user_bridge *)((char *)sp - offsetof(struct user_bridge, gateway));

	router_input(b->router, f);
}

static void uplink_packet_cb(void *arg, const struct packet *p)
{
	router_from_uplink(((struct user_bridge *)arg)->router, p);
}

static int set_uplink(struct user_bridge *b, bool on, struct err *e)
{
	if (on == (b->uplink != NULL))
		return 0;
	if (!on) {
		router_set_uplink(b->router, NULL);
		slirpnet_close(b->uplink);
		b->uplink = NULL;
		return 0;
	}
	if (!b->router)
		return err_set(e, EINVAL, "the way out of bridge `%s` needs a gateway address", b->base.name);
	b->uplink = slirpnet_open(b->base.net->loop, &b->address, uplink_packet_cb, b, e);
	if (!b->uplink)
		return err_prefix(e, "the way out of bridge `%s`", b->base.name);
	router_set_uplink(b->router, slirpnet_uplink(b->uplink));
	return 0;
}

static void answer(struct net_reply *r, struct err *e)
{
	net_reply_done(r, err_is_set(e) ? e : NULL);
	err_release(e);
}

static void set_gateway(struct net_bridge *base, const struct net_address *a, struct net_reply *r)
{
	struct user_bridge *b = bridge_of(base);
	bool had_uplink = b->uplink != NULL;
	struct err e = ERR_INIT;

	if (had_uplink)
		set_uplink(b, false, NULL);
	b->address = *a;
	if (b->router) {
		/* Its MAC follows from the address, so the port is a new one. */
		switch_remove(&b->gateway);
		emulator_remove(b->emulator, &b->gateway);
		router_set_address(b->router, a);
	} else {
		b->router = router_new(base->net->loop, a, &router_ev, b);
		b->gateway.name = "";
		b->gateway.output = gateway_output_cb;
	}
	switch_add(b->sw, &b->gateway);
	switch_pin(&b->gateway, router_mac(b->router));
	if (had_uplink)
		set_uplink(b, true, &e);
	arm(b);
	answer(r, &e);
}

static void route(struct net_bridge *a, struct net_bridge *b, bool on, struct net_reply *r)
{
	struct router *ra = bridge_of(a)->router, *rb = bridge_of(b)->router;

	if (ra && rb)
		router_route(ra, rb, on);
	if (on && !(ra && rb))
		net_reply_fail(r, EINVAL, "route between bridges `%s` and `%s`: bridge `%s` has no gateway address", a->name,
			b->name, ra ? b->name : a->name);
	else
		net_reply_done(r, NULL);
}

static void uplink(struct net_bridge *b, bool on, struct net_reply *r)
{
	struct err e = ERR_INIT;

	set_uplink(bridge_of(b), on, &e);
	answer(r, &e);
}

/* ---- captures ---- */

void user_tap_add(struct net_bridge *b, struct user_tap *t)
{
	TAILQ_INSERT_TAIL(&bridge_of(b)->taps, t, entry);
}

void user_tap_remove(struct net_bridge *b, struct user_tap *t)
{
	TAILQ_REMOVE(&bridge_of(b)->taps, t, entry);
}

const struct net_backend_ops net_user_ops = {
	.kind = NET_USER,
	.name = "user",
	.bridge_size = sizeof(struct user_bridge),
	.port_size = sizeof(struct user_port),
	.bridge_init = bridge_init,
	.bridge_free = bridge_free,
	.bridge_counters = bridge_counters,
	.port_init = port_init,
	.port_free = port_free,
	.port_fd = port_fd,
	.port_given = port_given,
	.port_netdev = port_netdev,
	.port_renew = port_renew,
	.port_counters = port_counters,
	.port_set_rate = port_set_rate,
	.impair = impair,
	.set_blocks = set_blocks,
	.set_gateway = set_gateway,
	.route = route,
	.uplink = uplink,
};
