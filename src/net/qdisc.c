/*
 * What rtnetlink is told about queues: htb trees, netem, tbf, and u32 filters that redirect with mirred.
 */
#include <arpa/inet.h>
#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <string.h>
#include <sys/socket.h>

#include "net/qdisc.h"

#define TICK_NS 64			/* of the kernel's packet scheduler */
#define ETHERNET 1			/* TC_LINKLAYER_ETHERNET, which asks for no rate table */

#ifndef TCA_HTB_RATE64
#define TCA_HTB_RATE64 6
#define TCA_HTB_CEIL64 7
#endif

static struct nlmsghdr *begin_tc(struct nlbuf *b, uint16_t type, uint16_t flags, int index, uint32_t parent,
	uint32_t handle)
{
	struct tcmsg *tc;
	struct nlmsghdr *h = nlbuf_begin(b, type, flags, &tc, sizeof(*tc));

	tc->tcm_family = AF_UNSPEC;
	tc->tcm_ifindex = index;
	tc->tcm_parent = parent;
	tc->tcm_handle = handle;
	return h;
}

static uint32_t ticks(uint64_t ns)
{
	return ns / TICK_NS > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / TICK_NS);
}

/* How long `bytes` take at a rate. */
static uint32_t ticks_of(uint64_t bytes, uint64_t rate)
{
	return ticks((uint64_t)((double)bytes * 1e9 / (double)rate));
}

static struct tc_ratespec rate_spec(uint64_t rate)
{
	return (struct tc_ratespec){
		.linklayer = ETHERNET, .rate = rate > UINT32_MAX ? UINT32_MAX : (uint32_t)rate,
	};
}

uint64_t qdisc_burst(uint64_t rate, uint64_t burst_bytes)
{
	uint64_t burst = burst_bytes ? burst_bytes : rate / 200;

	/* A bucket that holds no whole frame would pass none. */
	if (!burst_bytes && burst < 2 * QDISC_FRAME)
		return 2 * QDISC_FRAME;
	return burst < QDISC_FRAME + 4 ? QDISC_FRAME + 4 : burst;
}

/* ---- the tree ---- */

void qdisc_new_htb(struct nlbuf *b, int index, unsigned fallback)
{
	struct tc_htb_glob glob = { .version = 3, .rate2quantum = 10, .defcls = fallback };
	struct nlmsghdr *h = begin_tc(b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, TC_H_ROOT, QDISC_ROOT);
	struct nlattr *options;

	mnl_attr_put_strz(h, TCA_KIND, "htb");
	options = mnl_attr_nest_start(h, TCA_OPTIONS);
	mnl_attr_put(h, TCA_HTB_INIT, sizeof(glob), &glob);
	mnl_attr_nest_end(h, options);
	nlbuf_end(b, h);
}

void qdisc_set_class(struct nlbuf *b, int index, unsigned parent, unsigned minor, uint64_t rate,
	uint64_t ceil, uint64_t burst)
{
	struct tc_htb_opt opt = {
		.rate = rate_spec(rate), .ceil = rate_spec(ceil), .quantum = QDISC_FRAME,
		.buffer = ticks_of(rate == ceil ? burst : 2 * QDISC_FRAME, rate), .cbuffer = ticks_of(burst, ceil),
	};
	struct nlmsghdr *h = begin_tc(b, RTM_NEWTCLASS, NLM_F_CREATE, index,
		parent ? QDISC_CLASS(parent) : QDISC_ROOT, QDISC_CLASS(minor));
	struct nlattr *options;

	mnl_attr_put_strz(h, TCA_KIND, "htb");
	options = mnl_attr_nest_start(h, TCA_OPTIONS);
	mnl_attr_put(h, TCA_HTB_PARMS, sizeof(opt), &opt);
	mnl_attr_put_u64(h, TCA_HTB_RATE64, rate);
	mnl_attr_put_u64(h, TCA_HTB_CEIL64, ceil);
	mnl_attr_nest_end(h, options);
	nlbuf_end(b, h);
}

