/*
 * Tasks: results, errors, cancellation in every state, preemption, the memory cap, the end of a state
 * (src/loop/task.c, src/loop/state.c).
 */
#include "rig.h"

static struct rig r;

static int setup(void **state)
{
	(void)state;
	rig_open(&r, STATE_MEMORY_CAP);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_close(&r);
	return 0;
}

static double seconds_since(int64_t start)
{
	return (double)(now_ns() - start) / 1e9;
}

/* ---- results ---- */

static void test_results(void **state)
{
	struct task *t = rig_spawn(&r, "return 1, nil, 'three', nil");

	(void)state;
	assert_int_equal(task_status(t), TASK_RUNNABLE);
	assert_string_equal(task_name(t), "test");
	assert_int_equal(rig_finish(&r, t), TASK_DONE);
	assert_int_equal(lua_gettop(task_lua(t)), 4);
	assert_string_equal(lua_tostring(task_lua(t), 3), "three");
	assert_true(lua_isnil(task_lua(t), 4));
}

static void test_results_after_wait(void **state)
{
	(void)state;
	rig_expect(&r, "local x = 'lost' sleep(0.001) return 'kept'", "kept");
	rig_expect(&r, "sleep(0.001)", "(nothing)");
	rig_expect(&r, "local n = 0 for i = 1, 200 do sleep(0) n = n + 1 end return n", "200");
}

static void test_many_results(void **state)
{
	struct task *t = rig_spawn(&r, "local t = {} for i = 1, 5000 do t[i] = i end "
		"return (table.unpack or unpack)(t)");

	(void)state;
	assert_int_equal(rig_finish(&r, t), TASK_DONE);
	assert_int_equal(lua_gettop(task_lua(t)), 5000);
	assert_int_equal(lua_tointeger(task_lua(t), 1), 1);
}

static void test_arguments(void **state)
{
	(void)state;
	rig_expect(&r, "local out spawn(function(...) out = select('#', ...) .. tostring((...)) end, 'a', "
		"nil, nil) "
		"sleep(0.01) return out", "3a");
}

static void test_errors(void **state)
{
	struct task *t;
	char *tb;

	(void)state;
	rig_expect_error(&r, "error('plain')", "test.lua:1: plain");
	t = rig_spawn(&r, "local function deep() sleep(0.001) error({ code = 5 }) end deep()");
	assert_int_equal(rig_finish(&r, t), TASK_FAILED);
	assert_true(lua_istable(task_lua(t), -1));
	tb = task_traceback(t);
	assert_non_null(strstr(tb, "deep"));
	assert_non_null(strstr(tb, "test.lua:1"));
	free(tb);
	t = rig_spawn(&r, "error()");
	assert_int_equal(rig_finish(&r, t), TASK_FAILED);
	assert_true(lua_isnil(task_lua(t), -1));
	rig_expect_error(&r, "local function f() return f() + 1 end f()", "stack overflow");
}

/* Where a stack that has overflowed ends is not looked for: that holds everybody up. */
static void test_traceback_of_deep_stacks(void **state)
{
	static const char code[] =
		"local function f(n) if n == 0 then error('deep') end return 1 + f(n - 1) end\n"
		"local function outer(n) return 1 + f(n) end\n"
		"return 1 + outer(%d)";
	int lines = 0;
	struct task *t;
	char *tb, text[256];

	(void)state;
	snprintf(text, sizeof(text), code, 100);
	t = rig_spawn(&r, text);
	assert_int_equal(rig_finish(&r, t), TASK_FAILED);
	tb = task_traceback(t);
	assert_non_null(strstr(tb, "'outer'"));
	free(tb);
	snprintf(text, sizeof(text), code, 10000);
	t = rig_spawn(&r, text);
	assert_int_equal(rig_finish(&r, t), TASK_FAILED);
	tb = task_traceback(t);
	assert_non_null(strstr(tb, "stack traceback:\n\t[C]: in function 'error'\n\t"));
	assert_non_null(strstr(tb, "test.lua:1: in "));
	assert_non_null(strstr(tb, "levels more"));
	for (const char *p = tb; (p = strchr(p, '\n')); p++)
		lines++;
	assert_in_range(lines, 10, 30);
	free(tb);
}

