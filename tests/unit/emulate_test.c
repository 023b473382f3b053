/*
 * Impairments in virtual time: what is set is what comes out, composed, for exactly the pair, and again with a seed.
 */
#include "rig.h"

#include <math.h>

#include "net/emulate.h"

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define PORTS 3

struct arrival { unsigned from, to, id; int64_t at; };

struct bench {
	struct emulator *e;
	struct swport ports[PORTS];
	int64_t now;
	struct arrival *arrivals;
	size_t n, size, dropped, damaged;
};

static void output_cb(struct swport *p, struct frame *f)
{
	(void)p, (void)f;
}

static void deliver_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	struct bench *b = arg;
	unsigned id;

	if (b->n == b->size) {
		b->size = b->size ? b->size * 2 : 1024;
		b->arrivals = xrealloc(b->arrivals, b->size * sizeof(*b->arrivals));
	}
	memcpy(&id, f->data, sizeof(id));
	for (size_t i = FRAME_HEADER; i < f->len; i++)
		if (f->data[i] != 0) {
			b->damaged++;
			break;
		}
	b->arrivals[b->n++] = (struct arrival){ (unsigned)(from - b->ports), (unsigned)(to - b->ports), id, b->now };
}

static void forward_cb(void *arg, struct swport *from, struct frame *f, int64_t t)
{
	struct bench *b = arg;

	b->now = t;
	emulator_pass(b->e, from, &b->ports[1], f, t);
}

static void dropped_cb(void *arg, struct swport *from)
{
	(void)from;
	((struct bench *)arg)->dropped++;
}

static const struct emulator_events events = {
	.forward = forward_cb, .deliver = deliver_cb, .dropped = dropped_cb,
};

static void open_seeded(struct bench *b, uint64_t seed)
{
	static const char *const names[] = { "a", "b", "c" };

	memset(b, 0, sizeof(*b));
	b->e = emulator_new(seed, &events, b);
	for (unsigned i = 0; i < PORTS; i++) {
		b->ports[i].name = names[i];
		b->ports[i].slot = i;
		b->ports[i].output = output_cb;
	}
}

static void close_seeded(struct bench *b)
{
	emulator_free(b->e);
	free(b->arrivals);
}

static int open_bench(void **state)
{
	*state = xcalloc(1, sizeof(struct bench));
	open_seeded(*state, 42);
	return 0;
}

static int close_bench(void **state)
{
	close_seeded(*state);
	free(*state);
	return 0;
}

/* Time passes until t; what is due happens when it is due. */
static void run_until(struct bench *b, int64_t t)
{
	while (emulator_due(b->e) <= t) {
		b->now = emulator_due(b->e);
		emulator_run(b->e, b->now, 1);
	}
	b->now = t;
}

static void send_frame(struct bench *b, unsigned from, unsigned to, unsigned id, size_t len)
{
	struct frame *f = frame_new(len);

	memset(f->data, 0, len);
	memcpy(f->data, &id, sizeof(id));
	emulator_pass(b->e, &b->ports[from], &b->ports[to], f, b->now);
	frame_unref(f);
}

static void set_one(struct bench *b, int from, int to, struct net_impairment i)
{
	emulator_set(b->e, from < 0 ? NULL : &b->ports[from], to < 0 ? NULL : &b->ports[to], &i, b->now);
}

static void clear_arrivals(struct bench *b)
{
	b->n = b->dropped = b->damaged = 0;
}

/* Sends n frames from a to b, one each millisecond, and returns how many arrived. */
static size_t arrived_of(struct bench *b, unsigned n)
{
	clear_arrivals(b);
	for (unsigned i = 0; i < n; i++) {
		send_frame(b, 0, 1, i, 100);
		run_until(b, b->now + MS);
	}
	run_until(b, b->now + 10 * SECOND);
	return b->n;
}

static void test_latency(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 50 * MS });
	set_one(b, -1, -1, (struct net_impairment){ .latency_ns = 10 * MS });
	set_one(b, 0, -1, (struct net_impairment){ .latency_ns = 5 * MS });
	set_one(b, -1, 1, (struct net_impairment){ .latency_ns = 2 * MS });
	send_frame(b, 0, 1, 1, 100);	/* all four */
	send_frame(b, 1, 0, 2, 100);	/* the bridge's only */
	send_frame(b, 0, 2, 3, 100);	/* the bridge's and a's */
	send_frame(b, 2, 1, 4, 100);	/* the bridge's and b's */
	run_until(b, SECOND);
	assert_int_equal(b->n, 4);
	assert_int_equal(b->arrivals[0].id, 2);
	assert_int_equal(b->arrivals[0].at, 10 * MS);
	assert_int_equal(b->arrivals[1].id, 4);
	assert_int_equal(b->arrivals[1].at, 12 * MS);
	assert_int_equal(b->arrivals[2].id, 3);
	assert_int_equal(b->arrivals[2].at, 15 * MS);
	assert_int_equal(b->arrivals[3].id, 1);
	assert_int_equal(b->arrivals[3].at, 67 * MS);
}

