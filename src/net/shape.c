/*
 * Delays and rates on a kernel bridge, as queues.
 *
 * On the way from port f to port t a frame waits, in this order,
 *
 *   in the ifb of f, a token bucket for all that comes from f (its own rate, and a limit "from f to any"),
 *   in the ifb of the bridge, a token bucket for the sum of all frames of the bridge,
 *   in its class of the tree on t: netem holds it for latency, jitter and faults, then the class's limit
 *   (the pair's) and the tree's limit ("from any to t") let it go.
 *
 * Two limits on the same traffic are one bucket with the lower rate. The tree has a class for every f of
 * which a setting speaks, and one for all others; rules.c puts each frame into its class by its priority.
 * What was made is kept when its setting goes, with neutral parameters: frames that are on their way arrive.
 */
#include <stdlib.h>
#include <string.h>

#include "net/kernel.h"
#include "net/links.h"
#include "net/qdisc.h"

#define TREE 1			/* the class for the limit of all that goes to a port */
#define OTHERS 2		/* frames that have no class of their own */
#define PAIRS 0x100		/* and from here on, with the index of the port they come from */

#define OWN_RATE 1250		/* bytes a second that a class has if it borrows the rest */
#define QUEUE_NS_INVERSE 5	/* a queue holds a fifth of a second of its rate */
#define QUEUE_MIN (64 * QDISC_FRAME)
#define QUEUE_FREE (4u << 20)	/* without a limit nothing queues for long */
#define QUEUE_MAX (64u << 20)
#define NETEM_FRAMES 100000

unsigned shape_minor(const struct kernel_port *from)
{
	return from ? PAIRS + (unsigned)from->index : OTHERS;
}

bool shape_needs_netem(const struct net_impairment *i)
{
	return i->latency_ns || i->jitter_ns || i->reorder > 0 || i->corrupt > 0 ||
		(i->loss > 0 && i->loss_correlation > 0);
}

static uint64_t bytes_of(uint64_t bps)
{
	return bps ? (bps + 7) / 8 : 0;
}

static uint32_t queue_bytes(uint64_t rate)
{
	uint64_t n = rate ? rate / QUEUE_NS_INVERSE : QUEUE_FREE;

	return (uint32_t)(n < QUEUE_MIN ? QUEUE_MIN : n > QUEUE_MAX ? QUEUE_MAX : n);
}

/* netem counts frames: those it delays, taken as small ones, and a queue of large ones. */
static uint32_t queue_frames(uint64_t rate, const struct net_impairment *i)
{
	double n;

	if (!rate)
		return NETEM_FRAMES;
	n = (double)(i->latency_ns + i->jitter_ns) * 1e-9 * (double)rate / 200 + queue_bytes(rate) / QDISC_FRAME;
	return n > NETEM_FRAMES ? NETEM_FRAMES : (uint32_t)n;
}

/* ---- what ought to be ---- */

/* The part of a setting that netem does; loss without memory and duplication are rules. */
static struct net_impairment netem_part(const struct net_impairment *i)
{
	struct net_impairment part = *i;

	part.duplicate = 0;
	part.rate_bps = part.burst_bytes = 0;
	if (part.loss_correlation <= 0)
		part.loss = 0;
	if (part.loss <= 0)
		part.loss_correlation = 0;
	return part;
}

/* What frames from f to t meet in their class; the limit is the pair's. */
static struct net_impairment class_target(const struct kernel_bridge *b, const struct kernel_port *f,
	const struct kernel_port *t)
{
	struct net_impairment sum = { 0 }, part;
	struct kernel_setting *s;

	TAILQ_FOREACH(s, &b->settings, entry)
		if (kernel_setting_matches(s, f, t)) {
			part = netem_part(&s->i);
			net_impairment_add(&sum, &part);
		}
	if (f) {
		part = kernel_setting(b, f, t);
		sum.rate_bps = part.rate_bps;
		sum.burst_bytes = part.burst_bytes;
	}
	return sum;
}

/* Whether frames from f to t need a class of their own. */
static bool pair_differs(const struct kernel_bridge *b, const struct kernel_port *f,
	const struct kernel_port *t)
{
	struct kernel_setting *s;

	TAILQ_FOREACH(s, &b->settings, entry)
		if (s->from == f && kernel_setting_matches(s, f, t) &&
			(shape_needs_netem(&s->i) || (s->to == t && s->i.rate_bps)))
			return true;
	return false;
}

static bool tree_needed(const struct kernel_bridge *b, const struct kernel_port *t)
{
	struct kernel_port *f;
	struct net_impairment any = class_target(b, NULL, t);

	if (t->tree || !net_impairment_is_zero(&any) || kernel_setting(b, NULL, t).rate_bps)
		return true;
	TAILQ_FOREACH(f, &b->ports, entry)
		if (f != t && pair_differs(b, f, t))
			return true;
	return false;
}