static void test_traceback_of_waiting(void **state)
{
	struct task *t = rig_spawn(&r, "local function inner() gate('g') end\ninner()\nreturn 1");
	char *tb, text[64];

	(void)state;
	rig_settle(&r);
	assert_int_equal(task_status(t), TASK_WAITING);
	assert_string_equal(task_waiting_for(t, text, sizeof(text)), "gate g");
	tb = task_traceback(t);
	assert_non_null(strstr(tb, "inner"));
	free(tb);
	rig_open_gate(&r, "g");
	assert_string_equal(task_waiting_for(t, text, sizeof(text)), "");
	assert_int_equal(rig_finish(&r, t), TASK_DONE);
}

/* ---- done hooks ---- */

static void note_done(struct task *t, void *arg)
{
	char text[32];

	snprintf(text, sizeof(text), "%s%d", (const char *)arg, (int)task_status(t));
	rig_note(&r, text);
}

static void remove_other(struct task *t, void *arg)
{
	task_remove_done(t, note_done, arg);
}

static void test_done_hooks(void **state)
{
	struct task *t = rig_spawn(&r, "return 1");

	(void)state;
	task_add_done(t, note_done, "a");
	task_add_done(t, note_done, "b");
	task_add_done(t, remove_other, "d");
	task_add_done(t, note_done, "c");
	task_add_done(t, note_done, "d");
	task_remove_done(t, note_done, "b");
	task_remove_done(t, note_done, "never added");
	rig_finish(&r, t);
	assert_string_equal(r.notes, "a3 c3");
}

/* ---- cancellation ---- */

static void test_cancel_waiting(void **state)
{
	struct task *t = rig_spawn(&r, "gate('g') note('not reached')");

	(void)state;
	rig_settle(&r);
	task_cancel(t, "enough");
	assert_int_equal(r.cancelled, 1);
	assert_int_equal(r.released, 1);
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(rig_text(t), "test.lua:1: enough");
	task_cancel(t, "too late");
	assert_int_equal(task_status(t), TASK_CANCELLED);
	assert_string_equal(r.notes, "");
	assert_int_equal(r.cancelled, 1);
	assert_int_equal(r.released, 1);
}

/* It is the first reason that counts, and every later wait raises it. */
static void test_cancel_twice(void **state)
{
	struct task *t = rig_spawn(&r,
		"local _, a = pcall(gate, 'g') local _, b = pcall(sleep, 1) local _, c = pcall(gate, 'h') "
		"note(a) note(b) note(c) return 'cleaned up'");

	(void)state;
	rig_settle(&r);
	task_cancel(t, "first");
	task_cancel(t, "second");
	assert_int_equal(rig_finish(&r, t), TASK_DONE);
	assert_string_equal(rig_text(t), "cleaned up");
	assert_null(strstr(r.notes, "second"));
	assert_string_equal(r.notes, "test.lua:1: first test.lua:1: first test.lua:1: first");
	assert_int_equal(r.released, 1);
}

/* Its wait has finished, but it has not been resumed yet. */
static void test_cancel_runnable(void **state)
{
	struct task *t = rig_spawn(&r, "gate('g') note('not reached')");

	(void)state;
	rig_settle(&r);
	rig_open_gate(&r, "g");
	assert_int_equal(task_status(t), TASK_RUNNABLE);
	task_cancel(t, "enough");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(r.notes, "");
	assert_int_equal(r.cancelled, 0);
	assert_int_equal(r.released, 1);
}

/* Nothing of it runs. */
static void test_cancel_before_first_slice(void **state)
{
	struct task *t = rig_spawn(&r, "note('ran')");

	(void)state;
	task_cancel(t, "never mind");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(rig_text(t), "never mind");
	assert_string_equal(r.notes, "");
}

static void test_cancel_computing(void **state)
{
	struct task *t = rig_spawn(&r, "while true do end");
	int64_t start = now_ns();

	(void)state;
	rig_settle(&r);
	assert_int_equal(task_status(t), TASK_RUNNABLE);
	task_cancel(t, "stop it");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(rig_text(t), "test.lua:1: stop it");
	assert_true(seconds_since(start) < 5);
}

