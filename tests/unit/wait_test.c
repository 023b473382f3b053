/*
 * Waits, and where they may be made: before and after the yield, failures, callbacks that cannot yield, user
 * coroutines, metamethods, iterators (src/loop/wait.c, lua/shim.lua).
 */
#include "rig.h"

#include <errno.h>

static struct rig r;

/* ---- ops of these tests ---- */

static unsigned released;

static void count_release(struct wait *w)
{
	(void)w;
	released++;
}

static int push_two(struct wait *w, lua_State *L)
{
	(void)w;
	lua_pushliteral(L, "one");
	lua_pushliteral(L, "two");
	return 2;
}

/* Far beyond any cap of these tests. */
static int push_huge(struct wait *w, lua_State *L)
{
	luaL_Buffer b;

	(void)w;
	luaL_buffinit(L, &b);
	for (int i = 0; i < 1000; i++)
		luaL_addlstring(&b, (char [100000]){ 0 }, 100000);
	luaL_pushresult(&b);
	return 1;
}

static int push_many(struct wait *w, lua_State *L)
{
	(void)w;
	luaL_checkstack(L, 3000, "many results");
	for (int i = 1; i <= 3000; i++)
		lua_pushinteger(L, i);
	return 3000;
}

static const struct wait_kind two_kind = { .name = "two", .push = push_two, .release = count_release };
static const struct wait_kind huge_kind = { .name = "huge", .push = push_huge, .release = count_release };
static const struct wait_kind many_kind = { .name = "many", .push = push_many, .release = count_release };
static const struct wait_kind bare_kind = { .name = "bare" };

static void finish_later(void *arg)
{
	wait_finish(arg);
}

static void fail_later(void *arg)
{
	wait_fail(arg, EIO, "the %s broke", "disk");
}

/* ready(kind): finished before it yields; later(kind): after */
static const struct wait_kind *kind_of(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	return *name == 't' ? &two_kind : *name == 'h' ? &huge_kind : *name == 'm' ? &many_kind : &bare_kind;
}

static int op_ready(lua_State *L)
{
	struct wait *w = wait_new(L, kind_of(L), sizeof(*w));

	wait_finish(w);
	return wait_yield(L, w);
}

static int op_later(lua_State *L)
{
	struct wait *w = wait_new(L, kind_of(L), sizeof(*w));

	loop_defer(r.loop, finish_later, w);
	return wait_yield(L, w);
}

static int op_fail_now(lua_State *L)
{
	struct wait *w = wait_new(L, &two_kind, sizeof(*w));

	wait_fail(w, EIO, "the %s broke", "disk");
	return wait_yield(L, w);
}

static int op_fail_later(lua_State *L)
{
	struct wait *w = wait_new(L, &two_kind, sizeof(*w));

	loop_defer(r.loop, fail_later, w);
	return wait_yield(L, w);
}

static int op_abandon(lua_State *L)
{
	struct wait *w = wait_new(L, &two_kind, sizeof(*w));
	struct err e = ERR_INIT;
	int n;

	err_set(&e, ENOENT, "no such thing");
	n = wait_abandon(L, w, &e);
	err_release(&e);
	return n;
}

/* It raises where it should have yielded. */
static int op_raise_armed(lua_State *L)
{
	wait_new(L, &two_kind, sizeof(struct wait));
	return luaL_error(L, "slipped");
}

static int op_plain(lua_State *L)
{
	lua_settop(L, 2);
	return op_return(L, 2);
}

static int op_plain_error(lua_State *L)
{
	struct err e = ERR_INIT;
	int n;

	err_set(&e, EINVAL, "plainly wrong");
	n = op_return_error(L, &e);
	err_release(&e);
	return n;
}

static const luaL_Reg ops[] = {
	{ "ready", op_ready },
	{ "later", op_later },
	{ "fail_now", op_fail_now },
	{ "fail_later", op_fail_later },
	{ "abandon", op_abandon },
	{ "raise_armed", op_raise_armed },
	{ "plain", op_plain },
	{ "plain_error", op_plain_error },
	{ NULL, NULL },
};