void qdisc_delete_class(struct nlbuf *b, int index, unsigned minor)
{
	nlbuf_end(b, begin_tc(b, RTM_DELTCLASS, 0, index, 0, QDISC_CLASS(minor)));
}

/* The handle of what a class holds its frames in; another kind has another, so that it replaces the first. */
static uint32_t leaf_handle(unsigned minor, unsigned kind)
{
	return (minor + kind * 0x4000) << 16;
}

void qdisc_set_fifo(struct nlbuf *b, int index, unsigned minor, uint32_t bytes)
{
	struct tc_fifo_qopt opt = { .limit = bytes };
	struct nlmsghdr *h = begin_tc(b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, QDISC_CLASS(minor),
		leaf_handle(minor, 1));

	mnl_attr_put_strz(h, TCA_KIND, "bfifo");
	mnl_attr_put(h, TCA_OPTIONS, sizeof(opt), &opt);
	nlbuf_end(b, h);
}

static uint32_t probability(double p)
{
	return p >= 1 ? UINT32_MAX : (uint32_t)(p * UINT32_MAX + 0.5);
}

/* Without a latency there is nothing to overtake, so some frames are held back instead of some going
 * first. */
#define REORDER_HOLD_NS INT64_C(10000000)

void qdisc_set_netem(struct nlbuf *b, int index, unsigned minor, const struct net_impairment *i,
	uint32_t frames)
{
	bool hold = i->reorder > 0 && i->latency_ns == 0 && i->jitter_ns == 0;
	int64_t latency = hold ? REORDER_HOLD_NS : i->latency_ns;
	struct tc_netem_qopt opt = {
		.latency = ticks((uint64_t)latency), .jitter = ticks((uint64_t)i->jitter_ns), .limit = frames,
		.loss = probability(i->loss), .gap = i->reorder > 0,
	};
	struct tc_netem_corr corr = {
		.delay_corr = probability(i->latency_correlation), .loss_corr = probability(i->loss_correlation),
	};
	struct tc_netem_reorder reorder = { .probability = probability(hold ? 1 - i->reorder : i->reorder) };
	struct tc_netem_corrupt corrupt = { .probability = probability(i->corrupt) };
	struct nlmsghdr *h = begin_tc(b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index,
		minor ? QDISC_CLASS(minor) : TC_H_ROOT, leaf_handle(minor, 2));
	struct nlattr *options;

	mnl_attr_put_strz(h, TCA_KIND, "netem");
	/* The options are the struct with the attributes behind it. */
	options = mnl_attr_nest_start(h, TCA_OPTIONS);
	memcpy(mnl_nlmsg_put_extra_header(h, sizeof(opt)), &opt, sizeof(opt));
	mnl_attr_put(h, TCA_NETEM_CORR, sizeof(corr), &corr);
	mnl_attr_put(h, TCA_NETEM_REORDER, sizeof(reorder), &reorder);
	mnl_attr_put(h, TCA_NETEM_CORRUPT, sizeof(corrupt), &corrupt);
	mnl_attr_put(h, TCA_NETEM_LATENCY64, sizeof(latency), &latency);
	mnl_attr_put(h, TCA_NETEM_JITTER64, sizeof(i->jitter_ns), &i->jitter_ns);
	mnl_attr_nest_end(h, options);
	nlbuf_end(b, h);
}

void qdisc_set_tbf(struct nlbuf *b, int index, uint64_t rate, uint64_t burst, uint32_t bytes)
{
	struct tc_tbf_qopt opt = { .rate = rate_spec(rate), .limit = bytes, .buffer = ticks_of(burst, rate) };
	struct nlmsghdr *h = begin_tc(b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index, TC_H_ROOT, QDISC_ROOT);
	struct nlattr *options;

	mnl_attr_put_strz(h, TCA_KIND, "tbf");
	options = mnl_attr_nest_start(h, TCA_OPTIONS);
	mnl_attr_put(h, TCA_TBF_PARMS, sizeof(opt), &opt);
	mnl_attr_put_u64(h, TCA_TBF_RATE64, rate);
	mnl_attr_put_u32(h, TCA_TBF_BURST, burst > UINT32_MAX ? UINT32_MAX : (uint32_t)burst);
	mnl_attr_nest_end(h, options);
	nlbuf_end(b, h);
}