static void test_cancel_itself(void **state)
{
	struct task *t = rig_spawn(&r, "cancel(self(), 'suicide') note('still here') sleep(0) note('not "
		"here')");

	(void)state;
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(r.notes, "still here");
	/* And while it computes on. */
	t = rig_spawn(&r, "cancel(self(), 'suicide') while true do end");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(rig_text(t), "test.lua:1: suicide");
}

/* Whoever swallows the error for ever is dropped after a second; the others go on meanwhile. */
static void expect_dropped(const char *code)
{
	struct task *t = rig_spawn(&r, code);
	struct task *other = rig_spawn(&r, "local n = 0 while n < 30 do sleep(0.01) n = n + 1 end return n");
	int64_t start = now_ns();
	char *tb;

	rig_settle(&r);
	task_cancel(t, "stop it");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	/* The error may also hit it where it swallows nothing. */
	assert_true(seconds_since(start) < 20);
	assert_non_null(strstr(rig_text(t), "stop it"));
	rig_finish(&r, other);
	tb = task_traceback(t);
	assert_non_null(strstr(tb, "test.lua"));
	free(tb);
	assert_int_equal(task_status(other), TASK_DONE);
}

static void test_cancel_swallowing_waits(void **state)
{
	(void)state;
	expect_dropped("while true do pcall(sleep, 0.01) end");
	expect_dropped("while true do pcall(function() gate('g') end) end");
}

static void test_cancel_swallowing_computation(void **state)
{
	(void)state;
	expect_dropped("while true do pcall(function() while true do end end) end");
	expect_dropped("local co = coroutine.wrap(function() while true do pcall(function() while true do "
		"end end) end end) co()");
}

/* The same where Lua cannot be preempted, and has not been before. */
static void test_cancel_swallowing_in_callback(void **state)
{
	(void)state;
	expect_dropped("cancel(self(), 'stop it') "
		"while true do pcall(table.sort, { 1, 2 }, function() while true do end end) end");
}

/* A dropped task's variables stay what they were for the functions that share them, and nothing of it runs. */
static void test_dropped_upvalues(void **state)
{
	(void)state;
	rig_expect(&r,
		"local get\n"
		"local t = spawn(function()\n"
		"	local kept = { 'value' }\n"
		"	get = function() return kept[1] end\n"
		"	while true do pcall(sleep, 1) end\n"
		"end)\n"
		"sleep(0.01) cancel(t, 'x')\n"
		"while status(t) < 3 do sleep(0.05) end\n"
		"collectgarbage() collectgarbage()\n"
		"return get()", "value");
}

#if LUA_VERSION_NUM >= 504
static void test_dropped_close(void **state)
{
	(void)state;
	rig_expect(&r,
		"local t = spawn(function()\n"
		"	local c <close> = setmetatable({}, { __close = function() error('in close') end })\n"
		"	while true do pcall(sleep, 1) end\n"
		"end)\n"
		"sleep(0.01) cancel(t, 'x')\n"
		"while status(t) < 3 do sleep(0.05) end\n"
		"return status(t)", "5");
}

/* An orderly cancellation closes what it unwinds. */
static void test_cancel_closes(void **state)
{
	(void)state;
	rig_expect(&r,
		"local t = spawn(function()\n"
		"	local c <close> = setmetatable({}, { __close = function(_, e) note('closed:' .. e) "
		"end })\n"
		"	sleep(10)\n"
		"end)\n"
		"sleep(0.01) cancel(t, 'why') sleep(0.01)\n"
		"return status(t)", "5");
	assert_string_equal(r.notes, "closed:test.lua:3: why");
}
#endif

/* ---- preemption ---- */

static void test_preemption(void **state)
{
	struct task *spin = rig_spawn(&r, "while true do end");
	struct task *other = rig_spawn(&r,
		"local worst = 0 for i = 1, 20 do local t = now() sleep(0.001) worst = math.max(worst, "
		"now() - t) end "
		"return worst");

	(void)state;
	assert_int_equal(rig_finish(&r, other), TASK_DONE);
	assert_true(lua_tonumber(task_lua(other), -1) < 5);
	assert_int_equal(task_status(spin), TASK_RUNNABLE);
}

