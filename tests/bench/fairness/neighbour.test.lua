-- A vm:stat loop whose neighbour, spinner.test.lua, computes without a pause half of the time.
--
-- The two files take turns by a file in the tools' directory: "idle", "spin", "end".

local bench = require("bench")

local samples = { idle = {}, spin = {} }

local function phase(vm, name)
	return function()
		bench.write(bench.tools .. "/phase", name)
		sleep(0.3)		-- the spinner looks every 50 ms
		bench.time_calls(samples[name], bench.count(200, 20), function() vm:stat("/etc/passwd") end)
	end
end

test("a stat loop beside a spinning file", { timeout = "10m" }, function(t)
	bench.need_tools()
	t:defer(function() bench.write(bench.tools .. "/phase", "end") end)
	local vm = provium:vm("neighbour", "bench"):boot()
	bench.time_calls({}, 50, function() vm:stat("/etc/passwd") end)
	bench.interleave(bench.count(5, 1), phase(vm, "idle"), phase(vm, "spin"))
	bench.report_latency("fairness: vm:stat alone", samples.idle, #samples.idle .. " calls")
	bench.report_latency("fairness: vm:stat beside a spinner", samples.spin, "aim: p95 under 50 ms")
end)
