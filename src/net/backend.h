/*
 * What a backend of src/net/net.h is made of, and what it gets from net.c. Private to src/net/.
 *
 * net.c keeps the lists, checks arguments, makes replies and dispatches through `struct net_backend_ops`. A
 * backend embeds struct net_bridge and struct net_port first in its own structs; net.c allocates them zeroed
 * with the sizes of the table and fills the base before `bridge_init` or `port_init` is called.
 */
#ifndef PROVIUM_NET_BACKEND_H
#define PROVIUM_NET_BACKEND_H

#include <sys/queue.h>

#include "net/net.h"

struct net_backend_ops;
struct net_reply;

TAILQ_HEAD(net_bridges, net_bridge);
TAILQ_HEAD(net_ports, net_port);

/* ---- the base objects (net.c) ---- */

struct net {
	struct loop *loop;		/* borrowed */
	struct net_bridges bridges;
	TAILQ_HEAD(, net_reply) replies;	/* those not delivered yet */
	bool closing;			/* net_free frees all of it: nothing need be taken apart */
	struct kernel_net *kernel;	/* kernel backend's, NULL before its first bridge */
	struct user_net *user;		/* user backend's, the same */
};

struct net_bridge {
	TAILQ_ENTRY(net_bridge) entry;	/* of net->bridges, from bridge_init to bridge_free */
	struct net *net;
	const struct net_backend_ops *ops;
	char *name;			/* owned by the base */
	struct net_ports ports;		/* in the order they were made */
};

struct net_port {
	TAILQ_ENTRY(net_port) entry;	/* of bridge->ports, from port_init to port_free */
	struct net_bridge *bridge;
	char *name;			/* owned by the base */
	uint8_t mac[6];
};

/* ---- replies: the one way to call back (net.c) ----
 *
 * Each op below that gets a struct net_reply answers it exactly once, now or later; also from inside the
 * op: the caller's callback is called by loop_defer. A reply that was forgotten, or whose net is gone, is
 * dropped silently. A backend that frees an object with unanswered replies answers them with ECANCELED.
 * After net_free none may be touched. */
void net_reply_done(struct net_reply *r, const struct err *e);			/* e NULL: success */
void net_reply_fail(struct net_reply *r, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Of an op that asks for numbers; c may be NULL with an e. */
void net_reply_counters(struct net_reply *r, const struct net_counters *c, const struct err *e);

/* ---- a backend ---- */

struct net_backend_ops {
	enum net_backend kind;
	const char *name;		/* "kernel", "user" */
	size_t bridge_size, port_size;	/* of the structs that embed the bases */

	/* The net goes; its bridges were freed by bridge_free just before. Frees n->kernel or n->user. Called
	 * only when that is not NULL. */
	void (*net_free)(struct net *n);

	/* Ops on a bridge may come before its reply; what they ask for is done after it came about. */
	void (*bridge_init)(struct net_bridge *b, uint64_t seed, struct net_reply *r);
	/* It is in no list any more and has no ports. Ends with net_bridge_base_free(b), now or later. */
	void (*bridge_free)(struct net_bridge *b);
	void (*bridge_counters)(struct net_bridge *b, struct net_reply *r);

	void (*port_init)(struct net_port *p, struct net_reply *r);
	/* It is in no list any more; settings that name it (impairments, blocks) go with it. Ends with
	 * net_port_base_free(p), now or later. The bridge may be freed right after. */
	void (*port_free)(struct net_port *p);
	int (*port_fd)(const struct net_port *p);
	void (*port_given)(struct net_port *p);
	char *(*port_netdev)(const struct net_port *p, const char *id, const char *fd);
	void (*port_renew)(struct net_port *p, struct net_reply *r);
	void (*port_counters)(struct net_port *p, struct net_reply *r);
	void (*port_set_rate)(struct net_port *p, uint64_t bps, struct net_reply *r);

	/* i is checked: probabilities in range, nothing negative; ports are of this bridge. */
	void (*impair)(struct net_bridge *b, struct net_port *from, struct net_port *to,
		const struct net_impairment *i, struct net_reply *r);
	void (*set_blocks)(struct net_bridge *b, const struct net_block *blocks, size_t n, struct net_reply *r);
	void (*set_gateway)(struct net_bridge *b, const struct net_address *a, struct net_reply *r);
	/* Both are of this backend and have a gateway if this backend was given one. */
	void (*route)(struct net_bridge *a, struct net_bridge *b, bool on, struct net_reply *r);
	void (*uplink)(struct net_bridge *b, bool on, struct net_reply *r);
};

extern const struct net_backend_ops net_kernel_ops, net_user_ops;

/* Release the base's fields and free the whole struct. */
void net_bridge_base_free(struct net_bridge *b);
void net_port_base_free(struct net_port *p);

/* ---- helpers for both (impair.c) ---- */

bool net_impairment_is_zero(const struct net_impairment *i);
/* *sum and then *i on one way: latencies and jitters add up, losses, duplications, ... are independent
 * chances, the lower rate counts, the higher correlation. A backend for which each rate is a queue of its
 * own looks at the single settings for it. */
void net_impairment_add(struct net_impairment *sum, const struct net_impairment *i);

/* ---- the kernel backend, for captures (kernel.c) ---- */

/* Runs fn(arg) with the thread inside the bridge's network namespace and comes back; what it opens stays
 * in there. fn must not block, spawn or call Lua. Returns what fn returned, or -errno with *e when there
 * is no way in; the bridge must have come about. Only for bridges whose ops is &net_kernel_ops. */
int net_kernel_inside(struct net_bridge *b, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);
/* The interface in there to open AF_PACKET on: the bridge's own when port is NULL (promiscuous, it sees
 * every frame once), else the port's TAP. Borrowed; NULL when it has not come about. */
const char *net_kernel_ifname(struct net_bridge *b, struct net_port *port);

/* ---- captures (capture.c), told by net.c ---- */

/* The bridge's captures end (port NULL), or those of one port that goes. Called before bridge_free and
 * port_free. */
void net_captures_end(struct net_bridge *b, struct net_port *port);

#endif