static void test_only_the_pair(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 200 * MS });
	for (unsigned from = 0; from < PORTS; from++)
		for (unsigned to = 0; to < PORTS; to++)
			if (from != to)
				send_frame(b, from, to, from * 10 + to, 100);
	assert_int_equal(b->n, 5);	/* at once */
	run_until(b, SECOND);
	assert_int_equal(b->n, 6);
	assert_int_equal(b->arrivals[5].at, 200 * MS);
	assert_int_equal(b->arrivals[5].id, 1);
}

static void test_order_is_kept(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 10 * MS, .rate_bps = 1000000000 });
	for (unsigned i = 0; i < 1000; i++)
		send_frame(b, 0, 1, i, 1000);
	run_until(b, SECOND);
	assert_int_equal(b->n, 1000);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(b->arrivals[i].id, i);
}

static void test_change_on_live_traffic(void **state)
{
	struct bench *b = *state;

	set_one(b, -1, -1, (struct net_impairment){ .latency_ns = 100 * MS });
	send_frame(b, 0, 1, 1, 100);
	set_one(b, -1, -1, (struct net_impairment){ .latency_ns = 20 * MS });
	send_frame(b, 0, 1, 2, 100);
	set_one(b, -1, -1, (struct net_impairment){ 0 });
	send_frame(b, 0, 1, 3, 100);
	assert_true(emulator_on_paths(b->e));	/* two are still on their way */
	run_until(b, SECOND);
	assert_false(emulator_on_paths(b->e));
	assert_int_equal(b->n, 3);
	assert_int_equal(b->arrivals[0].at, 0);
	assert_int_equal(b->arrivals[1].at, 20 * MS);
	assert_int_equal(b->arrivals[2].at, 100 * MS);
}

static void test_jitter(void **state)
{
	struct bench *b = *state;
	int64_t least = INT64_MAX, most = 0;
	double sum = 0;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 50 * MS, .jitter_ns = 10 * MS });
	for (unsigned i = 0; i < 5000; i++) {
		int64_t sent = b->now;

		clear_arrivals(b);
		send_frame(b, 0, 1, i, 100);
		run_until(b, b->now + 100 * MS);
		assert_int_equal(b->n, 1);
		sent = b->arrivals[0].at - sent;
		least = sent < least ? sent : least;
		most = sent > most ? sent : most;
		sum += (double)sent;
	}
	assert_in_range(least, 40 * MS, 41 * MS);
	assert_in_range(most, 59 * MS, 60 * MS);
	assert_in_range((uint64_t)(sum / 5000), 49 * MS, 51 * MS);
}

/* Within four standard deviations of n independent chances. */
static void check_share(size_t count, unsigned n, double p)
{
	double off = fabs((double)count - n * p), sd = sqrt(n * p * (1 - p));

	if (off > 4 * sd)
		fail_msg("%zu of %u at p = %g: off by %.1f standard deviations", count, n, p, off / sd);
}

static void test_loss(void **state)
{
	static const double ps[] = { 0.01, 0.1, 0.5, 0.9 };
	struct bench *b = *state;

	for (size_t i = 0; i < 4; i++) {
		set_one(b, 0, 1, (struct net_impairment){ .loss = ps[i] });
		check_share(20000 - arrived_of(b, 20000), 20000, ps[i]);
		assert_int_equal(b->dropped + b->n, 20000);
	}
	set_one(b, 0, 1, (struct net_impairment){ .loss = 1 });
	assert_int_equal(arrived_of(b, 100), 0);
	/* Two settings are two chances. */
	set_one(b, 0, 1, (struct net_impairment){ .loss = 0.5 });
	set_one(b, -1, -1, (struct net_impairment){ .loss = 0.5 });
	check_share(arrived_of(b, 20000), 20000, 0.25);
}

