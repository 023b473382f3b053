-- One of several files that boot a VM at the same time; tests/bench/run makes a copy for each VM.

local bench = require("bench")

local vms = tonumber(os.getenv("PROVIUM_BENCH_VMS") or 2)
local up, measured = bench.tools .. "/scale-up", bench.tools .. "/scale-measured"

local function count_up()
	local _, n = (bench.read(up) or ""):gsub("\n", "")
	return n
end

-- All files are one process and one thread: what one reads here holds for all.
local function measure(boot_ns)
	local qemus, rss, pss = 0, 0, 0
	for line in bench.read(up):gmatch("%d+") do
		qemus = qemus + 1
		rss = rss + bench.memory_mib(line, "status", "VmRSS")
		pss = pss + bench.memory_mib(line, "smaps_rollup", "Pss")
	end
	bench.report("scale: VMs booted at once", qemus, "128 MiB each")
	bench.report("scale: until all had booted", ("%.2f s"):format(boot_ns / 1e9))
	bench.report("scale: the same for each VM", ("%.2f s"):format(boot_ns / 1e9 / qemus))
	bench.report("scale: Provium's CPU so far", ("%.2f s"):format(bench.cpu_seconds("self")),
		"start, reading test files, booting")
	bench.report("scale: Provium's memory", ("%.1f MiB"):format(bench.memory_mib("self", "status", "VmRSS")))
	bench.report("scale: Provium's threads", bench.read("/proc/self/status"):match("Threads:%s*(%d+)"))
	bench.report("scale: a QEMU's RSS", ("%.1f MiB"):format(rss / qemus), "mean")
	bench.report("scale: a QEMU's proportional share", ("%.1f MiB"):format(pss / qemus), "mean")
end

test("boot together", { timeout = "20m" }, function()
	bench.need_tools()
	local start = now_ns()
	local vm = provium:vm("scale", "bench"):boot()
	local f = assert(io.open(up, "a"))
	f:write(vm:pid(), "\n")
	f:close()
	if count_up() == vms then
		measure(now_ns() - start)
		bench.write(measured, "")
	end
	-- Everyone stays until it has been measured with all of them there.
	wait_until(function() return bench.read(measured) end, { timeout = 1000, desc = "all VMs are up" })
	vm:run("true"):assert_ok()
end)
