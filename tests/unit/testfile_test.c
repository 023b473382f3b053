/*
 * Test files from their first line to their result, without a VM: loading, tasks, barriers, modules, host commands,
 * timeouts, interruption (src/run/testfile.c, src/ops/, lua/).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/testfile.h"

#define GUARD_NS INT64_C(60000000000)
#define MIB ((uint64_t)1 << 20)

static char dir[64];			/* holds everything, and is the only root */
static struct args args;
static struct session session;
static struct file_result *result;
static bool guard_fired;

static char *in_dir(const char *name)
{
	return xasprintf("%s/%s", dir, name);
}

static void write_bytes(const char *name, const char *text, size_t len)
{
	char *path = in_dir(name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
	free(path);
}

static void write_file(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

static int setup(void **state)
{
	const struct vmm_config c = { .kind = VMM_LOCAL, .cache_dir = dir };
	struct err e = ERR_INIT;
	char *path;

	(void)state;
	signal(SIGPIPE, SIG_IGN);	/* as main does */
	strcpy(dir, "/tmp/provium-testfile-XXXXXX");
	assert_non_null(mkdtemp(dir));
	setenv("DIR", dir, 1);		/* for the files of these tests */
	write_file("provium.toml", "[provium]\nroots = ['.']\n[profiles.p]\ncmdline = ''\nkernel = '/none'\n"
		"memory = '100M'\n");
	path = in_dir("provium.toml");
	memset(&args, 0, sizeof(args));
	memset(&session, 0, sizeof(session));
	session.config = config_load(path, &e);
	free(path);
	if (!session.config)
		fail_msg("%s", e.msg);
	session.loop = loop_new();
	session.vmm = vmm_new(session.loop, &c, &e);
	if (!session.vmm)
		fail_msg("%s", e.msg);
	session.filter = filter_new(&args);
	session.pool = pool_new(session.loop, (struct amount){ 1000 * MIB, 10 });
	return 0;
}

static int teardown(void **state)
{
	char line[128];

	(void)state;
	file_result_free(result);
	result = NULL;
	pool_free(session.pool);
	filter_free(session.filter);
	vmm_free(session.vmm);
	loop_free(session.loop);
	config_free((struct config *)session.config);
	snprintf(line, sizeof(line), "rm -rf %s", dir);
	return system(line);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	guard_fired = true;
	loop_stop(arg);
}

static void run_loop(int64_t ns)
{
	struct event *guard = NULL;

	guard_fired = false;
	timer_start(session.loop, &guard, ns, guard_cb, session.loop);
	loop_run(session.loop);
	timer_stop(&guard);
}

static void done_cb(void *arg, struct testfile *f, struct file_result *r)
{
	(void)arg, (void)f;
	file_result_free(result);
	result = r;
	loop_stop(session.loop);
}

static struct testfile *start(const char *name)
{
	char *path = in_dir(name);
	struct testfile *f;

	file_result_free(result);
	result = NULL;
	f = testfile_start(&session, path, name, done_cb, NULL);
	free(path);
	return f;
}

static void finish(void)
{
	run_loop(GUARD_NS);
	assert_false(guard_fired);
	assert_non_null(result);
}

static void run(const char *text)
{
	write_file("x.test.lua", text);
	start("x.test.lua");
	finish();
}

/* Runs a file and expects n tests, all passed. */
static void expect_passed(const char *text, unsigned n)
{
	run(text);
	if (result->chunk_error)
		fail_msg("%s", result->chunk_error);
	for (size_t i = 0; i < result->ntests; i++) {
		const struct test_result *t = &result->tests[i];

		if (t->status == TEST_FAILED)
			fail_msg("%s: %s\n%s", t->name, t->reason, t->traceback);
	}
	assert_int_equal(file_result_count(result, TEST_PASSED), n);
	assert_false(file_result_failed(result));
}

/* Runs the body of one test. */
static void expect_body(const char *body)
{
	char *text = xasprintf("test('body', function(t)\n%s\nend)", body);

	expect_passed(text, 1);
	free(text);
}

static void assert_contains(const char *text, const char *part)
{
	if (!text || !strstr(text, part))
		fail_msg("expected \"%s\" in \"%s\"", part, text ? text : "(null)");
}

/* ---- loading ---- */

static void test_sources(void **state)
{
	static const char binary[] = "-- \xff latin-1\nlocal z = 'a\0b'\ntest('all of it', function() "
		"assert(#z == 3) end)\n";

	(void)state;
	expect_passed("", 0);
	expect_passed("#!/usr/bin/env provium", 0);
	expect_passed("#!/usr/bin/env provium\ntest('a', function() end)", 1);
	expect_passed("\xef\xbb\xbf#!/usr/bin/env provium\ntest('a', function() end)", 1);
	expect_passed("\xef\xbb\xbftest('a', function() end)", 1);
	write_bytes("binary.test.lua", binary, sizeof(binary) - 1);
	start("binary.test.lua");
	finish();
	assert_null(result->chunk_error);
	assert_int_equal(result->ntests, 1);
}

static void test_large_source(void **state)
{
	char *text = xmalloc(400000);

	(void)state;
	memset(text, '\n', 400000);
	strcpy(text + 400000 - 32, "test('last', function() end)");
	expect_passed(text, 1);
	memset(text, ' ', 65536);
	strcpy(text + 65536 - 28, "test('last', function() end)");	/* as long as the reader's piece */
	assert_int_equal(strlen(text), 65536);
	expect_passed(text, 1);
	free(text);
}

static void test_unreadable(void **state)
{
	(void)state;
	start("missing.test.lua");
	finish();
	assert_string_equal(result->chunk_error, "cannot read `missing.test.lua`: No such file or directory");
	start(".");
	finish();
	assert_string_equal(result->chunk_error, "cannot read `.`: Is a directory");
	run("test('a' function() end)");
	assert_contains(result->chunk_error, "x.test.lua:1:");
	assert_int_equal(result->ntests, 0);
	assert_true(file_result_failed(result));
}

static void test_chunk_error(void **state)
{
	(void)state;
	run("local function f() error('boom') end\nf()");
	assert_contains(result->chunk_error, "x.test.lua:1: boom");
	assert_contains(result->chunk_error, "x.test.lua:2: in main chunk");
	assert_null(strstr(result->chunk_error, "provium:"));
}

/* ---- failures ---- */

static void test_failure(void **state)
{
	const struct test_result *t;

	(void)state;
	run("local function deep() error('no good') end\n"
		"test('fails', function(t) t:log('noted') sleep(0)\ndeep() end)\n"
		"test('skips', function(t) t:skip('not here') end)\n"
		"test('passes', function(t) end)");
	assert_int_equal(result->ntests, 3);
	t = &result->tests[0];
	assert_int_equal(t->status, TEST_FAILED);
	assert_string_equal(t->reason, "no good");
	assert_string_equal(t->where, "x.test.lua:1");
	assert_contains(t->traceback, "x.test.lua:3");
	assert_null(strstr(t->traceback, "provium:"));
	assert_int_equal(t->nlog, 1);
	assert_contains(t->log[0], "noted");
	assert_int_equal(result->tests[1].status, TEST_SKIPPED);
	assert_string_equal(result->tests[1].reason, "not here");
	assert_int_equal(result->tests[2].status, TEST_PASSED);
}

/* ---- tasks ---- */

static void test_tasks(void **state)
{
	(void)state;
	expect_body("local a = co.spawn(function(x) sleep(0.01) return x, nil, 3 end, 1)\n"
		"assert(a:status() == 'running')\n"
		"local x, y, z = a:join() assert(x == 1 and y == nil and z == 3 and a:status() == 'done')\n"
		"assert(a:join() == 1)");
	expect_body("local a = co.spawn(function() error({ code = 7 }) end)\n"
		"local ok, e = pcall(a.join, a) assert(not ok and e.code == 7 and a:status() == 'failed')");
	expect_body("local a = co.spawn(function() sleep(10) end) sleep(0) a:cancel() sleep(0.01)\n"
		"assert(a:status() == 'cancelled') local ok, e = pcall(a.join, a) assert(not ok and "
		"e:match('cancelled'), e)");
	expect_body("local a = co.spawn(function() sleep(10) end)\n"
		"local ok, e = pcall(a.join, a, 0.02) assert(not ok and e:match('still runs after 0.02s'), "
		"e)\n"
		"assert(e:match('waiting for sleep%(10%)'), e)");
	expect_body("local r = co.all({ function() sleep(0.02) return 'a' end, function() return 'b' end })\n"
		"assert(r[1] == 'a' and r[2] == 'b')");
	expect_body("assert(co.race({ function() sleep(5) return 'a' end, function() sleep(0.01) return "
		"'b' end }) == 'b')");
	expect_body("local me me = co.spawn(function() sleep(0) return pcall(me.join, me) end)\n"
		"local ok, e = me:join() assert(not ok and e:match('cannot wait for itself'), e)");
	expect_body("for i = 1, 200 do co.spawn(function() sleep(0) end) end collectgarbage() "
		"collectgarbage()");
}

/* What a test leaves running ends with it; what a file does, with the file. */
static void test_scope_ends_tasks(void **state)
{
	(void)state;
	expect_passed("local task\n"
		"test('one', function() task = co.spawn(function() sleep(100) end) end)\n"
		"test('two', function() assert(task:status() == 'cancelled') end)", 2);
	expect_passed("co.spawn(function() sleep(100) end)\nco.spawn(function() while true do end end)\n"
		"test('one', function() end)", 1);
}

#if LUA_VERSION_NUM >= 504
/* What a failing test holds in <close> variables is closed, while it may still wait. */
static void test_close_on_failure(void **state)
{
	(void)state;
	run("local closed\n"
		"test('fails', function()\n"
		"	local c <close> = setmetatable({}, { __close = function() sleep(0.01) closed = "
		"true end })\n"
		"	error('x') end)\n"
		"test('sees', function() assert(closed) end)");
	assert_int_equal(result->tests[0].status, TEST_FAILED);
	assert_int_equal(result->tests[1].status, TEST_PASSED);
}
#endif

/* ---- barriers ---- */

static void test_barrier(void **state)
{
	(void)state;
	expect_body("local n = 0\n"
		"local function f() provium:barrier('b', 3) n = n + 1 end\n"
		"co.spawn(f) local a = co.spawn(f) sleep(0.02) assert(n == 0)\n"
		"f() a:join() assert(n >= 2)");
	expect_body("local ok, e = pcall(provium.barrier, provium, 'b', 2, { timeout = 0.02 })\n"
		"assert(not ok and e:match('barrier `b`: timed out after 0.02s: 1 of 2 arrived'), e)\n"
		/* The round is over: another count is fine, and the one that gave up is not counted. */
		"ok, e = pcall(provium.barrier, provium, 'b', 3, { timeout = 0.02 })\n"
		"assert(e:match('1 of 3 arrived'), e)");
	expect_body("local ok, e = pcall(provium.barrier, provium, 'b', 2, { timeout = 'soon' }) "
		"assert(not ok)\n"
		"ok, e = pcall(provium.barrier, provium, 'b', 2, { timeout = 0.02 }) assert(e:match('1 of "
		"2 arrived'), e)");
	/* Nor is one that was cancelled. */
	expect_body("local a = co.spawn(function() provium:barrier('b', 2) end) sleep(0.01) a:cancel() "
		"sleep(0.01)\n"
		"local ok, e = pcall(provium.barrier, provium, 'b', 2, { timeout = 0.02 })\n"
		"assert(not ok and e:match('1 of 2 arrived'), e)");
	expect_body("local a = co.spawn(function() provium:barrier('b', 2) end) sleep(0.01)\n"
		"local ok, e = pcall(provium.barrier, provium, 'b', 3)\n"
		"assert(e:match('called with count 3, but 2 before'), e)");
	/* Nor one whose time is over, though it has not been resumed: both timers fire in one turn, ours first. */
	expect_body("local a = co.spawn(pcall, provium.barrier, provium, 'b', 2, { timeout = 0.005 })\n"
		"co.spawn(function() local from = now() while now() - from < 0.008 do end end)\n"
		"sleep(0.004)\n"
		"local ok, e = pcall(provium.barrier, provium, 'b', 2, { timeout = 0.02 })\n"
		"assert(not ok and e:match('1 of 2 arrived'), e)\n"
		"assert(a:join() == false)");
}

/* It opens, and its time is over before who waits has been resumed. */
static void test_barrier_opened_at_its_timeout(void **state)
{
	(void)state;
	expect_body("local a = co.spawn(function() provium:barrier('b', 2, { timeout = 0.05 }) end) "
		"sleep(0.01)\n"
		"provium:barrier('b', 2)\n"
		"local stop = now() + 0.2\n"
		"table.sort({ 1, 2 }, function() while now() < stop do end end)\n"
		"a:join()");
}

/* ---- modules ---- */

static void test_require(void **state)
{
	(void)state;
	/* Each loads for as long as `hold` is set. */
	write_file("m.lua", "local name, path = ... loads = (loads or 0) + 1 "
		"repeat sleep(0.02) until not hold "
		"return { name = name, path = path }");
	write_file("empty.lua", "sleep(0)");
	write_file("fails.lua", "sleep(0) error('not today')");
	write_file("syntax.lua", "return +");
	write_file("selfish.lua", "return require('selfish')");
	write_file("ping.lua", "sleep(0) return require('pong')");
	write_file("pong.lua", "sleep(0) return require('ping')");
	expect_body("local m = require('m') assert(m == require('m') and m.name == 'm' and "
		"m.path:match('/m%.lua$'))\n"
		"assert(loads == 1 and require('empty') == true)");
	/* Two tasks at once: one loads, both get it. */
	expect_body("local a, b = co.spawn(require, 'm'), co.spawn(require, 'm')\n"
		"assert(a:join() == b:join() and loads == 1)");
	expect_body("local ok, e = pcall(require, 'fails') assert(not ok and e:match('fails.lua:1: not "
		"today'), e)\n"
		"ok, e = pcall(require, 'fails') assert(not ok)");
	expect_body("local ok, e = pcall(require, 'syntax') assert(e:match(\"error loading module "
		"'syntax'\"), e)");
	expect_body("local ok, e = pcall(require, 'selfish') assert(e:match(\"module 'selfish' requires "
		"itself\"), e)");
	expect_body("local ok, e = pcall(require, 'ping') assert(e:match(\"module 'ping' requires "
		"itself\"), e)");
	expect_body("local ok, e = pcall(require, 'nowhere') assert(e:match(\"module 'nowhere' not "
		"found:\"), e)\n"
		"assert(e:match('nowhere/init.lua'), e)");
	expect_body("package.preload.pre = function(n) sleep(0) return n .. '!' end assert(require('pre') "
		"== 'pre!')");
	expect_body("assert(require('string') == string)");
	expect_body("local ok, e = pcall(require) assert(e:match('expected require%(name%)'), e)");
	/* One that waits for another's load takes over when that is cancelled. */
	expect_body("hold = true local a, b = co.spawn(require, 'm'), co.spawn(require, 'm') sleep(0.05)\n"
		"a:cancel() hold = false\n"
		"assert(b:join().name == 'm' and loads == 2)");
}

static void test_dofile(void **state)
{
	(void)state;
	write_file("d.lua", "sleep(0) return 1, 2");
	write_file("bad.lua", "return +");
	expect_body("local a, b = dofile('d.lua') assert(a == 1 and b == 2)\n"
		"local f = loadfile('d.lua') assert(select('#', f()) == 2)\n"
		"assert(not pcall(dofile, 'bad.lua') and loadfile('bad.lua') == nil)\n"
		"local ok, e = pcall(dofile) assert(e:match('expected dofile%(path%)'), e)");
}

/* ---- host commands ---- */

static void test_host_commands(void **state)
{
	(void)state;
	expect_body("local ok, how, code = os.execute('exit 3') assert(ok == nil and how == 'exit' and "
		"code == 3)\n"
		"ok, how, code = os.execute('true') assert(ok == true and code == 0 and os.execute() == "
		"true)\n"
		"ok, how, code = os.execute('kill -9 $$') assert(ok == nil and how == 'signal' and code == "
		"9)\n"
		"assert(not pcall(os.exit, 0) and not pcall(io.read))");
	expect_body("local p = io.popen('printf \"one\\\\ntwo\\\\n3 rest\"')\n"
		"assert(p:read() == 'one' and p:read('L') == 'two\\n' and p:read('n') == 3 and p:read(2) "
		"== ' r')\n"
		"assert(p:read('a') == 'est' and p:read('a') == '' and p:read('l') == nil)\n"
		"local ok, how, code = p:close() assert(ok == true and how == 'exit' and code == 0)\n"
		"assert(not pcall(p.read, p))");
	expect_body("local n = 0 for line in io.popen('seq 1000'):lines() do n = n + tonumber(line) end "
		"assert(n == 500500)");
	expect_body("assert(#io.popen('head -c 3000000 /dev/zero'):read('a') == 3000000)");
	/* Meanwhile other tasks go on. */
	expect_body("local n = 0 local a = co.spawn(function() while true do sleep(0.01) n = n + 1 end end)\n"
		"os.execute('sleep 0.3') assert(n > 0)");
}

static void test_host_input(void **state)
{
	(void)state;
	expect_body("local p = io.popen('cat > $DIR/out; exit 4', 'w') p:write('a', 1, "
		"'b'):write('c'):flush()\n"
		"local ok, how, code = p:close() assert(ok == nil and code == 4)\n"
		"local f = io.open(os.getenv('DIR') .. '/out') assert(f:read('*a') == 'a1bc') f:close()");
	/* Nothing written is an empty input, and one that nobody reads is no error. */
	expect_body("assert(io.popen('cat', 'w'):close())");
	expect_body("local p = io.popen('true', 'w') p:write(('x'):rep(3000000)) assert(p:close())");
	expect_body("local p = io.popen('wc -c > $DIR/out', 'w') p:write(('x'):rep(3000000)) p:close()\n"
		"local f = io.open(os.getenv('DIR') .. '/out') assert(tonumber(f:read('*a')) == 3000000) "
		"f:close() "
		"os.remove('out.txt')");
	expect_body("assert(not pcall(io.popen, 'true', 'rw'))");
}

/* ---- early ends ---- */

static double seconds_of(const struct file_result *r)
{
	return (double)r->duration_ns / 1e9;
}

static void test_timeout(void **state)
{
	char *path;

	(void)state;
	session.timeout_ns = 1000000000;
	run("test('one', function() end)\n"
		"test('spins', function(t) t:defer(function() io.open(os.getenv('DIR') .. '/deferred', "
		"'w'):close() end) "
		"while true do end end)\n"
		"test('three', function() end)");
	assert_true(result->timed_out);
	assert_int_equal(result->ntests, 2);
	assert_int_equal(result->tests[0].status, TEST_PASSED);
	assert_int_equal(result->tests[1].status, TEST_FAILED);
	assert_contains(result->tests[1].reason, "file timeout exceeded (1s)");
	path = in_dir("deferred");
	assert_int_equal(access(path, F_OK), 0);
	free(path);
	assert_true(seconds_of(result) < 20);
	run("while true do pcall(function() while true do end end) end");
	assert_true(result->timed_out);
	assert_true(seconds_of(result) < 20);
}

static void test_test_timeout(void **state)
{
	(void)state;
	run("test('spins', { timeout = 0.1 }, function() while true do end end)\n"
		"test('sleeps', { timeout = 0.1 }, function() sleep(100) end)\n"
		"test('goes on', function() end)");
	assert_false(result->timed_out);
	assert_int_equal(result->ntests, 3);
	assert_string_equal(result->tests[0].reason, "test timeout exceeded (0.1s) while computing");
	assert_string_equal(result->tests[1].reason, "test timeout exceeded (0.1s) while waiting for "
		"sleep(100)");
	assert_string_equal(result->tests[1].where, "x.test.lua:2");
	assert_int_equal(result->tests[2].status, TEST_PASSED);
}

static void test_interrupt(void **state)
{
	struct testfile *f;

	(void)state;
	write_file("x.test.lua", "test('sleeps', function() sleep(100) end)\ntest('never', function() end)");
	f = start("x.test.lua");
	run_loop(100000000);
	testfile_interrupt(f, "interrupted");
	testfile_interrupt(f, "interrupted again");
	finish();
	assert_true(result->interrupted);
	assert_int_equal(result->ntests, 1);
	assert_int_equal(result->tests[0].status, TEST_FAILED);
	assert_contains(result->tests[0].reason, "interrupted");
	/* Before it has run at all. */
	write_file("x.test.lua", "error('ran')");
	testfile_interrupt(start("x.test.lua"), "interrupted");
	finish();
	assert_null(result->chunk_error);
	assert_int_equal(result->ntests, 0);
}

/* ---- the pool ---- */

static void lease_cb(void *arg, const struct err *e)
{
	(void)arg, (void)e;
}

/* A file whose end withdraws a boot from the pool: its clock does not start again, not even after its end. */
static void test_ends_while_in_the_pool(void **state)
{
	struct pool_owner *other = pool_join(session.pool, "other", NULL, NULL);
	struct lease *all = lease_new(other, (struct amount){ 1000 * MIB, 10 }, lease_cb, NULL);

	(void)state;
	run_loop(10000000);
	session.timeout_ns = 300000000;
	run("local vm = provium:vm('a', 'p')\n"
		"co.spawn(function() vm:boot() end)\n"
		"test('one', function() sleep(0.1) end)");
	assert_false(result->timed_out);
	assert_false(file_result_failed(result));
	run_loop(500000000);
	/* Waiting for the pool counts in no timeout. */
	run("local vm = provium:vm('a', 'p')\n"
		"test('one', { timeout = 0.1 }, function()\n"
		"	local boot = co.spawn(function() vm:boot() end) sleep(0.01) local began = now()\n"
		"	while now() - began < 0.8 do sleep(0.05) end boot:cancel() sleep(0.01) end)");
	assert_false(result->timed_out);
	assert_int_equal(result->tests[0].status, TEST_PASSED);
	lease_free(all);
	pool_leave(other);
	run_loop(1000000);
}

/* Every file is by itself. */
static void test_isolation(void **state)
{
	(void)state;
	expect_passed("leaked = 1 package.loaded.leak = 2 string.extra = 3 test('one', function() end)", 1);
	expect_passed("assert(not leaked and not package.loaded.leak and not string.extra) test('two', "
		"function() end)", 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_sources),
		T(test_large_source),
		T(test_unreadable),
		T(test_chunk_error),
		T(test_failure),
		T(test_tasks),
		T(test_scope_ends_tasks),
#if LUA_VERSION_NUM >= 504
		T(test_close_on_failure),
#endif
		T(test_barrier),
		T(test_barrier_opened_at_its_timeout),
		T(test_require),
		T(test_dofile),
		T(test_host_commands),
		T(test_host_input),
		T(test_timeout),
		T(test_test_timeout),
		T(test_interrupt),
		T(test_ends_while_in_the_pool),
		T(test_isolation),
	};

	return cmocka_run_group_tests_name("testfile", tests, NULL, NULL);
}
