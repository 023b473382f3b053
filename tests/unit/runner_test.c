/*
 * The dispatcher: order, --jobs, --fail-fast, interruption, what failed (src/run/runner.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/runner.h"

#define GUARD_NS INT64_C(60000000000)

static char dir[64];
static struct args args;
static struct session session;
static struct run_file files[8];
static size_t nfiles;
static struct runner *runner;
static char printed[8192];

static int setup(void **state)
{
	const struct vmm_config c = { .kind = VMM_LOCAL, .cache_dir = dir };
	struct err e = ERR_INIT;
	char *path;

	(void)state;
	strcpy(dir, "/tmp/provium-runner-XXXXXX");
	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/provium.toml", dir);
	fclose(fopen(path, "w"));
	memset(&args, 0, sizeof(args));
	memset(&session, 0, sizeof(session));
	nfiles = 0;
	session.config = config_load(path, &e);
	free(path);
	if (!session.config)
		fail_msg("%s", e.msg);
	session.loop = loop_new();
	session.vmm = vmm_new(session.loop, &c, &e);
	if (!session.vmm)
		fail_msg("%s", e.msg);
	session.filter = filter_new(&args);
	session.pool = pool_new(session.loop, (struct amount){ 1 << 20, 1 });
	return 0;
}

static int teardown(void **state)
{
	char line[128];

	(void)state;
	runner_free(runner);
	runner = NULL;
	for (size_t i = 0; i < nfiles; i++) {
		free((char *)files[i].path);
		free((char *)files[i].shown);
	}
	pool_free(session.pool);
	filter_free(session.filter);
	vmm_free(session.vmm);
	loop_free(session.loop);
	config_free((struct config *)session.config);
	snprintf(line, sizeof(line), "rm -rf %s", dir);
	return system(line);
}

static void add(const char *text)
{
	struct run_file *f = &files[nfiles++];
	FILE *file;

	f->shown = xasprintf("%c.test.lua", (int)('a' + nfiles - 1));
	f->path = xasprintf("%s/%s", dir, f->shown);
	file = fopen(f->path, "w");
	fputs(text, file);
	fclose(file);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("the run did not end");
}

/* Interrupts the run when so many files are over. */
struct interrupt {
	struct event *timer;
	unsigned when_over;
};

static void interrupt_cb(evutil_socket_t fd, short what, void *arg)
{
	struct interrupt *i = arg;

	(void)fd, (void)what;
	if (runner_totals(runner)->files >= i->when_over)
		runner_interrupt(runner, "interrupted");
	else
		timer_start(session.loop, &i->timer, 1000000, interrupt_cb, i);
}

static void done_cb(void *arg)
{
	loop_stop(arg);
}

/* Runs the files; what is printed meanwhile is in `printed`, its last line, the time, cut off. */
static void run(unsigned interrupt_when_over)
{
	struct interrupt interrupt = { .when_over = interrupt_when_over };
	struct event *guard = NULL;
	int out = dup(1), fd = open(dir, O_RDWR | O_TMPFILE, 0600);
	char *last;

	fflush(stdout);
	dup2(fd, 1);
	runner = runner_start(&session, &args, files, nfiles, done_cb, session.loop);
	timer_start(session.loop, &guard, GUARD_NS, guard_cb, NULL);
	if (interrupt_when_over)
		timer_start(session.loop, &interrupt.timer, 0, interrupt_cb, &interrupt);
	loop_run(session.loop);
	timer_stop(&guard);
	timer_stop(&interrupt.timer);
	fflush(stdout);
	dup2(out, 1);
	close(out);
	memset(printed, 0, sizeof(printed));
	assert_true(pread(fd, printed, sizeof(printed) - 1, 0) > 0);
	close(fd);
	last = strrchr(printed, ';');
	assert_non_null(last);
	*last = '\0';
}

