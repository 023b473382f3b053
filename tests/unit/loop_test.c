/*
 * Errors, deferred calls, timers and the loop's life (src/loop/err.c, src/loop/loop.c).
 */
#include "rig.h"

#include <errno.h>
#include <unistd.h>

/* ---- err.c ---- */

static void test_err_set(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_false(err_is_set(&e));
	assert_int_equal(err_set(&e, ENOENT, "read `%s`", "a"), -ENOENT);
	assert_true(err_is_set(&e));
	assert_string_equal(e.msg, "read `a`");
	assert_int_equal(err_set(&e, -EIO, "again"), -EIO);
	assert_string_equal(e.msg, "again");
	assert_int_equal(err_set(&e, 0, "no code"), -EINVAL);
	/* It may quote what it replaces. */
	assert_int_equal(err_set(&e, EIO, "outer: %s", e.msg), -EIO);
	assert_string_equal(e.msg, "outer: no code");
	assert_int_equal(err_set(NULL, EBUSY, "nobody listens"), -EBUSY);
	err_release(&e);
	assert_false(err_is_set(&e));
	err_release(&e);
	err_release(NULL);
}

static void test_err_context(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(err_prefix(&e, "nothing failed"), 0);
	assert_int_equal(err_append(&e, "nothing failed"), 0);
	assert_null(e.msg);
	err_set(&e, ENOSPC, "disk full");
	assert_int_equal(err_prefix(&e, "write `%s`", "b"), -ENOSPC);
	assert_int_equal(err_append(&e, " (%d bytes)", 12), -ENOSPC);
	assert_string_equal(e.msg, "write `b`: disk full (12 bytes)");
	err_prefix(&e, "%s", e.msg);
	assert_string_equal(e.msg, "write `b`: disk full (12 bytes): write `b`: disk full (12 bytes)");
	assert_int_equal(err_prefix(NULL, "x"), 0);
	assert_int_equal(err_append(NULL, "x"), 0);
	err_release(&e);
}

static void test_err_copy_move(void **state)
{
	struct err a = ERR_INIT, b = ERR_INIT;

	(void)state;
	err_set(&a, EPERM, "one");
	err_copy(&b, &a);
	assert_string_equal(b.msg, "one");
	assert_ptr_not_equal(a.msg, b.msg);
	err_copy(&b, &b);
	assert_string_equal(b.msg, "one");
	err_copy(&b, NULL);
	assert_false(err_is_set(&b));
	assert_null(b.msg);
	err_set(&b, EIO, "two");
	err_move(&b, &a);
	assert_string_equal(b.msg, "one");
	assert_false(err_is_set(&a));
	assert_null(a.msg);
	err_move(NULL, &b);
	assert_false(err_is_set(&b));
	err_copy(NULL, &b);
}

static void test_alloc(void **state)
{
	char *s = xasprintf("%s-%d", "a", 7), *n = xstrndup("abcdef", 3);

	(void)state;
	assert_null(xstrdup(NULL));
	assert_string_equal(s, "a-7");
	assert_string_equal(n, "abc");
	free(s);
	free(n);
}

static void test_log(void **state)
{
	char path[] = "/tmp/provium-log-XXXXXX", text[256] = "";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_false(log_enabled());
	log_debug("tag", "lost");
	log_open(path);
	assert_true(log_enabled());
	log_debug("tag", "arm %d", 1);
	log_open(NULL);
	assert_false(log_enabled());
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, " tag test_log: arm 1\n"));
	assert_null(strstr(text, "lost"));
	close(fd);
	unlink(path);
}

/* ---- loop.c ---- */

struct order {
	struct loop *loop;
	char seen[64];
	struct event *timer;
	int fired;
};

static void see(struct order *o, char c)
{
	o->seen[strlen(o->seen)] = c;
}

static void defer_stop(void *arg)
{
	loop_stop(((struct order *)arg)->loop);
}

static void defer_c(void *arg)
{
	see(arg, 'c');
	loop_defer(((struct order *)arg)->loop, defer_stop, arg);
}

static void defer_b(void *arg)
{
	see(arg, 'b');
}

