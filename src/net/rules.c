/*
 * What nftables does with frames between two ports of a kernel bridge: drop those of blocked pairs, drop and
 * duplicate some by chance, and name the class of the tree they wait in.
 *
 * One table of the bridge family has a base chain that jumps by the port a frame goes out of, and a chain for
 * each port with rules on where it came from. All rules are written anew each time, in one transaction: a
 * frame meets the old ones or the new ones, never a mixture. Copies are made where the frame leaves, in a
 * table of the netdev family: the mark says which frame is to be copied, and on the copy, that it is one.
 */
#include <stdio.h>

#include "net/kernel.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "net/nft.h"
#include "net/qdisc.h"

#define FORWARD "forward"
#define HOOK_FORWARD 2		/* NF_BR_FORWARD, whose header cannot stand beside <net/if.h> */
#define MARK_COPY 1
#define MARK_IS_COPY 2

#ifndef NFT_NETDEV_EGRESS
#define NFT_NETDEV_EGRESS 1
#endif

void rules_counter_name(const struct kernel_port *p, char name[16])
{
	snprintf(name, 16, "drops%d", p->index);
}

static void chain_name(const struct kernel_port *p, char name[16])
{
	snprintf(name, 16, "to%d", p->index);
}

static bool any_rules(const struct kernel_net *k)
{
	const struct kernel_bridge *b;
	const struct kernel_port *p;
	const struct kernel_setting *s;

	if (k->rules)
		return true;
	TAILQ_FOREACH(b, &k->bridges, entry) {
		if (b->nblocks)
			return true;
		TAILQ_FOREACH(s, &b->settings, entry)
			if (s->i.loss > 0 || s->i.duplicate > 0)
				return true;
		TAILQ_FOREACH(p, &b->ports, entry)
			if (p->tree)
				return true;
	}
	return false;
}

static bool any_copies(const struct kernel_net *k)
{
	const struct kernel_bridge *b;
	const struct kernel_setting *s;

	if (k->copies)
		return true;
	TAILQ_FOREACH(b, &k->bridges, entry)
		TAILQ_FOREACH(s, &b->settings, entry)
			if (s->i.duplicate > 0)
				return true;
	return false;
}

/* ---- the bridge table ---- */

static void add_drop(struct nft_batch *t, struct nftnl_rule *r, const char *counter)
{
	nft_count(r, counter);
	nft_verdict(r, NF_DROP, NULL);
	nft_add(t, r);
}

static void add_blocks(struct nft_batch *t, const struct kernel_port *p, const char *chain,
	const char *counter)
{
	const struct kernel_bridge *b = (const struct kernel_bridge *)p->base.bridge;
	struct nftnl_rule *r;

	for (size_t i = 0; i < b->nblocks; i++) {
		if (b->blocks[i].to != &p->base)
			continue;
		r = nft_rule(t, chain);
		nft_iif(r, ((struct kernel_port *)b->blocks[i].from)->index);
		add_drop(t, r, counter);
	}
}

/* A rule that takes a part p of the frames a setting speaks of. */
static struct nftnl_rule *chance_rule(struct nft_batch *t, const char *chain, const struct kernel_setting *s,
	double p)
{
	struct nftnl_rule *r = nft_rule(t, chain);

	if (s->from)
		nft_iif(r, s->from->index);
	nft_chance(r, p);
	return r;
}

static void add_chances(struct nft_batch *t, const struct kernel_port *p, const char *chain,
	const char *counter)
{
	const struct kernel_bridge *b = (const struct kernel_bridge *)p->base.bridge;
	const struct kernel_setting *s;
	struct nftnl_rule *r;

	TAILQ_FOREACH(s, &b->settings, entry) {
		if (s->to && s->to != p)
			continue;
		/* Loss with a memory is netem's. */
		if (s->i.loss > 0 && s->i.loss_correlation <= 0)
			add_drop(t, chance_rule(t, chain, s, s->i.loss), counter);
		if (s->i.duplicate > 0) {
			r = chance_rule(t, chain, s, s->i.duplicate);
			nft_set_mark(r, MARK_COPY);
			nft_add(t, r);
		}
	}
}

