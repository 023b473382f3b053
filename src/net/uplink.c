/*
 * The way out of a net's namespace: a veth to the host, source NAT on both sides.
 *
 * In the namespace, what leaves takes the veth's address, so nets may use the same subnets; on the host, that
 * address is hidden behind the one of the default route. The host's rules are in a table that is owned by our
 * netlink socket, and the veth goes with the namespace: nothing of either outlives us. Only the host's
 * `forwarding` of its outward link must be on; where we turn it on, the last Provium to leave turns it off
 * again.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/kernel.h"
#include "net/links.h"
#include "net/nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#define PEER_PREFIX "provium"
#define PEER_TURNED_ON "proviumf"
#define SUBNET UINT32_C(0xc6120000)	/* 198.18.0.0/15, which is for measuring networks and routed nowhere */
#define PRIORITY_SNAT 100

static void made_cb(void *arg, const struct err *e);
static void link_answer_cb(void *arg, const struct nlmsghdr *h);
static void link_done_cb(void *arg, const struct err *e);
static void route_answer_cb(void *arg, const struct nlmsghdr *h);
static void route_done_cb(void *arg, const struct err *e);

/* Owned by the kernel_net, while a bridge has it. */
struct uplink {
	struct kernel_net *k;
	struct kernel_op *op;		/* waits for the first steps, NULL: they are done */
	struct netlink *rt, *nft;	/* on the host */
	int index, peer;		/* of the veth, inside and on the host */
	char ifname[IFNAMSIZ], table[32];
	struct err not_made;
	int outward;			/* the host's link of its default route */
	char outward_name[IFNAMSIZ];
	bool turned_on;			/* it forwards because of us or our like */
	unsigned bridges;
};

int uplink_index(const struct uplink *u)
{
	return u->index;
}

/* ---- the host's forwarding ----
 *
 * The name of a veth's end on the host says whether its maker, or one before him who was still there,
 * turned the forwarding on: so that the last one to go knows, in whatever process he is. */

static bool others_here(const struct uplink *u, const char *prefix)
{
	struct if_nameindex *links = if_nameindex();
	bool others = false;

	for (struct if_nameindex *l = links; l && l->if_index; l++)
		if (!strncmp(l->if_name, prefix, strlen(prefix)) && (int)l->if_index != u->peer)
			others = true;
	if_freenameindex(links);
	return others;
}

static int set_forwarding(const char *ifname, const char *value, struct err *e)
{
	char name[64];
	int rc;

	snprintf(name, sizeof(name), "ipv4/conf/%s/forwarding", ifname);
	rc = netns_sysctl(NULL, name, value, e);
	if (rc)
		err_append(e, "; the host must forward IPv4 for an uplink: `sysctl -w net.ipv4.ip_forward=1`");
	return rc;
}

/* Lets the host forward what comes in by its default route. */
static int turn_on(struct uplink *u, struct err *e)
{
	char name[64];

	if (!if_indextoname((unsigned)u->outward, u->outward_name))
		return err_set(e, errno, "find the link of the default route: %s", strerror(errno));
	snprintf(name, sizeof(name), "ipv4/conf/%s/forwarding", u->outward_name);
	if (netns_read_sysctl(NULL, name) == 1) {
		u->turned_on = others_here(u, PEER_TURNED_ON);
		return 0;
	}
	if (set_forwarding(u->outward_name, "1", e))
		return e->code;
	u->turned_on = true;
	return 0;
}

static void turn_off(struct uplink *u)
{
	if (u->turned_on && !others_here(u, PEER_PREFIX))
		set_forwarding(u->outward_name, "0", NULL);
	u->turned_on = false;
}

/* ---- the first steps: where does the host's default route go, what is the veth's number there ---- */

/* It did not come about. Whoever has it may ask again. */
static void fail(struct uplink *u, const struct err *e)
{
	struct kernel_op *op = u->op, *mine = op_begin(u->k, NULL);
	struct kernel_bridge *b;

	u->op = NULL;
	op_release(op, e);
	TAILQ_FOREACH(b, &u->k->bridges, entry)
		if (b->uplink)
			uplink_leave(b, mine);
	op_end(mine);
}

static void start(struct uplink *u)
{
	struct netlink_what what = { .text = "find the host's default route" };
	struct nlbuf msg = NLBUF_INIT;

	route_dump(&msg);
	netlink_send(u->rt, &msg, &what, route_answer_cb, route_done_cb, u);
}

static void route_answer_cb(void *arg, const struct nlmsghdr *h)
{
	struct uplink *u = arg;

	if (!u->outward)
		u->outward = route_default_link(h);
}

static void route_done_cb(void *arg, const struct err *e)
{
	struct netlink_what make = { .text = "make the uplink", .module = "veth" },
		find = { .text = "find the uplink" };
	struct uplink *u = arg;
	struct nlbuf msg = NLBUF_INIT;
	struct err failed = ERR_INIT;

	if (!e && !u->outward)
		err_set(&failed, ENETUNREACH, "this host has no IPv4 default route, which is where an uplink goes");
	else if (!e)
		turn_on(u, &failed);
	if (e || err_is_set(&failed)) {
		fail(u, e ? e : &failed);
		err_release(&failed);
		return;
	}
	link_new_veth(&msg, u->index, u->ifname, 0, u->turned_on ? PEER_TURNED_ON "%d" : PEER_PREFIX "%d",
		netns_home(), NULL);
	netlink_send(u->k->rt, &msg, &make, NULL, made_cb, u);
	link_get(&msg, u->index);
	netlink_send(u->k->rt, &msg, &find, link_answer_cb, link_done_cb, u);
}

static void made_cb(void *arg, const struct err *e)
{
	struct uplink *u = arg;

	if (e)
		err_copy(&u->not_made, e);
}