static void open_with(size_t cap)
{
	rig_open(&r, cap);
	released = 0;
	lua_pushglobaltable(r.L);
	lua_set_ops(r.L, ops);
	lua_pop(r.L, 1);
}

static int setup(void **state)
{
	(void)state;
	open_with(STATE_MEMORY_CAP);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_close(&r);
	return 0;
}

/* ---- results ---- */

static void test_finish(void **state)
{
	(void)state;
	rig_expect(&r, "local a, b, c = ready('two') return a .. b .. tostring(c)", "onetwonil");
	rig_expect(&r, "local a, b, c = later('two') return a .. b .. tostring(c)", "onetwonil");
	rig_expect(&r, "return select('#', ready('bare')) + select('#', later('bare'))", "0");
	rig_expect(&r, "return select('#', ready('many')) + select('#', later('many'))", "6000");
	rig_expect(&r, "return select(3000, later('many'))", "3000");
	rig_expect(&r, "local a, b = plain('x', 'y') return a .. b", "xy");
	assert_int_equal(released, 5);
}

static void test_fail(void **state)
{
	(void)state;
	rig_expect_error(&r, "fail_now()", "test.lua:1: the disk broke");
	rig_expect_error(&r, "\nfail_later()", "test.lua:2: the disk broke");
	rig_expect_error(&r, "\n\nabandon()", "test.lua:3: no such thing");
	rig_expect_error(&r, "plain_error()", "test.lua:1: plainly wrong");
	rig_expect(&r, "local ok, e = pcall(fail_later) return tostring(ok) .. e", "falsetest.lua:1: the "
		"disk broke");
	rig_expect(&r, "local ok, e = pcall(function() fail_later() end) return tostring(ok) .. e",
		"falsetest.lua:1: the disk broke");
	rig_expect(&r, "local ok, e = xpcall(function() fail_later() end, function(m) return m:upper() "
		"end) return e",
		"TEST.LUA:1: THE DISK BROKE");
	/* The task can wait again afterwards. */
	rig_expect(&r, "pcall(abandon) pcall(fail_now) pcall(fail_later) return (later('two'))", "one");
}

static void test_raise_instead_of_yield(void **state)
{
	(void)state;
	rig_expect_error(&r, "raise_armed()", "slipped");
	assert_int_equal(released, 1);
}

/* A result that the state has no memory for is an error of the call, not of the program. */
static void test_huge_result(void **state)
{
	(void)state;
	rig_close(&r);
	open_with(8 << 20);
	rig_expect(&r, "local ok, e = pcall(later, 'huge') return tostring(ok) .. e", "falsetest.lua:1: "
		"not enough memory");
	rig_expect(&r, "local ok, e = pcall(ready, 'huge') return tostring(ok) .. e", "falsetest.lua:1: "
		"not enough memory");
	rig_expect_error(&r, "later('huge')", "not enough memory");
	rig_expect(&r, "return (later('two'))", "one");
	assert_int_equal(released, 4);
}

static void test_elapsed(void **state)
{
	struct wait w = { .armed_ns = now_ns() - 1500000000 };

	(void)state;
	assert_true(wait_elapsed(&w) >= 1.5 && wait_elapsed(&w) < 30);
}

/* ---- where Lua cannot yield ---- */

static void test_cannot_wait_here(void **state)
{
	(void)state;
	rig_expect_error(&r, "local t = { 2, 1 }\ntable.sort(t, function(a, b)\n\tgate('g') return a < b "
		"end)",
		"test.lua:3: gate cannot wait here: Lua cannot yield inside a function called by `sort`; "
		"call it before, keep its result in a local, and use that here");
	rig_expect_error(&r, "local y = (('x'):gsub('x', function() gate('g') end))", "called by `gsub`");
	/* Nothing was armed, and the task can still wait elsewhere. */
	rig_expect(&r, "local ok = pcall(table.sort, { 2, 1 }, function(a, b) sleep(0) end) sleep(0) "
		"return tostring(ok)",
		"false");
	assert_int_equal(r.cancelled, 0);
}