/* Several that compute share the time. */
static void test_fair_shares(void **state)
{
	static const char code[] = "local stop = now() + 0.3 local n = 0 while now() < stop do n = n + 1 "
		"end return n";
	struct task *a = rig_spawn(&r, code), *b = rig_spawn(&r, code);
	double x, y;

	(void)state;
	rig_finish(&r, a);
	rig_finish(&r, b);
	x = lua_tonumber(task_lua(a), -1);
	y = lua_tonumber(task_lua(b), -1);
	assert_true(x > 0 && y > 0 && x / y < 10 && y / x < 10);
}

/* Who was woken need not stand in line with those that compute: once at least it waits for one slice only. */
static void test_woken_first(void **state)
{
	struct task *t;

	(void)state;
	for (int i = 0; i < 8; i++)
		rig_spawn(&r, "while true do end");
	t = rig_spawn(&r, "local best = 1 "
		"for i = 1, 10 do local t = now() sleep(0) best = math.min(best, now() - t) end return best");
	assert_int_equal(rig_finish(&r, t), TASK_DONE);
	assert_true(lua_tonumber(task_lua(t), -1) < 0.04);
}

static void test_preempted_everywhere(void **state)
{
	static const char prelude[] =
		"local function burn(s) local stop = now() + s local n = 0 while now() < stop do n = n + 1 "
		"end return n > 0 end\n";
	static const char *const code[] = {
		"return tostring(burn(0.05))",
		"local ok, v = pcall(burn, 0.05) return tostring(v)",
		"local o = setmetatable({}, { __index = function() return burn(0.05) end }) return "
		"tostring(o.x)",
		"local o = setmetatable({}, { __lt = function() return burn(0.05) end }) return tostring(o "
		"< o)",
		"local function it() return burn(0.03) end for x in it do return tostring(x) end",
		"local co = coroutine.wrap(function() return burn(0.05) end) return tostring(co())",
		"local co = coroutine.wrap(function() local i = coroutine.wrap(function() return "
		"burn(0.05) end) return i() end) "
			"return tostring(co())",
		"local t = { 2, 1 } table.sort(t, function(a, b) burn(0.02) return a < b end) return "
		"tostring(t[1] == 1)",
		"return (('x'):gsub('x', function() burn(0.02) return 'true' end))",
		"local co = coroutine.wrap(function() burn(0.03) coroutine.yield('y') burn(0.03) return "
		"true end) "
			"return tostring(co() == 'y' and co())",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(code) / sizeof(*code); i++) {
		char *text = xasprintf("%s%s", prelude, code[i]);

		rig_expect(&r, text, "true");
		free(text);
	}
}

/* Where it cannot be preempted, two seconds are the most. */
static void test_unyieldable_computation(void **state)
{
	struct task *t = rig_spawn(&r, "table.sort({ 1, 2 }, function() while true do end end)");
	int64_t start = now_ns();

	(void)state;
	assert_int_equal(rig_finish(&r, t), TASK_FAILED);
	assert_true(seconds_since(start) >= 2);
	assert_non_null(strstr(rig_text(t), "test.lua:1: computed for 2 s where Lua cannot be preempted"));
}

/* ---- the memory cap ---- */

