-- Restore to the first completed command, for guests of several sizes, beside
--   a cold boot;
--   the usual way: all of memory written by `migrate` and read back by `-incoming`;
--   a bare QEMU started by hand with the same memory file and device state: the limit.
--
-- The bare guests are asked through a shell on their console, Provium's through its agent. All of them take turns.

local bench = require("bench")

local SHELL = "setsid sh -c 'exec sh </dev/hvc0 >/dev/hvc0 2>&1' >/dev/null 2>&1"
local SIZES = bench.quick and { "256M" } or { "256M", "1G", "4G" }
local ROUNDS = bench.count(15, 2)
local AT_ONCE = bench.count(16, 2)
-- Without $PROVIUM_SPARES a QEMU is started ahead from the third restore on.
local SPARES = os.getenv("PROVIUM_SPARES") ~= "0"
local label = SPARES and "restore with spares" or "restore"

local function quote(word)
	return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- A booted VM's command line for a QEMU started by hand; `ram` replaces its memory, `drop` names options to leave out.
local function bare_argv(argv, ram, drop, extra)
	local out, i = {}, 1
	while i <= #argv do
		local option = argv[i]
		if drop[option] then
			i = i + 1
		else
			option = option:gsub("^socket,id=qmp,fd=%d+$", "socket,id=qmp,fd=10")
			option = option:gsub("^socket,id=hvc0,fd=%d+$", "socket,id=hvc0,fd=11")
			option = option:gsub("^socket,id=(serial0),fd=%d+$", "null,id=%1")
			option = option:gsub("^socket,id=(agent0),fd=%d+$", "null,id=%1")
			option = option:gsub("^memory%-backend%-file,id=ram,size=(%w+),.*", ram)
			out[#out + 1] = quote(option)
		end
		i = i + 1
	end
	return table.concat(out, " ") .. " " .. extra
end

local function run_bare(state, line)
	local p = io.popen(quote(bench.tools .. "/barerestore") .. " " .. quote(state) .. " " .. line)
	local text = p:read("a")
	if not p:close() then
		error("the bare QEMU did not answer; its command line: " .. line)
	end
	return tonumber(text:match("^(%d+)"))
end

local function wait_for_migration(vm)
	wait_until(function()
		local status = vm:qmp("query-migrate").status
		if status == "failed" then
			error("QEMU could not write its whole state")
		end
		return status == "completed"
	end, { timeout = 120, desc = "the migration" })
end

-- A shell that waits for a line on hvc0, and nothing left of it in the agent.
local function start_shell(vm)
	vm:console():expect("guest: init is up")
	vm:run(SHELL .. " &"):assert_ok()
	vm:console():expect("/ # ")
end

local function measure(size)
	local name = "m" .. size
	local vm = provium:vm(name, "bench", { memory = size })
	local cold, provium_ns, usual, bare = {}, {}, {}, {}
	for _ = 1, bench.count(3, 1) do
		local start = now_ns()
		vm:boot()
		vm:run("true"):assert_ok()
		cold[#cold + 1] = now_ns() - start
		vm:kill()
	end
	vm:boot()
	start_shell(vm)
	local argv = bench.argv(vm:pid())
	local snap = vm:snapshot()
	local whole = bench.tools .. "/whole-" .. size
	vm:qmp("migrate", { uri = "exec:cat > " .. whole })
	wait_for_migration(vm)
	vm:kill()
	local by_hand = bare_argv(argv, "memory-backend-file,id=ram,size=%1,mem-path=" .. snap:path() ..
		"/ram,share=off,reserve=off", { ["-kernel"] = true, ["-initrd"] = true, ["-append"] = true },
		"-S -incoming defer -global migration.send-configuration=off")
	local incoming = bare_argv(argv, "memory-backend-memfd,id=ram,size=%1", {}, "-incoming " ..
		quote("exec:cat " .. whole))
	bench.interleave(ROUNDS, function()
		local start = now_ns()
		vm:restore(snap)
		vm:run("true"):assert_ok()
		provium_ns[#provium_ns + 1] = now_ns() - start
		if SPARES then
			sleep(0.5)	-- in which the next one is started
		end
	end, function()
		bare[#bare + 1] = run_bare(snap:path() .. "/state", by_hand)
	end, function(round)
		if round <= bench.count(5, 1) then
			usual[#usual + 1] = run_bare("-", incoming)
		end
	end)
	os.remove(whole)
	local what = ("%s, %s: "):format(label, size)
	bench.report_latency(what .. "Provium", provium_ns)
	bench.report_latency(what .. "bare QEMU, same files", bare, "the limit")
	bench.report(what .. "ratio to that", ("%.3f"):format(bench.ratio(provium_ns, bare)), "aim: 1.15, with spares 1")
	bench.report_latency(what .. "memory by -incoming", usual, "the usual way")
	bench.report(what .. "that to Provium's", ("%.1f"):format(bench.median(usual) / bench.median(provium_ns)),
		"aim: 5 at 1G")
	bench.report(what .. "cold boot", bench.milliseconds(bench.median(cold)))
	bench.report(what .. "snapshot on disk", ("%.1f MiB"):format(snap:size() / 1048576),
		("the guest stood still for %.0f ms"):format(snap:stats().pause * 1000))
	vm:kill()
	return snap, by_hand
end

local function together(snap, by_hand, size)
	local ours, bare, vms = {}, {}, {}
	local function all(into, fn)
		local tasks = {}
		for i = 1, AT_ONCE do
			tasks[i] = function()
				local start = now_ns()
				fn(i)
				into[#into + 1] = now_ns() - start
			end
		end
		co.all(tasks)
	end
	for i = 1, AT_ONCE do
		vms[i] = provium:vm(("t%d"):format(i), "bench")
	end
	bench.interleave(bench.count(3, 1), function()
		all(ours, function(i)
			vms[i]:restore(snap)
			vms[i]:run("true"):assert_ok()
		end)
		for _, vm in ipairs(vms) do
			vm:kill()
		end
	end, function()
		all(bare, function() run_bare(snap:path() .. "/state", by_hand) end)
	end)
	local what = ("%s, %d at once, %s: "):format(label, AT_ONCE, size)
	bench.report_latency(what .. "Provium", ours)
	bench.report_latency(what .. "bare QEMU", bare, "the limit")
end

for _, size in ipairs(SIZES) do
	test("restore " .. size, { timeout = "30m" }, function()
		bench.need_tools()
		local snap, by_hand = measure(size)
		if not SPARES then
			together(snap, by_hand, size)
		end
		snap:delete()
	end)
end
