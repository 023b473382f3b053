/*
 * The gateway: ARP, neighbour discovery, echo, forwarding between bridges, errors, the way out.
 */
#include "rig.h"

#include "net/ip.h"
#include "net/router.h"

#define SENT 64

struct side {
	struct router *r;
	struct frame *sent[SENT];
	size_t nsent;
};

struct bench {
	struct router_uplink uplink;
	struct loop *loop;
	struct side a, b;
	unsigned out;			/* packets to the uplink */
};

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0, 0, 1 }, other_mac[6] = { 0x52, 0x54, 0, 0, 0, 2 };
static const struct net_address net_a = { { 10, 0, 1, 1 }, 24, true,
	{ 0xfd, 0, 0, 1, [15] = 1 }, 64 };
static const struct net_address net_b = { { 10, 0, 2, 1 }, 24, true,
	{ 0xfd, 0, 0, 2, [15] = 1 }, 64 };

static void send_cb(void *arg, struct frame *f)
{
	struct side *s = arg;

	assert_true(s->nsent < SENT);
	s->sent[s->nsent++] = frame_ref(f);
}

static void uplink_cb(struct router_uplink *u, const struct packet *p)
{
	(void)p;
	((struct bench *)u)->out++;
}

static const struct router_events events = { .send = send_cb };

static void forget(struct side *s)
{
	while (s->nsent > 0)
		frame_unref(s->sent[--s->nsent]);
}

static int open_bench(void **state)
{
	struct bench *b = xcalloc(1, sizeof(*b));

	b->uplink.input = uplink_cb;
	b->loop = loop_new();
	b->a.r = router_new(b->loop, &net_a, &events, &b->a);
	b->b.r = router_new(b->loop, &net_b, &events, &b->b);
	*state = b;
	return 0;
}

static int close_bench(void **state)
{
	struct bench *b = *state;

	router_free(b->a.r);
	router_free(b->b.r);
	forget(&b->a);
	forget(&b->b);
	loop_free(b->loop);
	free(b);
	return 0;
}

static struct ip_address ip4(unsigned net, unsigned host)
{
	return (struct ip_address){ .bytes = { 10, 0, (uint8_t)net, (uint8_t)host } };
}

static struct ip_address ip6(unsigned net, unsigned host)
{
	return (struct ip_address){ .is6 = true, .bytes = { 0xfd, 0, 0, (uint8_t)net, [15] = (uint8_t)host } };
}

static void input(struct side *s, struct frame *f, const uint8_t *src)
{
	if (get16(f->data + 12) != TYPE_ARP)
		memcpy(f->data, router_mac(s->r), 6);
	memcpy(f->data + 6, src, 6);
	router_input(s->r, f);
	frame_unref(f);
}

/* An ARP frame from the guest; op 1 asks, 2 answers. */
static void arp(struct side *s, unsigned op, struct ip_address sender, const uint8_t *mac, struct ip_address target)
{
	struct frame *f = frame_new(60);
	uint8_t *p = f->data + FRAME_HEADER;

	memset(f->data, 0, 60);
	memset(f->data, 255, 6);
	put16(f->data + 12, TYPE_ARP);
	put16(p, 1);
	put16(p + 2, TYPE_IP4);
	p[4] = 6;
	p[5] = 4;
	put16(p + 6, op);
	memcpy(p + 8, mac, 6);
	memcpy(p + 14, sender.bytes, 4);
	memcpy(p + 24, target.bytes, 4);
	input(s, f, mac);
}

static struct frame *echo(struct ip_address src, struct ip_address dst, unsigned ttl)
{
	struct frame *f = packet_new(&src, &dst, src.is6 ? PROTO_ICMP6 : PROTO_ICMP, 64);
	uint8_t *ip = f->data + FRAME_HEADER;

	packet_payload(f)[0] = src.is6 ? 128 : 8;
	packet_payload(f)[7] = 77;
	packet_sum_icmp(f);
	if (src.is6) {
		ip[7] = (uint8_t)ttl;
	} else {
		uint32_t sum = 0;

		ip[8] = (uint8_t)ttl;
		put16(ip + 10, 0);
		for (int i = 0; i < IP4_HEADER; i += 2)
			sum += get16(ip + i);
		put16(ip + 10, ~(sum % 65535) & 0xffff);
	}
	return f;
}