static void link_answer_cb(void *arg, const struct nlmsghdr *h)
{
	struct uplink *u = arg;
	const struct nlattr *attr;

	if (h->nlmsg_type != RTM_NEWLINK)
		return;
	mnl_attr_for_each(attr, h, sizeof(struct ifinfomsg))
		if (mnl_attr_get_type(attr) == IFLA_LINK)
			u->peer = (int)mnl_attr_get_u32(attr);
}

/* ---- the rest ---- */

static void hide_on_host(struct uplink *u, const uint8_t inside[4])
{
	struct nftnl_rule *r;
	struct nft_batch t;

	snprintf(u->table, sizeof(u->table), PEER_PREFIX "-%d", u->peer);
	nft_begin(&t, NFPROTO_IPV4, u->table);
	nft_new_table(&t, true);
	nft_new_base(&t, "out", "nat", NF_INET_POST_ROUTING, PRIORITY_SNAT, NF_ACCEPT, NULL);
	r = nft_rule(&t, "out");
	nft_source4(r, inside);
	nft_not_oif(r, u->peer);
	nft_masquerade(r);
	nft_add(&t, r);
	nft_end(&t);
	op_send(u->op, u->nft, &t.msg, "nf_tables nft_chain_nat nft_masq",
		"hide the uplink behind the host's address");
}

static void link_done_cb(void *arg, const struct err *e)
{
	struct uplink *u = arg;
	struct nlbuf msg = NLBUF_INIT;
	struct err failed = ERR_INIT;
	uint32_t host = htonl(SUBNET + 2 * ((uint32_t)u->peer & 0xffff)), inside = host | htonl(1);
	struct kernel_op *op = u->op;
	char peer[IFNAMSIZ];

	if (e) {
		fail(u, err_is_set(&u->not_made) ? &u->not_made : e);
		return;
	}
	address_add(&msg, u->peer, AF_INET, &host, 31);
	op_send(op, u->rt, &msg, NULL, "give the host's end of the uplink an address");
	link_up(&msg, u->peer, 0);
	op_send(op, u->rt, &msg, NULL, "bring up the host's end of the uplink");
	address_add(&msg, u->index, AF_INET, &inside, 31);
	op_send(op, u->k->rt, &msg, NULL, "give the uplink an address");
	link_up(&msg, u->index, 0);
	op_send(op, u->k->rt, &msg, NULL, "bring up the uplink");
	route_add_default(&msg, u->index, AF_INET, &host);
	op_send(op, u->k->rt, &msg, NULL, "route to the uplink");
	hide_on_host(u, (const uint8_t *)&inside);
	if (!if_indextoname((unsigned)u->peer, peer))
		err_set(&failed, errno, "find the host's end of the uplink: %s", strerror(errno));
	else
		set_forwarding(peer, "1", &failed);
	op_fail(op, &failed);
	err_release(&failed);
	u->op = NULL;
	op_release(op, NULL);
}

/* ---- bridges come and go ---- */

static struct uplink *uplink_new(struct kernel_net *k, struct kernel_op *op, struct err *e)
{
	struct uplink *u = xcalloc(1, sizeof(*u));

	u->k = k;
	u->index = kernel_new_index(k, u->ifname, "up");
	u->rt = netlink_new(k->net->loop, NETLINK_ROUTE, "rtnetlink", e);
	u->nft = u->rt ? netlink_new(k->net->loop, NETLINK_NETFILTER, "nfnetlink", e) : NULL;
	if (!u->nft) {
		uplink_free(u);
		return NULL;
	}
	op_hold(op);
	u->op = op;
	start(u);
	return u;
}

/* The veth goes by itself with the namespace; whoever goes earlier deletes it. */
void uplink_free(struct uplink *u)
{
	if (!u)
		return;
	turn_off(u);
	netlink_free(u->rt);
	netlink_free(u->nft);
	err_release(&u->not_made);
	free(u);
}

void uplink_leave(struct kernel_bridge *b, struct kernel_op *op)
{
	struct uplink *u = b->k->uplink;
	struct nlbuf msg = NLBUF_INIT;

	dns_free(b->dns);
	b->dns = NULL;
	if (!b->uplink)
		return;
	b->uplink = false;
	if (--u->bridges)
		return;
	b->k->uplink = NULL;
	netlink_forget(b->k->rt, u);
	if (u->op)
		op_release(u->op, NULL);
	/* At once: as long as a hypervisor holds a TAP, the namespace is there. */
	link_delete(&msg, u->index);
	op_send(op, b->k->rt, &msg, NULL, "delete the uplink");
	uplink_free(u);
}

static int join(struct kernel_bridge *b, struct kernel_op *op, struct err *e)
{
	if (!b->k->uplink)
		b->k->uplink = uplink_new(b->k, op, e);
	if (!b->k->uplink)
		return e->code;
	b->k->uplink->bridges++;
	b->uplink = true;
	b->dns = dns_new(b->k->net->loop, b->k->ns, &b->address, e);
	return b->dns ? 0 : e->code;
}

void kernel_uplink(struct net_bridge *base, bool on, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct err e = ERR_INIT;
	struct kernel_op *op;

	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	if (on && (!b->gateway || !b->address.prefix4)) {
		net_reply_fail(r, EINVAL, "uplink of bridge `%s`: it has no IPv4 gateway address", base->name);
		return;
	}
	op = op_begin(b->k, r);
	if (on && !b->uplink && join(b, op, &e)) {
		err_prefix(&e, "uplink of bridge `%s`", base->name);
		op_fail(op, &e);
		err_release(&e);
		uplink_leave(b, op);
	} else if (!on) {
		uplink_leave(b, op);
	}
	gateway_sync(b->k, op);
	op_end(op);
}
