/*
 * The way of a frame through what was set: decisions when it comes, then one queue after the other.
 *
 * A frame that waits is in a heap, ordered by when it goes on and, at the same moment, by when it was put there, so
 * that nothing is reordered but on request. Where it goes on is its stage.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "net/backend.h"
#include "net/bucket.h"
#include "net/chance.h"
#include "net/emulate.h"
#include "net/ip.h"

#define BYTES_MAX ((size_t)64 << 20)	/* of frames that wait */
/* Without latency a frame that is to be reordered is held back; with latency it goes ahead of the others. */
#define HOLD_BACK_NS (10 * INT64_C(1000000))

/* The settings that can match a frame, by who is named. Rates of whom it comes from, and of the whole bridge, are
 * queues at the entrance: a broadcast goes through them once. */
enum level { WHOLE, FROM, TO, PAIR, LEVELS };
enum decision { LOSS, DUPLICATE, REORDER, CORRUPT, JITTER, CORRUPT_WHERE, DECISIONS };
/* Guests ask for each other's addresses when they like to; that must not shift what happens to the rest. */
enum class { ORDINARY, HOUSEKEEPING, CLASSES };
enum stage { ENTRANCE_PORT, ENTRANCE_FROM, ENTRANCE_WHOLE, ENTRANCE_END, PATH_PAIR, PATH_TO, PATH_DELAY, PATH_END };

struct rule {
	TAILQ_ENTRY(rule) entry;
	struct swport *from, *to;
	struct net_impairment set;
	struct bucket bucket;
};

/* An ordered pair of ports that had frames. */
struct path {
	struct rule *rules[LEVELS];
	unsigned generation;		/* of the rules */
	struct chance chance[CLASSES][LEVELS][DECISIONS];
};

struct end {				/* of one slot */
	struct bucket entrance;		/* nic:set_rate */
	struct path **paths;		/* by the receiver's slot */
	unsigned npaths;
};

struct waiting {
	int64_t due;
	uint64_t seq;
	struct frame *frame;		/* a reference */
	struct swport *from, *to;	/* to: NULL at the entrance */
	int64_t delay;			/* decided, to come */
	enum stage stage;		/* the next one */
};

/* Owned by its bridge. */
struct emulator {
	const struct emulator_events *ev;
	void *arg;
	uint64_t seed, seq;
	TAILQ_HEAD(, rule) rules;
	unsigned generation, entrances;
	struct end *ends;		/* by slot */
	unsigned nends;
	struct waiting *heap;
	size_t nheap, heap_size, bytes;
};

struct emulator *emulator_new(uint64_t seed, const struct emulator_events *ev, void *arg)
{
	struct emulator *e = xcalloc(1, sizeof(*e));

	e->ev = ev;
	e->arg = arg;
	e->seed = seed;
	e->generation = 1;
	TAILQ_INIT(&e->rules);
	return e;
}

/* ---- the heap ---- */

static bool before(const struct waiting *a, const struct waiting *b)
{
	return a->due != b->due ? a->due < b->due : a->seq < b->seq;
}

