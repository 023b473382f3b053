/*
 * The switch: where frames go, by the addresses it has learned.
 *
 * As a Linux bridge without spanning tree does it: unknown and group addresses are flooded, link-local control
 * frames (01:80:c2:00:00:01 to 0f) go nowhere, and a frame never leaves by the port it came from.
 */
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "net/switch.h"

#define BUCKETS 256

struct address {
	LIST_ENTRY(address) entry;
	uint8_t mac[6];
	bool pinned;
	struct swport *port;
	int64_t seen;
};

/* Owned by its bridge. */
struct vswitch {
	const struct switch_events *ev;
	void *arg;
	struct swports ports;
	LIST_HEAD(address_list, address) table[BUCKETS];
	unsigned naddresses;
	bool impaired;
};

struct vswitch *switch_new(const struct switch_events *ev, void *arg)
{
	struct vswitch *sw = xcalloc(1, sizeof(*sw));

	sw->ev = ev;
	sw->arg = arg;
	TAILQ_INIT(&sw->ports);
	return sw;
}

static void forget(struct vswitch *sw, struct address *a)
{
	LIST_REMOVE(a, entry);
	sw->naddresses--;
	free(a);
}

/* Those of a port, or with port NULL those that were not seen for too long. */
static void sweep(struct vswitch *sw, const struct swport *port, int64_t now)
{
	struct address *a, *next;

	for (size_t i = 0; i < BUCKETS; i++) {
		for (a = LIST_FIRST(&sw->table[i]); a; a = next) {
			next = LIST_NEXT(a, entry);
			if (port ? a->port == port : !a->pinned && now - a->seen > SWITCH_AGING_NS)
				forget(sw, a);
		}
	}
}

void switch_free(struct vswitch *sw)
{
	INVARIANT(TAILQ_EMPTY(&sw->ports) && sw->naddresses == 0);
	free(sw);
}

void switch_set_impaired(struct vswitch *sw, bool impaired)
{
	sw->impaired = impaired;
}

/* ---- ports ---- */

void switch_add(struct vswitch *sw, struct swport *p)
{
	struct swport *other;

	p->sw = sw;
	p->slot = 0;
	/* The list is in the order of slots: the first gap is free. */
	TAILQ_FOREACH(other, &sw->ports, entry) {
		if (other->slot > p->slot)
			break;
		p->slot++;
	}
	if (other)
		TAILQ_INSERT_BEFORE(other, p, entry);
	else
		TAILQ_INSERT_TAIL(&sw->ports, p, entry);
}

