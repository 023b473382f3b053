/*
 * What nftables is told, over libnftnl.
 */
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/table.h>
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stddef.h>
#include <stdlib.h>

#include "net/nft.h"

#ifndef NFT_TABLE_F_OWNER
#define NFT_TABLE_F_OWNER 2
#endif
#define REG NFT_REG_1
#define CHANCES UINT32_MAX

/* ---- the transaction ---- */

void nft_begin(struct nft_batch *t, uint8_t family, const char *table)
{
	*t = (struct nft_batch){ .msg = NLBUF_INIT, .family = family, .table = table };
	nlbuf_end(&t->msg, nftnl_batch_begin(nlbuf_room(&t->msg), 0));
}

void nft_end(struct nft_batch *t)
{
	nlbuf_end(&t->msg, nftnl_batch_end(nlbuf_room(&t->msg), 0));
}

static struct nlmsghdr *begin(struct nft_batch *t, uint16_t type, uint16_t flags)
{
	return nftnl_nlmsg_build_hdr(nlbuf_room(&t->msg), type, t->family, flags, 0);
}

static void put_table(struct nft_batch *t, uint16_t type, uint16_t flags, uint32_t table_flags)
{
	struct nftnl_table *table = nftnl_table_alloc();
	struct nlmsghdr *h = begin(t, type, flags);

	nftnl_table_set_str(table, NFTNL_TABLE_NAME, t->table);
	if (table_flags)
		nftnl_table_set_u32(table, NFTNL_TABLE_FLAGS, table_flags);
	nftnl_table_nlmsg_build_payload(h, table);
	nftnl_table_free(table);
	nlbuf_end(&t->msg, h);
}

void nft_new_table(struct nft_batch *t, bool owned)
{
	put_table(t, NFT_MSG_NEWTABLE, NLM_F_CREATE, owned ? NFT_TABLE_F_OWNER : 0);
}

void nft_delete_table(struct nft_batch *t)
{
	put_table(t, NFT_MSG_DELTABLE, 0, 0);
}

static void put_chain(struct nft_batch *t, uint16_t type, uint16_t flags, struct nftnl_chain *chain,
	const char *name)
{
	struct nlmsghdr *h = begin(t, type, flags);

	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, t->table);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, name);
	nftnl_chain_nlmsg_build_payload(h, chain);
	nftnl_chain_free(chain);
	nlbuf_end(&t->msg, h);
}

void nft_new_chain(struct nft_batch *t, const char *chain)
{
	put_chain(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, nftnl_chain_alloc(), chain);
}

void nft_delete_chain(struct nft_batch *t, const char *chain)
{
	put_chain(t, NFT_MSG_DELCHAIN, 0, nftnl_chain_alloc(), chain);
}

void nft_new_base(struct nft_batch *t, const char *chain, const char *type, unsigned hook, int priority,
	int verdict, const char *device)
{
	struct nftnl_chain *c = nftnl_chain_alloc();

	nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, type);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, hook);
	nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, priority);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, (uint32_t)verdict);
	if (device)
		nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, device);
	put_chain(t, NFT_MSG_NEWCHAIN, NLM_F_CREATE, c, chain);
}

void nft_new_counter(struct nft_batch *t, const char *name)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct nlmsghdr *h = begin(t, NFT_MSG_NEWOBJ, NLM_F_CREATE);

	nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, t->table);
	nftnl_obj_set_str(o, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_nlmsg_build_payload(h, o);
	nftnl_obj_free(o);
	nlbuf_end(&t->msg, h);
}

static void put_rule(struct nft_batch *t, uint16_t type, uint16_t flags, struct nftnl_rule *r)
{
	struct nlmsghdr *h = begin(t, type, flags);

	nftnl_rule_nlmsg_build_payload(h, r);
	nftnl_rule_free(r);
	nlbuf_end(&t->msg, h);
}

void nft_flush(struct nft_batch *t)
{
	struct nftnl_rule *r = nftnl_rule_alloc();

	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, t->table);
	put_rule(t, NFT_MSG_DELRULE, 0, r);
}

struct nftnl_rule *nft_rule(struct nft_batch *t, const char *chain)
{
	struct nftnl_rule *r = nftnl_rule_alloc();

	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, t->table);
	nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, chain);
	return r;
}

void nft_add(struct nft_batch *t, struct nftnl_rule *r)
{
	put_rule(t, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, r);
}

/* ---- expressions ---- */

static struct nftnl_expr *put(struct nftnl_rule *r, const char *name)
{
	struct nftnl_expr *x = nftnl_expr_alloc(name);

	INVARIANT(x);
	nftnl_rule_add_expr(r, x);
	return x;
}

static void load_meta(struct nftnl_rule *r, uint32_t key)
{
	struct nftnl_expr *x = put(r, "meta");

	nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, REG);
}

static void compare(struct nftnl_rule *r, uint32_t op, const void *data, uint32_t size)
{
	struct nftnl_expr *x = put(r, "cmp");

	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, data, size);
}

static void meta_is(struct nftnl_rule *r, uint32_t key, uint32_t op, uint32_t value)
{
	load_meta(r, key);
	compare(r, op, &value, sizeof(value));
}

