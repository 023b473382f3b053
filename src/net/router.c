/*
 * The gateway of one bridge: what is for itself, for another bridge, for outside, for nobody.
 */
#include <stdlib.h>

#include "net/neighbours.h"
#include "net/router.h"

#define PORT_DNS 53

static void neighbours_send_cb(void *arg, struct frame *f);
static void neighbours_unreachable_cb(void *arg, struct frame *f);

static const struct neighbours_events neighbours_ev = {
	.send = neighbours_send_cb,
	.unreachable = neighbours_unreachable_cb,
};

struct route {
	TAILQ_ENTRY(route) entry;
	struct router *to;
};

/* Owned by its bridge. */
struct router {
	const struct router_events *ev;
	void *arg;
	struct net_address address;
	struct neighbours_self self;
	struct neighbours *neighbours;
	TAILQ_HEAD(, route) routes;
	struct router_uplink *uplink;
};

void router_set_address(struct router *r, const struct net_address *a)
{
	struct neighbours_self *s = &r->self;

	r->address = *a;
	/* The same address for the same network in every run: a guest restored from a snapshot remembers it. */
	s->mac[0] = 0x02;
	s->mac[1] = 0x67;
	memcpy(s->mac + 2, a->ip4, 4);
	s->ip4 = ip_address_of(false, a->ip4);
	s->has6 = a->has6;
	s->ip6 = ip_address_of(true, a->ip6);
	s->link_local = (struct ip_address){ .is6 = true, .bytes = { 0xfe, 0x80, [8] = 0, s->mac[1], s->mac[2], 0xff,
		0xfe, s->mac[3], s->mac[4], s->mac[5] } };
}

struct router *router_new(struct loop *l, const struct net_address *a, const struct router_events *ev, void *arg)
{
	struct router *r = xcalloc(1, sizeof(*r));

	r->ev = ev;
	r->arg = arg;
	TAILQ_INIT(&r->routes);
	router_set_address(r, a);
	r->neighbours = neighbours_new(l, &r->self, &neighbours_ev, r);
	return r;
}

const uint8_t *router_mac(const struct router *r)
{
	return r->self.mac;
}

/* ---- routes ---- */

static struct route *find_route(struct router *from, const struct router *to)
{
	struct route *rt;

	TAILQ_FOREACH(rt, &from->routes, entry)
		if (rt->to == to)
			return rt;
	return NULL;
}

static void set_route(struct router *from, struct router *to, bool on)
{
	struct route *rt = find_route(from, to);

	if (on && !rt) {
		rt = xcalloc(1, sizeof(*rt));
		rt->to = to;
		TAILQ_INSERT_TAIL(&from->routes, rt, entry);
	} else if (!on && rt) {
		TAILQ_REMOVE(&from->routes, rt, entry);
		free(rt);
	}
}

void router_route(struct router *a, struct router *b, bool on)
{
	if (a == b)
		return;
	set_route(a, b, on);
	set_route(b, a, on);
}

void router_set_uplink(struct router *r, struct router_uplink *u)
{
	r->uplink = u;
}

void router_free(struct router *r)
{
	if (!r)
		return;
	while (!TAILQ_EMPTY(&r->routes))
		router_route(r, TAILQ_FIRST(&r->routes)->to, false);
	neighbours_free(r->neighbours);
	free(r);
}

static bool on_bridge(const struct router *r, const struct ip_address *a)
{
	const struct net_address *own = &r->address;

	if (a->is6)
		return own->has6 && ip_same_prefix(a->bytes, own->ip6, own->prefix6);
	return ip_same_prefix(a->bytes, own->ip4, own->prefix4);
}

/* The gateway of the bridge this address is on, as far as r has a route there, or NULL. */
static struct router *towards(struct router *r, const struct ip_address *a)
{
	struct route *rt;

	if (on_bridge(r, a))
		return r;
	TAILQ_FOREACH(rt, &r->routes, entry)
		if (on_bridge(rt->to, a))
			return rt->to;
	return NULL;
}

static bool is_gateway(const struct router *r, const struct ip_address *a)
{
	if (!a->is6)
		return ip_equal(a, &r->self.ip4);
	return r->self.has6 && (ip_equal(a, &r->self.ip6) || ip_equal(a, &r->self.link_local));
}

