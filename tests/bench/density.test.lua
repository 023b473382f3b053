-- Many VMs of one snapshot alive at once, in one process: how much memory and processor each takes.
-- $PROVIUM_BENCH_VMS says how many (200).

local bench = require("bench")

local VMS = tonumber(os.getenv("PROVIUM_BENCH_DENSITY")) or bench.count(200, 8)
local BATCH = 8		-- restored at a time
local IDLE = bench.count(20, 2)

local function sum(vms, fn)
	local total = 0
	for _, vm in ipairs(vms) do
		total = total + fn(vm:pid())
	end
	return total
end

local function each_batch(vms, fn)
	for first = 1, #vms, BATCH do
		local tasks = {}
		for i = first, math.min(first + BATCH - 1, #vms) do
			tasks[#tasks + 1] = function() fn(vms[i]) end
		end
		co.all(tasks)
	end
end

test("density", { timeout = "60m" }, function()
	local vm = provium:vm("first", "bench", { memory = "128M" })
	vm:boot()
	local snap = vm:snapshot()
	vm:kill()
	local vms, rss = {}, bench.memory_mib("self", "status", "VmRSS")
	for i = 1, VMS do
		vms[i] = provium:vm("vm" .. i, "bench")
	end
	local start, cpu = now_ns(), bench.cpu_seconds("self")
	each_batch(vms, function(v) v:restore(snap) end)
	local took = (now_ns() - start) / 1e9
	bench.report("density: VMs alive at once", VMS, "128 MiB each, one process, one thread")
	bench.report("density: restored", ("%.1f a second"):format(VMS / took), ("%d at a time"):format(BATCH))
	bench.report("density: Provium's CPU for each restore", ("%.2f ms"):format((bench.cpu_seconds("self") - cpu) /
		VMS * 1e3))
	start = now_ns()
	each_batch(vms, function(v) v:run("true"):assert_ok() end)
	bench.report("density: every one answered a command within", ("%.1f s"):format((now_ns() - start) / 1e9))
	local own, qemu = bench.cpu_seconds("self"), sum(vms, bench.cpu_seconds)
	sleep(IDLE)
	bench.report("density: an idle QEMU's CPU", ("%.2f %%"):format((sum(vms, bench.cpu_seconds) - qemu) / VMS / IDLE * 100),
		"mean")
	bench.report("density: Provium's CPU when all are idle", ("%.2f %%"):format((bench.cpu_seconds("self") - own) / IDLE *
		100))
	bench.report("density: a QEMU's proportional share", ("%.1f MiB"):format(sum(vms, function(pid)
		return bench.memory_mib(pid, "smaps_rollup", "Pss")
	end) / VMS), "mean, memory of the guest included")
	bench.report("density: Provium's RSS for each VM", ("%.2f MiB"):format((bench.memory_mib("self", "status", "VmRSS") -
		rss) / VMS))
	bench.report("density: Provium's threads", bench.read("/proc/self/status"):match("Threads:%s*(%d+)"))
end)
