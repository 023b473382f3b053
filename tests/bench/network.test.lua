-- Throughput of a bridge between two guests, beside second cards of the same guests joined by what QEMU offers by itself:
-- for the user backend datagram sockets from one to the other, for the kernel backend (root) TAPs on a bridge made with
-- ip(8). And what the processes spend on it. $PROVIUM_BENCH_BACKEND chooses the backend (user).

local bench = require("bench")

local MIB = bench.count(64, 4)
local ROUNDS = bench.count(5, 1)
local MAC = { a = "52:54:00:fe:00:01", b = "52:54:00:fe:00:02" }

local backend = os.getenv("PROVIUM_BENCH_BACKEND") or "user"
local lan = provium:bridge("lan", { backend = backend, seed = backend == "user" and 1 or nil })
local vms = {}

-- The second cards: QEMU's arguments for each, what it is called, what there must be before and after.
local plain = {}

function plain.user()
	local function path(vm)
		return ("%s/direct-%s.sock"):format(bench.tools, vm)
	end
	return "-netdev dgram", function(name, other)
		return ("dgram,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s"):format(path(name), path(other))
	end
end

function plain.kernel(t)
	local function ip(commands)
		return os.execute("ip -force -batch - <<'END'\n" .. commands .. "\nEND")
	end
	t:defer(function() ip("link del pvbench-br\nlink del pvbench-a\nlink del pvbench-b") end)
	assert(ip([[
		link add pvbench-br type bridge mcast_snooping 0
		tuntap add pvbench-a mode tap
		tuntap add pvbench-b mode tap
		link set pvbench-a master pvbench-br addrgenmode none up
		link set pvbench-b master pvbench-br addrgenmode none up
		link set pvbench-br addrgenmode none up]]), "cannot make a bridge and two TAPs (root?)")
	return "-netdev tap on a bridge", function(name)
		return ("tap,ifname=pvbench-%s,script=no,downscript=no"):format(name)
	end
end

local function boot(direct)
	for name, other in pairs({ a = "b", b = "a" }) do
		vms[name] = provium:vm(name, "bench", { qemu_args = {
			"-netdev", direct(name, other) .. ",id=direct",
			"-device", ("virtio-net-pci,netdev=direct,mac=%s,romfile="):format(MAC[name]),
		} })
	end
	lan:attach({ vms.a, vms.b })
	provium:boot()
	for name, host in pairs({ a = 1, b = 2 }) do
		vms[name]:run(([[
			for i in /sys/class/net/*; do
				[ "$(cat $i/address)" = %s ] || continue
				ip link set ${i##*/} up
				ip addr add 192.168.254.%d/24 dev ${i##*/}
			done]]):format(MAC[name], host)):assert_ok()
	end
	wait_until(function() return vms.a:run("ping -c 1 -W 1 192.168.254.2"):ok() end, { timeout = 30 })
end

local function spent()
	return { provium = bench.cpu_seconds("self"), qemu = bench.cpu_seconds(vms.a:pid()) + bench.cpu_seconds(vms.b:pid()) }
end

-- Moves MIB MiB from a to an address of b over TCP; adds MiB/s and CPU seconds to the lists.
local function pour(to, speed, provium_cpu, qemu_cpu)
	local server = vms.b:run_async("nc -l -p 5001 >/dev/null")
	wait_until(function() return vms.b:run("netstat -ltn | grep -q :5001"):ok() end, { timeout = 30 })
	local before, start = spent(), now_ns()
	vms.a:run(("dd if=/dev/zero bs=64k count=%d 2>/dev/null | nc %s 5001"):format(MIB * 16, to),
		{ timeout = 600 }):assert_ok()
	server:wait(60)
	speed[#speed + 1] = MIB / ((now_ns() - start) / 1e9)
	local after = spent()
	provium_cpu[#provium_cpu + 1] = after.provium - before.provium
	qemu_cpu[#qemu_cpu + 1] = after.qemu - before.qemu
end

local function round_trips(to, samples)
	local out = vms.a:run(("ping -4 -c %d -i 0.02 -W 5 %s"):format(bench.count(100, 10), to)):assert_ok().stdout
	for ms in out:gmatch("time=([%d.]+) ms") do
		samples[#samples + 1] = tonumber(ms) * 1e6
	end
end

test("network", { timeout = "60m" }, function(t)
	bench.need_tools()
	local what, direct = plain[backend](t)
	boot(direct)
	local b = vms.b:nic(lan):ip()
	local through, straight = { {}, {}, {} }, { {}, {}, {} }
	local ping_through, ping_straight = {}, {}
	pour(b, {}, {}, {})
	bench.interleave(ROUNDS,
		function() pour("192.168.254.2", straight[1], straight[2], straight[3]) end,
		function() pour(b, through[1], through[2], through[3]) end,
		function() round_trips("192.168.254.2", ping_straight) end,
		function() round_trips(b, ping_through) end)
	bench.report("network: TCP, bridge, backend " .. backend, ("%.1f MiB/s"):format(bench.median(through[1])), MIB .. " MiB")
	bench.report("network: TCP, QEMU to QEMU", ("%.1f MiB/s"):format(bench.median(straight[1])), what)
	bench.report("network: throughput, bridge / direct", ("%.3f"):format(bench.ratio(through[1], straight[1])))
	bench.report("network: Provium's CPU for it", ("%.2f s"):format(bench.median(through[2])),
		("%.1f %% of a core at that speed"):format(100 * bench.median(through[2]) / (MIB / bench.median(through[1]))))
	bench.report("network: both QEMUs' CPU, bridge / direct", ("%.3f"):format(bench.ratio(through[3], straight[3])),
		("%.2f s, %.2f s"):format(bench.median(through[3]), bench.median(straight[3])))
	bench.report_latency("network: ping, bridge", ping_through)
	bench.report_latency("network: ping, direct", ping_straight)
end)
