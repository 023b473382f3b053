/*
 * Messages of rtnetlink about traffic control: queues, classes, and the redirection to another link's queue.
 * Each function appends one message to b. Rates are bytes a second here, as the kernel counts.
 */
#ifndef PROVIUM_NET_QDISC_H
#define PROVIUM_NET_QDISC_H

#include "net/net.h"
#include "net/netlink.h"

#define QDISC_NO_LIMIT UINT64_C(10000000000)	/* bytes a second: more than frames can be moved */
#define QDISC_FRAME 1514

#define QDISC_ROOT 0x10000u			/* the handle of a link's tree, 1: */
#define QDISC_CLASS(minor) (QDISC_ROOT | (minor))

/* The default of burst_bytes: 5 ms of the rate, at least two frames. */
uint64_t qdisc_burst(uint64_t rate, uint64_t burst_bytes);

/* The tree on a link: frames without a class of their own go to the class `fallback`. */
void qdisc_new_htb(struct nlbuf *b, int index, unsigned fallback);
/* Makes or changes a class: what it may use at most, and what of it is its own (rest is borrowed from
 * parent). */
void qdisc_set_class(struct nlbuf *b, int index, unsigned parent, unsigned minor, uint64_t rate,
	uint64_t ceil, uint64_t burst);
void qdisc_delete_class(struct nlbuf *b, int index, unsigned minor);
/* Makes or changes what holds a class's frames: a queue of so many bytes, or delays and faults (minor 0:
 * of the link). */
void qdisc_set_fifo(struct nlbuf *b, int index, unsigned minor, uint32_t bytes);
void qdisc_set_netem(struct nlbuf *b, int index, unsigned minor, const struct net_impairment *i,
	uint32_t frames);
/* Makes or changes the one queue of a link. */
void qdisc_set_tbf(struct nlbuf *b, int index, uint64_t rate, uint64_t burst, uint32_t bytes);

/* The hook for qdisc_redirect on both directions of a link. */
void qdisc_new_clsact(struct nlbuf *b, int index);
/* All that comes in at (ingress) or goes out of the link waits in the queue of the link `to` first. */
void qdisc_redirect(struct nlbuf *b, int index, bool ingress, int to);
void qdisc_unredirect(struct nlbuf *b, int index, bool ingress);

/* Dumps all queues; what the one at the root of the link `index` dropped, 0 for other messages. */
void qdisc_dump(struct nlbuf *b);
uint64_t qdisc_dropped(const struct nlmsghdr *h, int index);

#endif