/* A neighbour solicitation or advertisement from mac about target. */
static struct frame *discovery(unsigned type, struct ip_address src, struct ip_address dst, struct ip_address target,
	const uint8_t *mac)
{
	struct frame *f = packet_new(&src, &dst, PROTO_ICMP6, 32);
	uint8_t *nd = packet_payload(f);

	nd[0] = (uint8_t)type;
	memcpy(nd + 8, target.bytes, 16);
	nd[24] = type == 135 ? 1 : 2;
	nd[25] = 1;
	memcpy(nd + 26, mac, 6);
	packet_sum_icmp(f);
	return f;
}

/* The last frame sent, as a packet; fails when there is not exactly one. */
static struct packet only(struct side *s)
{
	struct packet p = { 0 };
	struct frame *f;

	assert_int_equal(s->nsent, 1);
	f = s->sent[0];
	assert_memory_equal(f->data + 6, router_mac(s->r), 6);
	assert_true(packet_parse(&p, f->data + FRAME_HEADER, f->len - FRAME_HEADER));
	if (p.proto == PROTO_ICMP || p.proto == PROTO_ICMP6)
		assert_true(packet_icmp_intact(&p));
	return p;
}

static void test_arp(void **state)
{
	struct bench *b = *state;
	const uint8_t *p;

	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 1));
	assert_int_equal(b->a.nsent, 1);
	p = b->a.sent[0]->data;
	assert_memory_equal(p, guest_mac, 6);
	assert_int_equal(get16(p + 12), TYPE_ARP);
	assert_int_equal(get16(p + 20), 2);
	assert_memory_equal(p + 22, router_mac(b->a.r), 6);
	assert_memory_equal(p + 28, net_a.ip4, 4);
	assert_memory_equal(p + 38, ip4(1, 10).bytes, 4);
	/* What is for others is for others. */
	forget(&b->a);
	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 20));
	assert_int_equal(b->a.nsent, 0);
}

static void test_echo(void **state)
{
	struct bench *b = *state;
	struct packet p;

	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 1));
	forget(&b->a);
	input(&b->a, echo(ip4(1, 10), ip4(1, 1), 64), guest_mac);
	p = only(&b->a);
	assert_int_equal(p.payload[0], 0);
	assert_int_equal(p.payload[7], 77);
	assert_memory_equal(p.src.bytes, net_a.ip4, 4);
	assert_memory_equal(b->a.sent[0]->data, guest_mac, 6);
	/* Damaged on the way: no answer. */
	forget(&b->a);
	{
		struct frame *f = echo(ip4(1, 10), ip4(1, 1), 64);

		f->data[60] ^= 1;
		input(&b->a, f, guest_mac);
	}
	assert_int_equal(b->a.nsent, 0);
}

static void test_neighbour_discovery(void **state)
{
	static const struct ip_address all = { .is6 = true, .bytes = { 0xff, 2, [15] = 1 } };
	struct ip_address group = { .is6 = true, .bytes = { 0xff, 2, [11] = 1, 0xff, 0, 0, 1 } }, none = { .is6 = true };
	struct bench *b = *state;
	struct packet p;

	input(&b->a, discovery(135, ip6(1, 10), group, ip6(1, 1), guest_mac), guest_mac);
	p = only(&b->a);
	assert_int_equal(p.payload[0], 136);
	assert_int_equal(p.payload[4], 0xe0);
	assert_int_equal(p.ttl, 255);
	assert_memory_equal(p.payload + 8, net_a.ip6, 16);
	assert_memory_equal(p.payload + 26, router_mac(b->a.r), 6);
	forget(&b->a);
	/* It has learned where the guest is. */
	input(&b->a, echo(ip6(1, 10), ip6(1, 1), 64), guest_mac);
	p = only(&b->a);
	assert_int_equal(p.payload[0], 129);
	assert_memory_equal(b->a.sent[0]->data, guest_mac, 6);
	forget(&b->a);
	/* Whether the address is free: it is not, and everyone hears it. */
	input(&b->a, discovery(135, none, group, ip6(1, 1), guest_mac), guest_mac);
	p = only(&b->a);
	assert_true(ip_equal(&p.dst, &all));
	assert_int_equal(p.payload[4], 0xa0);
	forget(&b->a);
	/* Somebody else's address. */
	input(&b->a, discovery(135, ip6(1, 10), group, ip6(1, 99), guest_mac), guest_mac);
	assert_int_equal(b->a.nsent, 0);
}

