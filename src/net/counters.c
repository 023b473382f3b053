/*
 * What went through a port or a bridge of the kernel backend.
 *
 * The host's end of a TAP counts from the other side: what a guest sends is received here. Dropped is what
 * was meant for the port and did not arrive there: by rules, in its queues, or because QEMU did not take it
 * in time.
 */
#include <stdlib.h>

#include "net/kernel.h"
#include "net/links.h"
#include "net/nft.h"
#include "net/qdisc.h"

#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>

static void answer_cb(void *arg, const struct nlmsghdr *h);
static void done_cb(void *arg, const struct err *e);

/* In kernel_net->counts; freed with its last answer, or by counters_free_all. */
struct kernel_count {
	TAILQ_ENTRY(kernel_count) entry;
	struct kernel_net *k;
	struct net_reply *reply;
	unsigned pending;
	size_t nports;
	int *ports;			/* their links, and those of their buckets */
	struct net_counters sum;
	struct err err;
};

static bool counts(const struct kernel_count *c, int index)
{
	for (size_t i = 0; i < c->nports; i++)
		if (c->ports[i] == index)
			return true;
	return false;
}

static void add_link(struct kernel_count *c, const struct nlmsghdr *h)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
	const struct rtnl_link_stats64 *stats;
	const struct nlattr *attr;

	if (!counts(c, ifi->ifi_index))
		return;
	mnl_attr_for_each(attr, h, sizeof(*ifi)) {
		/* Shorter ones are of older kernels, but have all that is read here. */
		if (mnl_attr_get_type(attr) != IFLA_STATS64 ||
			mnl_attr_get_payload_len(attr) < offsetof(struct rtnl_link_stats64, multicast))
			continue;
		stats = mnl_attr_get_payload(attr);
		c->sum.rx_packets += stats->rx_packets;
		c->sum.rx_bytes += stats->rx_bytes;
		c->sum.tx_packets += stats->tx_packets;
		c->sum.tx_bytes += stats->tx_bytes;
		c->sum.dropped += stats->tx_dropped;
	}
}

static void answer_cb(void *arg, const struct nlmsghdr *h)
{
	struct kernel_count *c = arg;
	const struct tcmsg *tc;

	if (h->nlmsg_type == RTM_NEWLINK) {
		add_link(c, h);
	} else if (h->nlmsg_type == RTM_NEWQDISC) {
		tc = mnl_nlmsg_get_payload(h);
		if (counts(c, tc->tcm_ifindex) || counts(c, -tc->tcm_ifindex))
			c->sum.dropped += qdisc_dropped(h, tc->tcm_ifindex);
	} else {
		c->sum.dropped += nft_counted(h);
	}
}

static void count_free(struct kernel_count *c)
{
	TAILQ_REMOVE(&c->k->counts, c, entry);
	err_release(&c->err);
	free(c->ports);
	free(c);
}

void counters_free_all(struct kernel_net *k)
{
	struct kernel_count *c;

	while ((c = TAILQ_FIRST(&k->counts)))
		count_free(c);
}

static void done_cb(void *arg, const struct err *e)
{
	struct kernel_count *c = arg;

	if (e && !err_is_set(&c->err))
		err_copy(&c->err, e);
	if (--c->pending)
		return;
	net_reply_counters(c->reply, &c->sum, &c->err);
	count_free(c);
}

static void ask(struct kernel_count *c, struct netlink *nl, struct nlbuf *msg)
{
	struct netlink_what what = { .text = "read counters" };

	c->pending++;
	netlink_send(nl, msg, &what, answer_cb, done_cb, c);
}

static void ask_port(struct kernel_count *c, struct kernel_net *k, const struct kernel_port *p)
{
	struct nlbuf msg = NLBUF_INIT;
	char counter[16];

	c->ports[c->nports++] = p->index;
	if (p->from_ifb)
		c->ports[c->nports++] = -p->from_ifb;	/* of a bucket only the queue counts */
	link_get(&msg, p->index);
	ask(c, k->rt, &msg);
	if (k->rules) {
		rules_counter_name(p, counter);
		nft_ask_counter(&msg, NFPROTO_BRIDGE, RULES_TABLE, counter);
		ask(c, k->nft, &msg);
	}
}

static struct kernel_count *count_new(struct kernel_net *k, size_t ports, struct net_reply *r)
{
	struct kernel_count *c = xcalloc(1, sizeof(*c));

	c->k = k;
	TAILQ_INSERT_TAIL(&k->counts, c, entry);
	c->reply = r;
	c->ports = xcalloc(2 * ports + 1, sizeof(*c->ports));
	return c;
}

void kernel_port_counters(struct net_port *base, struct net_reply *r)
{
	struct kernel_port *p = (struct kernel_port *)base;
	struct kernel_net *k = ((struct kernel_bridge *)base->bridge)->k;
	struct nlbuf msg = NLBUF_INIT;
	struct kernel_count *c;

	if (!k || !p->index) {
		net_reply_counters(r, &(struct net_counters){ 0 }, NULL);
		return;
	}
	c = count_new(k, 1, r);
	ask_port(c, k, p);
	qdisc_dump(&msg);
	ask(c, k->rt, &msg);
}

void kernel_bridge_counters(struct net_bridge *base, struct net_reply *r)
{
	struct kernel_bridge *b = (struct kernel_bridge *)base;
	struct nlbuf msg = NLBUF_INIT;
	struct kernel_port *p;
	struct kernel_count *c;
	size_t n = 0;

	if (!b->k) {
		net_reply_counters(r, &(struct net_counters){ 0 }, NULL);
		return;
	}
	TAILQ_FOREACH(p, &b->ports, entry)
		n++;
	c = count_new(b->k, n, r);
	TAILQ_FOREACH(p, &b->ports, entry)
		if (p != b->gateway)
			ask_port(c, b->k, p);
	if (b->whole_ifb)
		c->ports[c->nports++] = -b->whole_ifb;
	qdisc_dump(&msg);
	ask(c, b->k->rt, &msg);
}
