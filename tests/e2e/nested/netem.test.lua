-- The kernel backend on a kernel that has everything, sch_netem among it: its unit tests in a guest with Debian's full
-- kernel. They need no guests of their own, so they take a minute or two (--include-slow --timeout 0).

local outer = require("nested.outer")
local modules = require("nested.netmodules")

-- Where the unit tests were built: beside the program.
local function unit_tests(t)
	local dir = outer.facts().binary:gsub("/[^/]*$", "/tests/unit")
	local f = io.open(dir .. "/netem_test", "rb")
	if not f then
		t:skip("there is no " .. dir .. "/netem_test: run make check")
	end
	f:close()
	return dir
end

test("the kernel backend with netem", { slow = true, timeout = "15m" }, function(t)
	local dir = unit_tests(t)
	local vm = outer.boot(modules)
	for _, name in ipairs({ "netem_test", "netkernel_test", "nethost_test", "netlink_test" }) do
		local r = outer.run(vm, ("exec '%s/%s'"):format(dir, name), "5m")
		t:log(r.stdout .. r.stderr)
		t:assert_eq(r.exit_code, 0, name)
	end
end)
