/*
 * libslirp in the loop.
 *
 * libslirp is made for poll(): before a wait it names descriptors and a time, after it the descriptors that are ready.
 * Here a descriptor is an event that exists while libslirp knows it, and `pump` stands for "after the wait": it runs
 * at the end of a loop turn in which something was ready, was due or came from a guest, hands over what is ready, and
 * asks for what to watch next. With nothing to do, nothing runs.
 *
 * libslirp speaks Ethernet; behind our router it needs not. It sees one neighbour, whose address it learns from
 * answers we give to its questions, and guests see the gateway's MAC only.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include <slirp/libslirp.h>

#include "net/slirp.h"

#define CLOCK_NS (100 * INT64_C(1000000))	/* how far libslirp's clock may be behind */

static ssize_t send_packet_cb(const void *buf, size_t len, void *opaque);
static void guest_error_cb(const char *msg, void *opaque);
static int64_t clock_cb(void *opaque);
static void *timer_new_cb(SlirpTimerCb cb, void *cb_opaque, void *opaque);
static void timer_free_cb(void *timer, void *opaque);
static void timer_mod_cb(void *timer, int64_t expire_time, void *opaque);
static void register_cb(int fd, void *opaque);
static void unregister_cb(int fd, void *opaque);
static void notify_cb(void *opaque);
static void *timer_opaque_cb(SlirpTimerId id, void *cb_opaque, void *opaque);

static void input(struct router_uplink *u, const struct packet *p);
static void pump(void *arg);
static void timeout_cb(evutil_socket_t fd, short what, void *arg);
static void ready_cb(evutil_socket_t fd, short what, void *arg);

static const uint8_t our_mac[6] = { 0x02, 0x67, 0xff, 0xff, 0xff, 0xff };

struct watched {
	struct slirpnet *slirp;
	struct event *ev;		/* NULL: libslirp does not want it now */
	short events;			/* of ev */
	int wanted, ready;		/* SLIRP_POLL_* */
};

struct answer {				/* to a question of libslirp, for the next pump */
	TAILQ_ENTRY(answer) entry;
	struct frame *frame;
};
TAILQ_HEAD(answers, answer);

/* Owned by its bridge. */
struct slirpnet {
	struct router_uplink uplink;
	struct loop *loop;
	Slirp *stack;
	struct net_address gateway;
	void (*packet)(void *arg, const struct packet *p);
	void *arg;
	struct watched **watched;	/* by descriptor */
	int nwatched;
	struct answers answers, output;	/* output: packets for guests, for the end of the pump */
	struct event *timer;
	int64_t clock;			/* what libslirp takes for now; it looks only when it polls */
	bool pending, closed;		/* pump is deferred */
};

static const SlirpCb callbacks = {
	.send_packet = send_packet_cb,
	.guest_error = guest_error_cb,
	.clock_get_ns = clock_cb,
	.timer_new = timer_new_cb,
	.timer_free = timer_free_cb,
	.timer_mod = timer_mod_cb,
	.register_poll_fd = register_cb,
	.unregister_poll_fd = unregister_cb,
	.notify = notify_cb,
	.timer_new_opaque = timer_opaque_cb,
};

/* ---- life ---- */

/*
 * The name server has the gateway's address, and the host in libslirp's sense one that no guest can reach (the
 * network's own): guests get to the host's resolver, but not to what listens on its loopback.
 */
static void configure(SlirpConfig *c, const struct net_address *g)
{
	uint32_t mask = g->prefix4 ? htonl(UINT32_MAX << (32 - g->prefix4)) : 0;

	memset(c, 0, sizeof(*c));
	c->version = 4;
	c->in_enabled = true;
	memcpy(&c->vnameserver, g->ip4, 4);
	c->vnetmask.s_addr = mask;
	c->vnetwork.s_addr = c->vnameserver.s_addr & mask;
	c->vhost = c->vnetwork;
	c->disable_host_loopback = true;
	c->disable_dhcp = true;
	c->in6_enabled = g->has6;
	if (!g->has6)
		return;
	memcpy(&c->vnameserver6, g->ip6, 16);
	c->vprefix_len = (uint8_t)g->prefix6;
	for (unsigned i = 0; i < 16; i++) {
		unsigned bits = g->prefix6 > i * 8 ? g->prefix6 - i * 8 : 0;

		c->vprefix_addr6.s6_addr[i] = bits >= 8 ? g->ip6[i] : (uint8_t)(g->ip6[i] & 0xff00 >> bits);
	}
	c->vhost6 = c->vprefix_addr6;
}

