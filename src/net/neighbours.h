/*
 * Who has which address on one bridge: ARP and IPv6 neighbour discovery from the gateway's side.
 */
#ifndef PROVIUM_NET_NEIGHBOURS_H
#define PROVIUM_NET_NEIGHBOURS_H

#include "loop/loop.h"
#include "net/ip.h"

struct neighbours;

struct neighbours_events {
	/* Onto the bridge, Ethernet header complete. Borrows f. */
	void (*send)(void *arg, struct frame *f);
	/* Nobody answered for the address this packet (a frame without Ethernet addresses) goes to. */
	void (*unreachable)(void *arg, struct frame *f);
};

/* What it is itself. */
struct neighbours_self {
	uint8_t mac[6];
	struct ip_address ip4, ip6, link_local;
	bool has6;
};

/* self is borrowed and may change. */
struct neighbours *neighbours_new(struct loop *l, const struct neighbours_self *self,
	const struct neighbours_events *ev, void *arg);
void neighbours_free(struct neighbours *n);
/* Sends a packet (a frame without Ethernet addresses) to the neighbour, asking for its address first if need be. */
void neighbours_send(struct neighbours *n, const struct ip_address *to, struct frame *f);
/* An ARP frame, or neighbour discovery: answers and learns. Returns whether it was that. */
bool neighbours_arp(struct neighbours *n, const struct frame *f);
bool neighbours_discovery(struct neighbours *n, const struct frame *f, const struct packet *p);

#endif
