/*
 * Neighbours of a gateway.
 *
 * An entry holds for half a minute; then the next packet asks again. While nobody has answered, a few packets wait.
 */
#include <stdlib.h>

#include "net/neighbours.h"

#define VALID_NS (30 * INT64_C(1000000000))
#define ASK_NS INT64_C(1000000000)
#define ASK_TIMES 3
#define WAITING 16			/* packets, for one neighbour */
#define ENTRIES 1024

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136

static void timer_cb(evutil_socket_t fd, short what, void *arg);

struct neighbour {
	TAILQ_ENTRY(neighbour) entry;
	struct ip_address ip;
	uint8_t mac[6];
	bool known;
	int64_t since;			/* known, or asked last */
	unsigned asked, nwaiting;
	struct frame *waiting[WAITING];
};

/* Owned by its router. */
struct neighbours {
	struct loop *loop;
	const struct neighbours_self *self;
	const struct neighbours_events *ev;
	void *arg;
	TAILQ_HEAD(neighbour_list, neighbour) list;	/* used last first */
	unsigned n;
	struct event *timer;		/* armed while somebody is asked for */
};

struct neighbours *neighbours_new(struct loop *l, const struct neighbours_self *self,
	const struct neighbours_events *ev, void *arg)
{
	struct neighbours *n = xcalloc(1, sizeof(*n));

	n->loop = l;
	n->self = self;
	n->ev = ev;
	n->arg = arg;
	TAILQ_INIT(&n->list);
	return n;
}

static void forget(struct neighbours *n, struct neighbour *e)
{
	TAILQ_REMOVE(&n->list, e, entry);
	n->n--;
	while (e->nwaiting > 0)
		frame_unref(e->waiting[--e->nwaiting]);
	free(e);
}

void neighbours_free(struct neighbours *n)
{
	if (!n)
		return;
	timer_stop(&n->timer);
	while (!TAILQ_EMPTY(&n->list))
		forget(n, TAILQ_FIRST(&n->list));
	free(n);
}

static struct neighbour *find(struct neighbours *n, const struct ip_address *ip)
{
	struct neighbour *e;

	TAILQ_FOREACH(e, &n->list, entry)
		if (ip_equal(&e->ip, ip))
			return e;
	return NULL;
}

static struct neighbour *find_or_add(struct neighbours *n, const struct ip_address *ip)
{
	struct neighbour *e = find(n, ip);

	if (e) {
		TAILQ_REMOVE(&n->list, e, entry);
	} else {
		if (n->n == ENTRIES)
			forget(n, TAILQ_LAST(&n->list, neighbour_list));
		e = xcalloc(1, sizeof(*e));
		e->ip = *ip;
		n->n++;
	}
	TAILQ_INSERT_HEAD(&n->list, e, entry);
	return e;
}

/* ---- asking ---- */

static void fill_ethernet(const struct neighbours *n, struct frame *f, const uint8_t *dst)
{
	memcpy(f->data, dst, 6);
	memcpy(f->data + 6, n->self->mac, 6);
}

static void send_and_free(struct neighbours *n, struct frame *f)
{
	n->ev->send(n->arg, f);
	frame_unref(f);
}

/* target_mac NULL: a request. */
static void send_arp(struct neighbours *n, const uint8_t *target_ip, const uint8_t *target_mac)
{
	static const uint8_t everyone[6] = { 255, 255, 255, 255, 255, 255 };
	static const uint8_t fixed[6] = { 0, 1, TYPE_IP4 >> 8, TYPE_IP4 & 255, 6, 4 };
	struct frame *f = frame_new(FRAME_HEADER + ARP_LENGTH);
	uint8_t *arp = f->data + FRAME_HEADER;

	memset(f->data, 0, f->len);
	fill_ethernet(n, f, target_mac ? target_mac : everyone);
	put16(f->data + 12, TYPE_ARP);
	memcpy(arp, fixed, sizeof(fixed));
	put16(arp + 6, target_mac ? 2 : 1);
	memcpy(arp + 8, n->self->mac, 6);
	memcpy(arp + 14, n->self->ip4.bytes, 4);
	if (target_mac)
		memcpy(arp + 18, target_mac, 6);
	memcpy(arp + 24, target_ip, 4);
	send_and_free(n, f);
}

