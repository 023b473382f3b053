/*
 * A transaction of nftables, message by message, over libnftnl: takes effect as a whole or not at all,
 * between two frames. A batch works on one table; its rules are built with the nft_... expressions and end
 * with nft_add.
 */
#ifndef PROVIUM_NET_NFT_H
#define PROVIUM_NET_NFT_H

#include <libnftnl/rule.h>

#include "net/netlink.h"

struct nft_batch {
	struct nlbuf msg;	/* to netlink_send after nft_end */
	uint8_t family;		/* NFPROTO_... */
	const char *table;	/* borrowed */
};

void nft_begin(struct nft_batch *t, uint8_t family, const char *table);
void nft_end(struct nft_batch *t);

/* owned: it goes with the socket that made it. */
void nft_new_table(struct nft_batch *t, bool owned);
void nft_delete_table(struct nft_batch *t);
/* Every rule of the table. */
void nft_flush(struct nft_batch *t);
void nft_new_chain(struct nft_batch *t, const char *chain);
void nft_delete_chain(struct nft_batch *t, const char *chain);
/* type "filter", "nat"; verdict NF_ACCEPT or NF_DROP for what no rule decided; device NULL but in
 * NFPROTO_NETDEV. */
void nft_new_base(struct nft_batch *t, const char *chain, const char *type, unsigned hook, int priority,
	int verdict, const char *device);
void nft_new_counter(struct nft_batch *t, const char *name);

/* ---- rules ---- */

struct nftnl_rule *nft_rule(struct nft_batch *t, const char *chain);
void nft_add(struct nft_batch *t, struct nftnl_rule *r);	/* takes r */

/* Conditions. */
void nft_iif(struct nftnl_rule *r, int index);
void nft_oif(struct nftnl_rule *r, int index);
void nft_not_oif(struct nftnl_rule *r, int index);
void nft_mark_is(struct nftnl_rule *r, uint32_t mark);
void nft_source4(struct nftnl_rule *r, const uint8_t address[4]);
void nft_replies_only(struct nftnl_rule *r);	/* of connections that were let through */
void nft_icmp6_is(struct nftnl_rule *r, uint8_t type);
void nft_chance(struct nftnl_rule *r, double p);

/* What is done. */
void nft_count(struct nftnl_rule *r, const char *counter);
void nft_set_mark(struct nftnl_rule *r, uint32_t mark);
void nft_set_priority(struct nftnl_rule *r, uint32_t class);
void nft_copy_to(struct nftnl_rule *r, int index);
void nft_masquerade(struct nftnl_rule *r);
void nft_verdict(struct nftnl_rule *r, int verdict, const char *chain);	/* NF_DROP; NFT_JUMP, "name" */

/* ---- reading ---- */

/* Asks for a named counter; the answer's packets. */
void nft_ask_counter(struct nlbuf *b, uint8_t family, const char *table, const char *name);
uint64_t nft_counted(const struct nlmsghdr *h);

#endif