static void add_classes(struct nft_batch *t, const struct kernel_port *p, const char *chain)
{
	const struct kernel_bridge *b = (const struct kernel_bridge *)p->base.bridge;
	const struct kernel_port *f;
	struct nftnl_rule *r;

	TAILQ_FOREACH(f, &b->ports, entry) {
		if (!shape_has_class(p, f))
			continue;
		r = nft_rule(t, chain);
		nft_iif(r, f->index);
		nft_set_priority(r, QDISC_CLASS(shape_minor(f)));
		nft_add(t, r);
	}
}

static void add_port(struct nft_batch *t, const struct kernel_port *p)
{
	char chain[16], counter[16];
	struct nftnl_rule *r;

	chain_name(p, chain);
	rules_counter_name(p, counter);
	nft_new_chain(t, chain);
	nft_new_counter(t, counter);
	r = nft_rule(t, FORWARD);
	nft_oif(r, p->index);
	nft_verdict(r, NFT_JUMP, chain);
	nft_add(t, r);
	add_blocks(t, p, chain, counter);
	add_chances(t, p, chain, counter);
	add_classes(t, p, chain);
}

static void send_rules(struct kernel_net *k, const struct kernel_port *gone, struct kernel_op *op)
{
	const struct kernel_bridge *b;
	const struct kernel_port *p;
	struct nft_batch t;
	char chain[16];

	nft_begin(&t, NFPROTO_BRIDGE, RULES_TABLE);
	nft_new_table(&t, false);
	nft_flush(&t);
	nft_new_base(&t, FORWARD, "filter", HOOK_FORWARD, 0, NF_ACCEPT, NULL);
	TAILQ_FOREACH(b, &k->bridges, entry)
		TAILQ_FOREACH(p, &b->ports, entry)
			add_port(&t, p);
	if (gone && k->rules) {
		chain_name(gone, chain);
		nft_delete_chain(&t, chain);
	}
	nft_end(&t);
	k->rules = true;
	op_send(op, k->nft, &t.msg, "nf_tables nft_meta_bridge nft_numgen nft_objref",
		"write the rules between guests");
}

/* ---- the netdev table ---- */

static void add_copier(struct nft_batch *t, const struct kernel_port *p)
{
	struct nftnl_rule *r;
	char chain[16];

	chain_name(p, chain);
	nft_new_base(t, chain, "filter", NFT_NETDEV_EGRESS, 0, NF_ACCEPT, p->ifname);
	r = nft_rule(t, chain);
	nft_mark_is(r, MARK_COPY);
	nft_set_mark(r, MARK_IS_COPY);
	nft_copy_to(r, p->index);
	nft_set_mark(r, 0);
	nft_add(t, r);
}

static void send_copiers(struct kernel_net *k, const struct kernel_port *gone, struct kernel_op *op)
{
	const struct kernel_bridge *b;
	const struct kernel_port *p;
	struct nft_batch t;
	char chain[16];

	nft_begin(&t, NFPROTO_NETDEV, RULES_TABLE);
	nft_new_table(&t, false);
	nft_flush(&t);
	TAILQ_FOREACH(b, &k->bridges, entry)
		TAILQ_FOREACH(p, &b->ports, entry)
			add_copier(&t, p);
	if (gone && k->copies) {
		chain_name(gone, chain);
		nft_delete_chain(&t, chain);
	}
	nft_end(&t);
	k->copies = true;
	op_send(op, k->nft, &t.msg, "nft_dup_netdev", "write the rules that duplicate frames");
}

/* ---- both ---- */

void rules_sync(struct kernel_net *k, struct kernel_op *op)
{
	if (any_copies(k))
		send_copiers(k, NULL, op);
	if (any_rules(k))
		send_rules(k, NULL, op);
}

void rules_forget(struct kernel_port *p, struct kernel_op *op)
{
	struct kernel_net *k = ((struct kernel_bridge *)p->base.bridge)->k;

	if (k->rules)
		send_rules(k, p, op);
	if (k->copies)
		send_copiers(k, p, op);
}