static void test_correlated_loss(void **state)
{
	struct bench *b = *state;
	unsigned runs = 0;
	size_t lost;

	set_one(b, 0, 1, (struct net_impairment){ .loss = 0.2, .loss_correlation = 0.75 });
	lost = 20000 - arrived_of(b, 20000);
	/* The share stays; what is lost comes in runs: on average four times as long as without. */
	assert_in_range(lost, 3300, 4700);
	for (size_t i = 1; i < b->n; i++)
		runs += b->arrivals[i].id != b->arrivals[i - 1].id + 1;
	assert_in_range(lost / runs, 4, 6);
}

static void test_duplicate_and_corrupt(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .duplicate = 0.3 });
	check_share(arrived_of(b, 10000) - 10000, 10000, 0.3);
	set_one(b, 0, 1, (struct net_impairment){ .corrupt = 0.2 });
	assert_int_equal(arrived_of(b, 10000), 10000);
	check_share(b->damaged, 10000, 0.2);
}

static void test_reorder(void **state)
{
	struct bench *b = *state;
	unsigned out_of_order = 0, ahead = 0;

	/* Without latency some are held back ... */
	set_one(b, 0, 1, (struct net_impairment){ .reorder = 0.1 });
	assert_int_equal(arrived_of(b, 5000), 5000);
	for (size_t i = 1; i < b->n; i++)
		out_of_order += b->arrivals[i].id < b->arrivals[i - 1].id;
	assert_in_range(out_of_order, 300, 700);
	/* ... with latency some go ahead. */
	set_one(b, 0, 1, (struct net_impairment){ .reorder = 0.1, .latency_ns = 20 * MS });
	assert_int_equal(arrived_of(b, 5000), 5000);
	for (size_t i = 1; i < b->n; i++)
		ahead += b->arrivals[i].id > b->arrivals[i - 1].id + 1;
	assert_in_range(ahead, 300, 1000);
}

/* From a to b. */
static void send_arp(struct bench *b)
{
	struct frame *f = frame_new(60);
	unsigned id = 1000;

	memset(f->data, 0, 60);
	memcpy(f->data, &id, sizeof(id));
	f->data[12] = 8;
	f->data[13] = 6;
	emulator_pass(b->e, &b->ports[0], &b->ports[1], f, b->now);
	frame_unref(f);
}

/* The ids that arrived of n frames from a to b, while frames from `noise` others come in between. */
static unsigned long long loss_pattern(uint64_t seed, unsigned noise, const char *receiver)
{
	struct bench b;
	unsigned long long bits = 0;

	open_seeded(&b, seed);
	b.ports[1].name = receiver;
	set_one(&b, -1, -1, (struct net_impairment){ .loss = 0.5 });
	for (unsigned i = 0; i < 64; i++) {
		for (unsigned k = 0; k < noise * (i % 3); k++)
			send_frame(&b, 2, 1, 1000, 100);
		send_frame(&b, 0, 1, i, 100);
		if (noise)
			send_frame(&b, 1, 0, 1000, 100);
		if (noise && i % 5 == 0)
			send_arp(&b);
		b.now += (1 + i * noise) * MS;
	}
	for (size_t i = 0; i < b.n; i++)
		if (b.arrivals[i].id < 64)
			bits |= 1ULL << b.arrivals[i].id;
	close_seeded(&b);
	return bits;
}

static void test_replay(void **state)
{
	unsigned long long first = loss_pattern(7, 0, "b");

	(void)state;
	assert_true(first == loss_pattern(7, 0, "b"));
	assert_true(first == loss_pattern(7, 3, "b"));	/* whatever the others do */
	assert_true(first != loss_pattern(8, 0, "b"));
	assert_true(first != loss_pattern(7, 0, "bb"));
}

/* More frames than the rate lets through, for ten seconds of virtual time. */
static double measured_rate(struct bench *b, unsigned from, unsigned to)
{
	size_t bytes = 0;
	int64_t start = b->now;

	clear_arrivals(b);
	for (unsigned i = 0; b->now < start + 10 * SECOND; i++) {
		send_frame(b, from, to, i, 1000);
		run_until(b, b->now + MS / 2);
	}
	run_until(b, b->now + 20 * SECOND);	/* what still waits */
	for (size_t i = 0; i < b->n; i++)
		bytes += b->arrivals[i].at < start + 10 * SECOND && b->arrivals[i].from == from &&
			b->arrivals[i].to == to ? 1000 : 0;
	return (double)bytes * 8 / 10;
}

