/*
 * The pool: order, overtaking and its bound, deadlocks, withdrawal, splitting (src/run/pool.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/pool.h"

#define MIB ((uint64_t)1 << 20)

/* One request and what came of it. */
struct request {
	struct lease *lease;
	char name;
	bool told, free_when_told;
	struct err err;
};

static struct loop *loop;
static struct pool *pool;
static struct pool_owner *a, *b, *c;
static struct request requests[8];
static char seen[64];			/* a letter for each grant, in capitals for a refusal */
static bool stuck_a, stuck_b, stuck_c;

static bool is_stuck(void *arg)
{
	return *(bool *)arg;
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	pool = pool_new(loop, (struct amount){ 1000 * MIB, 10 });
	a = pool_join(pool, "a.test.lua", is_stuck, &stuck_a);
	b = pool_join(pool, "b.test.lua", is_stuck, &stuck_b);
	c = pool_join(pool, "c.test.lua", is_stuck, &stuck_c);
	stuck_a = stuck_b = stuck_c = false;
	memset(requests, 0, sizeof(requests));
	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < 8; i++)
		requests[i].name = (char)('a' + i);
	return 0;
}

static void timer_stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	loop_stop(loop);
}

static void run_for(int64_t ns)
{
	struct event *timer = NULL;

	timer_start(loop, &timer, ns, timer_stop_cb, NULL);
	loop_run(loop);
	timer_stop(&timer);
}

static void settle(void)
{
	run_for(5000000);
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		lease_free(requests[i].lease);
		err_release(&requests[i].err);
	}
	pool_leave(a);
	pool_leave(b);
	pool_leave(c);
	settle();
	assert_int_equal(pool_used(pool).memory, 0);
	assert_int_equal(pool_used(pool).cpus, 0);
	pool_free(pool);
	loop_free(loop);
	return 0;
}

static void granted_cb(void *arg, const struct err *e)
{
	struct request *q = arg;

	assert_false(q->told);
	q->told = true;
	seen[strlen(seen)] = (char)(e ? q->name - 'a' + 'A' : q->name);
	err_copy(&q->err, e);
	if (q->free_when_told) {
		lease_free(q->lease);
		q->lease = NULL;
	}
}

static void ask(int i, struct pool_owner *o, uint64_t mib, unsigned cpus)
{
	requests[i].lease = lease_new(o, (struct amount){ mib * MIB, cpus }, granted_cb, &requests[i]);
}

static void give_back(int i)
{
	lease_free(requests[i].lease);
	requests[i].lease = NULL;
}

static void test_grants(void **state)
{
	(void)state;
	ask(0, a, 600, 4);
	ask(1, b, 400, 6);
	assert_string_equal(seen, "");		/* never from inside lease_new */
	settle();
	assert_string_equal(seen, "ab");
	assert_int_equal(pool_used(pool).memory, 1000 * MIB);
	assert_int_equal(pool_used(pool).cpus, 10);
	ask(2, c, 1, 0);
	settle();
	assert_string_equal(seen, "ab");
	give_back(0);
	assert_string_equal(seen, "ab");	/* nor from inside lease_free */
	settle();
	assert_string_equal(seen, "abc");
	assert_int_equal(pool_used(pool).memory, 401 * MIB);
}

static void test_first_come_first_served(void **state)
{
	(void)state;
	ask(0, a, 1000, 1);
	settle();
	for (int i = 1; i < 6; i++)
		ask(i, i % 2 ? b : c, 200, 1);
	settle();
	assert_string_equal(seen, "a");
	give_back(0);
	settle();
	assert_string_equal(seen, "abcdef");
}

/* Processors are counted as memory is. */
static void test_cpus(void **state)
{
	(void)state;
	ask(0, a, 1, 8);
	ask(1, b, 1, 3);
	ask(2, c, 1, 2);
	settle();
	assert_string_equal(seen, "ac");
	give_back(0);
	settle();
	assert_string_equal(seen, "acb");
}

/* Smaller ones go first for a while; then the one that waits comes next. */
static void test_overtaking(void **state)
{
	(void)state;
	pool_set_overtake(pool, 50000000);
	ask(0, a, 700, 1);
	settle();
	ask(1, b, 800, 1);
	ask(2, c, 100, 1);
	settle();
	assert_string_equal(seen, "ac");
	run_for(60000000);
	ask(3, c, 100, 1);			/* it would fit, but b has waited for long enough */
	settle();
	assert_string_equal(seen, "ac");
	give_back(2);
	settle();
	assert_string_equal(seen, "ac");
	give_back(0);
	settle();
	assert_string_equal(seen, "acbd");
}

