-- reset_between_tests where it cannot work: open streams, operations under way, wrong values, a snapshot that is gone.

local nested = require("nested")

provium:vm("images", "guest")	-- so that they are built

test("open file-scope streams are listed, each with its line", function(t)
	local r = nested.run(t, [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		local tail = a:tail_file("/etc/hostname")
		local console = a:console():read()
		test("never", function() end)
	]])
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "x.test.lua: cannot use reset_between_tests with file-scope streams:")
	t:assert_match(r.out, 'tail_file%("/etc/hostname"%) created at x.test.lua:3')
	t:assert_match(r.out, "created at x.test.lua:4")
	t:assert(not r.out:find("PASS never", 1, true))
end)

test("closed ones do not matter; an operation under way does", function(t)
	local r = nested.run(t, { ["fine.test.lua"] = [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		a:tail_file("/etc/hostname"):close()
		test("one", function() a:write_file("/x", "") end)
		test("two", function(t) t:assert(not a:exists("/x")) end)
	]], ["busy.test.lua"] = [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		co.spawn(function() a:run("sleep 600") end)
		sleep(0)
		test("never", function() end)
	]] }, "--jobs 1 -v")
	t:assert_contains(r.out, "PASS fine.test.lua (2 passed, 0 failed, 0 skipped)")
	t:assert_contains(r.out, "FAIL busy.test.lua")
	t:assert_contains(r.out, "1 operation still in flight")
end)

test("a value that is no boolean is refused; false is the default", function(t)
	local function set(value)
		return function() provium.reset_between_tests = value end
	end
	t:assert_contains(t:assert_raises(set(1)), "provium.reset_between_tests: expected a boolean, got a number")
	t:assert_contains(t:assert_raises(set("true")), "expected a boolean, got a string")
	t:assert_contains(t:assert_raises(set(nil)), "expected a boolean, got a nil")
	local r = nested.run_local(t, [[
		provium.reset_between_tests = false
		local n = 0
		test("one", function() n = n + 1 end)
		test("two", function(t) t:assert_eq(n, 1) end)
	]])
	t:assert_contains(r.out, "2 passed, 0 failed")
end)

test("a file without VMs has nothing to put back", function(t)
	local r = nested.run(t, [[
		provium.reset_between_tests = true
		test("one", function() end)
		test("two", function() end)
	]])
	t:assert_contains(r.out, "2 passed, 0 failed")
end)

test("a snapshot that is gone fails every test that needed it, and none runs on dirty state", function(t)
	local r = nested.run(t, nested.prelude .. [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		test("one", function()
			write("one", "")
			os.execute("rm -rf $TMPDIR/provium-*/*.lab")
		end)
		test("two", function() write("two", "") end)
		test("three", { retries = 1 }, function() write("three", "") end)
	]])
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "(1 passed, 2 failed, 0 skipped)")
	t:assert_contains(r.out, "reset_between_tests: lab snapshot `")
	t:assert_contains(r.out, "cannot read its lab.json")
	t:assert(nested.exists(r.dir .. "/one"))
	t:assert(not nested.exists(r.dir .. "/two") and not nested.exists(r.dir .. "/three"))
end)

test("a part that is damaged, and a restore that fails half-way, too", function(t)
	local r = nested.run(t, nested.prelude .. [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		test("one", function() os.execute("cd $TMPDIR/provium-*/*.lab/vms/a.snap && rm console") end)
		test("two", function() write("two", "") end)
		test("three", function() write("three", "") end)
	]])
	t:assert_contains(r.out, "(1 passed, 2 failed, 0 skipped)")
	t:assert_contains(r.out, "reset_between_tests: lab `provium`: restore failed:\n")
	t:assert_contains(r.out, "a: snapshot `")
	t:assert(not nested.exists(r.dir .. "/two") and not nested.exists(r.dir .. "/three"))
end)

test("a test that times out does not hold up the reset", function(t)
	local r = nested.run(t, [[
		provium.reset_between_tests = true
		local a = provium:vm("a", "guest"):boot()
		test("one", { timeout = 0.5 }, function() a:write_file("/x", "") a:run("sleep 600") end)
		test("two", function(t) t:assert(not a:exists("/x")) t:assert_eq(a:run("pgrep sleep").stdout, "") end)
		test("three", { timeout = 0.3 }, function() while true do provium:restore(provium:snapshot()) end end)
		test("four", function(t) t:assert_eq(a:run("echo fine").stdout, "fine\n") end)
	]])
	t:assert_contains(r.out, "(2 passed, 2 failed, 0 skipped)")
	t:assert_contains(r.out, "PASS two")
	t:assert_contains(r.out, "PASS four")
end)