static void test_forwarding4(void **state)
{
	struct bench *b = *state;
	struct packet p;

	router_route(b->a.r, b->b.r, true);
	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 1));
	forget(&b->a);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 64), guest_mac);
	/* First it asks for the address; what waits goes on when the answer is there. */
	assert_int_equal(b->b.nsent, 1);
	assert_int_equal(get16(b->b.sent[0]->data + 12), TYPE_ARP);
	assert_memory_equal(b->b.sent[0]->data + 38, ip4(2, 20).bytes, 4);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 64), guest_mac);
	assert_int_equal(b->b.nsent, 1);
	forget(&b->b);
	arp(&b->b, 2, ip4(2, 20), other_mac, ip4(2, 1));
	assert_int_equal(b->b.nsent, 2);
	frame_unref(b->b.sent[--b->b.nsent]);
	p = only(&b->b);
	assert_int_equal(p.ttl, 63);
	assert_true(ip_equal(&p.src, &(struct ip_address){ .bytes = { 10, 0, 1, 10 } }));
	assert_memory_equal(b->b.sent[0]->data, other_mac, 6);
	/* And back. */
	input(&b->b, echo(ip4(2, 20), ip4(1, 10), 64), other_mac);
	p = only(&b->a);
	assert_memory_equal(b->a.sent[0]->data, guest_mac, 6);
	forget(&b->a);
	/* The other bridge's gateway answers too. */
	input(&b->a, echo(ip4(1, 10), ip4(2, 1), 64), guest_mac);
	p = only(&b->a);
	assert_memory_equal(p.src.bytes, net_b.ip4, 4);
}

static void test_forwarding6(void **state)
{
	struct bench *b = *state;
	struct packet p;

	router_route(b->a.r, b->b.r, true);
	input(&b->a, echo(ip6(1, 10), ip6(2, 20), 64), guest_mac);
	p = only(&b->b);
	assert_int_equal(p.payload[0], 135);
	assert_memory_equal(p.payload + 8, ip6(2, 20).bytes, 16);
	forget(&b->b);
	input(&b->b, discovery(136, ip6(2, 20), ip6(2, 1), ip6(2, 20), other_mac), other_mac);
	p = only(&b->b);
	assert_int_equal(p.payload[0], 128);
	assert_int_equal(p.ttl, 63);
	assert_memory_equal(b->b.sent[0]->data, other_mac, 6);
}

/* An error about what `guest_mac` sent, of that type and code. */
static void expect_error(struct bench *b, unsigned type, unsigned code)
{
	struct packet p = only(&b->a), quoted;

	assert_int_equal(p.payload[0], type);
	assert_int_equal(p.payload[1], code);
	assert_memory_equal(p.src.bytes, p.is6 ? net_a.ip6 : net_a.ip4, p.is6 ? 16 : 4);
	assert_true(packet_parse(&quoted, p.payload + 8, p.payload_len - 8));
	assert_true(ip_equal(&quoted.src, &p.dst));
	forget(&b->a);
}

static void test_errors(void **state)
{
	struct ip_address group = { .is6 = true, .bytes = { 0xff, 2, [11] = 1, 0xff, 0, 0, 1 } };
	struct ip_address from4 = ip4(1, 10), from6 = ip6(1, 10), gw4 = ip4(1, 1), gw6 = ip6(1, 1);
	struct bench *b = *state;

	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 1));
	input(&b->a, discovery(135, ip6(1, 10), group, ip6(1, 1), guest_mac), guest_mac);
	forget(&b->a);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 64), guest_mac);
	expect_error(b, 3, 0);
	input(&b->a, echo(ip6(1, 10), ip6(2, 20), 64), guest_mac);
	expect_error(b, 1, 0);
	input(&b->a, packet_new(&from4, &gw4, PROTO_UDP, 8), guest_mac);
	expect_error(b, 3, 3);
	input(&b->a, packet_new(&from6, &gw6, PROTO_TCP, 20), guest_mac);
	expect_error(b, 1, 4);
	router_route(b->a.r, b->b.r, true);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 1), guest_mac);
	expect_error(b, 11, 0);
	input(&b->a, echo(ip6(1, 10), ip6(2, 20), 1), guest_mac);
	expect_error(b, 3, 0);
	router_route(b->b.r, b->a.r, false);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 64), guest_mac);
	expect_error(b, 3, 0);
	/* Loopback, groups, the whole network: nothing is said and nothing leaves. */
	router_set_uplink(b->a.r, &b->uplink);
	input(&b->a, echo(ip4(1, 10), (struct ip_address){ .bytes = { 127, 0, 0, 1 } }, 64), guest_mac);
	input(&b->a, echo(ip4(1, 10), ip4(1, 255), 64), guest_mac);
	input(&b->a, echo(ip4(1, 10), (struct ip_address){ .bytes = { 224, 0, 0, 1 } }, 64), guest_mac);
	input(&b->a, echo(ip6(1, 10), (struct ip_address){ .is6 = true, .bytes = { [15] = 1 } }, 64), guest_mac);
	assert_int_equal(b->a.nsent, 0);
	assert_int_equal(b->out, 0);
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