struct slirpnet *slirpnet_open(struct loop *l, const struct net_address *gateway,
	void (*packet)(void *arg, const struct packet *p), void *arg, struct err *e)
{
	struct slirpnet *s = xcalloc(1, sizeof(*s));
	SlirpConfig config;

	s->uplink.input = input;
	s->loop = l;
	s->gateway = *gateway;
	s->packet = packet;
	s->arg = arg;
	TAILQ_INIT(&s->answers);
	TAILQ_INIT(&s->output);
	configure(&config, gateway);
	s->stack = slirp_new(&config, &callbacks, s);
	if (!s->stack) {
		free(s);
		err_set(e, EINVAL, "libslirp %s refuses to serve this network", slirp_version_string());
		return NULL;
	}
	return s;
}

static void unwatch(struct watched *w)
{
	if (w->ev)
		event_free(w->ev);
	w->ev = NULL;
	w->events = 0;
	w->ready = w->wanted = 0;
}

static void free_list(struct answers *list)
{
	struct answer *a;

	while ((a = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, a, entry);
		frame_unref(a->frame);
		free(a);
	}
}

void slirpnet_close(struct slirpnet *s)
{
	if (!s)
		return;
	s->closed = true;
	slirp_cleanup(s->stack);
	s->stack = NULL;
	timer_stop(&s->timer);
	for (int i = 0; i < s->nwatched; i++) {
		if (!s->watched[i])
			continue;
		unwatch(s->watched[i]);
		free(s->watched[i]);
	}
	free(s->watched);
	free_list(&s->answers);
	free_list(&s->output);
	if (!s->pending)
		free(s);
}

struct router_uplink *slirpnet_uplink(struct slirpnet *s)
{
	return &s->uplink;
}

/* ---- the pump ---- */

static void wake(struct slirpnet *s)
{
	if (s->pending || s->closed)
		return;
	s->pending = true;
	loop_defer(s->loop, pump, s);
}

static struct watched *watched_of(struct slirpnet *s, int fd)
{
	if (fd >= s->nwatched) {
		int n = fd + 16;

		s->watched = xrealloc(s->watched, (size_t)n * sizeof(*s->watched));
		memset(s->watched + s->nwatched, 0, (size_t)(n - s->nwatched) * sizeof(*s->watched));
		s->nwatched = n;
	}
	if (!s->watched[fd]) {
		s->watched[fd] = xcalloc(1, sizeof(**s->watched));
		s->watched[fd]->slirp = s;
	}
	return s->watched[fd];
}

static int add_poll_cb(int fd, int events, void *opaque)
{
	struct watched *w = watched_of(opaque, fd);

	w->wanted |= events;
	return fd;
}

static int revents_cb(int fd, void *opaque)
{
	struct slirpnet *s = opaque;

	return fd >= 0 && fd < s->nwatched && s->watched[fd] ? s->watched[fd]->ready : 0;
}

static void poll_now(struct slirpnet *s)
{
	slirp_pollfds_poll(s->stack, 0, revents_cb, s);
	for (int i = 0; i < s->nwatched; i++)
		if (s->watched[i])
			s->watched[i]->ready = 0;
	s->clock = now_ns();
}

static void watch(struct slirpnet *s, int fd)
{
	struct watched *w = s->watched[fd];
	short events = 0;

	/* Errors and hang-ups show as readable. */
	if (w->wanted & (SLIRP_POLL_IN | SLIRP_POLL_PRI | SLIRP_POLL_HUP | SLIRP_POLL_ERR))
		events |= EV_READ;
	if (w->wanted & SLIRP_POLL_OUT)
		events |= EV_WRITE;
	if (events == w->events)
		return;
	if (w->ev)
		event_free(w->ev);
	w->ev = NULL;
	w->events = events;
	if (events) {
		w->ev = event_new(loop_base(s->loop), fd, events | EV_PERSIST, ready_cb, w);
		INVARIANT(w->ev);
		event_add(w->ev, NULL);
	}
}

