-- System calls: one at a time, in batches, and the nearest that a command can do; what each costs the host.

local bench = require("bench")

local GETPID = 39
local calls = tonumber(os.getenv("PROVIUM_BENCH_CALLS") or bench.count(100000, 500))
local runs = bench.count(1000, 20)
local BATCH = 100

local function report(name, n, seconds, cpu, samples, each)
	bench.report(name .. ": calls/s", ("%.0f"):format(n / seconds), ("%d calls"):format(n))
	bench.report(name .. ": host CPU per call", ("%.1f us"):format(cpu / n * 1e6),
		"Provium alone, without QEMU")
	bench.report(name .. ": p50", ("%.0f us"):format(bench.median(samples) / 1e3), each)
	bench.report(name .. ": p99", ("%.0f us"):format(bench.quantile(samples, 0.99) / 1e3), each)
end

local function measure(name, n, step, each, fn)
	local samples = {}
	local cpu, start = bench.cpu_seconds("self"), now_ns()
	bench.time_calls(samples, n / step, fn)
	report(name, n, (now_ns() - start) / 1e9, bench.cpu_seconds("self") - cpu, samples, each)
end

test("system calls", { timeout = "60m" }, function(t)
	local vm = provium:vm("syscalls", "bench"):boot()
	local pid = vm:syscall(GETPID).ret
	bench.time_calls({}, bench.count(1000, 10), function() vm:syscall(GETPID) end)

	measure("syscall", calls, 1, "each call", function()
		if vm:syscall(GETPID).ret ~= pid then
			t:fail("another pid")
		end
	end)
	measure("syscall with a buffer", calls / 10, 1, "each call", function()
		vm:syscall(63, { bufs = { { len = 390 } }, ptrs = { 0 } })	-- uname
	end)
	measure("batch of " .. BATCH, calls, BATCH, "each batch", function()
		local results = vm:batch(function(b)
			for _ = 1, BATCH do
				b:syscall(GETPID)
			end
		end)
		if results[BATCH].ok.ret ~= pid then
			t:fail("another pid")
		end
	end)
	measure("vm:run", runs, 1, "each command", function() vm:run("/bin/true", {}) end)
end)
