/*
 * The kernel backend on real namespaces, with frames written to the TAPs in QEMU's place. Needs root; without
 * CAP_NET_ADMIN or /dev/net/tun it is skipped.
 */
#include "netrig.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/backend.h"

/* ---- frames ---- */

static void frames_go_where_they_should(void **state)
{
	struct netlan *w = *state;

	for (unsigned i = 1; i <= 3; i++)
		for (unsigned j = 1; j <= 3; j++)
			if (i != j)
				assert_true(netlan_passes(w, i, j));
	for (unsigned i = 1; i <= 3; i++)
		assert_false(netrig_receive(w->fd[i], NULL, NULL));
}

static void the_host_says_nothing(void **state)
{
	struct netlan *w = *state;

	netrig_run_for(&w->r, 1500000000);	/* neighbour discovery and snooping would have by now */
	for (unsigned i = 1; i <= 3; i++)
		assert_false(netrig_receive(w->fd[i], NULL, NULL));
}

static void a_port_outlives_its_hypervisor(void **state)
{
	struct netlan *w = *state;

	net_port_given(w->p[2]);
	assert_int_equal(net_port_fd(w->p[2]), -1);
	assert_true(netrig_send(w->fd[1], 1, 2, 7, 60));	/* nobody is there to take it */
	net_port_renew(w->p[2], netrig_done, &w->r);
	netrig_ok(&w->r);
	w->fd[2] = net_port_fd(w->p[2]);
	assert_false(netrig_receive(w->fd[2], NULL, NULL));
	assert_true(netlan_passes(w, 1, 2));
	assert_true(netlan_passes(w, 2, 1));
}

static void a_port_that_is_held_cannot_be_renewed(void **state)
{
	struct netlan *w = *state;
	int held = dup(w->fd[2]);

	net_port_renew(w->p[2], netrig_done, &w->r);
	netrig_fails(&w->r, "the hypervisor before still holds it");
	close(held);
	net_port_renew(w->p[2], netrig_done, &w->r);
	netrig_ok(&w->r);
}

static void ports_come_and_go(void **state)
{
	struct netlan *w = *state;

	net_port_free(w->p[2]);
	assert_true(netlan_passes(w, 1, 3));
	w->p[2] = netrig_port(&w->r, w->lan, 2);
	w->fd[2] = net_port_fd(w->p[2]);
	assert_true(netlan_passes(w, 2, 3));
	assert_true(netlan_passes(w, 1, 2));
}

static int count_links(void *arg, struct err *e)
{
	struct if_nameindex *links = if_nameindex();
	int n = 0;

	(void)arg, (void)e;
	while (links[n].if_index)
		n++;
	if_freenameindex(links);
	return n;
}

/* Links that are put away are deleted by the dozen, and in between they are nobody's port any more. */
static void ports_by_the_hundred(void **state)
{
	struct netlan *w = *state;
	int held = -1;

	for (int i = 0; i < 100; i++) {
		struct net_port *p = netrig_port(&w->r, w->lan, 9);

		if (i == 99)
			held = dup(net_port_fd(p));
		net_port_set_rate(p, i == 50 ? 1000000 : 0, netrig_done, &w->r);
		netrig_ok(&w->r);
		net_port_free(p);
	}
	assert_true(net_kernel_inside(w->lan, count_links, NULL, NULL) < 80);
	assert_true(netlan_passes(w, 1, 2));
	assert_true(netrig_send(w->fd[1], 1, 0, 5, 100));
	assert_true(netrig_receive_within(&w->r, w->fd[2], NETLAN_LONG, NULL));
	assert_true(netrig_receive_within(&w->r, w->fd[3], NETLAN_LONG, NULL));
	assert_false(netrig_send(held, 9, 1, 6, 100));
	assert_false(netrig_receive(w->fd[1], NULL, NULL));
	close(held);
}