static void test_memory_cap(void **state)
{
	struct rig small;
	struct task *t;

	(void)state;
	rig_open(&small, 4 << 20);
	t = rig_spawn(&small, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end");
	assert_int_equal(rig_finish(&small, t), TASK_FAILED);
	assert_string_equal(rig_text(t), "not enough memory");
	assert_true(state_memory_used(small.state) <= (5 << 20));
	/* What it held is free again, for tasks of the same state. */
	rig_expect(&small, "return #('x'):rep(1000000)", "1000000");
	rig_expect(&small, "local ok, e = pcall(string.rep, 'x', 1e8) sleep(0) return tostring(ok) .. e",
		"falsenot enough memory");
	rig_close(&small);
}

/* ---- the end of a state ---- */

static void stopped(void *arg)
{
	rig_note(arg, "stopped");
	loop_stop(((struct rig *)arg)->loop);
}

static void test_state_stop(void **state)
{
	struct rig own;
	int64_t start = now_ns();

	(void)state;
	rig_open(&own, STATE_MEMORY_CAP);
	rig_spawn(&own, "gate('g')");
	rig_spawn(&own, "while true do end");
	rig_spawn(&own, "while true do pcall(sleep, 1) end");
	rig_spawn(&own, "while true do pcall(function() while true do end end) end");
	rig_spawn(&own, "local ok, e = pcall(gate, 'h') note(e) spawn(function() note('never') end)");
	rig_reach_gate(&own, "h");
	rig_settle(&own);
	rig_spawn(&own, "note('not started')");
	state_stop(own.state, "over", stopped, &own);
	assert_string_equal(own.notes, "");
	rig_run(&own);
	assert_string_equal(own.notes, "test.lua:1: over stopped");
	assert_true(seconds_since(start) < 20);
	for (size_t i = 0; i < own.nspawned; i++)
		assert_true(task_status(own.spawned[i]) > TASK_WAITING);
	rig_close(&own);
}

static void test_state_stop_empty(void **state)
{
	struct rig own;

	(void)state;
	rig_open(&own, STATE_MEMORY_CAP);
	state_stop(own.state, "over", stopped, &own);
	assert_string_equal(own.notes, "");
	rig_run(&own);
	assert_string_equal(own.notes, "stopped");
	rig_close(&own);
}

static bool is_gate(const struct wait *w)
{
	return strcmp(w->kind->name, "gate") == 0;
}

static void test_state_every_wait(void **state)
{
	struct task *t;

	(void)state;
	rig_spawn(&r, "gate('a')");
	assert_false(state_every_wait(r.state, is_gate));
	rig_settle(&r);
	assert_true(state_every_wait(r.state, is_gate));
	t = rig_spawn(&r, "gate('c') sleep(0.05) gate('b')");
	rig_reach_gate(&r, "c");
	rig_open_gate(&r, "c");
	assert_false(state_every_wait(r.state, is_gate));
	rig_reach_gate(&r, "b");
	assert_true(state_every_wait(r.state, is_gate));
	rig_open_gate(&r, "a");
	assert_false(state_every_wait(r.state, is_gate));
	rig_open_gate(&r, "b");
	rig_finish(&r, t);
}

/* The last reference may go before or after the task's end. */
static void test_references(void **state)
{
	struct task *t;

	(void)state;
	assert_int_equal(luaL_loadstring(r.L, "gate('g')"), LUA_OK);
	t = task_spawn(r.L, 0, "unwatched");
	assert_ptr_equal(task_ref(t), t);
	task_unref(t);
	task_unref(t);
	rig_settle(&r);
	rig_open_gate(&r, "g");
	rig_settle(&r);
	task_unref(NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_results),
		T(test_results_after_wait),
		T(test_many_results),
		T(test_arguments),
		T(test_errors),
		T(test_traceback_of_deep_stacks),
		T(test_traceback_of_waiting),
		T(test_done_hooks),
		T(test_cancel_waiting),
		T(test_cancel_twice),
		T(test_cancel_runnable),
		T(test_cancel_before_first_slice),
		T(test_cancel_computing),
		T(test_cancel_itself),
		T(test_cancel_swallowing_waits),
		T(test_cancel_swallowing_computation),
		T(test_cancel_swallowing_in_callback),
		T(test_dropped_upvalues),
#if LUA_VERSION_NUM >= 504
		T(test_dropped_close),
		T(test_cancel_closes),
#endif
		T(test_preemption),
		T(test_fair_shares),
		T(test_woken_first),
		T(test_preempted_everywhere),
		T(test_unyieldable_computation),
		T(test_memory_cap),
		T(test_state_stop),
		T(test_state_stop_empty),
		T(test_state_every_wait),
		T(test_references),
	};

	return cmocka_run_group_tests_name("task", tests, NULL, NULL);
}