static void fill(struct slirpnet *s)
{
	uint32_t timeout = UINT32_MAX;

	for (int i = 0; i < s->nwatched; i++)
		if (s->watched[i])
			s->watched[i]->wanted = 0;
	slirp_pollfds_fill(s->stack, &timeout, add_poll_cb, s);
	for (int i = 0; i < s->nwatched; i++)
		if (s->watched[i])
			watch(s, i);
	timer_stop(&s->timer);
	if (timeout != UINT32_MAX)
		timer_start(s->loop, &s->timer, (int64_t)timeout * 1000000, timeout_cb, s);
}

static void give_answers(struct slirpnet *s)
{
	struct answer *a;

	while ((a = TAILQ_FIRST(&s->answers))) {
		TAILQ_REMOVE(&s->answers, a, entry);
		slirp_input(s->stack, a->frame->data, (int)a->frame->len);
		frame_unref(a->frame);
		free(a);
	}
}

/* Packets leave last: what they cause must not find libslirp at work. */
static void give_output(struct slirpnet *s)
{
	struct answer *a;
	struct packet p;

	while (!s->closed && (a = TAILQ_FIRST(&s->output))) {
		TAILQ_REMOVE(&s->output, a, entry);
		if (packet_parse(&p, a->frame->data + FRAME_HEADER, a->frame->len - FRAME_HEADER))
			s->packet(s->arg, &p);
		frame_unref(a->frame);
		free(a);
	}
}

static void pump(void *arg)
{
	struct slirpnet *s = arg;

	s->pending = false;
	if (s->closed) {
		free(s);
		return;
	}
	/* Also sends what waited for an answer. */
	give_answers(s);
	poll_now(s);
	fill(s);
	if (!TAILQ_EMPTY(&s->answers))
		wake(s);
	give_output(s);
}

/* libevent says only that something is; libslirp wants to know urgent data from an end and from an error. */
static void ready_cb(evutil_socket_t fd, short what, void *arg)
{
	static const struct { short poll; int slirp; } names[] = {
		{ POLLIN, SLIRP_POLL_IN }, { POLLOUT, SLIRP_POLL_OUT }, { POLLPRI, SLIRP_POLL_PRI },
		{ POLLERR, SLIRP_POLL_ERR }, { POLLHUP, SLIRP_POLL_HUP },
	};
	struct watched *w = arg;
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLPRI | POLLOUT };

	(void)what;
	if (poll(&p, 1, 0) > 0)
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (p.revents & names[i].poll)
				w->ready |= names[i].slirp;
	w->ready &= w->wanted | SLIRP_POLL_ERR | SLIRP_POLL_HUP;
	wake(w->slirp);
}

static void timeout_cb(evutil_socket_t fd, short what, void *arg)
{
	struct slirpnet *s = arg;

	(void)fd, (void)what;
	timer_stop(&s->timer);
	wake(s);
}

/* ---- from guests ---- */

static void input(struct router_uplink *u, const struct packet *p)
{
	struct slirpnet *s = (struct slirpnet *)u;
	struct frame *f = frame_new(FRAME_HEADER + p->len);

	/* A connection that starts at a time long past would be over at once. */
	if (now_ns() - s->clock > CLOCK_NS)
		poll_now(s);
	memset(f->data, 0, FRAME_HEADER);
	f->data[0] = 0x52;		/* any address of its own will do */
	f->data[1] = 0x55;
	memcpy(f->data + 6, our_mac, 6);
	put16(f->data + 12, p->is6 ? TYPE_IP6 : TYPE_IP4);
	memcpy(f->data + FRAME_HEADER, p->ip, p->len);
	slirp_input(s->stack, f->data, (int)f->len);
	frame_unref(f);
	wake(s);
}

/* ---- what libslirp calls ---- */

static void queue(struct slirpnet *s, struct answers *list, struct frame *f)
{
	struct answer *a = xcalloc(1, sizeof(*a));

	a->frame = f;
	TAILQ_INSERT_TAIL(list, a, entry);
	wake(s);
}

