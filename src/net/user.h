/*
 * What captures need of the user backend: to see frames.
 */
#ifndef PROVIUM_NET_USER_H
#define PROVIUM_NET_USER_H

#include "net/backend.h"

/* Embedded by who looks. port NULL: each frame that enters the bridge, once; else what this port's guest sends and
 * what it gets. */
struct user_tap {
	TAILQ_ENTRY(user_tap) entry;
	struct net_port *port;
	/* Must not change taps, ports or settings. */
	void (*frame)(struct user_tap *t, const void *data, size_t len);
};

void user_tap_add(struct net_bridge *b, struct user_tap *t);
void user_tap_remove(struct net_bridge *b, struct user_tap *t);

#endif