static void netdev_names_the_descriptor(void **state)
{
	struct netlan *w = *state;
	char *text = net_port_netdev(w->p[1], "nic0", "7");

	assert_string_equal(text, "tap,id=nic0,fd=7");
	free(text);
}

/* ---- blocks ---- */

static void blocks_are_of_one_direction(void **state)
{
	struct netlan *w = *state;
	struct net_block blocks[] = { { w->p[1], w->p[2] } };

	net_set_blocks(w->lan, blocks, 1, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_false(netlan_passes(w, 1, 2));
	assert_true(netlan_passes(w, 2, 1));
	assert_true(netlan_passes(w, 1, 3));
	/* Broadcast too: only the third gets it. */
	assert_true(netrig_send(w->fd[1], 1, 0, 9, 60));
	assert_true(netrig_receive_within(&w->r, w->fd[3], NETLAN_LONG, NULL));
	assert_false(netrig_receive(w->fd[2], NULL, NULL));
	net_port_counters(w->p[2], netrig_counted, &w->r);
	netrig_ok(&w->r);
	assert_int_equal(w->r.counters.dropped, 2);

	net_set_blocks(w->lan, NULL, 0, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_true(netlan_passes(w, 1, 2));
}

static void blocks_go_with_their_port(void **state)
{
	struct netlan *w = *state;
	struct net_block blocks[] = { { w->p[1], w->p[2] }, { w->p[1], w->p[3] } };

	net_set_blocks(w->lan, blocks, 2, netrig_done, &w->r);
	netrig_ok(&w->r);
	net_port_free(w->p[2]);
	assert_false(netlan_passes(w, 1, 3));
	w->p[2] = netrig_port(&w->r, w->lan, 2);
	w->fd[2] = net_port_fd(w->p[2]);
	assert_true(netlan_passes(w, 1, 2));
	assert_false(netlan_passes(w, 1, 3));
}

/* ---- chances ---- */

static void loss_is_of_the_pair(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 1, 2, (struct net_impairment){ .loss = 0.1 });
	netlan_about(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 4000, NETLAN_SOON), 4000, 0.9);
	assert_int_equal(netrig_pass(&w->r, w->fd[2], 2, w->fd[1], 1, 1000, NETLAN_SOON), 1000);
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 1000, NETLAN_SOON), 1000);
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 1000, NETLAN_SOON), 1000);
}

static void losses_compose(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 0, 0, (struct net_impairment){ .loss = 0.2 });
	netlan_impair(w, 1, 0, (struct net_impairment){ .loss = 0.2 });
	netlan_impair(w, 0, 2, (struct net_impairment){ .loss = 0.2 });
	netlan_impair(w, 1, 2, (struct net_impairment){ .loss = 0.2 });
	netlan_about(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 4000, NETLAN_SOON), 4000, 0.8 * 0.8 * 0.8 * 0.8);
	netlan_about(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 4000, NETLAN_SOON), 4000, 0.8 * 0.8);
	netlan_about(netrig_pass(&w->r, w->fd[3], 3, w->fd[2], 2, 4000, NETLAN_SOON), 4000, 0.8 * 0.8);
	netlan_about(netrig_pass(&w->r, w->fd[2], 2, w->fd[1], 1, 4000, NETLAN_SOON), 4000, 0.8);
	netlan_impair(w, 1, 2, (struct net_impairment){ .loss = 1 });
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 1000, NETLAN_SOON), 0);
}

static void duplicates_are_of_the_pair(void **state)
{
	struct netlan *w = *state;
	unsigned came;

	netlan_impair(w, 1, 2, (struct net_impairment){ .duplicate = 1 });
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 500, NETLAN_SOON), 1000);
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[3], 3, 500, NETLAN_SOON), 500);
	netlan_impair(w, 1, 2, (struct net_impairment){ .duplicate = 0.3 });
	came = netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 4000, NETLAN_SOON);
	netlan_about(came - 4000, 4000, 0.3);
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 500, NETLAN_SOON), 500);
}