void nft_iif(struct nftnl_rule *r, int index)
{
	meta_is(r, NFT_META_IIF, NFT_CMP_EQ, (uint32_t)index);
}

void nft_oif(struct nftnl_rule *r, int index)
{
	meta_is(r, NFT_META_OIF, NFT_CMP_EQ, (uint32_t)index);
}

void nft_not_oif(struct nftnl_rule *r, int index)
{
	meta_is(r, NFT_META_OIF, NFT_CMP_NEQ, (uint32_t)index);
}

void nft_mark_is(struct nftnl_rule *r, uint32_t mark)
{
	meta_is(r, NFT_META_MARK, NFT_CMP_EQ, mark);
}

static void payload_is(struct nftnl_rule *r, uint32_t base, uint32_t offset, const void *data, uint32_t size)
{
	struct nftnl_expr *x = put(r, "payload");

	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, size);
	nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, REG);
	compare(r, NFT_CMP_EQ, data, size);
}

void nft_source4(struct nftnl_rule *r, const uint8_t address[4])
{
	payload_is(r, NFT_PAYLOAD_NETWORK_HEADER, 12, address, 4);
}

void nft_icmp6_is(struct nftnl_rule *r, uint8_t type)
{
	uint8_t icmp6 = IPPROTO_ICMPV6;

	load_meta(r, NFT_META_L4PROTO);
	compare(r, NFT_CMP_EQ, &icmp6, sizeof(icmp6));
	payload_is(r, NFT_PAYLOAD_TRANSPORT_HEADER, 0, &type, sizeof(type));
}

void nft_replies_only(struct nftnl_rule *r)
{
	uint32_t mask = NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED), zero = 0;
	struct nftnl_expr *x = put(r, "ct");

	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, NFT_CT_STATE);
	nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, REG);
	x = put(r, "bitwise");
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, sizeof(mask));
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof(mask));
	nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof(zero));
	compare(r, NFT_CMP_NEQ, &zero, sizeof(zero));
}

void nft_chance(struct nftnl_rule *r, double p)
{
	uint32_t below = htonl((uint32_t)(p * CHANCES + 0.5));
	struct nftnl_expr *x;

	if (p >= 1)
		return;
	x = put(r, "numgen");
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_TYPE, NFT_NG_RANDOM);
	nftnl_expr_set_u32(x, NFTNL_EXPR_NG_MODULUS, CHANCES);
	/* Less-than compares bytes, so the most significant goes first. */
	x = put(r, "byteorder");
	nftnl_expr_set_u32(x, NFTNL_EXPR_BYTEORDER_SREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BYTEORDER_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BYTEORDER_OP, NFT_BYTEORDER_HTON);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BYTEORDER_LEN, 4);
	nftnl_expr_set_u32(x, NFTNL_EXPR_BYTEORDER_SIZE, 4);
	compare(r, NFT_CMP_LT, &below, sizeof(below));
}

void nft_count(struct nftnl_rule *r, const char *counter)
{
	struct nftnl_expr *x = put(r, "objref");

	nftnl_expr_set_u32(x, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	nftnl_expr_set_str(x, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
}

static void immediate(struct nftnl_rule *r, uint32_t value)
{
	struct nftnl_expr *x = put(r, "immediate");

	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, REG);
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DATA, value);
}

static void set_meta(struct nftnl_rule *r, uint32_t key, uint32_t value)
{
	struct nftnl_expr *x;

	immediate(r, value);
	x = put(r, "meta");
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(x, NFTNL_EXPR_META_SREG, REG);
}

void nft_set_mark(struct nftnl_rule *r, uint32_t mark)
{
	set_meta(r, NFT_META_MARK, mark);
}

void nft_set_priority(struct nftnl_rule *r, uint32_t class)
{
	set_meta(r, NFT_META_PRIORITY, class);
}

void nft_copy_to(struct nftnl_rule *r, int index)
{
	immediate(r, (uint32_t)index);
	nftnl_expr_set_u32(put(r, "dup"), NFTNL_EXPR_DUP_SREG_DEV, REG);
}

void nft_masquerade(struct nftnl_rule *r)
{
	put(r, "masq");
}

void nft_verdict(struct nftnl_rule *r, int verdict, const char *chain)
{
	struct nftnl_expr *x = put(r, "immediate");

	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain)
		nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, chain);
}

/* ---- reading ---- */

void nft_ask_counter(struct nlbuf *b, uint8_t family, const char *table, const char *name)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	struct nlmsghdr *h = nftnl_nlmsg_build_hdr(nlbuf_room(b), NFT_MSG_GETOBJ, family, 0, 0);

	nftnl_obj_set_str(o, NFTNL_OBJ_TABLE, table);
	nftnl_obj_set_str(o, NFTNL_OBJ_NAME, name);
	nftnl_obj_set_u32(o, NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
	nftnl_obj_nlmsg_build_payload(h, o);
	nftnl_obj_free(o);
	nlbuf_end(b, h);
}

uint64_t nft_counted(const struct nlmsghdr *h)
{
	struct nftnl_obj *o = nftnl_obj_alloc();
	uint64_t n = 0;

	if (h->nlmsg_type == ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWOBJ) && nftnl_obj_nlmsg_parse(h, o) == 0)
		n = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS);
	nftnl_obj_free(o);
	return n;
}
