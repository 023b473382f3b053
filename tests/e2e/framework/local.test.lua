-- --vmm local has an agent and no machine: what needs one says so, at once.

local nested = require("nested")

local PROFILES = '[profiles.guest]\nkernel = "none"\ncmdline = "quiet"\n'

local SUITE = [[
local vm = provium:vm("a", "guest"):boot()

local function refused(t, what, fn)
	local began = now()
	t:assert_match(t:assert_raises(fn), "x%.test%.lua:%d+: " .. what:gsub("%p", "%%%0")
		.. ": not supported by %-%-vmm local$")
	t:assert(now() - began < 5, what .. " took too long")
end

test("power", function(t)
	for _, op in ipairs({ "pause", "resume", "reset", "wakeup", "power_button" }) do
		refused(t, "vm `a`: " .. op, function() vm[op](vm) end)
	end
	refused(t, "vm `a`: qmp", function() vm:qmp("query-status") end)
	t:assert_eq(vm:run("echo on"):trim(), "on")
end)

test("console", function(t)
	local console = vm:console()
	refused(t, "vm `a`: console:expect", function() console:expect("login:") end)
	refused(t, "vm `a`: console:read", function() console:read() end)
	refused(t, "vm `a`: console:read_log", function() console:read_log() end)
	refused(t, "vm `a`: console:write", function() console:write("x") end)
	console:close()
end)

test("disks", function(t)
	local disks = { disks = { { scratch = "1M" } } }
	refused(t, "vm: disks", function() provium:vm("b", "guest", disks) end)
	local other = provium:vm("c", "guest")
	refused(t, "boot: disks", function() other:boot(disks) end)
	t:assert_eq(other:boot():run("echo on"):trim(), "on")
end)
]]

test("power, console and disks need a machine", function(t)
	local r = nested.run_local(t, SUITE, nil, PROFILES)
	t:assert_eq(r.status, 0, r.out .. r.err)
	t:assert_contains(r.out, "PASS x.test.lua (3 passed, 0 failed, 0 skipped)")
end)

test("misuse of a method names what it got", function(t)
	local r = nested.run_local(t, [[
local vm = provium:vm("a", "guest"):boot()
test("x", function(t)
	for got, value in pairs({ ["a string"] = "a", ["a number"] = 1, ["no value"] = false }) do
		local ok, err
		if value then ok, err = pcall(vm.run, value) else ok, err = pcall(vm.state) end
		t:assert_contains(err, "expected a VM (call its methods with a colon), got " .. got)
	end
	t:assert_contains(t:assert_raises(function() vm.name(vm:console()) end), "got a Console")
	t:assert_contains(t:assert_raises(function() vm:console().read_log({}) end),
		"expected a Console (call its methods with a colon), got a table")
	t:assert_match(t:assert_raises(function() provium:vm("nobody") end), "no vm named `nobody` in this lab$")
end)
]], nil, PROFILES)
	t:assert_eq(r.status, 0, r.out .. r.err)
end)
