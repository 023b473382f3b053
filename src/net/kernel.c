/*
 * The kernel backend: a network namespace for each net, and real bridges in it.
 *
 * Nothing has a name outside the namespace, and the namespace has no path: it lives as long as our
 * descriptors, our sockets in it, and the TAPs that QEMU holds. A SIGKILL of all of us therefore takes
 * everything with it.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/kernel.h"
#include "net/links.h"

/* ---- the namespace ---- */

/* For links that are made from here on: nothing of their own on the wire, no netfilter for what is only
 * bridged. */
static const char *const settings[][2] = {
	{ "ipv6/conf/default/disable_ipv6", "1" },
	{ "ipv6/conf/default/accept_ra", "0" },
	{ "ipv6/conf/default/autoconf", "0" },
	{ "ipv6/conf/default/addr_gen_mode", "1" },
	{ "ipv6/conf/default/dad_transmits", "0" },
	{ "ipv4/conf/all/arp_ignore", "1" },
	{ "ipv4/conf/all/arp_announce", "2" },
	{ "ipv4/conf/all/send_redirects", "0" },
	{ "ipv4/conf/default/send_redirects", "0" },
	{ "bridge/bridge-nf-call-iptables", "0" },
	{ "bridge/bridge-nf-call-ip6tables", "0" },
	{ "bridge/bridge-nf-call-arptables", "0" },
};

static int settle_in(struct netns *ns, struct err *e)
{
	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
		int rc = netns_sysctl(ns, settings[i][0], settings[i][1], e);

		if (rc && rc != -ENOENT)
			return rc;
		err_release(e);
	}
	return 0;
}

static int open_sockets(void *arg, struct err *e)
{
	struct kernel_net *k = arg;

	k->rt = netlink_new(k->net->loop, NETLINK_ROUTE, "rtnetlink", e);
	k->nft = k->rt ? netlink_new(k->net->loop, NETLINK_NETFILTER, "nfnetlink", e) : NULL;
	return k->nft ? 0 : e->code;
}

static void kernel_net_free(struct net *n)
{
	struct kernel_net *k = n->kernel;
	struct kernel_route *route;

	uplink_free(k->uplink);
	while ((route = TAILQ_FIRST(&k->routes))) {
		TAILQ_REMOVE(&k->routes, route, entry);
		free(route);
	}
	netlink_free(k->rt);
	netlink_free(k->nft);
	op_free_all(k);
	counters_free_all(k);
	netns_free(k->ns);
	n->kernel = NULL;
	free(k);
}

static struct kernel_net *kernel_net_of(struct net *n, struct err *e)
{
	struct kernel_net *k;

	if (n->kernel)
		return n->kernel;
	if (net_kernel_usable(e))
		return NULL;
	k = xcalloc(1, sizeof(*k));
	k->net = n;
	k->last_index = 1;		/* lo has that */
	TAILQ_INIT(&k->bridges);
	TAILQ_INIT(&k->ops);
	TAILQ_INIT(&k->counts);
	TAILQ_INIT(&k->routes);
	n->kernel = k;
	k->ns = netns_new(e);
	if (!k->ns || settle_in(k->ns, e) || netns_run(k->ns, open_sockets, k, e)) {
		kernel_net_free(n);
		return NULL;
	}
	return k;
}

int kernel_new_index(struct kernel_net *k, char ifname[IFNAMSIZ], const char *prefix)
{
	int index = ++k->last_index;

	snprintf(ifname, IFNAMSIZ, "%s%d", prefix, index);
	return index;
}

#define GONE 0x70726f76		/* the group of links that are discarded */
#define MANY_GONE 64

void kernel_discard(struct kernel_net *k, struct kernel_op *op, int index)
{
	struct nlbuf msg = NLBUF_INIT;

	link_put_away(&msg, index, GONE);
	op_send(op, k->rt, &msg, NULL, "put away a link");
	if (++k->discarded < MANY_GONE)
		return;
	k->discarded = 0;
	link_delete_group(&msg, GONE);
	op_send(op, k->rt, &msg, NULL, "delete links that are not needed any more");
}

/* ---- bridges ---- */

static void kernel_bridge_init(struct net_bridge *base, uint64_t seed, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct nlbuf msg = NLBUF_INIT;
	struct kernel_op *op;

	(void)seed;		/* chances are the kernel's own */
	TAILQ_INIT(&b->ports);
	TAILQ_INIT(&b->settings);
	b->k = kernel_net_of(base->net, &b->why);
	if (!b->k) {
		err_prefix(&b->why, "bridge `%s`", base->name);
		net_reply_done(r, &b->why);
		return;
	}
	TAILQ_INSERT_TAIL(&b->k->bridges, b, entry);
	b->index = kernel_new_index(b->k, b->ifname, "br");
	op = op_begin(b->k, r);
	link_new_bridge(&msg, b->index, b->ifname);
	op_send(op, b->k->rt, &msg, "bridge", "create bridge `%s`", base->name);
	link_up(&msg, b->index, 0);
	op_send(op, b->k->rt, &msg, NULL, "bring up bridge `%s`", base->name);
	op_end(op);
}

