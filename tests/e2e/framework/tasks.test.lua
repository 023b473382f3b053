-- wait_until, sleep, and things at once: co.spawn, co.wrap, co.all, co.race, Task.

local nested = require("nested")

test("sleep and now", function(t)
	local before, before_ns = now(), now_ns()
	sleep("50ms")
	t:assert(now() - before >= 0.05 and now() - before < 5)
	t:assert(now_ns() - before_ns >= 50000000)
	t:assert_contains(t:assert_raises(function() sleep("soon") end), "soon")
	t:assert_raises(function() sleep(-1) end)
	t:assert_raises(function() sleep(0 / 0) end)
end)

test("wait_until returns the first truthy value", function(t)
	local n = 0
	t:assert_eq(wait_until(function()
		n = n + 1
		sleep(0.01)
		return n == 3 and "third"
	end, { interval = "10ms" }), "third")
end)

test("wait_until gives up", function(t)
	local before = now()
	t:assert_match(t:assert_raises(function()
		wait_until(function() end, { timeout = 0.2, interval = 0.01, desc = "port 80 open" })
	end), "tasks%.test%.lua:%d+: wait_until: port 80 open not met within 0%.2s$")
	t:assert(now() - before < 5)
	t:assert_contains(t:assert_raises(function() wait_until(function() error("in pred") end) end), "in pred")
	t:assert_contains(t:assert_raises(function() wait_until(print, { tiemout = 1 }) end),
		"unknown option `tiemout` (known: timeout, interval, desc)")
end)

test("tasks run at once and are joined", function(t)
	local order = {}
	local a = co.spawn(function(x) sleep(0.1) order[#order + 1] = "a" return x, nil, "end" end, 7)
	local b = co.spawn(function() order[#order + 1] = "b" end)
	t:assert_eq(a:status(), "running")
	local x, y, z = a:join()
	b:join()
	t:assert_eq(x, 7)
	t:assert_eq(y, nil)
	t:assert_eq(z, "end")
	t:assert_eq(a:status(), "done")
	t:assert_eq(table.concat(order), "ba")
	t:assert_eq(a:join(), 7, "a second join has the same results")
end)

test("a task has join, cancel and status", function(t)
	local task = co.spawn(function() end)
	local methods = {}
	for name in pairs(getmetatable(task).__index) do
		methods[#methods + 1] = name
	end
	table.sort(methods)
	t:assert_eq(table.concat(methods, " "), "cancel join status")
	task:join()
end)

test("join raises the task's error, or after its timeout", function(t)
	local failing = co.spawn(function() sleep(0.01) error("inside", 0) end)
	t:assert_eq(t:assert_raises(function() failing:join() end), "inside")
	t:assert_eq(failing:status(), "failed")
	local slow = co.spawn(function() sleep(30) end)
	t:assert_contains(t:assert_raises(function() slow:join("100ms") end), "still runs after 0.1s")
	slow:cancel("enough")
	t:assert_contains(t:assert_raises(function() slow:join() end), "enough")
	t:assert_eq(slow:status(), "cancelled")
end)

test("co.wrap spawns when called", function(t)
	local double = co.wrap(function(x) sleep(0.01) return 2 * x end)
	local a, b = double(1), double(2)
	t:assert_eq(a:join() + b:join(), 6)
end)

test("co.all: results in order", function(t)
	local before = now()
	t:assert_same(co.all{
		function() sleep(0.3) return "slow" end,
		function() sleep(0.2) return "quick" end,
	}, { "slow", "quick", n = 2 })
	t:assert(now() - before < 0.45, "they ran at once")
end)

test("co.all: the first error cancels the rest", function(t)
	local ended = false
	local before = now()
	t:assert_eq(t:assert_raises(function()
		co.all{ function() sleep(0.05) error("first", 0) end, function() sleep(30) ended = true end }
	end), "first")
	t:assert(now() - before < 5)
	t:assert(not ended)
end)

test("co.race: the first one counts", function(t)
	local before = now()
	t:assert_eq(co.race{ function() sleep(30) end, function() sleep(0.05) return "won" end }, "won")
	t:assert(now() - before < 5)
end)

test("cancelled code can clean up, but every wait raises", function(t)
	local seen = {}
	local task = co.spawn(function()
		seen[1] = select(2, pcall(sleep, 30))
		seen[2] = select(2, pcall(sleep, 30))
		error(seen[1], 0)
	end)
	sleep(0.05)
	task:cancel("stop it")
	t:assert_raises(function() task:join() end)
	t:assert_contains(seen[1], "stop it")
	t:assert_contains(seen[2], "stop it")
end)

test("many tasks", function(t)
	local fns, total = {}, 0
	for i = 1, 500 do
		fns[i] = function() sleep(0.01) total = total + i return i end
	end
	local r = co.all(fns)
	t:assert_eq(total, 125250)
	t:assert_eq(r[500], 500)
end)

test("assertions inside tasks count for their test", function(t)
	t:assert_contains(t:assert_raises(function()
		co.all{ function() sleep(0.01) t:assert_eq(1, 2, "in a task") end }
	end), "in a task: 1 ~= 2")
end)

test("an error in a task that nobody joins fails the test", function(t)
	local r = nested.run_local(t, [[
		test("lost", function() co.spawn(function() error("nobody listens") end); sleep("50ms") end)
		test("joined", function() t = co.spawn(function() error("heard") end); pcall(t.join, t) end)
		test("cancelled", function() co.spawn(sleep, 30); sleep("50ms") end)]])
	t:assert_contains(r.out, "(2 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "a task failed and nobody joined it: nobody listens\n        x.test.lua:1\n")
end)