static void defer_a(void *arg)
{
	see(arg, 'a');
	loop_defer(((struct order *)arg)->loop, defer_c, arg);
}

/* In order, and what one defers comes after all that were there. */
static void test_defer_order(void **state)
{
	struct order o = { .loop = loop_new() };

	(void)state;
	loop_defer(o.loop, defer_a, &o);
	loop_defer(o.loop, defer_b, &o);
	assert_string_equal(o.seen, "");
	assert_int_equal(loop_run(o.loop), 0);
	assert_string_equal(o.seen, "abc");
	loop_free(o.loop);
}

static void defer_again(void *arg)
{
	struct order *o = arg;

	if (++o->fired < 1000)
		loop_defer(o->loop, defer_again, o);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct order *o = arg;

	(void)fd, (void)what;
	timer_stop(&o->timer);
	see(o, 't');
	loop_stop(o->loop);
}

/* Deferring for ever does not keep events from coming. */
static void test_defer_does_not_starve_events(void **state)
{
	struct order o = { .loop = loop_new(), .fired = -1000000000 };

	(void)state;
	loop_defer(o.loop, defer_again, &o);
	timer_start(o.loop, &o.timer, 5000000, timer_cb, &o);
	loop_run(o.loop);
	assert_string_equal(o.seen, "t");
	o.fired = 1000;
	loop_free(o.loop);
}

static void test_free_runs_what_is_deferred(void **state)
{
	struct order o = { .loop = loop_new() };

	(void)state;
	loop_defer(o.loop, defer_again, &o);
	loop_free(o.loop);
	assert_int_equal(o.fired, 1000);
}

static void test_timer(void **state)
{
	struct order o = { .loop = loop_new() };
	int64_t start = now_ns();

	(void)state;
	timer_stop(&o.timer);
	timer_start(o.loop, &o.timer, 20000000, timer_cb, &o);
	loop_run(o.loop);
	assert_null(o.timer);
	assert_true(now_ns() - start >= 20000000);
	/* Armed again: the first time does not come. */
	timer_start(o.loop, &o.timer, 1000000, timer_cb, &o);
	timer_start(o.loop, &o.timer, 40000000, timer_cb, &o);
	start = now_ns();
	loop_run(o.loop);
	assert_true(now_ns() - start >= 40000000);
	assert_string_equal(o.seen, "tt");
	/* At once, and already over. */
	timer_start(o.loop, &o.timer, 0, timer_cb, &o);
	loop_run(o.loop);
	timer_start(o.loop, &o.timer, -5, timer_cb, &o);
	loop_run(o.loop);
	assert_string_equal(o.seen, "tttt");
	loop_free(o.loop);
}

static void tick_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
}

/* Whatever a coarse clock would show when it is armed, and however often the loop wakes meanwhile. */
static void test_timer_is_never_early(void **state)
{
	struct order o = { .loop = loop_new() };
	struct event *tick = event_new(loop_base(o.loop), -1, EV_PERSIST, tick_cb, NULL);
	struct timeval ms = timeval_from_ns(1000000);
	int64_t start;

	(void)state;
	event_add(tick, &ms);
	for (int i = 0; i < 100; i++) {
		for (start = now_ns(); now_ns() - start < i % 7 * 300000; )
			;
		start = now_ns();
		timer_start(o.loop, &o.timer, 3000000, timer_cb, &o);
		o.seen[0] = '\0';
		loop_run(o.loop);
		assert_true(now_ns() - start >= 3000000);
	}
	event_free(tick);
	loop_free(o.loop);
}

static void test_timeval(void **state)
{
	struct timeval tv = timeval_from_ns(1500000000);

	(void)state;
	assert_int_equal(tv.tv_sec, 1);
	assert_int_equal(tv.tv_usec, 500000);
	tv = timeval_from_ns(1);		/* never early */
	assert_int_equal(tv.tv_usec, 1);
	tv = timeval_from_ns(999999999);
	assert_int_equal(tv.tv_sec, 1);
	assert_int_equal(tv.tv_usec, 0);
	tv = timeval_from_ns(-1);
	assert_int_equal(tv.tv_sec, 0);
	assert_int_equal(tv.tv_usec, 0);
	tv = timeval_from_ns(INT64_MAX);
	assert_true(tv.tv_sec >= INT64_MAX / 1000000000);
}

