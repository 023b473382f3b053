-- What reset_between_tests costs: from one test's end to the next one's first completed command, beside a cold boot.
--
-- The guest that is put back has been used: each test writes a file and runs a command. Every tenth test boots another VM
-- cold, so that a slow minute of the host hits both.

local bench = require("bench")

provium.reset_between_tests = true

local vm = provium:vm("a", "bench"):boot()
vm:write_file("/tmp/state", "clean")

local rounds, every = bench.count(50, 6), bench.count(10, 3)
local ended
local resets, boots = {}, {}

local function boot_cold(round)
	local start = now_ns()
	local cold = provium:vm("cold" .. round, "bench"):boot()
	cold:run("true"):assert_ok()
	boots[#boots + 1] = now_ns() - start
	cold:kill()
end

for round = 1, rounds do
	test("round " .. round, { timeout = "10m" }, function(t)
		vm:run("true"):assert_ok()
		if ended then
			resets[#resets + 1] = now_ns() - ended
		end
		t:assert_eq(vm:read_file("/tmp/state"), "clean")
		vm:write_file("/tmp/state", "dirty")
		vm:run("seq 1000 >/tmp/more"):assert_ok()
		if round % every == 0 then
			boot_cold(round)
		end
		ended = now_ns()
	end)
end

test("report", function()
	bench.report_latency("reset, to the first command", resets, ("%d tests"):format(#resets))
	bench.report_latency("cold boot, to the first command", boots, ("%d boots"):format(#boots))
	bench.report("a reset is a cold boot's", ("%.1f %%"):format(100 * bench.median(resets) / bench.median(boots)), "median")
end)