static struct ip_address solicited_node(const struct ip_address *ip)
{
	struct ip_address group = { .is6 = true,
		.bytes = { 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff } };

	memcpy(group.bytes + 13, ip->bytes + 13, 3);
	return group;
}

/* Type, 3 bytes of nothing or flags, the target, our link-layer address as the option. */
static void send_discovery(struct neighbours *n, unsigned type, unsigned flags, const struct ip_address *src,
	const struct ip_address *dst, const struct ip_address *target, const uint8_t *dst_mac)
{
	struct frame *f = packet_new(src, dst, PROTO_ICMP6, 32);
	uint8_t *nd = packet_payload(f), group[6] = { 0x33, 0x33 };

	memcpy(group + 2, dst->bytes + 12, 4);
	fill_ethernet(n, f, dst_mac ? dst_mac : group);
	nd[0] = (uint8_t)type;
	nd[4] = (uint8_t)flags;
	memcpy(nd + 8, target->bytes, 16);
	nd[24] = type == ND_SOLICITATION ? 1 : 2;
	nd[25] = 1;
	memcpy(nd + 26, n->self->mac, 6);
	packet_sum_icmp(f);
	send_and_free(n, f);
}

static void ask(struct neighbours *n, struct neighbour *e)
{
	const struct neighbours_self *self = n->self;
	struct ip_address group;

	e->asked++;
	e->since = now_ns();
	if (!e->ip.is6) {
		send_arp(n, e->ip.bytes, NULL);
		return;
	}
	group = solicited_node(&e->ip);
	send_discovery(n, ND_SOLICITATION, 0, e->ip.bytes[0] == 0xfe ? &self->link_local : &self->ip6, &group, &e->ip,
		NULL);
}

/* Moves what waited for it to *failed. */
static void give_up(struct neighbours *n, struct neighbour *e, struct frame **failed)
{
	while (e->nwaiting > 0) {
		struct frame *f = e->waiting[--e->nwaiting];

		f->next = *failed;
		*failed = f;
	}
	forget(n, e);
}

/* Asks again or gives up, each entry in its time; stays armed while there is somebody to ask for. */
static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct neighbours *n = arg;
	struct neighbour *e, *next;
	struct frame *failed = NULL, *f;
	int64_t now = now_ns(), nearest = INT64_MAX;

	(void)fd, (void)what;
	for (e = TAILQ_FIRST(&n->list); e; e = next) {
		next = TAILQ_NEXT(e, entry);
		if (e->known)
			continue;
		if (e->since + ASK_NS <= now) {
			if (e->asked == ASK_TIMES) {
				give_up(n, e, &failed);
				continue;
			}
			ask(n, e);
		}
		if (e->since + ASK_NS < nearest)
			nearest = e->since + ASK_NS;
	}
	timer_stop(&n->timer);
	if (nearest != INT64_MAX)
		timer_start(n->loop, &n->timer, nearest - now, timer_cb, n);
	while ((f = failed)) {
		failed = f->next;
		f->next = NULL;
		n->ev->unreachable(n->arg, f);
		frame_unref(f);
	}
}

/* ---- sending ---- */

static void send_known(struct neighbours *n, const struct neighbour *e, struct frame *f)
{
	fill_ethernet(n, f, e->mac);
	n->ev->send(n->arg, f);
}

void neighbours_send(struct neighbours *n, const struct ip_address *to, struct frame *f)
{
	struct neighbour *e = find_or_add(n, to);

	if (e->known && now_ns() - e->since < VALID_NS) {
		send_known(n, e, f);
		return;
	}
	if (e->nwaiting < WAITING)
		e->waiting[e->nwaiting++] = frame_ref(f);
	if (!e->known && e->asked > 0)
		return;
	e->known = false;
	e->asked = 0;
	ask(n, e);
	if (!n->timer)
		timer_start(n->loop, &n->timer, ASK_NS, timer_cb, n);
}

