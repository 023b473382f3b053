-- The test framework over a fake core: what each test file comes to, literally.

-- Embedded, as far as positions go.
local function load_fake()
	local file = assert(io.open(srcdir .. "/tests/unit/lua/fake_core.lua", "rb"))
	local text = file:read("*a")
	file:close()
	return assert((loadstring or load)(text, "=provium:fake_core"))()
end

local fake = load_fake()
local cases = {}

local function case(name, fn)
	cases[#cases + 1] = { name = name, fn = fn }
end

local function equal(got, want)
	if got ~= want then
		error(("got  %s\nwant %s"):format(tostring(got), tostring(want)), 2)
	end
end

-- The outcome of one test with this body, its line 1 being the body's first.
local function body(text, options)
	local core = fake.run('test("x", function(t) ' .. text .. "\nend)", options)
	equal(#fake.reports(core, "chunk_error"), 0)
	return fake.outcome(core, "x"), core
end

local function fails(text, reason)
	local o = body(text)
	equal(o.kind, "failed")
	equal(o.reason, reason)
	return o
end

local function chunk_error(text, message)
	local core = fake.run(text)
	local errors = fake.reports(core, "chunk_error")
	equal(#errors, 1)
	equal(errors[1].message, message)
	equal(#fake.reports(core, "test_started"), 0)
end

case("failure texts", function()
	fails("t:assert(false)", "assertion failed")
	fails('t:assert(nil, "no luck")', "no luck")
	fails("t:assert_eq(1, 2)", "assert_eq: 1 ~= 2")
	fails('t:assert_eq("a", "b", "name")', 'name: "a" ~= "b"')
	fails('t:assert_eq("1", 1, "id")', 'id: "1" ~= 1')
	fails('t:assert_neq("a", "a", "name")', 'name: "a" == "a"')
	fails('t:assert_eq(nil, "a\\nb\\0")', 'assert_eq: nil ~= "a\\nb\\x00"')
	fails('t:assert_eq({1, a = {true}}, 3)', "assert_eq: {1, a = {true}} ~= 3")
	fails('t:assert_contains("hello", "x", "greeting")', 'greeting: "x" not found in: hello')
	fails('t:assert_match("hello", "^x")', 'assert_match: "hello" does not match pattern "^x"')
	fails("t:assert_near(1, 1.5, 0.25)", "assert_near: 1 and 1.5 differ by 0.5, more than 0.25")
	fails("t:assert_raises(function() end, 'boot')", "boot: expected to raise")
	fails("t:fail()", "explicit failure (t:fail)")
	fails('t:fail("because")', "because")
	fails('error("boom")', "boom")
	fails('error({code = 3})', "{code = 3}")
end)

case("assertions that hold", function()
	equal(body([[
		t:assert_eq(t:assert("v"), "v")
		t:assert_eq(1, 1) t:assert_neq({}, {}) t:assert_near(1, 1.1, 0.2)
		t:assert_contains("a.b", ".") t:assert_same({1, {a = 2}}, {1, {a = 2}})
		t:assert_eq(t:assert_match("k=v", "(%w)=(%w)"), "k")
		t:assert_eq(t:assert_raises(function() error("boom", 0) end), "boom")
		t:assert_eq(t.name, "x")
	]]).kind, "passed")
end)

case("assert_same names the first differing path", function()
	fails("t:assert_same({1, {a = {3}}}, {1, {a = {4}}})", "assert_same: at [2].a[1]: 3 ~= 4")
	fails('t:assert_same({a = 1}, {a = 1, ["b c"] = 2})', 'assert_same: at ["b c"]: nil ~= 2')
	fails('t:assert_same(1, "1", "m")', 'm: 1 ~= "1"')
	equal(body("local a, b = {}, {} a.a, b.a = a, b t:assert_same(a, b)").kind, "passed")
end)

case("equal-looking tables say so", function()
	fails("t:assert_eq({1}, {1})",
		"assert_eq: {1} ~= {1} (two different tables: t:assert_same compares what is in them)")
end)

case("long strings as a diff", function()
	local o = body('t:assert_eq(("a"):rep(70) .. "b", ("a"):rep(70) .. "c")')
	equal(o.reason, 'assert_eq: strings differ at byte 71 (71 and 71 bytes)\n  - ..."' .. ("a"):rep(24)
		.. 'b"\n  + ..."' .. ("a"):rep(24) .. 'c"')
	o = body([[local tail = "\nthree\n" .. ("x"):rep(60) .. "\nend" t:assert_eq("one\ntwo" .. tail, "one\n2" .. tail)]])
	equal(o.reason, "assert_eq: strings differ from line 2 on (- first, + second)\n"
		.. "    one\n  - two\n  + 2\n    three\n    " .. ("x"):rep(60))
end)

case("position and traceback", function()
	local core = fake.run('local function check(t)\n\tt:assert_eq(1, 2)\nend\ntest("x", function(t)\n\tcheck(t)\n'
		.. 'end)\ntest("y", function()\n\terror("plain")\nend)')
	equal(fake.outcome(core, "x").where, "tests/x.test.lua:2")
	assert(fake.outcome(core, "x").traceback:find("tests/x.test.lua:5", 1, true))
	equal(fake.outcome(core, "y").where, "tests/x.test.lua:8")
	equal(fake.outcome(core, "y").reason, "plain")
	equal(body('t:assert_contains(select(2, pcall(t.fail, t, "m")), "tests/x.test.lua:1: m") ').reason, "m")
end)

case("swallowed by pcall", function()
	fails('pcall(t.assert_eq, t, 1, 2) pcall(function() t:fail("second") end)', "assert_eq: 1 ~= 2")
	equal(body('t:assert_raises(function() t:fail("m") end)').kind, "passed")
	equal(body('t:assert_raises(function() error("context: " .. select(2, pcall(t.fail, t, "m"))) end)').kind, "passed")
	fails('t:assert_raises(function() pcall(t.fail, t, "inner") error("other") end)', "inner")
	local o = body('pcall(t.skip, t, "later") error("not reached by a real skip")')
	equal(o.kind, "skipped")
	equal(o.reason, "later")
	equal(body('t:assert_raises(function() t:skip() end)').kind, "skipped")
	equal(body("t:skip()").reason, "skipped")
end)

case("defers run last first, whatever happened", function()
	local core, env = fake.run([[
		order = {}
		test("x", function(t)
			t:defer(function() order[#order + 1] = "first" sleep(1) order[#order + 1] = "slept" end)
			t:defer(function() order[#order + 1] = "second" end)
			t:fail("on purpose")
		end)
		test("y", function(t) t:defer(function() error("undo failed") end) end)
		test("z", function(t) t:defer(function() t:assert_eq(1, 2) end) t:skip() end)
		test("w", {timeout = 1}, function(t) t:defer(function() order[#order + 1] = "w" end) sleep(5) end)
	]])
	equal(table.concat(env.order, " "), "second first slept w")
	equal(fake.outcome(core, "x").reason, "on purpose")
	equal(fake.outcome(core, "y").reason, "deferred function: undo failed")
	equal(fake.outcome(core, "z").kind, "failed")
	equal(fake.outcome(core, "w").kind, "failed")
	for _, scope in ipairs(core.scopes) do
		assert(not scope.open, scope.name)
	end
end)

case("a deferred function has a limit", function()
	local o = body("t:defer(function() sleep(1000) end)")
	equal(o.reason, "deferred function took too long (60s) while waiting for sleep")
end)

case("timeouts", function()
	local core = fake.run('test("x", {timeout = "30s"}, function(t)\n\tsleep(31)\nend)\ntest("y", function() end)')
	local o = fake.outcome(core, "x")
	equal(o.reason, "test timeout exceeded (30s) while waiting for sleep")
	equal(o.kind, "failed")
	equal(o.where, "tests/x.test.lua:2")
	equal(o.console_excerpt, "console of test:x")
	equal(fake.outcome(core, "y").kind, "passed")
	equal(body("sleep(5)", { timeout = 4 }).reason, "test timeout exceeded (4s) while waiting for sleep")
	equal(body("sleep(5)", { timeout = 6 }).kind, "passed")
	equal(body("pcall(sleep, 9) pcall(sleep, 9)", { timeout = 4 }).kind, "failed")
end)

case("waiting for the pool does not count", function()
	equal(body("core.pool(10) sleep(3)", { timeout = 4 }).kind, "passed")
	equal(body("core.pool(10) sleep(5)", { timeout = 4 }).kind, "failed")
	equal(body([[
		local n = 0
		wait_until(function() n = n + 1 if n == 1 then core.pool(20) end return n == 5 end)]]).kind, "passed")
end)

case("wait_until", function()
	equal(body([[
		local n = 0
		t:assert_eq(wait_until(function() n = n + 1 sleep(0.5) return n == 4 and "v" end), "v")]]).kind, "passed")
	fails("wait_until(function() end)", "wait_until: condition not met within 10s")
	fails('wait_until(function() end, {timeout = "500ms", desc = "port open"})',
		"wait_until: port open not met within 0.5s")
	fails('wait_until(function() error("in pred") end)', "in pred")
	fails("wait_until(function() end, {tiemout = 1})",
		"wait_until: unknown option `tiemout` (known: timeout, interval, desc)")
	fails("wait_until(3)", "expected wait_until(function[, table]), got number")
	equal(body("wait_until(function() end, {timeout = 100})", { timeout = 2 }).reason,
		"test timeout exceeded (2s) while waiting for sleep")
end)

case("registration errors", function()
	chunk_error('test("X", function() end) test("X", function() end)',
		"tests/x.test.lua:1: test: duplicate name `X` in this file")
	for _, text in ipairs({ "test()", 'test("x")', "test(function() end)", 'test("x", 1, function() end)',
		'test("x", {}, 2)', 'test("", function() end)', 'test("x", {}, function() end, 1)' }) do
		chunk_error(text, "tests/x.test.lua:1: test(name, [meta,] fn): bad arguments")
	end
	chunk_error("\nerror('boom')", "tests/x.test.lua:2: boom")
	fails('test("y", function() end)',
		'test: called inside test "x": tests are registered at file scope, while the chunk runs')
	fails("todo()", 'todo: called inside test "x": tests are registered at file scope, while the chunk runs')
end)

case("meta is checked", function()
	local function bad(meta, message)
		chunk_error(('test("x", %s, function() end)'):format(meta), "tests/x.test.lua:1: test \"x\": " .. message)
	end
	bad("{slow = 1}", "meta.slow: expected true or false, got 1")
	bad("{skip = {}}", "meta.skip: expected true, false or a reason, got a table")
	bad("{tags = 3}", "meta.tags: expected a string or an array of strings, got 3")
	bad("{tags = {'a', true}}", "meta.tags[2]: expected a string, got a boolean")
	bad("{tags = {net = true}}", "meta.tags: expected an array of strings, got the key `net`")
	bad("{timeout = {}}", "meta.timeout: bad duration")
	bad("{parallel = 'yes'}", "meta.parallel: expected true or false, got a string")
	bad("{retries = 1.5}", "meta.retries: expected a whole number from 0 to 100, got 1.5")
	bad("{'slow'}", "meta keys are strings, got the key 1 (tags go into tags = {...})")
	bad("{spec = {print}}",
		"meta.spec.1: a function cannot go into events; use strings, numbers, booleans and tables")
	local core = fake.run([[
		test("x", {spec = {"4.1", n = 2}, tags = "net"}, function(t) t:assert_eq(t.meta.tags, "net") end)]])
	equal(fake.outcome(core, "x").kind, "passed")
	equal(fake.outcome(core, "x").meta.spec[1], "4.1")
end)

case("filters and todo", function()
	local core = fake.run([[
		test("a", function() error("ran") end)
		test("b", function() end)
	]], { select = function(name) return name == "a" and "filtered: no" or nil end })
	equal(fake.outcome(core, "a").kind, "skipped")
	equal(fake.outcome(core, "a").reason, "filtered: no")
	equal(fake.outcome(core, "b").kind, "passed")
	equal(#fake.reports(core, "test_started"), 2)
	core = fake.run('todo("later") ran = true test("a", function() error("ran") end)')
	equal(fake.outcome(core, "a").kind, "skipped")
	equal(fake.outcome(core, "a").reason, "later")
end)

case("order of reports", function()
	local core = fake.run('test("a", function() end) test("b", function(t) t:fail() end) test("c", function() end)')
	local kinds = {}
	for i, r in ipairs(core.reports) do
		kinds[i] = r.kind:sub(6) .. " " .. r.fields.name
	end
	equal(table.concat(kinds, ", "), "started a, passed a, started b, failed b, started c, passed c")
end)

case("parallel neighbours run together", function()
	local core = fake.run([[
		local function nap() sleep(5) end
		test("a", {parallel = true}, nap) test("b", {parallel = true}, nap) test("c", {parallel = true}, nap)
		test("d", nap)
		test("e", {parallel = true}, nap)
	]])
	equal(#fake.reports(core, "test_passed"), 5)
	local spent = core.now() - 1000
	assert(spent >= 15 and spent < 16, spent)
	equal(core.reports[3].kind .. core.reports[3].fields.name, "test_startedc")
end)

case("retries", function()
	local core = fake.run([[
		local n, m = 0, 0
		test("x", {retries = 2}, function(t) n = n + 1 t:log("try " .. n) t:assert_eq(n, 3) end)
		test("y", {retries = 1}, function(t) m = m + 1 t:fail("always " .. m) end)
		test("z", {retries = 1}, function() end)
	]])
	local x = fake.outcome(core, "x")
	equal(x.kind, "passed")
	equal(x.flaky, true)
	equal(table.concat(x.log, "|"), "attempt 1 failed: assert_eq: 1 ~= 3 (tests/x.test.lua:2)|"
		.. "attempt 2 failed: assert_eq: 2 ~= 3 (tests/x.test.lua:2)|try 3")
	equal(fake.outcome(core, "y").reason, "always 2")
	equal(fake.outcome(core, "z").flaky, nil)
	equal(#fake.reports(core, "test_started"), 3)
	equal(#core.scopes, 6)
end)

case("wrong use of t", function()
	fails("t.assert_eq(1, 2)", "expected t:assert_eq(a, b[, msg]), got a number as the object: "
		.. "call it with a colon on the test's own `t`")
	fails("t.fail()", "expected t:fail([msg]), got nothing as the object: call it with a colon on the test's own `t`")
	fails("t:assert_contains({}, 'x')", "expected t:assert_contains(string, string[, msg]), got table, string")
	fails("t:defer(3)", "expected t:defer(fn), got number")
	fails('t:artifact("../x", "")', 't:artifact: bad name "../x": a file name of letters, digits, \'_\', \'.\', \'-\'')
	local core = fake.run('local old test("x", function(t) old = t end) test("y", function(t) old:log("late") end)')
	equal(fake.outcome(core, "y").reason, 't:log: test "x" is over')
end)

case("log and print", function()
	local o, core = body('t:log("a") t:log({1, "b"}) print("one\\ntwo", 3)')
	equal(table.concat(o.log, "|"), 'a|{1, "b"}')
	equal(core.printed[1], "[x] one\n[x] two\t3")
	equal(fake.run("print('chunk')").printed[1], "chunk")
end)

case("co.all", function()
	equal(body([[
		local r = co.all{function() sleep(2) return "a" end, function() return "b" end, function() end}
		t:assert_same(r, {"a", "b", n = 3})
		t:assert_same(co.all{}, {n = 0})
	]]).kind, "passed")
	local o, core = body([[
		slow_ended = false
		co.all{function() sleep(2) error("first", 0) end, function() sleep(9) slow_ended = true end}]])
	equal(o.reason, "first")
	assert(core.now() < 1003, core.now())
	fails("co.all(3)", "expected co.all{function, ...}, got number")
	fails("co.all{1}", "co.all: element 1: expected a function, got number")
end)

case("co.race, co.wrap, join", function()
	equal(body([[
		local a, b = co.race{function() sleep(2) return "slow" end, function() sleep(1) return "quick", 2 end}
		t:assert_eq(a, "quick") t:assert_eq(b, 2)
		t:assert_eq(t:assert_raises(function() co.race{function() error("e", 0) end} end), "e")
	]]).kind, "passed")
	fails("co.race{}", "co.race: expected at least one function")
	fails("co.spawn(1)", "expected co.spawn(function, ...), got number")
end)

case("a cancelled co.all cancels its children", function()
	local _, core = body("co.all{function() sleep(50) end, function() sleep(60) end}", { timeout = 1 })
	for _, task in ipairs(core.all) do
		assert(task.state, task.name)
	end
	assert(core.now() < 1010, core.now())
end)

case("tasks left at the end are cancelled with the scope", function()
	local _, core = body("co.spawn(function() sleep(500) end)")
	for _, task in ipairs(core.all) do
		assert(task.state, task.name)
	end
	assert(core.now() < 1010, core.now())
end)

case("the file is stopped in the middle of a test", function()
	local core = fake.run([[
		test("x", function(t) t:defer(function() cleaned = true end) sleep(1000) end)
		test("y", function() end)]], { stop = "file timeout exceeded" })
	local o = fake.outcome(core, "x")
	equal(o.kind, "failed")
	assert(o.reason:find("file timeout exceeded", 1, true), o.reason)
	equal(#fake.reports(core, "test_started"), 1)
	equal(core.main.state, "cancelled")
	assert(not core.scopes[1].open)
end)

return cases
