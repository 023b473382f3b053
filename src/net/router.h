/*
 * The gateway of one bridge of the user backend: a small router between bridges, and to the way out.
 *
 * It answers for its address (ARP, neighbour discovery, echo), forwards to the bridges it has a route to, and says
 * what Linux would say about packets that go nowhere. It says nothing of itself: no router advertisements.
 */
#ifndef PROVIUM_NET_ROUTER_H
#define PROVIUM_NET_ROUTER_H

#include "net/ip.h"
#include "net/net.h"

struct router;

struct router_events {
	/* Onto the bridge. Borrows f. */
	void (*send)(void *arg, struct frame *f);
};

/* Where packets go that no bridge is for. input borrows p; it must not call back at once. */
struct router_uplink {
	void (*input)(struct router_uplink *u, const struct packet *p);
};

struct router *router_new(struct loop *l, const struct net_address *a, const struct router_events *ev, void *arg);
void router_free(struct router *r);	/* routes to it go; the uplink is the caller's */
void router_set_address(struct router *r, const struct net_address *a);
const uint8_t *router_mac(const struct router *r);
/* A frame that the switch had for the gateway. */
void router_input(struct router *r, const struct frame *f);
/* Both directions. */
void router_route(struct router *a, struct router *b, bool on);
void router_set_uplink(struct router *r, struct router_uplink *u);	/* NULL: none */
/* A packet from outside for a guest of this bridge. */
void router_from_uplink(struct router *r, const struct packet *p);

#endif