/* ---- answers and questions of others ---- */

/* add: also somebody we did not ask for. */
static void learn(struct neighbours *n, const struct ip_address *ip, const uint8_t *mac, bool add)
{
	struct neighbour *e = add ? find_or_add(n, ip) : find(n, ip);
	struct frame *waiting[WAITING];
	unsigned count;

	if (!e || (mac[0] & 1))
		return;
	memcpy(e->mac, mac, 6);
	e->known = true;
	e->since = now_ns();
	e->asked = 0;
	count = e->nwaiting;
	memcpy(waiting, e->waiting, sizeof(waiting));
	e->nwaiting = 0;
	for (unsigned i = 0; i < count; i++) {
		send_known(n, e, waiting[i]);
		frame_unref(waiting[i]);
	}
}

bool neighbours_arp(struct neighbours *n, const struct frame *f)
{
	const uint8_t *arp = f->data + FRAME_HEADER;
	struct ip_address sender;
	bool for_us, probe;

	if (f->len < FRAME_HEADER || get16(f->data + 12) != TYPE_ARP)
		return false;
	if (f->len < FRAME_HEADER + ARP_LENGTH || get16(arp) != 1 || get16(arp + 2) != TYPE_IP4 || arp[4] != 6 ||
	    arp[5] != 4)
		return true;
	sender = ip_address_of(false, arp + 14);
	probe = packet_martian(&sender);
	for_us = memcmp(arp + 24, n->self->ip4.bytes, 4) == 0;
	if (!probe && !ip_equal(&sender, &n->self->ip4))
		learn(n, &sender, arp + 8, for_us);
	if (for_us && get16(arp + 6) == 1)
		send_arp(n, arp + 14, arp + 8);
	return true;
}

/* The link-layer address in a solicitation's or advertisement's options, or the frame's sender. */
static const uint8_t *option_mac(const struct frame *f, const struct packet *p, unsigned type)
{
	const uint8_t *o = p->payload + 24, *end = p->payload + p->payload_len;

	for (; end - o >= 8 && o[1] > 0 && end - o >= o[1] * 8; o += o[1] * 8)
		if (o[0] == type)
			return o + 2;
	return f->data + 6;
}

static void answer_solicitation(struct neighbours *n, const struct frame *f, const struct packet *p,
	const struct ip_address *target)
{
	static const struct ip_address all_nodes = { .is6 = true, .bytes = { 0xff, 2, [15] = 1 } };
	bool probe = packet_martian(&p->src);	/* from ::, to see whether the address is free */

	if (!probe)
		learn(n, &p->src, option_mac(f, p, 1), true);
	/* Router; solicited unless it was a probe; override. */
	send_discovery(n, ND_ADVERTISEMENT, probe ? 0xa0 : 0xe0, target, probe ? &all_nodes : &p->src, target,
		probe ? NULL : f->data + 6);
}

bool neighbours_discovery(struct neighbours *n, const struct frame *f, const struct packet *p)
{
	const struct neighbours_self *self = n->self;
	struct ip_address target;
	unsigned type;

	if (!p->is6 || p->proto != PROTO_ICMP6 || p->payload_len < 24 || p->ttl != 255 || !packet_icmp_intact(p))
		return false;
	type = p->payload[0];
	if (type != ND_SOLICITATION && type != ND_ADVERTISEMENT)
		return false;
	target = ip_address_of(true, p->payload + 8);
	if (type == ND_ADVERTISEMENT)
		learn(n, &target, option_mac(f, p, 2), false);
	else if (self->has6 && (ip_equal(&target, &self->ip6) || ip_equal(&target, &self->link_local)))
		answer_solicitation(n, f, p, &target);
	return true;
}
