-- Timeouts, preemption, memory: what one test or file does to itself and to nobody else.

local nested = require("nested")

test("a test timeout names what it waited for", function(t)
	local r = nested.run_local(t, [[
		test("waits", {timeout = "500ms"}, function() sleep(30) end)
		test("next", function() end)]])
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "FAIL x.test.lua (1 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "test timeout exceeded (0.5s) while waiting for sleep(30)")
	t:assert_contains(r.out, "x.test.lua:1\n")
end)

test("provium.timeout is the default, meta.timeout wins", function(t)
	local r = nested.run_local(t, [[
		provium.timeout = "300ms"
		test("default", function() sleep(30) end)
		test("own", {timeout = 5}, function() sleep(1) end)]])
	t:assert_contains(r.out, "(1 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "test timeout exceeded (0.3s)")
end)

test("a loop without end is preempted, others go on", function(t)
	local r = nested.run_local(t, {
		["spin.test.lua"] = [[
			test("spin", {timeout = "300ms"}, function() while true do end end)
			local function spin() while true do end end
			test("in pcall", {timeout = "300ms"}, function() while true do pcall(spin) end end)
			test("in a coroutine", {timeout = "300ms"}, function() coroutine.wrap(spin)() end)
			test("after", function() end)]],
		["ticks.test.lua"] = [[
			test("ticks", function(t)
				local late = 0
				for _ = 1, 50 do
					local before = now()
					sleep(0.02)
					late = math.max(late, now() - before - 0.02)
				end
				t:assert(late < 0.5, "a tick was late by " .. late)
			end)]],
	})
	t:assert_contains(r.out, "FAIL spin.test.lua (1 passed, 3 failed, 0 skipped)")
	t:assert_contains(r.out, "test timeout exceeded (0.3s) while computing")
	t:assert_contains(r.out, "PASS ticks.test.lua (1 passed, 0 failed, 0 skipped)")
end)

test("the file's timeout ends the file", function(t)
	local r = nested.run_local(t, {
		["long.test.lua"] = 'test("long", function() sleep(60) end) test("never", function() end)',
		["short.test.lua"] = 'test("short", function() end)',
	}, "-v --timeout 1s")
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "TIME long.test.lua")
	t:assert_contains(r.out, "PASS short.test.lua")
end)

test("memory has a cap for each file", function(t)
	local r = nested.run_local(t, {
		["big.test.lua"] = [[
			test("eats", function()
				local s = "x"
				while true do s = s .. s end
			end)]],
		["other.test.lua"] = 'test("lives", function(t) sleep(1) end)',
	})
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "not enough memory")
	t:assert_contains(r.out, "PASS other.test.lua (1 passed, 0 failed, 0 skipped)")
end)

test("defers run whatever happened, last first", function(t)
	local r = nested.run_local(t, [[
		local order = {}
		local function keep(name) return function() sleep(0.01) order[#order + 1] = name end end
		test("fails", function(t) t:defer(keep("a")) t:defer(keep("b")) error("on purpose") end)
		test("times out", {timeout = 0.2}, function(t) t:defer(keep("c")) sleep(30) end)
		test("skips", function(t) t:defer(keep("d")) t:skip() end)
		test("all ran", function(t) t:assert_eq(table.concat(order), "bacd") end)
		test("a defer that raises", function(t) t:defer(function() error("undo failed") end) end)]])
	t:assert_contains(r.out, "PASS all ran")
	t:assert_contains(r.out, "(1 passed, 3 failed, 1 skipped)")
	t:assert_contains(r.out, "deferred function: undo failed")
end)

test("a task left running ends with its test", function(t)
	local r = nested.run_local(t, [[
		local ticks = 0
		test("leaves one", function() co.spawn(function() while true do ticks = ticks + 1 sleep(0.01) end end) end)
		test("it is gone", function(t) local before = ticks sleep(0.2) t:assert_eq(ticks, before) end)]])
	t:assert_eq(r.status, 0, r.out)
end)

test("os.exit is an error", function(t)
	nested.fails(t, "os.exit(0)", "os.exit: a test cannot end Provium")
end)

test("deferred functions run when their file ends before them", function(t)
	local suite = [[
		test("a", {parallel = true}, function(t)
			t:defer(function() sleep("50ms"); print("deferred a") end)
			sleep(30)
		end)
		test("b", {parallel = true}, function(t)
			t:defer(function() sleep("50ms"); print("deferred b") end)
			while true do pcall(sleep, 30) end
		end)]]
	local r = nested.run_local(t, suite, "--timeout 500ms")
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "TIME x.test.lua (0 passed, 2 failed, 0 skipped)")
	t:assert_contains(r.err, "[a] deferred a")
	t:assert_contains(r.err, "[b] deferred b")
end)