static void test_outside_of_a_task(void **state)
{
	(void)state;
	assert_int_not_equal(luaL_dostring(r.L, "gate('g')"), LUA_OK);
	assert_non_null(strstr(lua_tostring(r.L, -1), "gate: called outside of a task"));
	lua_pop(r.L, 1);
}

static void test_finalizer_cannot_wait(void **state)
{
	(void)state;
#if LUA_VERSION_NUM >= 504
	rig_expect(&r,
		"local e\n"
		"setmetatable({}, { __gc = function() e = select(2, pcall(sleep, 0)) end })\n"
		"collectgarbage() collectgarbage() sleep(0)\n"
		"return e:match('cannot wait here')", "cannot wait here");
#endif
}

/* ---- user coroutines ---- */

static void test_coroutines_wait(void **state)
{
	(void)state;
	rig_expect(&r,
		"local co = coroutine.wrap(function(a)\n"
		"	sleep(0.001) local b = coroutine.yield(a + 1) sleep(0.001) return b + 1\n"
		"end)\n"
		"return co(1) .. co(10)", "211");
	rig_expect(&r,
		"local co = coroutine.create(function(...)\n"
		"	local n = select('#', ...) sleep(0) return n, later('two')\n"
		"end)\n"
		"local ok, n, one, two = coroutine.resume(co, nil, nil, nil)\n"
		"return tostring(ok) .. n .. one .. two .. coroutine.status(co)", "true3onetwodead");
}

static void test_coroutines_nested(void **state)
{
	(void)state;
	rig_expect(&r,
		"local function deep(n)\n"
		"	if n == 0 then sleep(0.001) coroutine.yield('bottom') sleep(0) return 'end' end\n"
		"	local co = coroutine.wrap(function() return deep(n - 1) end)\n"
		"	coroutine.yield(co()) sleep(0) return co()\n"
		"end\n"
		"local co = coroutine.wrap(function() return deep(20) end)\n"
		"return co() .. co()", "bottomend");
}

/* Two generators in turn, each waiting; and one shared by two tasks. */
static void test_generators(void **state)
{
	(void)state;
	rig_expect(&r,
		"local function gen(n) return coroutine.wrap(function() for i = 1, n do sleep(0) "
		"coroutine.yield(i) end end) end\n"
		"local a, b, out = gen(3), gen(3), ''\n"
		"for i = 1, 3 do out = out .. a() .. b() end\n"
		"for i in gen(4) do out = out .. i end\n"
		"return out", "1122331234");
}

static void test_coroutine_errors(void **state)
{
	(void)state;
	rig_expect(&r,
		"local co = coroutine.create(function() sleep(0) fail_later() end)\n"
		"local ok, e = coroutine.resume(co)\n"
		"return tostring(ok) .. e .. coroutine.status(co)", "falsetest.lua:1: the disk brokedead");
	rig_expect(&r,
		"local co = coroutine.wrap(function() sleep(0) error({ code = 7 }) end)\n"
		"local ok, e = pcall(co) return e.code", "7");
	rig_expect(&r, "local co = coroutine.create(function() end) coroutine.resume(co) "
		"return select(2, coroutine.resume(co))", "cannot resume dead coroutine");
	rig_expect_error(&r, "coroutine.yield(1)", "test.lua:1: attempt to yield from outside a coroutine");
	rig_expect_error(&r, "sleep(0) coroutine.yield(1)", "attempt to yield from outside a coroutine");
}

