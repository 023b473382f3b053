/*
 * Netlink as a loop citizen: messages are sent at once and in order, acknowledged and failed through the
 * loop.
 *
 * A request is one message, or several that the kernel takes as one transaction (nftables). Errors carry what
 * was being done, the kernel's extended ack text, and what is missing.
 */
#ifndef PROVIUM_NET_NETLINK_H
#define PROVIUM_NET_NETLINK_H

#include <libmnl/libmnl.h>

#include "loop/loop.h"

struct netlink;

/* ---- messages ----
 *
 * A growing buffer of netlink messages. Between nlbuf_begin and nlbuf_end the message may take NLBUF_ROOM
 * bytes of attributes. */
struct nlbuf {
	char *data;
	size_t len, cap;
};
#define NLBUF_INIT { NULL, 0, 0 }
#define NLBUF_ROOM 16384

/* A header with room for attributes; the extra header (struct ifinfomsg, ...) is zeroed: *extra. Valid until
 * nlbuf_end. extra may be NULL when extra_size is 0. */
struct nlmsghdr *nlbuf_begin(struct nlbuf *b, uint16_t type, uint16_t flags, void *extra, size_t extra_size);
/* Room for one that another library builds (libnftnl): a place to write to, then its header to nlbuf_end. */
char *nlbuf_room(struct nlbuf *b);
void nlbuf_end(struct nlbuf *b, const struct nlmsghdr *h);
void nlbuf_release(struct nlbuf *b);

/* ---- the socket ---- */

/* In the network namespace the thread is in now. bus: NETLINK_ROUTE, NETLINK_NETFILTER. name: for
 * messages. */
struct netlink *netlink_new(struct loop *l, int bus, const char *name, struct err *e);
/* Requests without an answer are forgotten. */
void netlink_free(struct netlink *nl);

/* What is being asked: for the error text. */
struct netlink_what {
	const char *text;	/* "create bridge `lan`"; copied */
	const char *module;	/* the kernel modules, with spaces between, that the answer "unknown" means; static,
				 * or NULL */
};

/* e NULL: success. */
typedef void netlink_done_fn(void *arg, const struct err *e);
/* One message of an answer (RTM_GETLINK, dumps). */
typedef void netlink_answer_fn(void *arg, const struct nlmsghdr *h);

/* Sends what is in b (which is empty then), with sequence numbers and, at the last message, NLM_F_ACK.
 * done is called once from the loop, or never after netlink_forget. answer may be NULL. */
void netlink_send(struct netlink *nl, struct nlbuf *b, const struct netlink_what *what,
	netlink_answer_fn *answer, netlink_done_fn *done, void *arg);
/* No callback for arg any more; what was sent is done all the same. */
void netlink_forget(struct netlink *nl, void *arg);

/* Blocks for the answer, on a socket of its own: for probes and tests. 0 or -errno. */
int netlink_ask(int bus, struct nlbuf *b, const struct netlink_what *what, netlink_answer_fn *answer,
	void *arg, struct err *e);

#endif
