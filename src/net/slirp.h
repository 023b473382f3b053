/*
 * The way out of a bridge of the user backend: libslirp makes guests' packets the host's own connections.
 */
#ifndef PROVIUM_NET_SLIRP_H
#define PROVIUM_NET_SLIRP_H

#include "net/router.h"

struct slirpnet;

/* For the network of this gateway. packet: one from outside, for a guest; called from the loop only, not from inside
 * slirpnet_uplink's input. NULL and *e when libslirp cannot. */
struct slirpnet *slirpnet_open(struct loop *l, const struct net_address *gateway,
	void (*packet)(void *arg, const struct packet *p), void *arg, struct err *e);
/* Ends all its connections. */
void slirpnet_close(struct slirpnet *s);
struct router_uplink *slirpnet_uplink(struct slirpnet *s);

#endif
