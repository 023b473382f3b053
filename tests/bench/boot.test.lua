-- Cold boot: from vm:boot() to the first completed command, beside a bare QEMU whose init prints a marker.
--
-- Both run the same kernel, the very same initramfs and the same devices, one after the other in turns. The
-- bare guest's init loads the same modules; the "plain" one loads none, so its kernel never sees a transport.

local bench = require("bench")

-- Provium's argv without what it inherits from Provium: sockets, the RAM's descriptor, the control channel.
local function bare_argv(argv, init)
	local out, i = {}, 1
	while i <= #argv do
		local option, value = argv[i], argv[i + 1]
		if option == "-mon" or value and value:match("^socket,id=qmp,") then
			i = i + 1
		elseif value and value:match("^socket,id=serial0,") then
			out[#out + 1] = option
			out[#out + 1] = "file,id=serial0,path=/dev/fd/1"
			i = i + 1
		else
			option = option:gsub("^socket,id=(%w+),fd=%d+$", "null,id=%1")
			option = option:gsub("^memory%-backend%-file,(.*),mem%-path=[^,]*", "memory-backend-memfd,%1")
			option = option:gsub("rdinit=%S+", "rdinit=" .. init)
			out[#out + 1] = option
		end
		i = i + 1
	end
	return out
end

local function shell_quote(argv)
	local quoted = {}
	for i, word in ipairs(argv) do
		quoted[i] = "'" .. word:gsub("'", "'\\''") .. "'"
	end
	return table.concat(quoted, " ")
end

local wall, cpu = { provium = {}, bare = {}, plain = {} }, { provium = {}, bare = {}, plain = {} }
local argv

local function boot_provium(round)
	local vm = provium:vm("boot" .. round, "bench", {
		files = { { path = "/bench-init", host = bench.tools .. "/bareinit", mode = 0x1ed } },
	})
	local start = now_ns()
	vm:boot()
	vm:run("true"):assert_ok()
	local took = now_ns() - start
	if round > 0 then
		wall.provium[round] = took
		cpu.provium[round] = bench.cpu_seconds(vm:pid()) * 1e9
	end
	argv = bench.argv(vm:pid())
	vm:kill()
end

local function boot_bare(kind, init)
	return function(round)
		local p = io.popen(shell_quote({ bench.tools .. "/bare", "bare guest is up" }) .. " " ..
			shell_quote(bare_argv(argv, init)))
		local text = p:read("a")
		if not p:close() then
			error("the bare QEMU did not boot; its command line: " .. shell_quote(bare_argv(argv, init)))
		end
		local w, c = text:match("(%d+) (%d+)")
		wall[kind][round], cpu[kind][round] = tonumber(w), tonumber(c)
	end
end

test("boot", { timeout = "30m" }, function()
	bench.need_tools()
	boot_provium(0)		-- makes the initramfs, fills the page cache
	bench.interleave(bench.count(15, 1), boot_provium, boot_bare("bare", "/bench-init"),
		boot_bare("plain", "/bench-init -- plain"))
	bench.report("boot: Provium, to first command", bench.milliseconds(bench.median(wall.provium)),
		"p95 " .. bench.milliseconds(bench.quantile(wall.provium, 0.95)))
	bench.report("boot: bare QEMU, to marker", bench.milliseconds(bench.median(wall.bare)),
		"p95 " .. bench.milliseconds(bench.quantile(wall.bare, 0.95)))
	bench.report("boot: bare QEMU, no modules", bench.milliseconds(bench.median(wall.plain)),
		"p95 " .. bench.milliseconds(bench.quantile(wall.plain, 0.95)))
	bench.report("boot: ratio to bare", ("%.3f"):format(bench.ratio(wall.provium, wall.bare)),
		"median of pairs; aim 1.05 or less")
	bench.report("boot: ratio to bare, QEMU's CPU", ("%.3f"):format(bench.ratio(cpu.provium, cpu.bare)),
		"median of pairs; what the host's load disturbs least")
	bench.report("boot: ratio to bare without modules", ("%.3f"):format(bench.ratio(wall.provium, wall.plain)),
		"median of pairs")
end)