/* Another task looks at, and tries to resume, a coroutine that waits in the first. */
static void test_coroutine_in_use(void **state)
{
	(void)state;
	rig_expect(&r,
		"local co = coroutine.create(function() sleep(0.02) return 'mine' end)\n"
		"local status_seen, ok, e\n"
		"spawn(function() status_seen = coroutine.status(co) ok, e = coroutine.resume(co) end)\n"
		"local _, v = coroutine.resume(co)\n"
		"return table.concat({ status_seen, tostring(ok), e, v }, ' ')",
		"normal false cannot resume a coroutine that waits for a guest mine");
#if LUA_VERSION_NUM >= 504
	rig_expect(&r,
		"local co = coroutine.create(function() sleep(0.02) return 'mine' end)\n"
		"local e\n"
		"spawn(function() e = select(2, pcall(coroutine.close, co)) end)\n"
		"local _, v = coroutine.resume(co)\n"
		"return e .. v", "test.lua:3: cannot close a coroutine that waits for a guestmine");
	rig_expect(&r,
		"local co = coroutine.create(function() local x <close> = setmetatable({}, { __close = "
		"function() "
		"note('closed') end }) sleep(0) coroutine.yield() end)\n"
		"coroutine.resume(co) return tostring(coroutine.close(co)) .. "
		"coroutine.status(co)", "truedead");
	assert_string_equal(r.notes, "closed");
#endif
}

static void test_coroutine_cancelled(void **state)
{
	struct task *t = rig_spawn(&r,
		"local co = coroutine.wrap(function() local i = coroutine.wrap(function() gate('g') end) "
		"i() end) co()");

	(void)state;
	rig_settle(&r);
	task_cancel(t, "enough");
	assert_int_equal(rig_finish(&r, t), TASK_CANCELLED);
	assert_string_equal(rig_text(t), "test.lua:1: enough");
	assert_int_equal(r.cancelled, 1);
}

/* Inside a comparator, coroutines work as long as what runs in them neither waits nor computes long. */
static void test_coroutine_where_lua_cannot_yield(void **state)
{
	(void)state;
	rig_expect(&r,
		"local t = { 3, 1, 2 }\n"
		"local less = coroutine.wrap(function(a, b) while true do a, b = coroutine.yield(a < b) "
		"end end)\n"
		"table.sort(t, less)\n"
		"sleep(0)\n"
		"return table.concat(t)", "123");
	rig_expect(&r,
		"local e\n"
		"table.sort({ 2, 1 }, function(a, b)\n"
		"	local co = coroutine.create(function() sleep(0) end)\n"
		"	e = select(2, coroutine.resume(co)) return a < b end)\n"
		"sleep(0)\n"
		"return e", "test.lua:3: sleep cannot wait here: Lua cannot yield inside a C function's "
		"callback (table.sort, "
		"string.gsub, ...); call it before, keep its result in a local, and use that here");
	rig_expect(&r,
		"local ok, e = pcall(table.sort, { 2, 1 }, function() coroutine.resume(nil) end)\n"
		"sleep(0)\n"
		"return tostring(ok)", "false");
}

static void test_coroutine_functions(void **state)
{
	(void)state;
	rig_expect(&r, "return type(coroutine.running())", "thread");
	rig_expect(&r, "local co = coroutine.create(function() end) return "
		"coroutine.status(co)", "suspended");
	rig_expect(&r, "local co co = coroutine.create(function() return coroutine.status(co) end) "
		"return select(2, coroutine.resume(co))", "running");
	rig_expect(&r, "local outer outer = coroutine.create(function() "
		"return coroutine.wrap(function() sleep(0) return coroutine.status(outer) end)() end) "
		"return select(2, coroutine.resume(outer))", "normal");
	rig_expect(&r, "return tostring(coroutine.isyieldable())", "true");
	rig_expect_error(&r, "debug.sethook(print, 'c')", "test.lua:1: debug.sethook: hooks belong to the "
		"runtime");
}

/* ---- everywhere else ---- */

