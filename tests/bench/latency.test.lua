-- Latency of one call, beside the QEMU guest agent's equivalents in the same guest, in turns.

local bench = require("bench")

local GA = os.getenv("PROVIUM_BENCH_QEMU_GA") or "/usr/sbin/qemu-ga"
local PORT = "org.qemu.guest_agent.0"

-- The program, its loader and its libraries, all where they are on this host.
local function ga_files()
	if not bench.read(GA) then
		return nil
	end
	local files = { { path = GA, host = GA, mode = 0x1ed } }
	local p = io.popen("ldd " .. GA)
	for line in p:lines() do
		local lib = line:match("=> (/%S+)") or line:match("^%s*(/%S+)")
		if lib then
			files[#files + 1] = { path = lib, host = lib, mode = 0x1ed }
		end
	end
	p:close()
	return files
end

local samples = { stat = {}, run = {}, direct = {}, ping = {}, exec = {} }
local files, socket, vm

local function boot()
	files = ga_files()
	socket = bench.tools .. "/qga.sock"
	vm = provium:vm("latency", "bench", {
		memory = "256M",
		files = files,
		qemu_args = files and {
			"-chardev", "socket,id=qga,server=on,wait=off,path=" .. socket,
			"-device", "virtserialport,bus=vser.0,nr=2,chardev=qga,name=" .. PORT,
		},
	})
	vm:boot()
	if not files then
		bench.report("latency: no " .. GA .. " on this host", "", "install qemu-guest-agent to compare")
		return
	end
	-- Nobody makes /dev/virtio-ports without udev.
	vm:run("mkdir -p /dev/virtio-ports /var/run; for p in /sys/class/virtio-ports/*; do " ..
		"ln -sf /dev/${p##*/} /dev/virtio-ports/$(cat $p/name); done"):assert_ok()
	vm:run(GA .. " -d -m virtio-serial -p /dev/virtio-ports/" .. PORT .. " -t /tmp -f /tmp/qga.pid"):assert_ok()
end

local function ask_qga(pings, execs)
	if not files then
		return
	end
	local p = io.popen(("%s/qga %s %d %d"):format(bench.tools, socket, pings, execs))
	local text = p:read("a")
	if not p:close() then
		error("the client of the QEMU guest agent failed: " .. text)
	end
	for kind, ns in text:gmatch("(%a+) (%d+)") do
		table.insert(samples[kind], tonumber(ns))
	end
end

test("latency", { timeout = "30m" }, function()
	bench.need_tools()
	boot()
	local n = bench.count(25, 10)
	local function stat() vm:stat("/etc/passwd") end
	local function run() vm:run("true") end
	local function direct() vm:run("/bin/true", {}) end
	bench.time_calls({}, n, stat)	-- everything is warm from here on
	bench.interleave(bench.count(40, 1),
		function() bench.time_calls(samples.stat, n, stat) end,
		function() ask_qga(n, 0) end,
		function() bench.time_calls(samples.run, n, run) end,
		function() ask_qga(0, n) end,
		function() bench.time_calls(samples.direct, n, direct) end)
	bench.report_latency("latency: vm:stat", samples.stat, #samples.stat .. " calls")
	if files then
		bench.report_latency("latency: qemu-ga guest-ping", samples.ping)
	end
	bench.report_latency("latency: vm:run(\"true\")", samples.run, "through /bin/sh")
	bench.report_latency("latency: vm:run(\"/bin/true\", {})", samples.direct, "executed directly")
	if files then
		bench.report_latency("latency: qemu-ga guest-exec + status", samples.exec, "executed directly")
		bench.report("latency: stat / guest-ping, p50", ("%.2f"):format(
			bench.median(samples.stat) / bench.median(samples.ping)))
		bench.report("latency: direct run / guest-exec, p50", ("%.2f"):format(
			bench.median(samples.direct) / bench.median(samples.exec)))
	end
end)
