-- What failed tests leave in provium-artifacts, and that nothing else leaves anything.

local nested = require("nested")

local SUITE = [[
test("passes", function(t) t:artifact("kept.txt", "not saved") end)

test("a/b: fails", function(t)
	t:artifact("one.bin", "a\0b")
	t:defer(function() t:artifact("late.txt", "from a deferred function") end)
	error("it broke")
end)

test("retried", { retries = 1 }, function(t)
	t:artifact("x.txt", "x")
	tries = (tries or 0) + 1
	t:assert_eq(tries, 2)
end)
]]

test("a failed test's artifacts are saved", function(t)
	local r = nested.run_local(t, SUITE)
	t:assert_eq(r.status, 1, r.out .. r.err)
	local dir = r.dir .. "/provium-artifacts/x.test.lua_a_b__fails"
	t:assert_contains(r.out, "\n        artifacts: provium-artifacts/x.test.lua_a_b__fails\n")
	t:assert_eq(nested.read(dir .. "/one.bin"), "a\0b")
	t:assert_eq(nested.read(dir .. "/late.txt"), "from a deferred function")
	t:assert_match(nested.read(dir .. "/error.txt"), "^it broke\nx%.test%.lua:6\nx%.test%.lua:6: in ")
	t:assert_eq(nested.shell("ls " .. r.dir .. "/provium-artifacts"), "x.test.lua_a_b__fails")
	-- Its command line runs just that test.
	local again = nested.read(dir .. "/reproduce.txt"):gsub("provium ", nested.binary .. " ", 1)
	t:assert_contains(nested.shell(again), "(0 passed, 1 failed, 2 skipped)")
end)

test("--artifacts names the place; a run without a failure makes none", function(t)
	local r = nested.run_local(t, 'test("x", function(t) t:artifact("a", "b") t:fail() end)', "--artifacts some/where")
	t:assert_contains(r.out, "artifacts: some/where/x.test.lua_x\n")
	t:assert_eq(nested.read(r.dir .. "/some/where/x.test.lua_x/a"), "b")
	r = nested.run_local(t, 'test("x", function(t) t:artifact("a", "b") end) test("y", function(t) t:skip() end)')
	t:assert_eq(r.status, 0, r.out .. r.err)
	t:assert_eq(nested.shell("ls " .. r.dir .. " | grep artifacts; true"), "")
end)

test("the file's timeout loses nothing", function(t)
	local r = nested.run_local(t, 'test("x", function(t) t:artifact("a", "b") t:log("line") sleep(60) end)',
		"-v --timeout 0.5s")
	t:assert_contains(r.out, "| line\n")
	t:assert_eq(nested.read(r.dir .. "/provium-artifacts/x.test.lua_x/a"), "b")
end)
