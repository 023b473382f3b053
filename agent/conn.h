/*
 * A framed connection: frames in with back-pressure, frames out in two queues, the sync mark.
 */
#ifndef PROVIUM_AGENT_CONN_H
#define PROVIUM_AGENT_CONN_H

#include "buf.h"
#include "ev.h"
#include "wire.h"

struct conn;

enum conn_class { CONN_EXPRESS, CONN_BULK };	/* bulk goes when nothing else waits */

struct conn_cbs {
	/* One frame: p, n is what follows the length; h is its head, body the offset of its body. */
	void (*frame)(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body);
	/* Nothing can be read any more: the reason (0: end of file). The owner frees the link. */
	void (*closed)(void *arg, int err);
	/* The queue got short again after conn_send made it long. May be NULL. */
	void (*drained)(void *arg);
	/* Only a link with this one follows the rules of the sync mark: the host has sent it. `mark` is
	 * WIRE_SYNC_LEN bytes. */
	void (*synced)(void *arg, const uint8_t *mark);
	/* A sync link got something that is no frame; it ignores everything until the next mark. */
	void (*broken)(void *arg, const char *why);
};

/* Takes the descriptor, non-blocking. `port`: a virtio-serial port, whose end of file only means that
 * nobody is connected now. */
struct conn *conn_new(struct ev *ev, int fd, bool port, const struct conn_cbs *cbs, void *arg);
/* Closes; the memory goes at the end of the turn, so it may be called from the link's own callbacks. */
void conn_free(struct conn *l);

/* Sends a frame made by frame.h, whose buffer it takes. Never calls back, never fails: a broken connection
 * is told by closed() later. */
void conn_send(struct conn *l, struct buf frame, enum conn_class class);
/* Sends the body of a frame as the frame callback got it: its length still stands before it. */
void conn_forward(struct conn *l, const uint8_t *p, size_t n, enum conn_class class);
size_t conn_queued(const struct conn *l);	/* bytes */
/* Stops and starts reading. */
void conn_pause(struct conn *l, bool pause);
/* Forgets what is queued; what is sent in part stays, so that frames stay whole, unless all is set. */
void conn_drop_output(struct conn *l, bool all);
/* Forgets the queued, unsent request of this id. True when there was one. */
bool conn_drop_request(struct conn *l, uint32_t id);
/* A sync link ignores everything until the next mark. */
void conn_unsync(struct conn *l);

#define CONN_LONG (2u << 20)		/* bytes queued from which senders should hold back */
#define CONN_SHORT (256u << 10)		/* and go on */

#endif