/* Who has a guest's address? We have. */
static void answer_arp(struct slirpnet *s, const uint8_t *arp)
{
	struct frame *f = frame_new(FRAME_HEADER + ARP_LENGTH);
	uint8_t *a = f->data + FRAME_HEADER;

	memcpy(f->data, arp + 8, 6);
	memcpy(f->data + 6, our_mac, 6);
	put16(f->data + 12, TYPE_ARP);
	memcpy(a, arp, 6);
	put16(a + 6, 2);
	memcpy(a + 8, our_mac, 6);
	memcpy(a + 14, arp + 24, 4);
	memcpy(a + 18, arp + 8, 10);
	queue(s, &s->answers, f);
}

static void answer_solicitation(struct slirpnet *s, const struct packet *p)
{
	struct ip_address target = ip_address_of(true, p->payload + 8);
	struct frame *f = packet_new(&target, &p->src, PROTO_ICMP6, 32);
	uint8_t *nd = packet_payload(f);

	f->data[0] = 0x52;
	f->data[1] = 0x55;
	memcpy(f->data + 6, our_mac, 6);
	nd[0] = 136;
	nd[4] = 0x60;
	memcpy(nd + 8, target.bytes, 16);
	nd[24] = 2;
	nd[25] = 1;
	memcpy(nd + 26, our_mac, 6);
	packet_sum_icmp(f);
	queue(s, &s->answers, f);
}

/* libslirp's own address in an error's source is one that guests do not know: it comes from the gateway. */
static void rename_source(struct slirpnet *s, struct frame *f)
{
	uint8_t *ip = f->data + FRAME_HEADER;
	struct packet p;
	uint32_t sum = 0;

	if (!packet_parse(&p, ip, f->len - FRAME_HEADER) || p.is6 ||
	    !ip_same_prefix(p.src.bytes, s->gateway.ip4, s->gateway.prefix4) || p.proto != PROTO_ICMP)
		return;
	memcpy(ip + 12, s->gateway.ip4, 4);
	put16(ip + 10, 0);
	for (unsigned i = 0; i < (ip[0] & 15U) * 4; i += 2)
		sum += get16(ip + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + 10, ~sum & 0xffff);
}

static ssize_t send_packet_cb(const void *buf, size_t len, void *opaque)
{
	struct slirpnet *s = opaque;
	const uint8_t *data = buf;
	struct packet p;
	struct frame *f;

	if (s->closed || len < FRAME_HEADER)
		return (ssize_t)len;
	if (get16(data + 12) == TYPE_ARP) {
		if (len >= FRAME_HEADER + ARP_LENGTH && get16(data + FRAME_HEADER + 6) == 1)
			answer_arp(s, data + FRAME_HEADER);
		return (ssize_t)len;
	}
	if (!packet_parse(&p, data + FRAME_HEADER, len - FRAME_HEADER))
		return (ssize_t)len;
	if (p.is6 && p.proto == PROTO_ICMP6 && p.payload_len >= 24 && p.payload[0] == 135) {
		answer_solicitation(s, &p);
		return (ssize_t)len;
	}
	/* No router advertisements, nor anything else that is for everyone. */
	if (packet_multicast(&p.dst))
		return (ssize_t)len;
	f = frame_of(buf, len);
	rename_source(s, f);
	queue(s, &s->output, f);
	return (ssize_t)len;
}

static void guest_error_cb(const char *msg, void *opaque)
{
	(void)opaque;
	log_debug("slirp", "%s", msg);
}

static int64_t clock_cb(void *opaque)
{
	(void)opaque;
	return now_ns();
}

/* The one timer there is is for router advertisements, which are not wanted. */
static void *timer_new_cb(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	(void)cb, (void)cb_opaque;
	return opaque;
}

static void *timer_opaque_cb(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	(void)id, (void)cb_opaque;
	return opaque;
}

static void timer_free_cb(void *timer, void *opaque)
{
	(void)timer, (void)opaque;
}

static void timer_mod_cb(void *timer, int64_t expire_time, void *opaque)
{
	(void)timer, (void)expire_time, (void)opaque;
}

static void register_cb(int fd, void *opaque)
{
	(void)fd, (void)opaque;
}

/* It is about to be closed, and its number may come back as another socket. */
static void unregister_cb(int fd, void *opaque)
{
	struct slirpnet *s = opaque;

	if (fd >= 0 && fd < s->nwatched && s->watched[fd])
		unwatch(s->watched[fd]);
}

static void notify_cb(void *opaque)
{
	wake(opaque);
}