/* ---- trees ---- */

static struct kernel_class *class_of(const struct kernel_port *t, const struct kernel_port *f)
{
	struct kernel_class *c;

	TAILQ_FOREACH(c, &t->classes, entry)
		if (c->from == f)
			return c;
	return NULL;
}

bool shape_has_class(const struct kernel_port *t, const struct kernel_port *f)
{
	return class_of(t, f) != NULL;
}

static struct kernel_class *class_new(struct kernel_port *t, struct kernel_port *f)
{
	struct kernel_class *c = xcalloc(1, sizeof(*c));

	c->from = f;
	TAILQ_INSERT_TAIL(&t->classes, c, entry);
	return c;
}

static bool same_faults(const struct net_impairment *a, const struct net_impairment *b)
{
	return a->latency_ns == b->latency_ns && a->jitter_ns == b->jitter_ns &&
		a->latency_correlation == b->latency_correlation && a->loss == b->loss &&
		a->loss_correlation == b->loss_correlation && a->reorder == b->reorder && a->corrupt == b->corrupt;
}

/* The queue of a class. netem stays once it is there, so that what it delays is not lost. */
static void sync_leaf(struct kernel_port *t, struct kernel_class *c, const struct net_impairment *want,
	uint64_t rate, struct kernel_op *op, struct kernel_net *k)
{
	bool netem = c->leaf == LEAF_NETEM || shape_needs_netem(want);
	struct nlbuf msg = NLBUF_INIT;

	if (c->leaf == (netem ? LEAF_NETEM : LEAF_FIFO) && same_faults(&c->now, want) && c->queued_at == rate)
		return;
	if (netem)
		qdisc_set_netem(&msg, t->index, shape_minor(c->from), want, queue_frames(rate, want));
	else
		qdisc_set_fifo(&msg, t->index, shape_minor(c->from), queue_bytes(rate));
	op_send(op, k->rt, &msg, netem ? "sch_netem" : "sch_fifo", "delay frames to `%s`", t->base.name);
	c->leaf = netem ? LEAF_NETEM : LEAF_FIFO;
	c->queued_at = rate;
}

static void sync_class(struct kernel_bridge *b, struct kernel_port *t, struct kernel_class *c,
	struct kernel_op *op)
{
	struct net_impairment want = class_target(b, c->from, t);
	uint64_t rate = bytes_of(want.rate_bps), ceil = rate ? rate : QDISC_NO_LIMIT;
	struct nlbuf msg = NLBUF_INIT;
	bool borrows = t->to_rate != 0;

	if (!c->made || c->borrows != borrows || c->now.rate_bps != want.rate_bps ||
		c->now.burst_bytes != want.burst_bytes) {
		qdisc_set_class(&msg, t->index, TREE, shape_minor(c->from), borrows ? OWN_RATE : ceil, ceil,
			qdisc_burst(ceil, want.burst_bytes));
		op_send(op, b->k->rt, &msg, "sch_htb", "limit frames to `%s`", t->base.name);
		c->made = true;
		c->borrows = borrows;
	}
	if (t->to_rate && (!rate || t->to_rate < rate))
		rate = t->to_rate;
	sync_leaf(t, c, &want, rate, op, b->k);
	c->now = want;
}

static void sync_tree(struct kernel_bridge *b, struct kernel_port *t, struct kernel_op *op)
{
	struct net_impairment all = kernel_setting(b, NULL, t);
	uint64_t rate = bytes_of(all.rate_bps), ceil = rate ? rate : QDISC_NO_LIMIT;
	struct nlbuf msg = NLBUF_INIT;
	struct kernel_class *c;
	struct kernel_port *f;
	bool fresh = !t->tree;

	if (!tree_needed(b, t))
		return;
	if (fresh) {
		qdisc_new_htb(&msg, t->index, OTHERS);
		op_send(op, b->k->rt, &msg, "sch_htb", "queue frames to `%s`", t->base.name);
		class_new(t, NULL);
		t->tree = true;
	}
	if (fresh || t->to_rate != rate || t->to_burst != all.burst_bytes) {
		qdisc_set_class(&msg, t->index, 0, TREE, ceil, ceil, qdisc_burst(ceil, all.burst_bytes));
		op_send(op, b->k->rt, &msg, "sch_htb", "limit frames to `%s`", t->base.name);
		t->to_rate = rate;
		t->to_burst = all.burst_bytes;
	}
	TAILQ_FOREACH(f, &b->ports, entry)
		if (f != t && !class_of(t, f) && pair_differs(b, f, t))
			class_new(t, f);
	TAILQ_FOREACH(c, &t->classes, entry)
		sync_class(b, t, c, op);
}

/* ---- buckets ---- */

