/*
 * What goes wrong on the way from one port of a switch to another: loss, delay, duplicates, order, bits, rates.
 *
 * A computation without a clock and without sockets: every call says what time it is, and the owner arms a timer for
 * emulator_due. All chance comes from generators that are seeded by the bridge's seed and the two ports' names, one
 * for each kind of decision and each setting: which frames of a -> b are lost depends on how many frames went from a
 * to b before, and on nothing else. ARP, neighbour discovery and the like are counted apart.
 */
#ifndef PROVIUM_NET_EMULATE_H
#define PROVIUM_NET_EMULATE_H

#include "net/net.h"
#include "net/switch.h"

struct emulator;

struct emulator_events {
	/* The queue at the entrance lets a frame go at t: it goes through the switch. */
	void (*forward)(void *arg, struct swport *from, struct frame *f, int64_t t);
	/* It is through. Both borrow f. */
	void (*deliver)(void *arg, struct swport *from, struct swport *to, struct frame *f);
	void (*dropped)(void *arg, struct swport *from);
};

struct emulator *emulator_new(uint64_t seed, const struct emulator_events *ev, void *arg);
void emulator_free(struct emulator *e);

/* Settings as in net_impair; a zero one goes. */
void emulator_set(struct emulator *e, struct swport *from, struct swport *to, const struct net_impairment *i,
	int64_t now);
void emulator_set_port_rate(struct emulator *e, struct swport *p, uint64_t bps, int64_t now);
/* Settings and frames of this port go. */
void emulator_remove(struct emulator *e, struct swport *p);

/* Whether there is a setting for paths, or for entrances: without, the two below need not be called. Frames that wait
 * still count. */
bool emulator_on_paths(const struct emulator *e);
bool emulator_at_entrances(const struct emulator *e);
/* A frame from the guest; `forward` gets it, now or later. */
void emulator_enter(struct emulator *e, struct swport *from, struct frame *f, int64_t now);
/* A frame from the switch; `deliver` gets it, now or later, once, twice or never. */
void emulator_pass(struct emulator *e, struct swport *from, struct swport *to, struct frame *f, int64_t now);

#define EMULATOR_NEVER INT64_MAX
/* When emulator_run has something to do. */
int64_t emulator_due(const struct emulator *e);
/* Lets go what is due, at most `budget` steps. */
void emulator_run(struct emulator *e, int64_t now, unsigned budget);

#endif