/* ---- the detour ---- */

void qdisc_new_clsact(struct nlbuf *b, int index)
{
	struct nlmsghdr *h = begin_tc(b, RTM_NEWQDISC, NLM_F_CREATE, index, TC_H_CLSACT, TC_H_MAKE(TC_H_CLSACT, 0));

	mnl_attr_put_strz(h, TCA_KIND, "clsact");
	nlbuf_end(b, h);
}

static struct nlmsghdr *begin_filter(struct nlbuf *b, uint16_t type, uint16_t flags, int index, bool ingress)
{
	struct tcmsg *tc;
	struct nlmsghdr *h = begin_tc(b, type, flags, index,
		TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS), 0);

	tc = mnl_nlmsg_get_payload(h);
	tc->tcm_info = TC_H_MAKE(1 << 16, htons(ETH_P_ALL));	/* the preference, and the protocol */
	mnl_attr_put_strz(h, TCA_KIND, "u32");
	return h;
}

void qdisc_redirect(struct nlbuf *b, int index, bool ingress, int to)
{
	struct {
		struct tc_u32_sel sel;
		struct tc_u32_key key;
	} any = { .sel = { .flags = TC_U32_TERMINAL, .nkeys = 1 } };
	struct tc_mirred mirred = { .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to };
	struct nlmsghdr *h = begin_filter(b, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, index, ingress);
	struct nlattr *options = mnl_attr_nest_start(h, TCA_OPTIONS), *actions, *action, *what;

	mnl_attr_put(h, TCA_U32_SEL, sizeof(any), &any);
	actions = mnl_attr_nest_start(h, TCA_U32_ACT);
	action = mnl_attr_nest_start(h, 1);
	mnl_attr_put_strz(h, TCA_ACT_KIND, "mirred");
	what = mnl_attr_nest_start(h, TCA_ACT_OPTIONS);
	mnl_attr_put(h, TCA_MIRRED_PARMS, sizeof(mirred), &mirred);
	mnl_attr_nest_end(h, what);
	mnl_attr_nest_end(h, action);
	mnl_attr_nest_end(h, actions);
	mnl_attr_nest_end(h, options);
	nlbuf_end(b, h);
}

void qdisc_unredirect(struct nlbuf *b, int index, bool ingress)
{
	nlbuf_end(b, begin_filter(b, RTM_DELTFILTER, 0, index, ingress));
}

/* ---- what was dropped ---- */

void qdisc_dump(struct nlbuf *b)
{
	nlbuf_end(b, begin_tc(b, RTM_GETQDISC, NLM_F_DUMP, 0, 0, 0));
}

uint64_t qdisc_dropped(const struct nlmsghdr *h, int index)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(h);
	const struct nlattr *attr, *stat;
	const struct gnet_stats_queue *queue;

	if (h->nlmsg_type != RTM_NEWQDISC || tc->tcm_ifindex != index || tc->tcm_parent != TC_H_ROOT)
		return 0;
	mnl_attr_for_each(attr, h, sizeof(*tc)) {
		if (mnl_attr_get_type(attr) != TCA_STATS2)
			continue;
		mnl_attr_for_each_nested(stat, attr)
			if (mnl_attr_get_type(stat) == TCA_STATS_QUEUE &&
				mnl_attr_get_payload_len(stat) >= sizeof(*queue)) {
				queue = mnl_attr_get_payload(stat);
				return queue->drops;
			}
	}
	return 0;
}