static void test_larger_than_the_pool(void **state)
{
	(void)state;
	ask(0, a, 1001, 1);
	ask(1, b, 1, 11);
	ask(2, c, 1000, 10);
	assert_string_equal(seen, "");
	settle();
	assert_string_equal(seen, "ABc");
	assert_int_equal(requests[0].err.code, -ENOMEM);
	assert_string_equal(requests[0].err.msg, "1001 MiB and 1 vCPU asked for, but the whole pool is "
		"1000 MiB "
		"and 10 vCPUs; raise --mem, or ask for less");
	assert_string_equal(requests[1].err.msg, "1 MiB and 11 vCPUs asked for, but the whole pool is 1000 "
		"MiB "
		"and 10 vCPUs; raise --cpus or --cpu-overcommit, or ask for less");
	assert_int_equal(pool_used(pool).memory, 1000 * MIB);
}

/* Every holder waits: the youngest of their requests fails, and says who holds what. */
static void test_deadlock(void **state)
{
	(void)state;
	stuck_a = stuck_b = true;
	ask(0, a, 500, 1);
	ask(1, b, 400, 2);
	ask(2, a, 200, 1);
	ask(3, b, 300, 2);
	settle();
	assert_string_equal(seen, "ab");
	run_for(700000000);
	assert_string_equal(seen, "abD");
	assert_int_equal(requests[3].err.code, -EDEADLK);
	assert_string_equal(requests[3].err.msg, "the pool of 1000 MiB and 10 vCPUs is deadlocked: every "
		"file that holds "
		"a part of it waits for more, and this request for 300 MiB and 2 vCPUs is the youngest of "
		"theirs:\n"
		"  a.test.lua holds 500 MiB and 1 vCPU, waits for 200 MiB and 1 vCPU\n"
		"  b.test.lua holds 400 MiB and 2 vCPUs, waits for 300 MiB and 2 vCPUs\n"
		"boot the VMs that are needed together with lab:boot(), which acquires for all at once, or "
		"run with a "
		"larger --mem or --cpus, or fewer --jobs");
	/* Which lets it give up what it has, and the other go on. */
	stuck_b = false;
	give_back(3);
	give_back(1);
	settle();
	assert_string_equal(seen, "abDc");
}

/* One that holds nothing is not to blame. */
static void test_deadlock_spares_bystanders(void **state)
{
	(void)state;
	stuck_a = stuck_b = stuck_c = true;
	ask(0, a, 500, 1);
	ask(1, b, 500, 1);
	ask(2, a, 200, 1);
	ask(3, b, 300, 1);
	ask(4, c, 600, 1);
	run_for(700000000);
	assert_string_equal(seen, "abD");
	assert_null(strstr(requests[3].err.msg, "c.test.lua"));
}

/* a waits for what c, a fixture's build, makes; c gets nothing before a gives back. b holds nothing. */
static void test_deadlock_through_a_build(void **state)
{
	(void)state;
	pool_set_awaited(c);
	pool_set_depends(a, true);
	stuck_a = stuck_b = stuck_c = true;
	ask(0, a, 900, 1);
	settle();
	ask(1, c, 200, 1);
	ask(2, b, 300, 1);
	run_for(700000000);
	assert_string_equal(seen, "aB");
	assert_non_null(strstr(requests[1].err.msg, "a.test.lua holds 900 MiB and 1 vCPU"));
}

/* The build can go on: then whoever depends on it will, too. */
static void test_no_deadlock_while_a_build_goes_on(void **state)
{
	(void)state;
	pool_set_depends(a, true);
	stuck_b = true;
	ask(0, a, 900, 1);
	settle();
	assert_false(pool_waits(a));
	ask(1, b, 300, 1);
	assert_true(pool_waits(b));
	run_for(700000000);
	assert_string_equal(seen, "a");
}

static void test_no_deadlock(void **state)
{
	(void)state;
	/* A holder that waits for nothing will be done some time; so may one that waits and does something else. */
	stuck_a = true;
	ask(0, a, 500, 1);
	ask(1, b, 400, 1);
	ask(2, a, 200, 1);
	run_for(700000000);
	assert_string_equal(seen, "ab");
	ask(3, b, 200, 1);
	run_for(700000000);
	assert_string_equal(seen, "ab");
}