static void clear_bit(struct swport *p, unsigned slot)
{
	if (slot / 64 < p->blocked_words)
		p->blocked[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

void switch_remove(struct swport *p)
{
	struct vswitch *sw = p->sw;
	struct swport *other;

	TAILQ_REMOVE(&sw->ports, p, entry);
	sweep(sw, p, 0);
	TAILQ_FOREACH(other, &sw->ports, entry)
		clear_bit(other, p->slot);
	free(p->blocked);
	p->blocked = NULL;
	p->blocked_words = 0;
	p->sw = NULL;
}

struct swports *switch_ports(struct vswitch *sw)
{
	return &sw->ports;
}

/* ---- addresses ---- */

static struct address_list *bucket(struct vswitch *sw, const uint8_t *mac)
{
	/* The vendor's half is the same for all guests. */
	return &sw->table[(mac[5] ^ mac[4] * 31U ^ mac[3] * 131U) % BUCKETS];
}

static struct address *find(struct vswitch *sw, const uint8_t *mac)
{
	struct address *a;

	LIST_FOREACH(a, bucket(sw, mac), entry)
		if (memcmp(a->mac, mac, 6) == 0)
			return a;
	return NULL;
}

static struct address *add_address(struct vswitch *sw, const uint8_t *mac)
{
	struct address *a = xcalloc(1, sizeof(*a));

	memcpy(a->mac, mac, 6);
	LIST_INSERT_HEAD(bucket(sw, mac), a, entry);
	sw->naddresses++;
	return a;
}

static void learn(struct vswitch *sw, struct swport *from, const uint8_t *mac, int64_t now)
{
	struct address *a = find(sw, mac);

	if (a && a->pinned)
		return;
	if (!a) {
		if (sw->naddresses >= SWITCH_ADDRESSES)
			sweep(sw, NULL, now);
		if (sw->naddresses >= SWITCH_ADDRESSES)
			return;
		a = add_address(sw, mac);
	}
	a->port = from;
	a->seen = now;
}

void switch_pin(struct swport *p, const uint8_t mac[6])
{
	struct address *a = find(p->sw, mac);

	if (!a)
		a = add_address(p->sw, mac);
	a->port = p;
	a->pinned = true;
}

struct swport *switch_lookup(struct vswitch *sw, const uint8_t mac[6], int64_t now)
{
	struct address *a = find(sw, mac);

	if (a && !a->pinned && now - a->seen > SWITCH_AGING_NS) {
		forget(sw, a);
		return NULL;
	}
	return a ? a->port : NULL;
}

/* ---- frames ---- */

static void send_to(struct vswitch *sw, struct swport *from, struct swport *to, struct frame *f)
{
	if (switch_blocked(from, to))
		sw->ev->dropped(sw->arg, from);
	else if (sw->impaired)
		sw->ev->path(sw->arg, from, to, f);
	else
		to->output(to, f);
}

static bool link_local(const uint8_t *mac)
{
	static const uint8_t prefix[5] = { 0x01, 0x80, 0xc2, 0, 0 };

	return memcmp(mac, prefix, 5) == 0 && mac[5] > 0 && mac[5] < 0x10;
}

void switch_input(struct swport *from, struct frame *f, int64_t now)
{
	struct vswitch *sw = from->sw;
	const uint8_t *dst = f->data, *src = f->data + 6;
	struct swport *to;

	if (f->len < FRAME_HEADER || (src[0] & 1) || link_local(dst)) {
		sw->ev->dropped(sw->arg, from);
		return;
	}
	learn(sw, from, src, now);
	to = dst[0] & 1 ? NULL : switch_lookup(sw, dst, now);
	if (to) {
		if (to != from)
			send_to(sw, from, to, f);
		return;
	}
	TAILQ_FOREACH(to, &sw->ports, entry)
		if (to != from)
			send_to(sw, from, to, f);
}

/* ---- blocked pairs ---- */

void switch_unblock_all(struct vswitch *sw)
{
	struct swport *p;

	TAILQ_FOREACH(p, &sw->ports, entry)
		if (p->blocked)
			memset(p->blocked, 0, p->blocked_words * sizeof(*p->blocked));
}

static void block_one(struct swport *from, const struct swport *to)
{
	unsigned word = to->slot / 64;

	if (from == to)
		return;
	if (word >= from->blocked_words) {
		from->blocked = xrealloc(from->blocked, (word + 1) * sizeof(*from->blocked));
		memset(from->blocked + from->blocked_words, 0,
			(word + 1 - from->blocked_words) * sizeof(*from->blocked));
		from->blocked_words = word + 1;
	}
	from->blocked[word] |= UINT64_C(1) << to->slot % 64;
}

void switch_block(struct vswitch *sw, struct swport *from, struct swport *to)
{
	struct swport *p, *q;

	TAILQ_FOREACH(p, &sw->ports, entry) {
		if (from && p != from)
			continue;
		TAILQ_FOREACH(q, &sw->ports, entry)
			if (!to || q == to)
				block_one(p, q);
	}
}

bool switch_blocked(const struct swport *from, const struct swport *to)
{
	unsigned word = to->slot / 64;

	return word < from->blocked_words && from->blocked[word] >> to->slot % 64 & 1;
}
