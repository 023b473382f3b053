/*
 * The host's side of a kernel bridge: a veth whose one end is a port of the bridge, like a guest's, and whose
 * other end has the gateway's addresses. Settings for every frame of the bridge therefore hold for it too.
 *
 * Nothing is forwarded between bridges but what a route or an uplink asks for: the forward chain drops the
 * rest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/kernel.h"
#include "net/links.h"
#include "net/nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#define FORWARD "forward"
#define OUT "out"
#define QUIET "quiet"
#define PRIORITY_SNAT 100

/* What IPv6 tells of itself when it joins a group: MLD's old and new reports, and its leaving. */
static const uint8_t mld[] = { 131, 132, 143 };
/* Neighbours are asked from it when packets of others are to be delivered. */
static const uint8_t link_local[16] = { 0xfe, 0x80, [15] = 1 };

/* ---- addresses ---- */

static void change_addresses(struct kernel_bridge *b, bool add, struct kernel_op *op)
{
	void (*change)(struct nlbuf *, int, int, const void *, unsigned) = add ? address_add : address_delete;
	const char *verb = add ? "give" : "take";
	struct nlbuf msg = NLBUF_INIT;

	if (b->address.prefix4) {
		change(&msg, b->gateway_index, AF_INET, b->address.ip4, b->address.prefix4);
		op_send(op, b->k->rt, &msg, NULL, "%s the gateway of bridge `%s` its IPv4 address", verb, b->base.name);
	}
	if (b->address.has6) {
		change(&msg, b->gateway_index, AF_INET6, b->address.ip6, b->address.prefix6);
		op_send(op, b->k->rt, &msg, "ipv6", "%s the gateway of bridge `%s` its IPv6 address", verb, b->base.name);
	}
}

/* Guests remember the gateway's MAC, also over a snapshot: it follows from the address. */
static void gateway_mac(const struct net_address *a, uint8_t mac[6])
{
	mac[0] = 0x02;
	mac[1] = 0x50;
	memcpy(mac + 2, a->ip4, 4);
}

/* Links are made without IPv6 (kernel.c). */
static void enable_ipv6(struct kernel_bridge *b, struct kernel_op *op)
{
	struct nlbuf msg = NLBUF_INIT;
	struct err e = ERR_INIT;
	char sysctl[64];
	int rc;

	snprintf(sysctl, sizeof(sysctl), "ipv6/conf/%s/disable_ipv6", b->gateway_ifname);
	rc = netns_sysctl(b->k->ns, sysctl, "0", &e);
	if (rc && rc != -ENOENT)
		op_fail(op, &e);
	err_release(&e);
	address_add(&msg, b->gateway_index, AF_INET6, link_local, 64);
	op_send(op, b->k->rt, &msg, "ipv6", "give the gateway of bridge `%s` an address", b->base.name);
}

static void make_gateway(struct kernel_bridge *b, const struct net_address *a, struct kernel_op *op)
{
	struct kernel_port *p = xcalloc(1, sizeof(*p));
	struct nlbuf msg = NLBUF_INIT;

	p->base.bridge = &b->base;
	p->base.name = xasprintf("the host's side of %s", b->base.name);
	p->fd = -1;
	TAILQ_INIT(&p->classes);
	gateway_mac(a, p->base.mac);
	p->index = kernel_new_index(b->k, p->ifname, "host");
	b->gateway_index = kernel_new_index(b->k, b->gateway_ifname, "gw");
	b->gateway = p;
	TAILQ_INSERT_TAIL(&b->ports, p, entry);

	link_new_veth(&msg, p->index, p->ifname, b->gateway_index, b->gateway_ifname, -1, p->base.mac);
	op_send(op, b->k->rt, &msg, "veth", "make the gateway of bridge `%s`", b->base.name);
	gateway_sync(b->k, op);
	link_up(&msg, b->gateway_index, 0);
	op_send(op, b->k->rt, &msg, NULL, "bring up the gateway of bridge `%s`", b->base.name);
	link_up(&msg, p->index, b->index);
	op_send(op, b->k->rt, &msg, NULL, "attach the gateway to bridge `%s`", b->base.name);
	shape_sync(b, op);
	rules_sync(b->k, op);
}

void kernel_set_gateway(struct net_bridge *base, const struct net_address *a, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct kernel_op *op;

	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	op = op_begin(b->k, r);
	if (b->gateway)
		change_addresses(b, false, op);
	else
		make_gateway(b, a, op);
	if (a->has6 && !b->address.has6)
		enable_ipv6(b, op);
	b->address = *a;
	change_addresses(b, true, op);
	op_end(op);
}

/* ---- what is forwarded ---- */

static void add_way(struct nft_batch *t, int from, int to, bool replies)
{
	struct nftnl_rule *r = nft_rule(t, FORWARD);

	nft_iif(r, from);
	nft_oif(r, to);
	if (replies)
		nft_replies_only(r);
	nft_verdict(r, NF_ACCEPT, NULL);
	nft_add(t, r);
}