/* A timer for centuries does not fire now. */
static void test_timer_far_away(void **state)
{
	struct order o = { .loop = loop_new() };
	struct event *far = NULL;

	(void)state;
	timer_start(o.loop, &far, INT64_MAX, timer_cb, &o);
	timer_start(o.loop, &o.timer, 30000000, timer_cb, &o);
	int64_t start = now_ns();
	loop_run(o.loop);
	assert_true(now_ns() - start >= 30000000);
	timer_stop(&far);
	loop_free(o.loop);
}

/* A stop before the run does not end it; one in it ends it after this turn, and it can be run again. */
static void test_run_stop(void **state)
{
	struct order o = { .loop = loop_new() };

	(void)state;
	loop_stop(o.loop);
	timer_start(o.loop, &o.timer, 1000000, timer_cb, &o);
	loop_run(o.loop);
	assert_string_equal(o.seen, "t");
	loop_defer(o.loop, defer_stop, &o);
	loop_defer(o.loop, defer_b, &o);
	loop_run(o.loop);
	assert_string_equal(o.seen, "tb");
	loop_free(o.loop);
}

/* ---- the watchdog ---- */

struct stall {
	int64_t ns;
	unsigned count;
	char traceback[1024];
};

static void stall_cb(void *arg, int64_t ns, const char *traceback)
{
	struct stall *s = arg;

	s->count++;
	s->ns = ns;
	snprintf(s->traceback, sizeof(s->traceback), "%s", traceback ? traceback : "(none)");
}

static void busy_cb(evutil_socket_t fd, short what, void *arg)
{
	clock_t start = clock();	/* processor time, as the loop counts it: others may be busy too */

	(void)fd, (void)what;
	while (clock() - start < CLOCKS_PER_SEC * 12 / 100)
		;
	loop_stop(arg);
}

static void test_stall_in_callback(void **state)
{
	struct stall s = { 0 };
	struct loop *l = loop_new();
	struct event *timer = NULL;

	(void)state;
	loop_on_stall(l, stall_cb, &s);
	timer_start(l, &timer, 0, busy_cb, l);
	loop_run(l);
	timer_stop(&timer);
	assert_int_equal(s.count, 1);
	assert_true(s.ns > 50000000);
	assert_string_equal(s.traceback, "(none)");
	loop_free(l);
}

/* One report for each stall, with the traceback of who computed where it could not be preempted. */
static void test_stall_in_lua(void **state)
{
	struct stall s = { 0 };
	struct rig r;

	(void)state;
	rig_open(&r, STATE_MEMORY_CAP);
	loop_on_stall(r.loop, stall_cb, &s);
	rig_expect(&r,
		"local function burn() local t = os.clock() while os.clock() - t < 0.12 do end end\n"
		"table.sort({ 1, 2 }, function(a, b) burn() return a < b end)\n"
		"return 'sorted'", "sorted");
	assert_true(s.count >= 1);
	assert_non_null(strstr(s.traceback, "test.lua:1"));
	/* Preempted code stalls nobody. Slices are timed by the wall clock, so a busy machine may disturb some runs. */
	for (int i = 0; i < 20 && s.count > 0; i++) {
		s.count = 0;
		rig_expect(&r, "local t = os.clock() while os.clock() - t < 0.12 do end return 'done'", "done");
	}
	assert_int_equal(s.count, 0);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_set),
		cmocka_unit_test(test_err_context),
		cmocka_unit_test(test_err_copy_move),
		cmocka_unit_test(test_alloc),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_defer_order),
		cmocka_unit_test(test_defer_does_not_starve_events),
		cmocka_unit_test(test_free_runs_what_is_deferred),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_timer_is_never_early),
		cmocka_unit_test(test_timeval),
		cmocka_unit_test(test_timer_far_away),
		cmocka_unit_test(test_run_stop),
		cmocka_unit_test(test_stall_in_callback),
		cmocka_unit_test(test_stall_in_lua),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
