/*
 * The switch of the user backend: ports, the table of addresses, blocked pairs.
 *
 * It knows neither sockets nor time: what a frame goes through between two ports is its owner's (`path`), and so is
 * the clock. A port is embedded in its owner's struct.
 */
#ifndef PROVIUM_NET_SWITCH_H
#define PROVIUM_NET_SWITCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "net/frame.h"

#define SWITCH_AGING_NS (INT64_C(300) * 1000000000)
#define SWITCH_ADDRESSES 4096		/* learned at most; beyond, frames are flooded */

struct vswitch;

struct swport {
	TAILQ_ENTRY(swport) entry;
	struct vswitch *sw;
	const char *name;		/* borrowed; "" for the gateway */
	unsigned slot;			/* small number, unique among the ports there are */
	uint64_t *blocked;		/* bit for each slot that nothing goes to from here */
	unsigned blocked_words;
	/* Sends the frame; takes a reference of its own if it keeps it. */
	void (*output)(struct swport *p, struct frame *f);
};

TAILQ_HEAD(swports, swport);

struct switch_events {
	/* A frame on its way; only called while switch_set_impaired is on, else the frame goes out at once. */
	void (*path)(void *arg, struct swport *from, struct swport *to, struct frame *f);
	/* A pair was blocked, or the frame is no frame. */
	void (*dropped)(void *arg, struct swport *from);
};

struct vswitch *switch_new(const struct switch_events *ev, void *arg);
/* Has no ports any more. */
void switch_free(struct vswitch *sw);
void switch_set_impaired(struct vswitch *sw, bool impaired);

/* p's name and output are set. */
void switch_add(struct vswitch *sw, struct swport *p);
void switch_remove(struct swport *p);
struct swports *switch_ports(struct vswitch *sw);
/* This address is at this port for ever (until the port is removed), whatever frames say. */
void switch_pin(struct swport *p, const uint8_t mac[6]);

/* A frame came in. Borrows f. */
void switch_input(struct swport *from, struct frame *f, int64_t now);
/* The port an address is at, or NULL. */
struct swport *switch_lookup(struct vswitch *sw, const uint8_t mac[6], int64_t now);

/* Of ordered pairs. from or to NULL: any. */
void switch_unblock_all(struct vswitch *sw);
void switch_block(struct vswitch *sw, struct swport *from, struct swport *to);
bool switch_blocked(const struct swport *from, const struct swport *to);

#endif