static void add_uplink(struct nft_batch *t, struct kernel_net *k, int out)
{
	struct kernel_bridge *b;
	struct nftnl_rule *r;

	TAILQ_FOREACH(b, &k->bridges, entry) {
		if (!b->uplink)
			continue;
		add_way(t, b->gateway_index, out, false);
		add_way(t, out, b->gateway_index, true);
	}
	nft_new_base(t, OUT, "nat", NF_INET_POST_ROUTING, PRIORITY_SNAT, NF_ACCEPT, NULL);
	r = nft_rule(t, OUT);
	nft_oif(r, out);
	nft_masquerade(r);
	nft_add(t, r);
}

/* A bridge hears nothing of the host's side but what it is asked. */
static void add_silence(struct nft_batch *t)
{
	struct nftnl_rule *r;

	nft_new_base(t, QUIET, "filter", NF_INET_LOCAL_OUT, 0, NF_ACCEPT, NULL);
	for (size_t i = 0; i < sizeof(mld); i++) {
		r = nft_rule(t, QUIET);
		nft_icmp6_is(r, mld[i]);
		nft_verdict(r, NF_DROP, NULL);
		nft_add(t, r);
	}
}

static void forward(struct kernel_net *k, struct kernel_op *op)
{
	struct err e = ERR_INIT;

	k->forwards = true;
	if (netns_sysctl(k->ns, "ipv4/ip_forward", "1", &e))
		op_fail(op, &e);
	/* There may be no IPv6 at all. */
	netns_sysctl(k->ns, "ipv6/conf/all/forwarding", "1", NULL);
	err_release(&e);
}

void gateway_sync(struct kernel_net *k, struct kernel_op *op)
{
	struct kernel_route *route;
	struct nft_batch t;

	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	nft_new_table(&t, false);
	nft_flush(&t);
	add_silence(&t);
	nft_new_base(&t, FORWARD, "filter", NF_INET_FORWARD, 0, NF_DROP, NULL);
	TAILQ_FOREACH(route, &k->routes, entry) {
		add_way(&t, route->a->gateway_index, route->b->gateway_index, false);
		add_way(&t, route->b->gateway_index, route->a->gateway_index, false);
	}
	if (k->uplink)
		add_uplink(&t, k, uplink_index(k->uplink));
	nft_end(&t);
	op_send(op, k->nft, &t.msg, k->uplink ? "nf_tables nft_ct nft_chain_nat nft_masq" : "nf_tables",
		"write the rules between bridges");
	if (!k->forwards && (k->uplink || !TAILQ_EMPTY(&k->routes)))
		forward(k, op);
}

static struct kernel_route *find_route(struct kernel_net *k, struct kernel_bridge *a, struct kernel_bridge *b)
{
	struct kernel_route *route;

	TAILQ_FOREACH(route, &k->routes, entry)
		if ((route->a == a && (route->b == b || !b)) || (route->b == a && (route->a == b || !b)))
			return route;
	return NULL;
}

static void drop_route(struct kernel_net *k, struct kernel_route *route)
{
	TAILQ_REMOVE(&k->routes, route, entry);
	free(route);
}

void kernel_route(struct net_bridge *base_a, struct net_bridge *base_b, bool on, struct net_reply *r)
{
	struct kernel_bridge *a = (struct kernel_bridge *)base_a, *b = (struct kernel_bridge *)base_b;
	struct kernel_route *route;
	struct kernel_op *op;

	if (!a->k || !b->k) {
		net_reply_done(r, a->k ? &b->why : &a->why);
		return;
	}
	if (on && (!a->gateway || !b->gateway)) {
		net_reply_fail(r, EINVAL, "route between bridges `%s` and `%s`: `%s` has no gateway address", base_a->name,
			base_b->name, a->gateway ? base_b->name : base_a->name);
		return;
	}
	route = find_route(a->k, a, b);
	if (on && !route) {
		route = xcalloc(1, sizeof(*route));
		route->a = a;
		route->b = b;
		TAILQ_INSERT_TAIL(&a->k->routes, route, entry);
	} else if (!on && route) {
		drop_route(a->k, route);
	}
	op = op_begin(a->k, r);
	gateway_sync(a->k, op);
	op_end(op);
}

void gateway_free(struct kernel_bridge *b, struct kernel_op *op)
{
	struct kernel_port *p = b->gateway;
	struct kernel_route *route;

	if (!p)
		return;
	while ((route = find_route(b->k, b, NULL)))
		drop_route(b->k, route);
	uplink_leave(b, op);
	b->gateway = NULL;
	kernel_forget_port(p);
	TAILQ_REMOVE(&b->ports, p, entry);
	if (!b->base.net->closing) {
		change_addresses(b, false, op);
		gateway_sync(b->k, op);
		rules_forget(p, op);
		shape_forget(p, op);
		kernel_discard(b->k, op, p->index);
	}
	kernel_port_release(p);
}