static bool has_failed(size_t i)
{
	for (const char *const *p = runner_failed_paths(runner); *p; p++)
		if (*p == files[i].path)
			return true;
	return false;
}

#define PASS "test('one', function() sleep(0.01) end)"
#define FAIL "test('one', function() error('bad') end)"

/* All at the same time, printed in order. */
static void test_order(void **state)
{
	(void)state;
	add("test('one', function() sleep(0.2) end)");
	add(FAIL);
	add(PASS);
	add("error('broken')");
	run(0);
	assert_string_equal(printed,
		"PASS a.test.lua (1 passed, 0 failed, 0 skipped)\n"
		"FAIL b.test.lua (0 passed, 1 failed, 0 skipped)\n"
		"    FAIL one\n"
		"        bad\n"
		"        b.test.lua:1\n"
		"PASS c.test.lua (1 passed, 0 failed, 0 skipped)\n"
		"FAIL d.test.lua\n"
		"    d.test.lua:1: broken\n"
		"    d.test.lua:1: in main chunk\n"
		"\n"
		"4 file(s); 2 passed, 1 failed, 0 skipped");
	assert_int_equal(runner_totals(runner)->failed_files, 2);
	assert_true(has_failed(1) && has_failed(3));
	assert_null(runner_failed_paths(runner)[2]);
}

/* Two at a time: every file counts those that run with it, in a file they share. */
static void test_jobs(void **state)
{
	char *text = xasprintf("local path = '%s/running'\n"
		"local function count(by)\n"
		"	local f = io.open(path) local n = f and f:read('*n') or 0 if f then f:close() end\n"
		"	f = io.open(path, 'w') f:write(n + by) f:close() return n + by\n"
		"end\n"
		"test('one', function() local n = count(1) sleep(0.02) count(-1) assert(n <= 2, n) "
		"end)\n", dir);

	(void)state;
	for (int i = 0; i < 6; i++)
		add(text);
	free(text);
	args.jobs = 2;
	run(0);
	assert_int_equal(runner_totals(runner)->passed, 6);
}

/* Nothing is dispatched after the first failure; what runs ends by itself. */
static void test_fail_fast(void **state)
{
	(void)state;
	add("test('one', function() sleep(0.2) end)");
	add(FAIL);
	add(PASS);
	add(PASS);
	args.fail_fast = true;
	args.jobs = 2;
	run(0);
	assert_int_equal(runner_totals(runner)->files, 2);
	assert_int_equal(runner_totals(runner)->passed, 1);
	assert_int_equal(runner_totals(runner)->failed_files, 1);
}

static void test_interrupt(void **state)
{
	char *last = xasprintf("test('one', function() while not (io.open('%s/b') and io.open('%s/c')) "
		"do sleep(0.01) end end)", dir, dir);
	char *b = xasprintf("test('one', function() io.open('%s/b', 'w'):close() sleep(100) end)", dir);
	char *c = xasprintf("test('one', function() io.open('%s/c', 'w'):close() "
		"while true do pcall(sleep, 100) end end)", dir);

	(void)state;
	add(PASS);
	add(b);
	add(c);
	add(last);		/* over when b and c run */
	free(b);
	free(c);
	free(last);
	args.jobs = 3;
	run(2);
	assert_int_equal(runner_totals(runner)->files, 4);
	assert_int_equal(runner_totals(runner)->passed, 2);
	assert_int_equal(runner_totals(runner)->failed, 2);
	assert_null(runner_failed_paths(runner)[0]);	/* it says nothing of them */
}

static void test_no_files(void **state)
{
	(void)state;
	run(0);
	assert_string_equal(printed, "\n0 file(s); 0 passed, 0 failed, 0 skipped");
	assert_null(runner_failed_paths(runner)[0]);
	runner_free(NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_order),
		T(test_jobs),
		T(test_fail_fast),
		T(test_interrupt),
		T(test_no_files),
	};

	return cmocka_run_group_tests_name("runner", tests, NULL, NULL);
}
