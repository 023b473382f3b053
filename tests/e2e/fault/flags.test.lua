-- Flags that choose how files run and what is shown: --fail-fast, --rerun-failed, --jobs, -q, -v, --timeout.

local nested = require("nested")

local PASSES = 'test("good", function() end)'
local FAILS = 'test("bad", function() error("on purpose") end)'

local function start(t, files, flags)
	local dir = nested.suite(t, files)
	return dir, function(more)
		return nested.start(dir, "--vmm local " .. more):join(30)
	end, nested.start(dir, "--vmm local " .. flags):join(30)
end

test("--fail-fast starts nothing after a failure", function(t)
	local _, _, r = start(t, { ["a.test.lua"] = FAILS, ["b.test.lua"] = PASSES }, "-v --fail-fast --jobs 1")
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "FAIL a.test.lua (0 passed, 1 failed, 0 skipped)")
	t:assert(not r.out:find("b.test.lua", 1, true), "b did not run")
	t:assert_contains(r.out, "1 file(s); 0 passed, 1 failed, 0 skipped")
end)

test("--rerun-failed runs what failed, until it passes", function(t)
	local dir, again, r = start(t, { ["a.test.lua"] = FAILS, ["b.test.lua"] = PASSES }, "--rerun-failed")
	t:assert_eq(r.status, 0)
	t:assert_eq(r.err, "provium: no prior failure state\n")
	t:assert_eq(again("-v").status, 1)
	r = again("-v --rerun-failed")
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "1 file(s); 0 passed, 1 failed")
	nested.write(dir .. "/a.test.lua", PASSES)
	r = again("-v --rerun-failed")
	t:assert_eq(r.status, 0)
	t:assert_contains(r.out, "PASS a.test.lua (1 passed, 0 failed, 0 skipped)")
	t:assert_contains(r.out, "1 file(s); 1 passed, 0 failed")
end)

test("-q shows failures and the summary, -v every test", function(t)
	local _, again, r = start(t, { ["a.test.lua"] = FAILS, ["b.test.lua"] = PASSES }, "-q")
	t:assert_contains(r.out, "FAIL a.test.lua")
	t:assert(not r.out:find("b.test.lua", 1, true), "what passed is not shown")
	t:assert_contains(r.out, "2 file(s); 1 passed, 1 failed, 0 skipped")
	r = again("")
	t:assert_contains(r.out, "PASS b.test.lua (1 passed, 0 failed, 0 skipped)\n")
	t:assert(not r.out:find("PASS good", 1, true), "passed tests need -v")
	t:assert_match(again("-v").out, "    PASS good %(%d+%.%d%ds%)\n")
end)

test("--jobs 1 runs one file at a time, in order of path", function(t)
	local files = {}
	for _, name in ipairs({ "a", "b", "c" }) do
		files[name .. ".test.lua"] = nested.prelude .. ([[
			test("alone", function(t)
				t:assert(not exists("running"), "another file runs")
				write("running", "")
				sleep(0.05)
				os.execute("echo %s >>order; rm running")
			end)]]):format(name)
	end
	local dir, _, r = start(t, files, "-v --jobs 1")
	t:assert_eq(r.status, 0, r.out)
	t:assert_eq(nested.read(dir .. "/order"), "a\nb\nc\n")
end)
