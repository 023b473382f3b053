/*
 * Fuzzes what guests may put on a bridge of the user backend: switch, impairments, two gateways with a route.
 *
 * An input is a row of frames, two bytes of length before each; the lowest bit of the first byte says from which
 * bridge's guest it comes. Checksums of IPv4 headers are put right, or hardly anything would get past them.
 */
#include <stdlib.h>

#include "net/emulate.h"
#include "net/router.h"

struct side {
	struct vswitch *sw;
	struct emulator *emulator;
	struct swport guest, gateway;
	struct router *router;
	int64_t now;
};

static struct side sides[2];
static struct loop *loop;
static const struct net_address addresses[2] = {
	{ { 10, 0, 1, 1 }, 24, true, { 0xfd, [3] = 1, [15] = 1 }, 64 },
	{ { 10, 0, 2, 1 }, 24, true, { 0xfd, [3] = 2, [15] = 1 }, 64 },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct side *side_of(struct swport *p)
{
	return p == &sides[0].guest || p == &sides[0].gateway ? &sides[0] : &sides[1];
}

static void path_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	struct side *s = arg;

	emulator_pass(s->emulator, from, to, f, s->now);
}

static void forward_cb(void *arg, struct swport *from, struct frame *f, int64_t t)
{
	(void)arg;
	switch_input(from, f, t);
}

static void deliver_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	(void)arg, (void)from;
	to->output(to, f);
}

static void dropped_cb(void *arg, struct swport *from)
{
	(void)arg, (void)from;
}

static void guest_cb(struct swport *p, struct frame *f)
{
	(void)p;
	INVARIANT(f->len >= FRAME_HEADER && f->len <= f->size);
}

static void gateway_cb(struct swport *p, struct frame *f)
{
	router_input(side_of(p)->router, f);
}

static void router_cb(void *arg, struct frame *f)
{
	struct side *s = arg;

	switch_input(&s->gateway, f, s->now);
}

static void uplink_cb(struct router_uplink *u, const struct packet *p)
{
	(void)u;
	INVARIANT(p->len <= 65575 && !packet_martian(&p->dst) && !packet_multicast(&p->dst));
}

static const struct switch_events switch_ev = { .path = path_cb, .dropped = dropped_cb };
static const struct emulator_events emulator_ev = {
	.forward = forward_cb, .deliver = deliver_cb, .dropped = dropped_cb,
};
static const struct router_events router_ev = { .send = router_cb };
static struct router_uplink uplink = { .input = uplink_cb };

static void open_side(struct side *s, const struct net_address *a)
{
	struct net_impairment i = { .duplicate = 0.2, .corrupt = 0.1, .latency_ns = 1000, .jitter_ns = 500 };

	s->sw = switch_new(&switch_ev, s);
	s->emulator = emulator_new(1, &emulator_ev, s);
	s->guest = (struct swport){ .name = "guest", .output = guest_cb };
	s->gateway = (struct swport){ .name = "", .output = gateway_cb };
	switch_add(s->sw, &s->guest);
	switch_add(s->sw, &s->gateway);
	s->router = router_new(loop, a, &router_ev, s);
	switch_pin(&s->gateway, router_mac(s->router));
	emulator_set(s->emulator, NULL, NULL, &i, 0);
	switch_set_impaired(s->sw, true);
	s->now = 0;
}

static void close_side(struct side *s)
{
	router_free(s->router);
	switch_remove(&s->guest);
	switch_remove(&s->gateway);
	switch_free(s->sw);
	emulator_free(s->emulator);
}

static void put_sum_right(struct frame *f)
{
	uint8_t *ip = f->data + FRAME_HEADER;
	uint32_t sum = 0;

	if (f->len < FRAME_HEADER + IP4_HEADER || get16(f->data + 12) != TYPE_IP4)
		return;
	put16(ip + 10, 0);
	for (unsigned i = 0; i < (ip[0] & 15U) * 4 && FRAME_HEADER + i + 2 <= f->len; i += 2)
		sum += get16(ip + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(ip + 10, ~sum & 0xffff);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	loop = loop_new();
	for (int i = 0; i < 2; i++)
		open_side(&sides[i], &addresses[i]);
	router_route(sides[0].router, sides[1].router, true);
	router_set_uplink(sides[0].router, &uplink);
	while (size >= 2) {
		struct side *s = &sides[data[0] & 1];
		size_t len = (size_t)(data[0] >> 1) << 8 | data[1];
		struct frame *f;

		data += 2;
		size -= 2;
		len = len < size ? len : size;
		f = frame_of(data, len);
		put_sum_right(f);
		switch_input(&s->guest, f, s->now);
		frame_unref(f);
		s->now += 1000;
		emulator_run(s->emulator, s->now, 100);
		data += len;
		size -= len;
	}
	for (int i = 0; i < 2; i++)
		close_side(&sides[i]);
	loop_free(loop);
	return 0;
}