/* ---- sending ---- */

static void send_and_free(struct router *r, const struct ip_address *to, struct frame *f)
{
	if (!f)
		return;
	neighbours_send(r->neighbours, to, f);
	frame_unref(f);
}

/* The sender hears it from the gateway of its own bridge. */
static void complain(struct router *r, const struct packet *p, enum icmp_problem problem)
{
	struct router *near = towards(r, &p->src);

	if (near && !(p->is6 && !near->self.has6))
		send_and_free(near, &p->src, packet_error(p, p->is6 ? &near->self.ip6 : &near->self.ip4, problem));
}

static void neighbours_send_cb(void *arg, struct frame *f)
{
	struct router *r = arg;

	r->ev->send(r->arg, f);
}

static void neighbours_unreachable_cb(void *arg, struct frame *f)
{
	struct packet p;

	if (packet_parse(&p, f->data + FRAME_HEADER, f->len - FRAME_HEADER))
		complain(arg, &p, ICMP_NO_HOST);
}

/* ---- packets ---- */

static bool is_dns(const struct packet *p)
{
	return (p->proto == PROTO_UDP || p->proto == PROTO_TCP) && p->payload && p->payload_len >= 4 &&
		get16(p->payload + 2) == PORT_DNS;
}

static void for_gateway(struct router *r, const struct packet *p)
{
	if (p->proto == PROTO_ICMP || p->proto == PROTO_ICMP6)
		send_and_free(r, &p->src, packet_echo_reply(p));
	else if (r->uplink && is_dns(p) && on_bridge(r, &p->dst))
		r->uplink->input(r->uplink, p);
	else
		complain(r, p, ICMP_NO_PORT);
}

static bool link_local(const struct ip_address *a)
{
	return a->is6 && a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

/* The bridge's broadcast address, or the network's own. */
static bool whole_network(const struct router *r, const struct ip_address *a)
{
	const uint8_t *b = a->bytes;
	uint32_t mask, host;

	if (a->is6 || r->address.prefix4 == 0 || r->address.prefix4 > 30 || !on_bridge(r, a))
		return false;
	mask = UINT32_MAX >> r->address.prefix4;
	host = ((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]) & mask;
	return host == 0 || host == mask;
}

static void forward(struct router *r, const struct packet *p)
{
	struct router *out = towards(r, &p->dst);

	if (!out && !r->uplink)
		complain(r, p, ICMP_NO_ROUTE);
	else if (p->ttl <= 1)
		complain(r, p, ICMP_TIME_EXCEEDED);
	else if (out)
		send_and_free(out, &p->dst, packet_forwarded(p));
	else
		r->uplink->input(r->uplink, p);
}

void router_input(struct router *r, const struct frame *f)
{
	struct packet p;
	struct route *rt;

	if (neighbours_arp(r->neighbours, f) || f->len < FRAME_HEADER ||
	    !packet_parse(&p, f->data + FRAME_HEADER, f->len - FRAME_HEADER) ||
	    get16(f->data + 12) != (p.is6 ? TYPE_IP6 : TYPE_IP4))
		return;
	if (neighbours_discovery(r->neighbours, f, &p))
		return;
	/* The switch floods what it does not know; and groups are not our business. */
	if (memcmp(f->data, r->self.mac, 6) != 0 || packet_martian(&p.src) || packet_multicast(&p.src) ||
	    packet_martian(&p.dst) || packet_multicast(&p.dst) || whole_network(r, &p.dst))
		return;
	if (is_gateway(r, &p.dst)) {
		for_gateway(r, &p);
		return;
	}
	if (link_local(&p.src) || link_local(&p.dst))
		return;
	TAILQ_FOREACH(rt, &r->routes, entry)
		if (is_gateway(rt->to, &p.dst)) {
			for_gateway(r, &p);
			return;
		}
	forward(r, &p);
}

void router_from_uplink(struct router *r, const struct packet *p)
{
	if (on_bridge(r, &p->dst))
		send_and_free(r, &p->dst, packet_forwarded(p));
}