static void test_nobody_answers(void **state)
{
	struct bench *b = *state;
	struct event *guard = NULL;
	unsigned asked = 0;

	router_route(b->a.r, b->b.r, true);
	arp(&b->a, 1, ip4(1, 10), guest_mac, ip4(1, 1));
	forget(&b->a);
	input(&b->a, echo(ip4(1, 10), ip4(2, 20), 64), guest_mac);
	for (int i = 0; i < 300 && b->a.nsent == 0; i++) {
		timer_start(b->loop, &guard, 100000000, stop_cb, b->loop);
		loop_run(b->loop);
	}
	timer_stop(&guard);
	for (size_t i = 0; i < b->b.nsent; i++)
		asked += get16(b->b.sent[i]->data + 12) == TYPE_ARP;
	assert_int_equal(asked, 3);
	expect_error(b, 3, 1);
}

static void test_uplink(void **state)
{
	struct ip_address from = ip4(1, 10), gw = ip4(1, 1), outside = { .bytes = { 203, 0, 113, 1 } };
	struct frame *dns = packet_new(&from, &gw, PROTO_UDP, 8), *reply;
	struct bench *b = *state;
	struct packet p;

	put16(packet_payload(dns) + 2, 53);
	frame_ref(dns);
	arp(&b->a, 1, from, guest_mac, gw);
	forget(&b->a);
	input(&b->a, dns, guest_mac);
	expect_error(b, 3, 3);
	router_set_uplink(b->a.r, &b->uplink);
	input(&b->a, dns, guest_mac);
	assert_int_equal(b->out, 1);
	input(&b->a, echo(from, outside, 64), guest_mac);
	assert_int_equal(b->out, 2);
	input(&b->a, echo(from, outside, 1), guest_mac);
	expect_error(b, 11, 0);
	/* From outside. */
	reply = echo(outside, from, 64);
	assert_true(packet_parse(&p, reply->data + FRAME_HEADER, reply->len - FRAME_HEADER));
	router_from_uplink(b->a.r, &p);
	p = only(&b->a);
	assert_memory_equal(b->a.sent[0]->data, guest_mac, 6);
	frame_unref(reply);
}

/* Random bytes, and real packets with random bytes in them: nothing breaks. */
static void test_garbage(void **state)
{
	struct bench *b = *state;
	uint64_t x = 88172645463325252ULL;

	router_route(b->a.r, b->b.r, true);
	for (unsigned i = 0; i < 200000; i++) {
		struct frame *f = i % 2 ? frame_new(x % 120) : i % 4 ? echo(ip4(1, 10), ip4(i % 3, 20), 64) :
			discovery(135 + i % 8 / 4, ip6(1, 10), ip6(1, 1), ip6(1, 1), guest_mac);

		for (size_t k = 0; k < f->len; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			if (i % 2 ? k < 12 || k > 13 : x % 40 == 0)
				f->data[k] = (uint8_t)(x >> 32);
		}
		if (i % 2 && f->len >= 15) {
			put16(f->data + 12, x % 3 == 0 ? TYPE_ARP : x % 3 == 1 ? TYPE_IP4 : TYPE_IP6);
			f->data[14] = x % 3 == 1 ? 0x45 : 0x60;
		}
		if (f->len >= 6)
			memcpy(f->data, router_mac(b->a.r), 6);
		router_input(b->a.r, f);
		frame_unref(f);
		forget(&b->a);
		forget(&b->b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_arp, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_echo, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_neighbour_discovery, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_forwarding4, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_forwarding6, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_errors, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_nobody_answers, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_uplink, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_garbage, open_bench, close_bench),
	};

	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