/* ---- rates ---- */

/* Floods one way for a second and a half and says what came, in bits a second. */
static double flood(struct netlan *w, unsigned from, unsigned to, unsigned also)
{
	int64_t start = now_ns(), end = start + 1500000000;
	size_t size, bytes = 0;
	double rate;

	for (uint64_t i = 0; now_ns() < end; i++) {
		for (int k = 0; k < 8; k++) {
			netrig_send(w->fd[from], from, to, i, 500);
			if (also)
				netrig_send(w->fd[also], also, to, i, 500);
		}
		while (netrig_receive(w->fd[to], NULL, &size))
			bytes += size;
		netrig_run_for(&w->r, 1000000);
	}
	rate = (double)bytes * 8e9 / (double)(now_ns() - start);
	while (netrig_receive_within(&w->r, w->fd[to], NETLAN_SOON, NULL))
		;
	return rate;
}

/* How near it comes is for benches to tell: a machine with other things to do may take less than it could. */
static void is_limited(double got, double rate)
{
	if (got <= 0 || got > 1.2 * rate)
		fail_msg("%.0f bits a second came, expected at most %.0f", got, rate);
}

#define RATE 200000
#define FREE (2 * RATE)

static void rate_of_a_pair(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 1, 2, (struct net_impairment){ .rate_bps = RATE });
	is_limited(flood(w, 1, 2, 0), RATE);
	assert_true(flood(w, 1, 3, 0) > FREE);
	assert_true(flood(w, 2, 1, 0) > FREE);
	netlan_impair(w, 1, 2, (struct net_impairment){ 0 });
	assert_true(flood(w, 1, 2, 0) > FREE);
}

static void rate_to_a_port_is_shared(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 0, 2, (struct net_impairment){ .rate_bps = RATE });
	is_limited(flood(w, 1, 2, 3), RATE);
	assert_true(flood(w, 1, 3, 0) > FREE);
	netlan_impair(w, 1, 2, (struct net_impairment){ .rate_bps = RATE / 2 });
	is_limited(flood(w, 1, 2, 0), RATE / 2);
	is_limited(flood(w, 1, 2, 3), RATE);
}

static void rate_from_a_port(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 1, 0, (struct net_impairment){ .rate_bps = RATE });
	is_limited(flood(w, 1, 2, 0), RATE);
	is_limited(flood(w, 1, 3, 0), RATE);
	assert_true(flood(w, 2, 3, 0) > FREE);
	net_port_set_rate(w->p[1], RATE / 2, netrig_done, &w->r);
	netrig_ok(&w->r);
	is_limited(flood(w, 1, 2, 0), RATE / 2);
	netlan_impair(w, 1, 0, (struct net_impairment){ 0 });
	net_port_set_rate(w->p[1], 0, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_true(flood(w, 1, 2, 0) > FREE);
}

static void rate_of_the_bridge(void **state)
{
	struct netlan *w = *state;

	netlan_impair(w, 0, 0, (struct net_impairment){ .rate_bps = RATE });
	is_limited(flood(w, 1, 2, 3), RATE);
	netlan_impair(w, 3, 2, (struct net_impairment){ .rate_bps = RATE / 2 });
	is_limited(flood(w, 3, 2, 0), RATE / 2);
	is_limited(flood(w, 1, 2, 0), RATE);
	netlan_impair(w, 0, 0, (struct net_impairment){ 0 });
	assert_true(flood(w, 1, 2, 0) > FREE);
}

/* ---- latency without netem ---- */

/* With it, see netem_test.c. */
static void the_error_without_netem_says_what_to_do(void **state)
{
	struct netlan *w = *state;
	struct net_impairment i = { .latency_ns = 1 };

	net_impair(w->lan, w->p[1], w->p[2], &i, netrig_done, &w->r);
	netrig_wait(&w->r);
	if (!err_is_set(&w->r.err))
		return;
	assert_non_null(strstr(w->r.err.msg, "bridge `lan`: this host's kernel has no sch_netem"));
	assert_non_null(strstr(w->r.err.msg, "modprobe sch_netem"));
	assert_null(strchr(w->r.err.msg, '\n'));
	assert_true(netlan_passes(w, 1, 2));
}

