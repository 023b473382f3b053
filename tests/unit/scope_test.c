/*
 * The clean-up stack: order, undos that take their time, removal and addition while it closes (src/loop/scope.c).
 */
#include "rig.h"

struct thing {
	struct undo undo;
	struct fixture *f;
	char name;
	int64_t takes_ns;	/* 0: over at once; negative: never by itself */
	struct event *timer;
	struct thing *remove, *add;	/* what its start takes out or puts in */
	enum scope_rank add_rank;
};

struct fixture {
	struct loop *loop;
	struct scope *scope;
	struct thing things[8];
	char seen[64];
	unsigned closed;
};

static struct fixture f;

static void see(char c)
{
	f.seen[strlen(f.seen)] = c;
}

static int setup(void **state)
{
	(void)state;
	memset(&f, 0, sizeof(f));
	f.loop = loop_new();
	f.scope = scope_new(f.loop, "test:order");
	for (int i = 0; i < 8; i++) {
		f.things[i].f = &f;
		f.things[i].name = (char)('a' + i);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scope_free(f.scope);
	loop_free(f.loop);
	return 0;
}

static void over_cb(evutil_socket_t fd, short what, void *arg)
{
	struct thing *t = arg;

	(void)fd, (void)what;
	timer_stop(&t->timer);
	see((char)(t->name - 'a' + 'A'));
	undo_done(&t->undo);
}

static void start(struct undo *u)
{
	struct thing *t = (struct thing *)u;

	see(t->name);
	if (t->remove)
		scope_remove(&t->remove->undo);
	if (t->add)
		scope_add(f.scope, &t->add->undo, t->add_rank, start);
	if (t->takes_ns > 0)
		timer_start(f.loop, &t->timer, t->takes_ns, over_cb, t);
	else if (t->takes_ns == 0)
		undo_done(u);
}

static void add(int i, enum scope_rank rank)
{
	scope_add(f.scope, &f.things[i].undo, rank, start);
}

static void closed_cb(void *arg)
{
	assert_ptr_equal(arg, &f);
	f.closed++;
	see('.');
	loop_stop(f.loop);
}

static void close_and_run(void)
{
	scope_close(f.scope, closed_cb, &f);
	assert_int_equal(f.closed, 0);
	loop_run(f.loop);
	assert_int_equal(f.closed, 1);
}

/* Streams first, VMs and what is final last; within a rank the last made first. */
static void test_order(void **state)
{
	(void)state;
	assert_string_equal(scope_name(f.scope), "test:order");
	add(0, RANK_VM);
	add(1, RANK_STREAM);
	add(2, RANK_FINAL);
	add(3, RANK_STREAM);
	add(4, RANK_BRIDGE);
	add(5, RANK_VM);
	add(6, RANK_TASK);
	close_and_run();
	assert_string_equal(f.seen, "dbgefac.");
	for (int i = 0; i < 7; i++)
		assert_null(f.things[i].undo.scope);
}

static void test_empty(void **state)
{
	(void)state;
	close_and_run();
	assert_string_equal(f.seen, ".");
	/* And again, with something in it. */
	f.closed = 0;
	add(0, RANK_FILE);
	close_and_run();
	assert_string_equal(f.seen, ".a.");
}

/* The undos of one rank run at the same time; the next rank waits for all of them. */
static void test_slow_undos(void **state)
{
	(void)state;
	f.things[0].takes_ns = 20000000;
	f.things[1].takes_ns = 40000000;
	f.things[2].takes_ns = 5000000;
	add(0, RANK_PROCESS);
	add(1, RANK_PROCESS);
	add(2, RANK_VM);
	add(3, RANK_VM);
	close_and_run();
	assert_string_equal(f.seen, "baABdcC.");
}

static void test_remove_before(void **state)
{
	(void)state;
	scope_remove(&f.things[7].undo);	/* in none */
	add(0, RANK_VM);
	add(1, RANK_VM);
	add(2, RANK_FILE);
	scope_remove(&f.things[1].undo);
	scope_remove(&f.things[1].undo);
	assert_null(f.things[1].undo.scope);
	add(1, RANK_STREAM);			/* in again, elsewhere */
	close_and_run();
	assert_string_equal(f.seen, "bca.");
}

/* Closed by hand while its undo, or one of an earlier rank, runs. */
static void test_remove_during(void **state)
{
	(void)state;
	f.things[0].remove = &f.things[1];	/* of a later rank */
	f.things[2].takes_ns = -1;
	f.things[3].remove = &f.things[2];	/* running already */
	add(0, RANK_STREAM);
	add(1, RANK_VM);
	add(3, RANK_FILE);
	add(2, RANK_FILE);
	close_and_run();
	assert_string_equal(f.seen, "acd.");
	assert_null(f.things[2].undo.scope);
}

static void remove_cb(evutil_socket_t fd, short what, void *arg)
{
	struct thing *t = arg;

	(void)fd, (void)what;
	see('r');
	scope_remove(&t->undo);
}

/* A running undo whose object goes otherwise counts as over. */
static void test_remove_last_running(void **state)
{
	(void)state;
	f.things[0].takes_ns = -1;
	add(0, RANK_VM);
	add(1, RANK_FINAL);
	timer_start(f.loop, &f.things[0].timer, 10000000, remove_cb, &f.things[0]);
	close_and_run();
	timer_stop(&f.things[0].timer);
	assert_string_equal(f.seen, "arb.");
}

/* What an undo makes is undone too: in its turn, or next when its turn has gone by. */
static void test_add_during(void **state)
{
	(void)state;
	f.things[0].add = &f.things[1];		/* same rank */
	f.things[0].add_rank = RANK_TASK;
	f.things[1].add = &f.things[2];		/* later */
	f.things[1].add_rank = RANK_FINAL;
	f.things[3].add = &f.things[4];		/* a rank that is over */
	f.things[3].add_rank = RANK_STREAM;
	add(0, RANK_TASK);
	add(3, RANK_VM);
	add(5, RANK_FINAL);
	close_and_run();
	assert_string_equal(f.seen, "abdecf.");
}

/* One that is made meanwhile by something else waits for what runs. */
static void test_add_while_running(void **state)
{
	(void)state;
	f.things[0].takes_ns = 20000000;
	f.things[1].takes_ns = 10000000;
	f.things[1].add = &f.things[2];
	f.things[1].add_rank = RANK_STREAM;
	add(0, RANK_BRIDGE);
	add(1, RANK_BRIDGE);
	close_and_run();
	assert_string_equal(f.seen, "baBAc.");
}

static void add_in_done_cb(void *arg)
{
	closed_cb(arg);
	add(1, RANK_FILE);
}

/* Whoever adds in done() has it undone by the next close. */
static void test_close_again(void **state)
{
	(void)state;
	add(0, RANK_FILE);
	scope_close(f.scope, add_in_done_cb, &f);
	loop_run(f.loop);
	assert_string_equal(f.seen, "a.");
	f.closed = 0;
	close_and_run();
	assert_string_equal(f.seen, "a.b.");
}

static void free_in_done_cb(void *arg)
{
	scope_free(f.scope);
	f.scope = NULL;
	closed_cb(arg);
}

static void test_free_in_done(void **state)
{
	(void)state;
	add(0, RANK_FILE);
	scope_close(f.scope, free_in_done_cb, &f);
	loop_run(f.loop);
	assert_string_equal(f.seen, "a.");
	scope_free(NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_order),
		T(test_empty),
		T(test_slow_undos),
		T(test_remove_before),
		T(test_remove_during),
		T(test_remove_last_running),
		T(test_add_during),
		T(test_add_while_running),
		T(test_close_again),
		T(test_free_in_done),
	};

	return cmocka_run_group_tests_name("scope", tests, NULL, NULL);
}
