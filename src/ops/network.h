/*
 * What the files of networks share: bridges, the cards on them, what a guest is told. Private to src/ops/.
 */
#ifndef PROVIUM_NETWORK_H
#define PROVIUM_NETWORK_H

#include "net/net.h"
#include "ops/stream.h"
#include "ops/target.h"

struct card;
struct capture;
LIST_HEAD(cards, card);
LIST_HEAD(captures, capture);

/* The networks of one file, made with its first bridge. */
struct filenet;
void filenet_free(struct filenet *f);
struct net *filenet_net(struct filenet *f);

/* ---- what a guest is told of its networks (guestnet.c); one for each VM ---- */

struct guestnet;

struct guestnet *guestnet_new(struct target *t);
void guestnet_free(struct guestnet *g);
/* Its agent answers, for the first time or again. */
void guestnet_up(struct guestnet *g);
/* The VM is about to be killed for good: its cards go. */
void guestnet_drop_cards(struct guestnet *g);
/* The list of a VM's cards. */
struct cards *guestnet_cards(struct guestnet *g);
/* Of the VM userdata at arg (vm.c). */
struct guestnet *vm_guestnet(lua_State *L, int arg);
struct scope *vm_scope(lua_State *L, int arg);

/* ---- bridges (bridge.c) ---- */

/* Belongs to its scope and its userdata; freed when both are done with it. */
struct bridge {
	struct filenet *filenet;
	struct net_bridge *net;		/* NULL: closed */
	char *name;
	struct undo undo;
	struct cards cards;
	struct captures captures;
	bool closing, collected;
	struct net_wait *closer;	/* who waits for the close */
	lua_State *L;
};

struct bridge *check_bridge(lua_State *L, int arg);	/* raises when it is closed */
/* A card of it is out: the close may go on. */
void bridge_card_gone(struct bridge *b);

/* ---- cards (nic.c) ---- */

/* Belongs to its bridge and its userdata; freed when both are done with it. */
struct card {
	LIST_ENTRY(card) of_bridge, of_guest;
	struct bridge *bridge;		/* NULL: taken out */
	struct vm *vm;			/* NULL: taken out */
	struct scope *scope;		/* of the VM */
	unsigned *streams;		/* where the VM's open ones are counted */
	struct net_port *port;
	struct vm_nic *nic;
	struct captures captures;
	uint8_t mac[6];
	bool fresh;			/* the port's first descriptor has not been used */
	bool removing, collected;
	struct net_wait *adder, *remover, *linker;
	lua_State *L;
};

struct card *check_card(lua_State *L, int arg);		/* raises when it has no port */
struct card *opt_card(lua_State *L, int arg);		/* NULL for nil */
/* Takes it out, in the background. at_once: without asking the guest. */
void card_remove(struct card *c, bool at_once);

/* ---- waits for src/net/ (bridge.c) ---- */

struct net_wait {
	struct wait wait;
	struct filenet *filenet;
	const char *op;			/* static */
	char *subject;			/* "bridge `lan`" */
	struct net_counters counters;
	struct counters_box *box;
	struct card *card;		/* of whose waits this may be one */
	struct bridge *bridge;		/* whose closer this may be */
};

struct net_wait *net_wait_new(lua_State *L, struct filenet *f, const char *op, char *subject);
/* A net_done_fn, a vm_done_fn. */
void net_wait_done(void *arg, const struct err *e);
/* A net_counters_fn; arg is w->box, made by net_wait_count. */
void net_wait_counted(void *arg, const struct net_counters *c, const struct err *e);
struct counters_box *net_wait_count(struct net_wait *w);

/* ---- captures (capture.c) ---- */

/* Ends what is captured on it, or on a card of it. */
void captures_end(struct captures *list);

#endif