static void test_rate(void **state)
{
	static const uint64_t rates[] = { 100000, 1000000, 10000000 };
	struct bench *b = *state;

	for (size_t i = 0; i < 3; i++) {
		double r;

		set_one(b, 0, 1, (struct net_impairment){ .rate_bps = rates[i] });
		r = measured_rate(b, 0, 1);
		assert_true(r > (double)rates[i] * 0.99 && r < (double)rates[i] * 1.03);
		set_one(b, 0, 1, (struct net_impairment){ 0 });
	}
	/* The other direction never had one. */
	assert_true(measured_rate(b, 1, 0) > 15000000);
}

static void test_rates_compose(void **state)
{
	struct bench *b = *state;
	double r;

	set_one(b, -1, 1, (struct net_impairment){ .rate_bps = 2000000 });
	set_one(b, 0, 1, (struct net_impairment){ .rate_bps = 1000000 });
	r = measured_rate(b, 0, 1);
	assert_true(r > 990000 && r < 1030000);
	r = measured_rate(b, 2, 1);
	assert_true(r > 1980000 && r < 2060000);
}

static void test_rate_raised_while_frames_wait(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .rate_bps = 8000 });	/* a kilobyte a second */
	for (unsigned i = 0; i < 20; i++)
		send_frame(b, 0, 1, i, 1000);
	run_until(b, 100 * MS);
	assert_true(b->n < 20);
	set_one(b, 0, 1, (struct net_impairment){ .rate_bps = 8000000 });
	run_until(b, 200 * MS);
	assert_int_equal(b->n, 20);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(b->arrivals[i].id, i);
	set_one(b, 0, 1, (struct net_impairment){ .rate_bps = 8000 });
	for (unsigned i = 20; i < 40; i++)
		send_frame(b, 0, 1, i, 1000);
	set_one(b, 0, 1, (struct net_impairment){ 0 });
	run_until(b, b->now);
	assert_int_equal(b->n, 40);
}

static void test_entrance_rates(void **state)
{
	struct bench *b = *state;
	struct frame *f = frame_new(1000);

	memset(f->data, 0, 1000);
	assert_false(emulator_at_entrances(b->e));
	emulator_set_port_rate(b->e, &b->ports[0], 1000000, b->now);
	assert_true(emulator_at_entrances(b->e));
	for (unsigned i = 0; i < 200000; i += 1000) {
		emulator_enter(b->e, &b->ports[0], f, b->now);
		run_until(b, b->now + MS);
	}
	/* 200 frames in 200 ms, at 125 bytes a millisecond. */
	assert_in_range(b->n, 24, 30);
	emulator_set_port_rate(b->e, &b->ports[0], 0, b->now);
	run_until(b, b->now);
	assert_false(emulator_at_entrances(b->e));
	clear_arrivals(b);
	/* The whole bridge's is for the sum of what all send. */
	set_one(b, -1, -1, (struct net_impairment){ .rate_bps = 2000000 });
	assert_true(emulator_at_entrances(b->e));
	for (unsigned i = 0; i < 200; i++) {
		emulator_enter(b->e, &b->ports[0], f, b->now);
		emulator_enter(b->e, &b->ports[2], f, b->now);
		run_until(b, b->now + MS);
	}
	assert_in_range(b->n, 49, 56);
	frame_unref(f);
}

static void test_bounded(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 3600 * SECOND });
	for (unsigned i = 0; i < 2000; i++)
		send_frame(b, 0, 1, i, 60000);
	assert_true(b->dropped > 0);
	run_until(b, 3600 * SECOND);
	assert_in_range(b->n * 60000, 60 << 20, 64 << 20);
}

static void test_port_goes(void **state)
{
	struct bench *b = *state;

	set_one(b, 0, 1, (struct net_impairment){ .latency_ns = 10 * MS });
	set_one(b, -1, 2, (struct net_impairment){ .latency_ns = 10 * MS });
	send_frame(b, 0, 1, 1, 100);
	send_frame(b, 0, 2, 2, 100);
	emulator_remove(b->e, &b->ports[1]);
	run_until(b, SECOND);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->arrivals[0].id, 2);
	clear_arrivals(b);
	send_frame(b, 0, 1, 3, 100);
	assert_int_equal(b->n, 1);	/* its setting went with it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_latency, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_only_the_pair, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_order_is_kept, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_change_on_live_traffic, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_jitter, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_loss, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_correlated_loss, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_duplicate_and_corrupt, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_reorder, open_bench, close_bench),
		cmocka_unit_test(test_replay),
		cmocka_unit_test_setup_teardown(test_rate, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_rates_compose, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_rate_raised_while_frames_wait, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_entrance_rates, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_bounded, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_port_goes, open_bench, close_bench),
	};

	return cmocka_run_group_tests_name("emulate", tests, NULL, NULL);
}
