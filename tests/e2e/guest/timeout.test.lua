-- Every waiting operation is cut off by its test's timeout: the text names it, the VM lives on. The timeouts fail
-- their tests, so they are those of a suite of its own.

local nested = require("nested")

provium:vm("unused", "guest")	-- so that the profile's images are there

local suite = [[
	local waiting = require("waiting")
	local vm = provium:vm("a", "guest"):boot()
	local names = {}
	for name in pairs(waiting.ops) do
		names[#names + 1] = name
	end
	table.sort(names)
	for _, name in ipairs(names) do
		test("late " .. name, { timeout = 1 }, function()
			waiting.ops[name].start(vm)()
		end)
	end
	test("the VM is as it was", { timeout = 60 }, function(t)
		waiting.check_clean(t, vm)
		t:assert(vm:is_quiescent())
		t:assert_eq(vm:open_stream_count(), 0)
	end)
]]

-- What the text says that was waited for.
local waited_for = {
	run = 'vm "a": run "sleep 900"',
	run_direct = 'vm "a": run "sleep 901"',
	run_stdin = 'vm "a": run "sleep 902"',
	["proc:wait"] = 'vm "a": the end of "sleep 904"',
	batch = 'vm "a": batch "1 operations"',
	["clock:sleep"] = 'vm "a": sleep "900"',
	["worker:run"] = 'vm "a": run "sleep 909"',
	["console:expect"] = 'vm "a": console output "never said"',
	power_button = 'vm "a": power_button',
}

test("each operation, in a test that is out of time", { timeout = "3m" }, function(t)
	local waiting = require("guest.waiting")
	local here = debug.getinfo(1, "S").source:match("^@(.*/)")
	local r = nested.run(t, { ["x.test.lua"] = suite, ["waiting.lua"] = nested.read(here .. "waiting.lua") })
	t:assert_eq(r.status, 1, r.out .. r.err)
	for name in pairs(waiting.ops) do
		local failure = r.out:match("FAIL late " .. name:gsub("%p", "%%%0") .. "\n([^\n]*)\n")
		t:assert(failure, name .. " did not fail:\n" .. r.out)
		t:assert_contains(failure, "test timeout exceeded (1s) while waiting for ", name)
		t:assert_contains(failure, waited_for[name] or "", name)
	end
	t:assert_contains(r.out, "PASS the VM is as it was")
end)