/* Nobody moves but for one whose patience is over: what fits then goes first, before anything is refused. */
static void test_overtaking_breaks_deadlock(void **state)
{
	(void)state;
	pool_set_overtake(pool, 10000000);
	stuck_a = stuck_b = true;
	ask(0, a, 500, 1);
	ask(1, b, 300, 1);
	settle();
	ask(2, a, 300, 1);
	run_for(20000000);
	ask(3, b, 200, 1);
	settle();
	assert_string_equal(seen, "ab");
	run_for(700000000);
	assert_string_equal(seen, "abd");
}

static void give_back_late(void *arg)
{
	int64_t start = now_ns();

	(void)arg;
	while (now_ns() - start < 600000000)
		;
	give_back(2);
}

/* From a callback: served after it, and the deadlock is looked for before it is told. */
static void give_back_soon(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_defer(loop, give_back_late, arg);
}

/* Granted and not told yet is not stuck. */
static void test_grant_on_its_way(void **state)
{
	struct event *timer = NULL;

	(void)state;
	stuck_a = stuck_b = true;
	ask(0, a, 400, 1);
	ask(1, b, 400, 1);
	ask(2, c, 200, 1);
	settle();
	ask(3, a, 200, 1);
	ask(4, a, 500, 1);
	ask(5, b, 500, 1);
	settle();
	assert_string_equal(seen, "abc");
	requests[3].free_when_told = true;
	timer_start(loop, &timer, 0, give_back_soon, NULL);
	run_for(700000000);
	timer_stop(&timer);
	assert_string_equal(seen, "abcd");
}

static void test_withdraw_waiting(void **state)
{
	(void)state;
	lease_free(NULL);
	ask(0, a, 600, 1);
	settle();
	ask(1, b, 600, 1);
	ask(2, c, 600, 1);
	settle();
	give_back(1);
	give_back(0);
	settle();
	assert_string_equal(seen, "ac");
	/* Before the loop has looked at it at all. */
	ask(3, a, 100, 1);
	give_back(3);
	settle();
	assert_string_equal(seen, "ac");
	assert_int_equal(pool_used(pool).memory, 600 * MIB);
}

static void withdraw_cb(void *arg)
{
	give_back((int)(intptr_t)arg);
}

/* Granted, and withdrawn before it is told; refused, and withdrawn. The owner may have left by then. */
static void test_withdraw_granted(void **state)
{
	struct pool_owner *d = pool_join(pool, "d.test.lua", is_stuck, &stuck_a);

	(void)state;
	ask(0, d, 600, 1);			/* serve, withdraw, tell */
	loop_defer(loop, withdraw_cb, (void *)(intptr_t)0);
	ask(1, d, 2000, 1);
	give_back(1);
	settle();
	assert_string_equal(seen, "");
	assert_int_equal(pool_used(pool).memory, 0);
	ask(0, d, 600, 1);
	ask(1, d, 2000, 1);
	give_back(0);
	give_back(1);
	pool_leave(d);
	settle();
	assert_string_equal(seen, "");
}

static void test_free_when_told(void **state)
{
	(void)state;
	requests[0].free_when_told = requests[1].free_when_told = true;
	ask(0, a, 600, 1);
	ask(1, a, 2000, 1);
	settle();
	assert_string_equal(seen, "Ba");
	assert_int_equal(pool_used(pool).memory, 0);
}

static void test_split(void **state)
{
	struct lease *part, *rest;

	(void)state;
	ask(0, a, 900, 6);
	settle();
	part = lease_split(requests[0].lease, (struct amount){ 300 * MIB, 2 });
	rest = lease_split(requests[0].lease, (struct amount){ 600 * MIB, 4 });
	assert_int_equal(pool_used(pool).memory, 900 * MIB);
	ask(1, b, 300, 5);
	settle();
	assert_string_equal(seen, "a");
	lease_free(part);
	settle();
	assert_string_equal(seen, "ab");
	give_back(0);				/* nothing is left in it */
	assert_int_equal(pool_used(pool).memory, 900 * MIB);
	assert_int_equal(pool_used(pool).cpus, 9);
	lease_free(rest);
	assert_int_equal(pool_used(pool).memory, 300 * MIB);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_grants),
		T(test_first_come_first_served),
		T(test_cpus),
		T(test_overtaking),
		T(test_larger_than_the_pool),
		T(test_deadlock),
		T(test_deadlock_spares_bystanders),
		T(test_deadlock_through_a_build),
		T(test_no_deadlock_while_a_build_goes_on),
		T(test_no_deadlock),
		T(test_overtaking_breaks_deadlock),
		T(test_grant_on_its_way),
		T(test_withdraw_waiting),
		T(test_withdraw_granted),
		T(test_free_when_told),
		T(test_split),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
