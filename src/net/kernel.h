/*
 * The kernel backend's own objects, shared by its files. Private to them.
 *
 * kernel.c has the namespace and bridges, tap.c the ports, shape.c the queues, rules.c the frames that are
 * dropped or classified, gateway.c the host's side, uplink.c and dns.c the way out. Settings are kept here
 * and carried over to the kernel by ..._sync functions, which look at all of them and change what differs.
 */
#ifndef PROVIUM_NET_KERNEL_H
#define PROVIUM_NET_KERNEL_H

#include <net/if.h>

#include "net/backend.h"
#include "net/netlink.h"
#include "net/netns.h"

struct kernel_op;
struct kernel_count;
struct uplink;
struct dns;

/* Two bridges whose guests reach one another by IP. Freed with the first of them. */
struct kernel_route {
	TAILQ_ENTRY(kernel_route) entry;
	struct kernel_bridge *a, *b;
};

/* A net's part in the kernel. Freed by net_free. */
struct kernel_net {
	struct net *net;
	struct netns *ns;
	struct netlink *rt, *nft;	/* inside */
	int last_index;			/* the namespace is ours alone, so we number its links */
	TAILQ_HEAD(, kernel_bridge) bridges;
	TAILQ_HEAD(, kernel_op) ops;
	TAILQ_HEAD(, kernel_count) counts;
	TAILQ_HEAD(, kernel_route) routes;
	struct uplink *uplink;		/* NULL: no bridge has one */
	unsigned discarded;		/* links that wait for their end: kernel_discard */
	bool rules, copies, forwards;	/* tables that were made: rules.c twice, gateway.c */
};

/* One net_impair. Freed with its bridge, its ports, or when it says nothing any more. */
struct kernel_setting {
	TAILQ_ENTRY(kernel_setting) entry;
	struct kernel_port *from, *to;	/* NULL: any */
	struct net_impairment i;
};

struct kernel_bridge {
	struct net_bridge base;
	TAILQ_ENTRY(kernel_bridge) entry;
	struct kernel_net *k;		/* NULL: there is no namespace, and why says so */
	struct err why;
	int index;
	char ifname[IFNAMSIZ];
	TAILQ_HEAD(, kernel_port) ports;	/* the gateway's among them */
	TAILQ_HEAD(, kernel_setting) settings;
	struct net_block *blocks;
	size_t nblocks;
	/* gateway.c */
	struct kernel_port *gateway;	/* NULL: none yet */
	int gateway_index;		/* the link with the addresses */
	char gateway_ifname[IFNAMSIZ];
	struct net_address address;
	bool uplink;
	struct dns *dns;
	/* shape.c: the one queue that all frames of the bridge wait in */
	int whole_ifb;			/* 0: never made */
	uint64_t whole_rate, whole_burst;
};

/* A class of the tree on a port: frames from one port, or from all that have none of their own. */
struct kernel_class {
	TAILQ_ENTRY(kernel_class) entry;
	struct kernel_port *from;	/* NULL: all others */
	bool made;
	enum { LEAF_NONE, LEAF_FIFO, LEAF_NETEM } leaf;
	struct net_impairment now;	/* as the kernel has it; rate and burst are the class's */
	uint64_t queued_at;		/* the rate its queue was measured for */
	bool borrows;
};

/* A TAP, or the bridge's side of the gateway's veth. */
struct kernel_port {
	struct net_port base;
	TAILQ_ENTRY(kernel_port) entry;
	int index;			/* 0: it did not come about */
	char ifname[IFNAMSIZ];
	int fd;				/* for QEMU; -1: given, or the gateway */
	uint64_t own_rate;		/* net_port_set_rate, bits */
	/* shape.c: what the kernel has */
	bool tree, clsact, in_whole, in_from;
	int from_ifb;
	uint64_t to_rate, to_burst, from_rate, from_burst;
	TAILQ_HEAD(, kernel_class) classes;
};

/* ---- kernel.c ---- */

int kernel_new_index(struct kernel_net *k, char ifname[IFNAMSIZ], const char *prefix);
/* The link is of no use any more, has no address, and nobody holds its other end. It goes later: with others like it,
 * or with the namespace. To delete a link takes the kernel milliseconds in which it does nothing else for us. */
