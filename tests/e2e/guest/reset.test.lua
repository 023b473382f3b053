-- vm:reset(): a new boot of the same machine, and what becomes of everything of the old one.

local vm = provium:vm("a", "guest")
vm:boot()

local function boot_id()
	return vm:read_file("/proc/sys/kernel/random/boot_id")
end

test("the agent answers again and the guest has booted anew", function(t)
	local before, pid = boot_id(), vm:pid()
	vm:write_file("/tmp/old", "of the old boot")
	vm:reset()
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(vm:pid(), pid, "the same machine")
	t:assert_neq(boot_id(), before)
	t:assert_eq(vm:exists("/tmp/old"), false)
	t:assert(vm:uptime() < 5)
end)

test("what was pending fails at once", function(t)
	local started = now()
	local reader = vm:spawn_worker()
	local calls = {
		run = function() return vm:run("sleep 1000") end,
		stalled = function() return reader:syscall(34) end,		-- pause(2)
		sleep = function() return vm:clock():sleep(1000) end,
		syscall = function() return vm:syscall_async(35, { args = { 0, 0 }, bufs = { string.pack("<i8i8", 1000, 0) },
			ptrs = { 0 } }):await() end,
	}
	local tasks = {}
	for name, fn in pairs(calls) do
		tasks[name] = co.spawn(pcall, fn)
	end
	local process = vm:run_async("sleep 1000")
	tasks.wait = co.spawn(pcall, process.wait, process)
	wait_until(function() return vm:run("pidof sleep").stdout:match("%d+ %d+") end, { desc = "both to run" })
	vm:reset()
	for name, task in pairs(tasks) do
		local ok, message = task:join(10)
		t:assert_eq(ok, false, name)
		t:assert_contains(message, "the VM was reset", name)
	end
	t:assert(now() - started < 60)
end)

test("handles of the old boot say that they are gone", function(t)
	local process = vm:run_async("cat; sleep 1000")
	local ended = vm:run_async("true")
	ended:wait()
	local out = process:stdout_stream()
	local file = vm:open_file("/tmp/f", { read = true, write = true, create = true })
	local tail = vm:tail_file("/tmp/f")
	local worker = vm:spawn_worker()
	t:assert_eq(vm:open_file_count(), 1)
	vm:reset()

	t:assert_eq(vm:open_file_count(), 0)
	for name, fn in pairs {
		status = function() process:status() end,
		wait = function() process:wait(10) end,
		kill = function() process:kill() end,
		stdin_write = function() process:stdin_write("x") end,
		close_stdin = function() process:close_stdin() end,
		["file:read"] = function() file:read(1) end,
		["file:write"] = function() file:write("x") end,
		["file:tail_stream"] = function() file:tail_stream() end,
		["worker:run"] = function() worker:run("true") end,
		["worker:syscall"] = function() worker:syscall(39) end,
		["worker:kill"] = function() worker:kill() end,
		["worker:join"] = function() worker:join(10) end,
		["stdout:next"] = function() out:next() end,
		["tail:next"] = function() tail:next() end,
	} do
		t:assert_contains(t:assert_raises(fn, name), "the VM was reset", name)
	end
	t:assert_eq(ended:wait().exit_code, 0, "a result that was there stays")
	process:close()
	file:close()
	worker:close()
	tail:close()
end)

test("closing an old handle leaves a new one of the same number alone", function(t)
	local old = vm:open_file("/etc/hostname", { read = true })
	local old_process = vm:run_async("sleep 1000")
	local old_worker = vm:spawn_worker()
	vm:reset()
	local new = vm:open_file("/etc/hostname", { read = true })
	local new_process = vm:run_async("sleep 1000")
	local new_worker = vm:spawn_worker()
	t:assert_eq(new_worker:handle(), old_worker:handle(), "the numbers start again")
	old:close()
	old_process:close()
	old_worker:close()
	t:assert(#new:read(100) > 0)
	t:assert_eq(new_process:status(), "running")
	t:assert_eq(new_worker:run("echo here").stdout, "here\n")
	t:assert_eq(vm:open_file_count(), 1)
end)

test("the console's log goes on, and expect with it", function(t)
	-- The agent answers before init is through: what init prints of the boot before must not be taken for the next's.
	wait_until(function() return not vm:read_file("/proc/1/cmdline"):find("sh", 1, true) end)
	vm:run("echo before the reset >/dev/console"):assert_ok()
	vm:console():expect("before the reset")
	local stream = vm:console():read()
	local before = vm:console():read_log()
	vm:reset()
	vm:console():expect("guest: init is up")
	t:assert(#vm:console():read_log() > #before)
	t:assert_eq(vm:console():read_log():sub(1, #before), before)
	stream:expect("guest: init is up", 5)
end)

test("a paused VM can be reset", function(t)
	vm:pause()
	vm:reset()
	t:assert_eq(vm:state(), "booted")
	t:assert(vm:run("true"):ok())
end)

test("a guest that reboots by itself comes back, too", function(t)
	local before = boot_id()
	local process = vm:run_async("sleep 1000")
	pcall(vm.run, vm, "echo b > /proc/sysrq-trigger")
	wait_until(function()
		local ok, id = pcall(boot_id)
		return ok and id ~= before
	end, { timeout = 60 })
	t:assert_contains(t:assert_raises(function() process:status() end), "the guest rebooted")
end)

test("a reset whose caller has gone goes on", function(t)
	local before = boot_id()
	local task = co.spawn(vm.reset, vm)
	wait_until(function() return vm:state() ~= "booted" end, { interval = 0.001 })
	task:cancel()
	wait_until(function() return vm:state() == "booted" end, { timeout = 60 })
	t:assert_neq(boot_id(), before)
end)

test("states and arguments", function(t)
	local c = provium:vm("c", "guest")
	t:assert_contains(t:assert_raises(function() c:reset() end), "vm `c`: VM not booted (cannot reset)")
	t:assert_contains(t:assert_raises(function() vm:reset(1) end), "vm:reset()")
	t:assert_raises(function() vm.reset("a") end)
end)