static void sift_up(struct emulator *e, size_t i)
{
	struct waiting w = e->heap[i];

	for (; i > 0 && before(&w, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
		e->heap[i] = e->heap[(i - 1) / 2];
	e->heap[i] = w;
}

static void sift_down(struct emulator *e, size_t i)
{
	struct waiting w = e->heap[i];
	size_t child;

	while ((child = 2 * i + 1) < e->nheap) {
		if (child + 1 < e->nheap && before(&e->heap[child + 1], &e->heap[child]))
			child++;
		if (!before(&e->heap[child], &w))
			break;
		e->heap[i] = e->heap[child];
		i = child;
	}
	e->heap[i] = w;
}

/* Takes over w's reference. */
static void push(struct emulator *e, struct waiting w)
{
	if (e->bytes + w.frame->len > BYTES_MAX) {
		e->ev->dropped(e->arg, w.from);
		frame_unref(w.frame);
		return;
	}
	if (e->nheap == e->heap_size) {
		e->heap_size = e->heap_size ? e->heap_size * 2 : 64;
		e->heap = xrealloc(e->heap, e->heap_size * sizeof(*e->heap));
	}
	w.seq = e->seq++;
	e->bytes += w.frame->len;
	e->heap[e->nheap] = w;
	sift_up(e, e->nheap++);
}

static struct waiting pop(struct emulator *e)
{
	struct waiting w = e->heap[0];

	e->bytes -= w.frame->len;
	e->nheap--;
	if (e->nheap > 0) {
		e->heap[0] = e->heap[e->nheap];
		sift_down(e, 0);
	}
	return w;
}

static int by_time(const void *a, const void *b)
{
	return before(a, b) ? -1 : 1;
}

int64_t emulator_due(const struct emulator *e)
{
	return e->nheap ? e->heap[0].due : EMULATOR_NEVER;
}

/* ---- settings ---- */

static struct end *end_of(struct emulator *e, const struct swport *p)
{
	if (p->slot >= e->nends) {
		unsigned n = p->slot + 4;

		e->ends = xrealloc(e->ends, n * sizeof(*e->ends));
		memset(e->ends + e->nends, 0, (n - e->nends) * sizeof(*e->ends));
		e->nends = n;
	}
	return &e->ends[p->slot];
}

static struct rule *find_rule(struct emulator *e, const struct swport *from, const struct swport *to)
{
	struct rule *r;

	TAILQ_FOREACH(r, &e->rules, entry)
		if (r->from == from && r->to == to)
			return r;
	return NULL;
}

static void init_chances(struct emulator *e, struct path *p, const struct swport *from, const struct swport *to)
{
	for (unsigned i = 0; i < CLASSES * LEVELS * DECISIONS; i++)
		chance_init((struct chance *)p->chance + i, e->seed, from->name, to->name, i);
}

static struct path *path_of(struct emulator *e, const struct swport *from, const struct swport *to)
{
	struct end *end = end_of(e, from);
	struct path *p;

	if (to->slot >= end->npaths) {
		unsigned n = to->slot + 4;

		end->paths = xrealloc(end->paths, n * sizeof(*end->paths));
		memset(end->paths + end->npaths, 0, (n - end->npaths) * sizeof(*end->paths));
		end->npaths = n;
	}
	p = end->paths[to->slot];
	if (!p) {
		p = end->paths[to->slot] = xcalloc(1, sizeof(*p));
		init_chances(e, p, from, to);
	}
	if (p->generation != e->generation) {
		p->generation = e->generation;
		p->rules[WHOLE] = find_rule(e, NULL, NULL);
		p->rules[FROM] = find_rule(e, from, NULL);
		p->rules[TO] = find_rule(e, NULL, to);
		p->rules[PAIR] = find_rule(e, from, to);
	}
	return p;
}

/* The rate limit in front of a stage, or NULL. */
static struct bucket *bucket_at(struct emulator *e, const struct waiting *w)
{
	struct rule *r = NULL;

	switch (w->stage) {
	case ENTRANCE_PORT:
		return &end_of(e, w->from)->entrance;
	case ENTRANCE_FROM:
		r = find_rule(e, w->from, NULL);
		break;
	case ENTRANCE_WHOLE:
		r = find_rule(e, NULL, NULL);
		break;
	case PATH_PAIR:
		r = path_of(e, w->from, w->to)->rules[PAIR];
		break;
	case PATH_TO:
		r = path_of(e, w->from, w->to)->rules[TO];
		break;
	default:
		break;
	}
	return r ? &r->bucket : NULL;
}

/*
 * A rate changed: frames that wait behind it leave when the new one lets them. They wait to go on to the stage after
 * the bucket's, in their order.
 */
static void replan(struct emulator *e, const struct bucket *changed, int64_t now)
{
	size_t kept = 0, n = e->nheap;
	struct waiting *all = e->heap;

	if (n == 0)
		return;
	qsort(all, n, sizeof(*all), by_time);
	for (size_t i = 0; i < n; i++) {
		struct waiting w = all[i], behind = w;

		behind.stage--;
		if (w.stage > ENTRANCE_PORT && bucket_at(e, &behind) == changed) {
			w.due = bucket_pass((struct bucket *)changed, w.frame->len, now);
			if (w.due < 0) {
				e->bytes -= w.frame->len;
				e->ev->dropped(e->arg, w.from);
				frame_unref(w.frame);
				continue;
			}
		}
		all[kept++] = w;
	}
	e->nheap = kept;
	qsort(all, kept, sizeof(*all), by_time);	/* an ordered array is a heap */
}

/* Counts the settings that concern entrances, so that other bridges pay nothing for them. */
static void count_entrances(struct emulator *e)
{
	struct rule *r;

	e->entrances = 0;
	for (unsigned i = 0; i < e->nends; i++)
		e->entrances += e->ends[i].entrance.bps > 0;
	TAILQ_FOREACH(r, &e->rules, entry)
		e->entrances += !r->to && r->set.rate_bps > 0;
}

static void set_bucket(struct emulator *e, struct bucket *b, uint64_t bps, uint64_t burst, int64_t now)
{
	if (bucket_set(b, bps, burst, now))
		replan(e, b, now);
	count_entrances(e);
}

void emulator_set(struct emulator *e, struct swport *from, struct swport *to, const struct net_impairment *i,
	int64_t now)
{
	struct rule *r = find_rule(e, from, to);

	if (!r) {
		r = xcalloc(1, sizeof(*r));
		r->from = from;
		r->to = to;
		TAILQ_INSERT_TAIL(&e->rules, r, entry);
		e->generation++;
	}
	r->set = *i;
	set_bucket(e, &r->bucket, i->rate_bps, i->burst_bytes, now);
	if (net_impairment_is_zero(i)) {
		TAILQ_REMOVE(&e->rules, r, entry);
		free(r);
		e->generation++;
	}
}

void emulator_set_port_rate(struct emulator *e, struct swport *p, uint64_t bps, int64_t now)
{
	set_bucket(e, &end_of(e, p)->entrance, bps, 0, now);
}

bool emulator_on_paths(const struct emulator *e)
{
	return !TAILQ_EMPTY(&e->rules) || e->nheap > 0;
}

bool emulator_at_entrances(const struct emulator *e)
{
	return e->entrances > 0 || e->nheap > 0;
}

/* ---- going, as a port does ---- */

static void free_end(struct end *end)
{
	for (unsigned i = 0; i < end->npaths; i++)
		free(end->paths[i]);
	free(end->paths);
	memset(end, 0, sizeof(*end));
}

static void remove_waiting(struct emulator *e, const struct swport *p)
{
	size_t kept = 0, n = e->nheap;

	for (size_t i = 0; i < n; i++) {
		if (e->heap[i].from == p || e->heap[i].to == p) {
			e->bytes -= e->heap[i].frame->len;
			frame_unref(e->heap[i].frame);
			continue;
		}
		e->heap[kept++] = e->heap[i];
	}
	e->nheap = kept;
	qsort(e->heap, kept, sizeof(*e->heap), by_time);
}

void emulator_remove(struct emulator *e, struct swport *p)
{
	struct rule *r, *next;

	if (e->nheap > 0)
		remove_waiting(e, p);
	for (r = TAILQ_FIRST(&e->rules); r; r = next) {
		next = TAILQ_NEXT(r, entry);
		if (r->from != p && r->to != p)
			continue;
		TAILQ_REMOVE(&e->rules, r, entry);
		free(r);
	}
	e->generation++;
	if (p->slot < e->nends)
		free_end(&e->ends[p->slot]);
	for (unsigned i = 0; i < e->nends; i++) {
		struct end *end = &e->ends[i];

		if (p->slot >= end->npaths)
			continue;
		free(end->paths[p->slot]);
		end->paths[p->slot] = NULL;
	}
	count_entrances(e);
}

void emulator_free(struct emulator *e)
{
	struct rule *r;

	while (e->nheap > 0)
		frame_unref(e->heap[--e->nheap].frame);
	free(e->heap);
	while ((r = TAILQ_FIRST(&e->rules))) {
		TAILQ_REMOVE(&e->rules, r, entry);
		free(r);
	}
	for (unsigned i = 0; i < e->nends; i++)
		free_end(&e->ends[i]);
	free(e->ends);
	free(e);
}

/* ---- decisions ---- */

/* ARP, neighbour discovery, and who listens to which group. */
static enum class class_of(const struct frame *f)
{
	const uint8_t *ip6 = f->data + FRAME_HEADER;
	unsigned type = f->len > FRAME_HEADER ? get16(f->data + 12) : 0;

	if (type == TYPE_ARP)
		return HOUSEKEEPING;
	if (type != TYPE_IP6 || f->len <= FRAME_HEADER + IP6_HEADER)
		return ORDINARY;
	/* Listener reports are behind a hop-by-hop header. */
	return ip6[6] == 0 || (ip6[6] == PROTO_ICMP6 && ip6[IP6_HEADER] >= 130 && ip6[IP6_HEADER] <= 143) ?
		HOUSEKEEPING : ORDINARY;
}

/* Flips one bit behind the Ethernet header: the frame still arrives where it should. */
static struct frame *corrupted(struct chance *where, const struct frame *f)
{
	struct frame *copy = frame_copy(f);
	uint64_t bits = chance_bits(where);

	if (f->len > FRAME_HEADER)
		copy->data[FRAME_HEADER + (bits >> 3) % (f->len - FRAME_HEADER)] ^= (uint8_t)(1U << (bits & 7));
	return copy;
}

/* The time a copy of the frame spends on the way. */
static int64_t decide_delay(struct path *p, enum class class)
{
	int64_t fixed = 0, sum = 0;
	bool reordered = false;

	for (int l = 0; l < LEVELS; l++) {
		const struct net_impairment *i = p->rules[l] ? &p->rules[l]->set : NULL;

		if (!i)
			continue;
		fixed += i->latency_ns + i->jitter_ns;
		sum += i->latency_ns;
		if (i->jitter_ns > 0)
			sum += llrint((double)i->jitter_ns * chance_value(&p->chance[class][l][JITTER],
				i->latency_correlation));
		if (i->reorder > 0)
			reordered |= chance_yes(&p->chance[class][l][REORDER], i->reorder, 0);
	}
	if (reordered)
		return fixed > 0 ? 0 : HOLD_BACK_NS;
	return sum > 0 ? sum : 0;
}

/* How often the frame arrives; *f, a reference, may be replaced by a damaged copy. */
static unsigned decide(struct path *p, enum class class, struct frame **f)
{
	unsigned copies = 1;
	bool lost = false;

	for (int l = 0; l < LEVELS; l++) {
		const struct net_impairment *i = p->rules[l] ? &p->rules[l]->set : NULL;

		if (!i)
			continue;
		if (i->loss > 0)
			lost |= chance_yes(&p->chance[class][l][LOSS], i->loss, i->loss_correlation);
		if (i->duplicate > 0)
			copies += chance_yes(&p->chance[class][l][DUPLICATE], i->duplicate, 0);
		if (i->corrupt > 0 && chance_yes(&p->chance[class][l][CORRUPT], i->corrupt, 0)) {
			struct frame *damaged = corrupted(&p->chance[class][l][CORRUPT_WHERE], *f);

			frame_unref(*f);
			*f = damaged;
		}
	}
	return lost ? 0 : copies;
}

/* ---- the way ---- */

/* On from its stage at time t, as far as it goes without waiting. Takes over the reference. */
static void advance(struct emulator *e, struct waiting w, int64_t t)
{
	for (; w.stage != ENTRANCE_END && w.stage != PATH_END; w.stage++) {
		struct bucket *b = bucket_at(e, &w);
		int64_t due = b ? bucket_pass(b, w.frame->len, t) : w.stage == PATH_DELAY ? t + w.delay : t;

		if (due < 0) {
			e->ev->dropped(e->arg, w.from);
			frame_unref(w.frame);
			return;
		}
		if (due > t) {
			w.due = due;
			w.stage++;
			push(e, w);
			return;
		}
	}
	if (w.to)
		e->ev->deliver(e->arg, w.from, w.to, w.frame);
	else
		e->ev->forward(e->arg, w.from, w.frame, t);
	frame_unref(w.frame);
}

/* What is due goes first, or a frame that need not wait would overtake it. */
static void start(struct emulator *e, struct waiting w, int64_t now)
{
	if (emulator_due(e) <= now) {
		w.due = now;
		push(e, w);
	} else {
		advance(e, w, now);
	}
}

void emulator_enter(struct emulator *e, struct swport *from, struct frame *f, int64_t now)
{
	start(e, (struct waiting){ .frame = frame_ref(f), .from = from, .stage = ENTRANCE_PORT }, now);
}

void emulator_pass(struct emulator *e, struct swport *from, struct swport *to, struct frame *f, int64_t now)
{
	struct path *p = path_of(e, from, to);
	enum class class = class_of(f);
	unsigned copies;

	frame_ref(f);
	copies = decide(p, class, &f);
	if (copies == 0)
		e->ev->dropped(e->arg, from);
	for (; copies > 0; copies--)
		start(e, (struct waiting){ .frame = frame_ref(f), .from = from, .to = to, .stage = PATH_PAIR,
			.delay = decide_delay(p, class) }, now);
	frame_unref(f);
}

void emulator_run(struct emulator *e, int64_t now, unsigned budget)
{
	for (; budget > 0 && emulator_due(e) <= now; budget--) {
		struct waiting w = pop(e);

		advance(e, w, w.due);
	}
}