static void send_bucket(struct kernel_bridge *b, int ifb, uint64_t rate, uint64_t burst, const char *whose,
	struct kernel_op *op)
{
	uint64_t bytes = rate ? rate : QDISC_NO_LIMIT;
	struct nlbuf msg = NLBUF_INIT;

	qdisc_set_tbf(&msg, ifb, bytes, qdisc_burst(bytes, burst), queue_bytes(rate));
	op_send(op, b->k->rt, &msg, "sch_tbf", "limit the rate of %s", whose);
}

static int new_ifb(struct kernel_bridge *b, const char *whose, struct kernel_op *op)
{
	struct nlbuf msg = NLBUF_INIT;
	char name[IFNAMSIZ];
	int index = kernel_new_index(b->k, name, "ifb");

	link_new_ifb(&msg, index, name);
	op_send(op, b->k->rt, &msg, "ifb", "make a queue for %s", whose);
	link_up(&msg, index, 0);
	op_send(op, b->k->rt, &msg, NULL, "bring up the queue for %s", whose);
	return index;
}

/* Sends all that comes from (ingress) or goes to a port through an ifb, or no longer. */
static void detour(struct kernel_bridge *b, struct kernel_port *p, bool ingress, int ifb,
	struct kernel_op *op)
{
	bool *there = ingress ? &p->in_from : &p->in_whole;
	struct nlbuf msg = NLBUF_INIT;

	if (*there == (ifb != 0))
		return;
	*there = ifb != 0;
	if (ifb && !p->clsact) {
		qdisc_new_clsact(&msg, p->index);
		op_send(op, b->k->rt, &msg, "sch_ingress", "redirect frames of `%s`", p->base.name);
		p->clsact = true;
	}
	if (ifb)
		qdisc_redirect(&msg, p->index, ingress, ifb);
	else
		qdisc_unredirect(&msg, p->index, ingress);
	op_send(op, b->k->rt, &msg, ifb ? "cls_u32 act_mirred" : NULL, "redirect frames of `%s`", p->base.name);
}

/* The bucket of a port: its own rate and the limit "from it to any", of which the lower counts. */
static void sync_from(struct kernel_bridge *b, struct kernel_port *p, struct kernel_op *op)
{
	struct net_impairment sum = { .rate_bps = p->own_rate }, all = kernel_setting(b, p, NULL);
	struct net_impairment limit = { .rate_bps = all.rate_bps, .burst_bytes = all.burst_bytes };
	uint64_t rate;

	net_impairment_add(&sum, &limit);
	rate = bytes_of(sum.rate_bps);
	if (rate && !p->from_ifb)
		p->from_ifb = new_ifb(b, p->base.name, op);
	if (p->from_ifb && (p->from_rate != rate || p->from_burst != sum.burst_bytes))
		send_bucket(b, p->from_ifb, rate, sum.burst_bytes, p->base.name, op);
	p->from_rate = rate;
	p->from_burst = sum.burst_bytes;
	detour(b, p, true, rate ? p->from_ifb : 0, op);
}

static void sync_whole(struct kernel_bridge *b, struct kernel_op *op)
{
	struct net_impairment all = kernel_setting(b, NULL, NULL);
	uint64_t rate = bytes_of(all.rate_bps);
	struct kernel_port *p;

	if (rate && !b->whole_ifb)
		b->whole_ifb = new_ifb(b, b->base.name, op);
	if (b->whole_ifb && (b->whole_rate != rate || b->whole_burst != all.burst_bytes))
		send_bucket(b, b->whole_ifb, rate, all.burst_bytes, b->base.name, op);
	b->whole_rate = rate;
	b->whole_burst = all.burst_bytes;
	TAILQ_FOREACH(p, &b->ports, entry)
		detour(b, p, false, rate ? b->whole_ifb : 0, op);
}

/* ---- all of it ---- */

void shape_sync(struct kernel_bridge *b, struct kernel_op *op)
{
	struct kernel_port *p;

	sync_whole(b, op);
	TAILQ_FOREACH(p, &b->ports, entry) {
		sync_from(b, p, op);
		sync_tree(b, p, op);
	}
}

void shape_forget(struct kernel_port *p, struct kernel_op *op)
{
	struct kernel_bridge *b = (struct kernel_bridge *)p->base.bridge;
	struct nlbuf msg = NLBUF_INIT;
	struct kernel_port *t;
	struct kernel_class *c;

	if (p->from_ifb)
		kernel_discard(b->k, op, p->from_ifb);
	TAILQ_FOREACH(t, &b->ports, entry) {
		c = class_of(t, p);
		if (t == p || !c)
			continue;
		qdisc_delete_class(&msg, t->index, shape_minor(p));
		op_send(op, b->k->rt, &msg, NULL, "forget frames from `%s`", p->base.name);
		TAILQ_REMOVE(&t->classes, c, entry);
		free(c);
	}
}