void kernel_discard(struct kernel_net *k, struct kernel_op *op, int index);
/* Takes the port out of the settings and blocks of its bridge. */
void kernel_forget_port(struct kernel_port *p);
/* The setting of exactly this pair, all zero when there is none. */
struct net_impairment kernel_setting(const struct kernel_bridge *b, const struct kernel_port *from,
	const struct kernel_port *to);
/* Whether it speaks of frames on this way. from NULL: of those from any port that is not named. */
bool kernel_setting_matches(const struct kernel_setting *s, const struct kernel_port *from,
	const struct kernel_port *to);

/* ---- op.c: one request of the caller, many of ours ----
 *
 * Answers its reply (NULL: nobody asks) when op_end was called and everything it sent or held was
 * answered, with the first error. */
struct kernel_op *op_begin(struct kernel_net *k, struct net_reply *r);
/* Sends b (empty then). module: see struct netlink_what. The text says what it is for. */
void op_send(struct kernel_op *op, struct netlink *nl, struct nlbuf *b, const char *module, const char *fmt,
	...)
	PRINTF_LIKE(5, 6);
void op_fail(struct kernel_op *op, const struct err *e);
void op_hold(struct kernel_op *op);
void op_release(struct kernel_op *op, const struct err *e);
void op_end(struct kernel_op *op);
/* All of a net, without a word. Its netlink sockets are gone by then. */
void op_free_all(struct kernel_net *k);

/* ---- tap.c ---- */

void kernel_port_init(struct net_port *p, struct net_reply *r);
void kernel_port_free(struct net_port *p);
int kernel_port_fd(const struct net_port *p);
void kernel_port_given(struct net_port *p);
char *kernel_port_netdev(const struct net_port *p, const char *id, const char *fd);
void kernel_port_renew(struct net_port *p, struct net_reply *r);
/* Of the lists and what the loop has of it. */
void kernel_port_release(struct kernel_port *p);

/* ---- counters.c ---- */

void kernel_port_counters(struct net_port *p, struct net_reply *r);
void kernel_bridge_counters(struct net_bridge *b, struct net_reply *r);
void counters_free_all(struct kernel_net *k);	/* as op_free_all */

/* ---- shape.c ---- */

void shape_sync(struct kernel_bridge *b, struct kernel_op *op);
/* The classes and queues that exist for a port that goes. */
void shape_forget(struct kernel_port *p, struct kernel_op *op);
/* The minor number of the class for frames from that port (NULL: from those without one), as skb priority. */
unsigned shape_minor(const struct kernel_port *from);
/* Whether frames from f to t have a class of their own. */
bool shape_has_class(const struct kernel_port *t, const struct kernel_port *f);
/* Whether it takes sch_netem. */
bool shape_needs_netem(const struct net_impairment *i);

/* ---- rules.c ---- */

void rules_sync(struct kernel_net *k, struct kernel_op *op);
/* The same, and the chains of a port that goes (its device still there). */
void rules_forget(struct kernel_port *p, struct kernel_op *op);
#define RULES_TABLE "provium"
void rules_counter_name(const struct kernel_port *p, char name[16]);

/* ---- gateway.c ---- */

void kernel_set_gateway(struct net_bridge *b, const struct net_address *a, struct net_reply *r);
void kernel_route(struct net_bridge *a, struct net_bridge *b, bool on, struct net_reply *r);
/* What is forwarded between gateways, and to the uplink. */
void gateway_sync(struct kernel_net *k, struct kernel_op *op);
void gateway_free(struct kernel_bridge *b, struct kernel_op *op);

/* ---- uplink.c ---- */

void kernel_uplink(struct net_bridge *b, bool on, struct net_reply *r);
/* A bridge that had it goes. */
void uplink_leave(struct kernel_bridge *b, struct kernel_op *op);
int uplink_index(const struct uplink *u);	/* the link inside */
void uplink_free(struct uplink *u);

/* ---- dns.c ---- */

/* Answers port 53 of the address (UDP and TCP) in the namespace with the host's resolver. NULL and *e. */
struct dns *dns_new(struct loop *l, struct netns *ns, const struct net_address *a, struct err *e);
void dns_free(struct dns *d);

/* ---- probe.c ---- */

/* Whether the kernel has sch_netem; asked once, in the namespace ns. */
bool kernel_has_netem(struct netns *ns);

#endif
