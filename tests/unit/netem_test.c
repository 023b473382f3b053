/*
 * What the kernel backend does with sch_netem: latency, jitter, reordering, corruption, loss with a memory,
 * for exactly one pair. Skipped without root, and where the kernel has no netem; tests/e2e/nested runs it on
 * one that has.
 */
#include "netrig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)

/* The delayed frame goes first and comes last. */
static void latency_is_of_the_pair(void **state)
{
	struct netlan *w = *state;
	int64_t start;

	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 2000 * MS });
	start = now_ns();
	assert_true(netrig_send(w->fd[1], 1, 2, 1, 100));
	for (unsigned i = 1; i <= 3; i++)
		for (unsigned j = 1; j <= 3; j++)
			if (i != j && !(i == 1 && j == 2))
				assert_true(netlan_passes(w, i, j));
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, NULL));
	assert_true(now_ns() - start >= 2000 * MS);
}

static void latencies_add_up(void **state)
{
	struct netlan *w = *state;
	int64_t start;

	netlan_impair(w, 0, 0, (struct net_impairment){ .latency_ns = 100 * MS });
	netlan_impair(w, 1, 0, (struct net_impairment){ .latency_ns = 200 * MS, .rate_bps = 10000000 });
	netlan_impair(w, 0, 2, (struct net_impairment){ .latency_ns = 400 * MS, .rate_bps = 10000000 });
	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 800 * MS, .loss = 0.0001 });
	start = now_ns();
	assert_true(netrig_send(w->fd[1], 1, 2, 1, 100));
	assert_true(netrig_send(w->fd[1], 1, 3, 2, 100));
	assert_true(netrig_send(w->fd[3], 3, 2, 3, 100));
	assert_true(netrig_send(w->fd[2], 2, 1, 4, 100));
	assert_true(netrig_receive_within(&w->r, w->fd[1], NETLAN_LONG, NULL));
	assert_true(now_ns() - start >= 100 * MS);
	assert_true(netrig_receive_within(&w->r, w->fd[3], NETLAN_LONG, NULL));
	assert_true(now_ns() - start >= 300 * MS);
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, NULL));
	assert_true(now_ns() - start >= 500 * MS);
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, NULL));
	assert_true(now_ns() - start >= 1500 * MS);
}

static void latency_changes_on_live_traffic(void **state)
{
	struct netlan *w = *state;
	uint64_t number;

	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 1500 * MS });
	assert_true(netrig_send(w->fd[1], 1, 2, 1, 100));
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	assert_true(netrig_send(w->fd[1], 1, 2, 2, 100));
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, &number));
	assert_int_equal(number, 2);
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, &number));
	assert_int_equal(number, 1);	/* what was on its way arrives */
}

/* How many of n frames come after one that was sent later. */
static unsigned overtaken(struct netlan *w, unsigned n)
{
	uint64_t number, last = 0;
	unsigned count = 0;

	for (uint64_t i = 1; i <= n; i++)
		assert_true(netrig_send(w->fd[1], 1, 2, i, 100));
	for (unsigned i = 0; i < n; i++) {
		assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, &number));
		count += number < last;
		last = number > last ? number : last;
	}
	return count;
}

static void frames_overtake(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 50 * MS });
	assert_int_equal(overtaken(w, 200), 0);
	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 50 * MS, .jitter_ns = 40 * MS });
	assert_true(overtaken(w, 200) > 20);
	netlan_impair(w, 1, 2, (struct net_impairment){ .latency_ns = 50 * MS, .reorder = 0.3 });
	assert_true(overtaken(w, 200) > 20);
	netlan_impair(w, 1, 2, (struct net_impairment){ .reorder = 0.3 });
	assert_true(overtaken(w, 200) > 20);
}

static unsigned bits_of(uint8_t c)
{
	return (unsigned)__builtin_popcount(c);
}

/* netem flips one bit, anywhere in the frame. */
static void frames_are_corrupted(void **state)
{
	struct netlan *w = *state;
	uint8_t frame[128];
	unsigned flipped, wrong = 0, n = 0;
	int64_t end;

	netlan_impair(w, 1, 2, (struct net_impairment){ .corrupt = 0.5 });
	for (unsigned i = 0; i < 400; i++)
		assert_true(netrig_send(w->fd[1], 1, 2, 0, 100));
	for (end = now_ns() + NETLAN_LONG; n < 400 && now_ns() < end;) {
		if (read(w->fd[2], frame, sizeof(frame)) != 100) {
			netrig_run_for(&w->r, MS);
			continue;
		}
		flipped = 0;
		for (unsigned i = 14; i < 100; i++)
			flipped += bits_of(frame[i]);
		assert_true(flipped <= 1);
		wrong += flipped;
		n++;
	}
	assert_int_equal(n, 400);
	netlan_about(wrong, 400, 0.5 * 86 / 100);
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 500, NETLAN_SOON), 500);
}

static void loss_with_a_memory(void **state)
{
	struct netlan *w = *state;
	unsigned came;

	netlan_impair(w, 1, 2, (struct net_impairment){ .loss = 0.5, .loss_correlation = 0.25 });
	came = netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 4000, NETLAN_SOON);
	assert_in_range(came, 1200, 2800);
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 500, NETLAN_SOON), 500);
}

static void duplicates_with_latency(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 0, 0, (struct net_impairment){ .latency_ns = 50 * MS });
	netlan_impair(w, 1, 2, (struct net_impairment){ .duplicate = 1 });
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 500, NETLAN_SOON), 1000);
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 500, NETLAN_SOON), 500);
}

static bool kernel_has_it(void)
{
	struct net_impairment i = { .latency_ns = 1 };
	struct netlan *w;
	bool has;

	netlan_setup((void **)&w);
	net_impair(w->lan, NULL, NULL, &i, netrig_done, &w->r);
	netrig_wait(&w->r);
	has = !err_is_set(&w->r.err);
	if (!has)
		fprintf(stderr, "skipped: %s\n", w->r.err.msg);
	netlan_teardown((void **)&w);
	return has;
}

int main(void)
{
	struct err e = ERR_INIT;
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, netlan_setup, netlan_teardown)
		T(latency_is_of_the_pair),
		T(latencies_add_up),
		T(latency_changes_on_live_traffic),
		T(frames_overtake),
		T(frames_are_corrupted),
		T(loss_with_a_memory),
		T(duplicates_with_latency),
	};

	log_open(getenv("PROVIUM_LOG"));
	if (net_kernel_usable(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	if (!kernel_has_it())
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