static void kernel_bridge_free(struct net_bridge *base)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct kernel_setting *s;
	struct kernel_op *op;

	if (b->k) {
		op = op_begin(b->k, NULL);
		gateway_free(b, op);
		if (b->whole_ifb && !base->net->closing)
			kernel_discard(b->k, op, b->whole_ifb);
		if (!base->net->closing)
			kernel_discard(b->k, op, b->index);
		op_end(op);
		TAILQ_REMOVE(&b->k->bridges, b, entry);
	}
	while ((s = TAILQ_FIRST(&b->settings))) {
		TAILQ_REMOVE(&b->settings, s, entry);
		free(s);
	}
	free(b->blocks);
	err_release(&b->why);
	net_bridge_base_free(base);
}

int net_kernel_inside(struct net_bridge *base, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;

	if (!b->k) {
		err_copy(e, &b->why);
		return b->why.code;
	}
	return netns_run(b->k->ns, fn, arg, e);
}

const char *net_kernel_ifname(struct net_bridge *base, struct net_port *port)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct kernel_port *p = (struct kernel_port *)port;

	if (p)
		return p->index ? p->ifname : NULL;
	return b->k ? b->ifname : NULL;
}

/* ---- settings ---- */

static struct kernel_setting *find_setting(const struct kernel_bridge *b, const struct kernel_port *from,
	const struct kernel_port *to)
{
	struct kernel_setting *s;

	TAILQ_FOREACH(s, &b->settings, entry)
		if (s->from == from && s->to == to)
			return s;
	return NULL;
}

struct net_impairment kernel_setting(const struct kernel_bridge *b, const struct kernel_port *from,
	const struct kernel_port *to)
{
	struct kernel_setting *s = find_setting(b, from, to);

	return s ? s->i : (struct net_impairment){ 0 };
}

bool kernel_setting_matches(const struct kernel_setting *s, const struct kernel_port *from,
	const struct kernel_port *to)
{
	return (!s->from || s->from == from) && (!s->to || s->to == to);
}

void kernel_forget_port(struct kernel_port *p)
{
	struct kernel_bridge *b = (struct kernel_bridge *)p->base.bridge;
	struct kernel_setting *s, *next;
	size_t n = 0;

	for (s = TAILQ_FIRST(&b->settings); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (s->from != p && s->to != p)
			continue;
		TAILQ_REMOVE(&b->settings, s, entry);
		free(s);
	}
	for (size_t i = 0; i < b->nblocks; i++)
		if (b->blocks[i].from != &p->base && b->blocks[i].to != &p->base)
			b->blocks[n++] = b->blocks[i];
	b->nblocks = n;
}

static void kernel_impair(struct net_bridge *base, struct net_port *from, struct net_port *to,
	const struct net_impairment *i, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct kernel_port *f = (struct kernel_port *)from, *t = (struct kernel_port *)to;
	struct kernel_setting *s;
	struct kernel_op *op;

	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	if (shape_needs_netem(i) && !kernel_has_netem(b->k->ns)) {
		net_reply_fail(r, EOPNOTSUPP, "bridge `%s`: this host's kernel has no sch_netem, which latency, jitter, "
			"correlated loss, reordering and corruption need: `modprobe sch_netem`, or make the bridge with "
			"backend = \"user\"", base->name);
		return;
	}
	s = find_setting(b, f, t);
	if (!s) {
		s = xcalloc(1, sizeof(*s));
		s->from = f;
		s->to = t;
		TAILQ_INSERT_TAIL(&b->settings, s, entry);
	}
	s->i = *i;
	if (net_impairment_is_zero(i)) {
		TAILQ_REMOVE(&b->settings, s, entry);
		free(s);
	}
	op = op_begin(b->k, r);
	shape_sync(b, op);
	rules_sync(b->k, op);
	op_end(op);
}

static void kernel_port_set_rate(struct net_port *base, uint64_t bps, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base->bridge;
	struct kernel_op *op;

	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	((struct kernel_port *)base)->own_rate = bps;
	op = op_begin(b->k, r);
	shape_sync(b, op);
	op_end(op);
}

static void kernel_set_blocks(struct net_bridge *base, const struct net_block *blocks, size_t n,
	struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct kernel_op *op;

	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	free(b->blocks);
	b->blocks = xcalloc(n, sizeof(*blocks));
	b->nblocks = n;
	if (n)
		memcpy(b->blocks, blocks, n * sizeof(*blocks));
	op = op_begin(b->k, r);
	rules_sync(b->k, op);
	op_end(op);
}

const struct net_backend_ops net_kernel_ops = {
	.kind = NET_KERNEL,
	.name = "kernel",
	.bridge_size = sizeof(struct kernel_bridge),
	.port_size = sizeof(struct kernel_port),
	.net_free = kernel_net_free,
	.bridge_init = kernel_bridge_init,
	.bridge_free = kernel_bridge_free,
	.bridge_counters = kernel_bridge_counters,
	.port_init = kernel_port_init,
	.port_free = kernel_port_free,
	.port_fd = kernel_port_fd,
	.port_given = kernel_port_given,
	.port_netdev = kernel_port_netdev,
	.port_renew = kernel_port_renew,
	.port_counters = kernel_port_counters,
	.port_set_rate = kernel_port_set_rate,
	.impair = kernel_impair,
	.set_blocks = kernel_set_blocks,
	.set_gateway = kernel_set_gateway,
	.route = kernel_route,
	.uplink = kernel_uplink,
};