static void test_waits_everywhere(void **state)
{
	(void)state;
	rig_expect(&r, "local o = setmetatable({}, { __index = function(_, k) sleep(0) return k end }) "
		"return o.key", "key");
	rig_expect(&r, "local got local o = setmetatable({}, { __newindex = function(_, k, v) sleep(0) got "
		"= k .. v end }) "
		"o.a = 1 return got", "a1");
	rig_expect(&r, "local mt = { __add = function() sleep(0) return 7 end, __call = function() "
		"sleep(0) return 8 end, "
		"__concat = function() sleep(0) return 9 end, __eq = function() sleep(0) return true end, "
		"__lt = function() sleep(0) return true end, __le = function() sleep(0) return true end, "
		"__unm = function() sleep(0) return 6 end }\n"
		"local a, b = setmetatable({}, mt), setmetatable({}, mt)\n"
		"return (a + 1) .. a() .. (a .. 'x') .. -a .. tostring(a == b) .. tostring(a < b) .. "
		"tostring(a <= b)",
		"7896truetruetrue");
	rig_expect(&r, "local function it(_, i) sleep(0) if i < 3 then return i + 1 end end local s = '' "
		"for i in it, nil, 0 do s = s .. i end return s", "123");
	rig_expect(&r, "local ok, a, b = pcall(later, 'two') return tostring(ok) .. a .. b", "trueonetwo");
	rig_expect(&r, "return (select(2, xpcall(later, error, 'two')))", "one");
	rig_expect(&r, "local ok, e = pcall(function() sleep(0) local x = nil; x() end) return "
		"tostring(ok)", "false");
	rig_expect(&r, "return select(2, pcall(pcall, function() sleep(0) return 1 end)) and 'ok'", "ok");
	rig_expect(&r, "return (load or loadstring)('sleep(0) return ...')('loaded')", "loaded");
}

#if LUA_VERSION_NUM >= 504
static void test_waits_in_54_places(void **state)
{
	(void)state;
	rig_expect(&r, "do local c <close> = setmetatable({}, { __close = function() sleep(0) note('c') "
		"end }) end "
		"return 'closed'", "closed");
	rig_expect(&r, "local o = setmetatable({}, { __pairs = function(t) sleep(0) return next, { a = 1 } "
		"end }) "
		"for k, v in pairs(o) do return k end", "a");
	/* An error that unwinds closes too, and may wait. */
	rig_expect(&r, "pcall(function() local c <close> = setmetatable({}, { __close = function() "
		"sleep(0) note('d') end }) "
		"error('x') end) return 'closed'", "closed");
	/* So does the one that ends the task. */
	rig_finish(&r, rig_spawn(&r, "local c <close> = setmetatable({}, { __close = function() sleep(0) "
		"note('e') end }) "
		"error('x')"));
	assert_string_equal(r.notes, "c d e");
}
#endif

/* Many tasks, many waits, in one run. */
static void test_many_tasks(void **state)
{
	(void)state;
	rig_expect(&r,
		"local sum, left = 0, 50\n"
		"for i = 1, 50 do spawn(function(n)\n"
		"	for j = 1, 20 do sleep(0) later('two') sum = sum + 1 end\n"
		"	left = left - 1\n"
		"end, i) end\n"
		"while left > 0 do sleep(0.001) end\n"
		"return sum", "1000");
	assert_int_equal(released, 1000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_finish),
		T(test_fail),
		T(test_raise_instead_of_yield),
		T(test_huge_result),
		T(test_elapsed),
		T(test_cannot_wait_here),
		T(test_outside_of_a_task),
		T(test_finalizer_cannot_wait),
		T(test_coroutines_wait),
		T(test_coroutines_nested),
		T(test_generators),
		T(test_coroutine_errors),
		T(test_coroutine_in_use),
		T(test_coroutine_cancelled),
		T(test_coroutine_where_lua_cannot_yield),
		T(test_coroutine_functions),
		T(test_waits_everywhere),
#if LUA_VERSION_NUM >= 504
		T(test_waits_in_54_places),
#endif
		T(test_many_tasks),
	};

	return cmocka_run_group_tests_name("wait", tests, NULL, NULL);
}
