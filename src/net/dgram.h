/*
 * The wire between the switch and one QEMU: a pair of datagram sockets, one frame a datagram.
 *
 * Input comes in batches, at most one a loop turn, so that no guest holds up the others; output is queued and
 * leaves in batches when dgram_flush is called or the other end has room again.
 */
#ifndef PROVIUM_NET_DGRAM_H
#define PROVIUM_NET_DGRAM_H

#include "loop/loop.h"
#include "net/frame.h"

#define DGRAM_BATCH 64			/* frames of one turn */
#define DGRAM_QUEUE 1024		/* frames that wait for the other end; later ones are dropped */

struct dgram;

struct dgram_events {
	/* Borrowed frames, n <= DGRAM_BATCH. dgram_free from inside is fine. */
	void (*input)(void *arg, struct frame *const *frames, unsigned n);
	/* So many could not be sent. */
	void (*dropped)(void *arg, unsigned n);
};

/* No callback before the loop runs. NULL and *e when there are no descriptors left. */
struct dgram *dgram_new(struct loop *l, const struct dgram_events *ev, void *arg, struct err *e);
void dgram_free(struct dgram *d);
/* A new pair in place of the old one; what was queued is gone. */
int dgram_renew(struct dgram *d, struct err *e);
/* The other end's descriptor, -1 once given. */
int dgram_peer(const struct dgram *d);
void dgram_given(struct dgram *d);

/* Takes a reference of its own. False: the queue is full (dropped is not called). */
bool dgram_send(struct dgram *d, struct frame *f);
void dgram_flush(struct dgram *d);

#endif
