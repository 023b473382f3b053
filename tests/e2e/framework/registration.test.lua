-- test() and todo(): names, shapes, meta, order, retries; and what a chunk that fails comes to.

local nested = require("nested")

local function chunk_fails(t, text, message)
	local r = nested.run_local(t, text)
	t:assert_eq(r.status, 1, "status")
	t:assert_contains(r.out, "FAIL x.test.lua\n")
	t:assert_contains(r.out, message)
end

test("a duplicate name", { parallel = true }, function(t)
	chunk_fails(t, 'test("a", print)\ntest("a", print)', "x.test.lua:2: test: duplicate name `a` in this file")
end)

test("bad arguments", { parallel = true }, function(t)
	chunk_fails(t, 'test("a", 3)', "x.test.lua:1: test(name, [meta,] fn): bad arguments")
	chunk_fails(t, "test(print)", "x.test.lua:1: test(name, [meta,] fn): bad arguments")
end)

test("meta of the wrong type", { parallel = true }, function(t)
	chunk_fails(t, 'test("a", {slow = 1}, print)', 'test "a": meta.slow: expected true or false, got 1')
	chunk_fails(t, 'test("a", {timeout = "1 parsec"}, print)', 'test "a": meta.timeout')
	chunk_fails(t, 'test("a", {retries = -1}, print)', 'test "a": meta.retries: expected a whole number')
end)

test("an error in the chunk", { parallel = true }, function(t)
	chunk_fails(t, 'test("a", print)\nerror("no luck")', "x.test.lua:2: no luck")
end)

test("a syntax error", { parallel = true }, function(t)
	chunk_fails(t, "test(", "x.test.lua:1:")
end)

test("a test registered by a test", { parallel = true }, function(t)
	nested.fails(t, 'test("y", print)', 'test: called inside test "x"')
end)

test("todo skips every test and still runs the chunk", { parallel = true }, function(t)
	local r = nested.run_local(t, 'todo("not yet")\ntest("a", error)\ntest("b", error)\nprint("chunk ran")')
	t:assert_eq(r.status, 0)
	t:assert_contains(r.out, "PASS x.test.lua (0 passed, 0 failed, 2 skipped)")
	t:assert_contains(r.out, "SKIP a (not yet)")
	t:assert_contains(r.err, "chunk ran")
end)

test("meta.skip, slow and tags", { parallel = true }, function(t)
	local suite = [[
		test("skipped", {skip = "broken host"}, error)
		test("slow", {slow = true}, function() end)
		test("net", {tags = "net"}, function() end)
		test("disk", {tags = {"disk", "net"}}, function() end)]]
	local r = nested.run_local(t, suite)
	t:assert_contains(r.out, "(2 passed, 0 failed, 2 skipped)")
	t:assert_contains(r.out, "SKIP skipped (broken host)")
	r = nested.run_local(t, suite, "-v --include-slow --tag net --no-tag disk")
	t:assert_contains(r.out, "(1 passed, 0 failed, 3 skipped)")
	r = nested.run_local(t, suite, "-v --tag smoke")
	t:assert_contains(r.out, "filtered: did not match --tag (smoke)")
	r = nested.run_local(t, suite, "-v --test net")
	t:assert_contains(r.out, "(1 passed, 0 failed, 3 skipped)")
end)

test("tests run in order, one at a time; parallel neighbours together", { parallel = true }, function(t)
	local r = nested.run_local(t, [[
		local order = {}
		local function nap(t) order[#order + 1] = t.name sleep(0.5) order[#order + 1] = t.name end
		test("a", nap)
		test("b", nap)
		test("c", {parallel = true}, nap)
		test("d", {parallel = true}, nap)
		test("e", function(t) t:assert_eq(table.concat(order), "aabbcdcd") end)]])
	t:assert_eq(r.status, 0, r.out)
	t:assert_contains(r.out, "5 passed")
end)

test("retries", { parallel = true }, function(t)
	local r = nested.run_local(t, [[
		local n = 0
		test("third time", {retries = 2}, function(t) n = n + 1 t:assert_eq(n, 3) end)
		test("never", {retries = 1}, function(t) t:fail("always") end)]])
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "(1 passed, 1 failed, 0 skipped)")
end)

test("print goes to stderr with the test's name", { parallel = true }, function(t)
	local r = nested.run_local(t, 'test("x", function() print("hello", 3) end)')
	t:assert_contains(r.err, "[x] hello\t3\n")
	t:assert(not r.out:find("hello", 1, true), "stdout is the results'")
end)

test("provium knows its assignments", { parallel = true }, function(t)
	chunk_fails(t, "provium.colour = 1", "cannot set `provium.colour`: not a recognised file-scope config key")
end)