/* ---- counters ---- */

static void counters_count(void **state)
{
	struct netlan *w = *state;
	struct net_counters before;

	net_port_counters(w->p[1], netrig_counted, &w->r);
	netrig_ok(&w->r);
	before = w->r.counters;
	assert_int_equal(netrig_pass(&w->r, w->fd[1], 1, w->fd[2], 2, 10, NETLAN_SOON), 10);
	assert_int_equal(netrig_pass(&w->r, w->fd[2], 2, w->fd[1], 1, 5, NETLAN_SOON), 5);
	net_port_counters(w->p[1], netrig_counted, &w->r);
	netrig_ok(&w->r);
	assert_int_equal(w->r.counters.rx_packets - before.rx_packets, 10);
	assert_int_equal(w->r.counters.rx_bytes - before.rx_bytes, 1000);
	assert_int_equal(w->r.counters.tx_packets - before.tx_packets, 5);
	assert_int_equal(w->r.counters.dropped, 0);
	net_bridge_counters(w->lan, netrig_counted, &w->r);
	netrig_ok(&w->r);
	assert_true(w->r.counters.rx_packets >= 15);
}

/* ---- replies ---- */

static void a_forgotten_reply_does_not_come(void **state)
{
	struct netlan *w = *state;
	struct net_impairment i = { .loss = 1 };

	net_impair(w->lan, NULL, NULL, &i, netrig_done, &w->r);
	net_forget(w->r.net, netrig_done, &w->r);
	netrig_run_for(&w->r, 20000000);
	assert_false(w->r.replied);
	assert_false(netlan_passes(w, 1, 2));
}

static void what_is_pending_when_the_net_goes_is_forgotten(void **state)
{
	struct netlan *w = *state;
	struct net_impairment i = { .loss = 1 };

	net_impair(w->lan, NULL, NULL, &i, netrig_done, &w->r);
	net_port_counters(w->p[1], netrig_counted, &w->r);
	net_bridge_new(w->r.net, NET_KERNEL, "wan", 1, netrig_done, &w->r);
	net_free(w->r.net);
	netrig_run_for(&w->r, 20000000);
	assert_false(w->r.replied);
	w->r.net = net_new(w->r.loop);
}

static void out_of_range_is_refused(void **state)
{
	struct netlan *w = *state;
	struct net_impairment i = { .loss = 1.5 };

	net_impair(w->lan, NULL, NULL, &i, netrig_done, &w->r);
	netrig_fails(&w->r, "bridge `lan`: an impairment out of range");
}

int main(void)
{
	struct err e = ERR_INIT;
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, netlan_setup, netlan_teardown)
		T(frames_go_where_they_should),
		T(the_host_says_nothing),
		T(a_port_outlives_its_hypervisor),
		T(a_port_that_is_held_cannot_be_renewed),
		T(ports_come_and_go),
		T(ports_by_the_hundred),
		T(netdev_names_the_descriptor),
		T(blocks_are_of_one_direction),
		T(blocks_go_with_their_port),
		T(loss_is_of_the_pair),
		T(losses_compose),
		T(duplicates_are_of_the_pair),
		T(rate_of_a_pair),
		T(rate_to_a_port_is_shared),
		T(rate_from_a_port),
		T(rate_of_the_bridge),
		T(the_error_without_netem_says_what_to_do),
		T(counters_count),
		T(a_forgotten_reply_does_not_come),
		T(what_is_pending_when_the_net_goes_is_forgotten),
		T(out_of_range_is_refused),
	};

	log_open(getenv("PROVIUM_LOG"));
	if (net_kernel_usable(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
