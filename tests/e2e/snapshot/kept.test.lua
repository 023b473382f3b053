-- What a snapshot keeps: files, processes, workers and memory of the guest; and what has to be closed before it.

local SYS = { getpid = 39, pause = 34 }

local vm = provium:vm("a", "guest"):boot()
vm:console():expect("guest: init is up")
vm:write_file("/log", "first\n")
local clean = vm:snapshot()

-- ---- kept ----

test("an open file: the handle made before the snapshot works after the restore, position and all", function(t)
	vm:write_file("/tmp/f", "0123456789")
	local f = vm:open_file("/tmp/f", { read = true, write = true })
	f:read(3)
	local snap = vm:snapshot()
	t:assert_eq(f:read(2), "34", "and after the snapshot")
	f:write("XX")
	local later = vm:open_file("/tmp/f", { read = true })
	t:assert_eq(vm:open_file_count(), 2)

	vm:restore(snap)
	t:assert_eq(vm:open_file_count(), 1)
	t:assert_eq(f:tell(), 3)
	t:assert_eq(f:read_all(), "3456789")
	t:assert_contains(t:assert_raises(function() later:read(1) end), "the VM was restored from a snapshot")
	later:close()
	f:close()
	t:assert_contains(t:assert_raises(function() f:read(1) end), "file is closed")

	vm:restore(snap)
	t:assert_eq(vm:open_file_count(), 0, "both are closed")
	local again = vm:open_file("/tmp/f", { read = true })
	t:assert_eq(again:read(1), "0", "a new handle of a number that was used before")
	again:close()
end)

test("a process goes on: status, input, wait", function(t)
	local p = vm:run_async("echo begun; read -r a; read -r b; echo \"$a and $b\" >/tmp/read; exit 3")
	p:stdin_write("one\n")
	local snap = vm:snapshot()
	vm:restore(snap)
	t:assert_eq(p:status(), "running")
	p:stdin_write("two\n")
	local r = p:wait(20)
	t:assert_eq(r.exit_code, 3)
	t:assert_eq(vm:read_file("/tmp/read"), "one and two\n")
	t:assert_eq(p:wait().exit_code, 3, "a second wait returns the same")
end)

test("input that was on its way to a process ends with the restore", { timeout = "60s" }, function(t)
	local p = vm:run_async("sleep 1; cat >/tmp/input", { stdin = ("x"):rep(3 << 20) })
	local snap = vm:snapshot()
	vm:restore(snap)
	t:assert_eq(p:wait(30).exit_code, 0)
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
end)

test("what a process had printed before the snapshot is kept, what came after it is forgotten", function(t)
	local p = vm:run_async("echo before; touch /tmp/said; read -r x; echo after; read -r y")
	wait_until(function() return vm:exists("/tmp/said") end)
	for _ = 1, 3 do
		vm:run("true"):assert_ok()	-- the output is on its way before these are
	end
	local snap = vm:snapshot()
	p:stdin_write("x\ny\n")
	t:assert_eq(p:wait(20).stdout, "before\nafter\n")
	vm:restore(snap)
	t:assert_eq(p:status(), "running")
	p:stdin_write("x\ny\n")
	t:assert_eq(p:wait(20).stdout, "before\nafter\n", "once: what it had said after the snapshot is forgotten")
end)

test("a process that a restore brings back to life can be asked again, and killed", function(t)
	local p, ended = vm:run_async("sleep 1000"), vm:run_async("exit 4")
	t:assert_eq(ended:wait().exit_code, 4)
	local snap = vm:snapshot()
	for _ = 1, 2 do
		p:kill()
		t:assert_eq(p:wait(20).signal, 15)
		t:assert_eq(p:status(), "exited")
		vm:restore(snap)
		t:assert_eq(p:status(), "running", "its end was not yet when the snapshot was made")
		t:assert_eq(ended:wait().exit_code, 4, "this one's was")
	end
	p:close()
	wait_until(function() return not vm:run("pidof sleep"):ok() end, { desc = "the end of a closed process" })
end)

test("a process started after the snapshot is gone after the restore", function(t)
	vm:restore(clean)
	local p = vm:run_async("sleep 1000")
	local w = vm:spawn_worker()
	vm:restore(clean)
	for name, fn in pairs {
		status = function() p:status() end, wait = function() p:wait(5) end, kill = function() p:kill() end,
		worker = function() w:run("true") end, join = function() w:join(5) end,
	} do
		t:assert_contains(t:assert_raises(fn, name), "the VM was restored from a snapshot", name)
	end
	t:assert_eq(vm:run("pidof sleep").exit_code, 1)
	p:close()
	w:close()
end)

test("a worker keeps its descriptors, credentials and memory", function(t)
	local w = vm:spawn_worker()
	local pid = w:syscall(SYS.getpid).ret
	local fd = w:open_file("/etc/passwd", { read = true })
	local first = fd:read(4)
	local snap = vm:snapshot()
	fd:read(4)
	vm:restore(snap)
	t:assert_eq(w:syscall(SYS.getpid).ret, pid)
	t:assert_eq(first .. fd:read_all(), vm:read_file("/etc/passwd"))
	t:assert_eq(w:run("echo from a worker").stdout, "from a worker\n")
	w:kill()
	t:assert_eq(w:join(10), 137)
	vm:restore(snap)
	t:assert_eq(w:syscall(SYS.getpid).ret, pid, "alive again")
	w:close()
end)

test("memory of the guest's executor, and what it has mapped", function(t)
	vm:restore(clean)
	local map = vm:syscall(9, 0, 1048576, 3, 0x22, -1, 0).ret
	t:assert(map > 0)
	vm:write_mem(map + 70000, "kept in memory")
	local snap = vm:snapshot()
	vm:write_mem(map + 70000, "overwritten!!!")
	vm:restore(snap)
	t:assert_eq(vm:read_mem(map + 70000, 14), "kept in memory")
end)

test("files, mounts, loaded modules and the page cache of the guest", function(t)
	vm:restore(clean)
	vm:write_file("/tmp/big", ("0123456789abcdef"):rep(131072))
	local sum = vm:run("sha256sum /tmp/big").stdout
	vm:run("mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted >/tmp/m/f"):assert_ok()
	local snap = vm:snapshot()
	vm:run("umount /tmp/m; rm /tmp/big"):assert_ok()
	vm:restore(snap)
	t:assert_eq(vm:run("sha256sum /tmp/big").stdout, sum)
	t:assert_eq(vm:read_file("/tmp/m/f"), "mounted\n")
end)

test("handles of the VM it comes from say nothing about another VM of the snapshot", function(t)
	vm:restore(clean)
	local f = vm:open_file("/log", { read = true })
	local snap = vm:snapshot()
	local b = provium:vm("b", "guest"):restore(snap)
	t:assert_eq(f:read(5), "first")
	t:assert_eq(b:open_file_count(), 0)
	b:kill()
	t:assert_contains(f:read_all(), "\n")
	f:close()
end)

-- ---- streams ----

local CLOSE = "Close streams before snapshotting."

test("open streams are listed with their lines", function(t)
	vm:restore(clean)
	local stream = vm:tail_file("/log")
	local message = t:assert_raises(function() vm:snapshot() end)
	t:assert_contains(message, "vm:snapshot() failed for `a`: 1 stream still open\n  - tail_file(\"/log\") created at ")
	t:assert_match(message, "tail_file%(\"/log\"%) created at [^\n]*kept%.test%.lua:%d+ "
		.. "%(test \"open streams are listed with their lines\"%)\n" .. CLOSE:gsub("%.", "%%."))
	local output = vm:run_async("sleep 1000"):stdout_stream()
	local console = vm:console():read()
	message = t:assert_raises(function() vm:snapshot() end)
	t:assert_contains(message, "3 streams still open\n  - tail_file(\"/log\")")
	t:assert_contains(message, "console():read()")
	t:assert_eq(vm:state(), "booted")
	stream:close()
	output:close()
	console:close()
	t:assert(vm:snapshot())
end)

test("streams of workers count, those of other VMs and closed ones do not", function(t)
	vm:restore(clean)
	local w = vm:spawn_worker()
	local stream = w:tail_file("/log")
	t:assert_contains(t:assert_raises(function() vm:snapshot() end), "1 stream still open")
	stream:close()
	local b = provium:vm("b", "guest"):restore(clean)
	local theirs = b:tail_file("/log")
	vm:snapshot()
	t:assert_contains(t:assert_raises(function() b:snapshot() end), "failed for `b`: 1 stream still open")
	b:kill()
	t:assert(theirs)
end)

test("what a restore ends: streams of the guest that ran", function(t)
	vm:restore(clean)
	local tail = vm:tail_file("/log", { start = "beginning" })
	t:assert_eq(tail:read_line(), "first")
	local console = vm:console():read()
	vm:restore(clean)
	t:assert_contains(t:assert_raises(function() tail:next(5) end), "the VM was restored from a snapshot")
	t:assert_eq(console:next(5), nil)
	t:assert(console:eof())
	tail:close()
	console:close()
	t:assert_eq(vm:open_stream_count(), 0)
end)

-- ---- in flight ----

test("operations in flight: refused, and they go on", function(t)
	vm:restore(clean)
	local running = co.spawn(vm.run, vm, "read -r x </tmp/fifo; echo $x", {})
	local task = co.spawn(vm.run, vm, "sleep 1000")
	wait_until(function() return not vm:is_quiescent() end)
	local message = t:assert_raises(function() vm:snapshot() end)
	t:assert_match(message, "^[^\n]*vm:snapshot%(%) failed for `a`: %d operations? still in flight\n")
	task:cancel()
	pcall(task.join, task)
	pcall(running.join, running, 10)
	wait_until(function() return vm:is_quiescent() end)
	t:assert(vm:snapshot())
end)

test("waiting for a process, for a system call, for the guest's clock", function(t)
	vm:restore(clean)
	local p = vm:run_async("sleep 1000")
	local w = vm:spawn_worker()
	for name, fn in pairs {
		wait = function() p:wait() end,
		syscall = function() w:syscall(SYS.pause) end,
		sleep = function() vm:clock():sleep(1000) end,
	} do
		local task = co.spawn(fn)
		wait_until(function() return not vm:is_quiescent() end, { desc = name })
		t:assert_contains(t:assert_raises(function() vm:snapshot() end, name), "1 operation still in flight\nLet it end")
		task:cancel()
		pcall(task.join, task)
		if name == "syscall" then
			w:kill()
		end
		wait_until(function() return vm:is_quiescent() end, { desc = name .. " to be over" })
	end
	t:assert(vm:snapshot())
end)

test("a restore ends what is pending, and says why", function(t)
	vm:restore(clean)
	local p = vm:run_async("sleep 1000")
	local tasks = {
		run = co.spawn(pcall, vm.run, vm, "sleep 1000"),
		wait = co.spawn(pcall, p.wait, p),
		sleep = co.spawn(pcall, function() vm:clock():sleep(1000) end),
		console = co.spawn(pcall, function() vm:console():expect("never said", 1000) end),
	}
	wait_until(function() return not vm:is_quiescent() end)
	vm:restore(clean)
	for name, task in pairs(tasks) do
		local ok, message = task:join(10)
		t:assert_eq(ok, false, name)
		if name ~= "console" then
			t:assert_contains(message, "the VM was restored from a snapshot", name)
		end
	end
	t:assert(vm:run("true"):ok())
end)

-- ---- the console ----

test("the console's log continues from the snapshot's", function(t)
	vm:restore(clean)
	local c = vm:console()
	local saved = c:read_log()
	t:assert_contains(saved, "guest: init is up")
	vm:run("echo after the snapshot >/dev/hvc0"):assert_ok()
	c:expect("after the snapshot")
	vm:restore(clean)
	t:assert_eq(c:read_log(), saved)
	vm:run("echo after the restore >/dev/hvc0"):assert_ok()
	c:expect("after the restore")
	t:assert_eq(c:read_log({ clean = true }), saved:gsub("\r", "") .. "after the restore\n")
	local b = provium:vm("b", "guest"):restore(clean)
	t:assert_eq(b:console():read_log(), saved)
	b:kill()
end)

test("expect: what it had matched before the snapshot, no more and no less", function(t)
	vm:restore(clean)
	local c = vm:console()
	vm:run("echo alpha >/dev/hvc0; echo beta >/dev/hvc0; echo gamma >/dev/hvc0"):assert_ok()
	c:expect("alpha")
	wait_until(function() return c:read_log():find("gamma", 1, true) end)
	local snap = vm:snapshot()
	c:expect("gamma")
	vm:restore(snap)
	c:expect("beta")
	t:assert_contains(t:assert_raises(function() c:expect("alpha", "100ms") end), "timed out")
	c:expect("gamma")

	local b = provium:vm("b", "guest"):restore(snap)
	t:assert_contains(t:assert_raises(function() b:console():expect("alpha", "100ms") end), "timed out")
	b:console():expect("beta")
	b:kill()
end)

test("the keyboard reaches a restored guest", function(t)
	vm:restore(clean)
	vm:run_async("echo ready >/dev/hvc0; sleep 1000 </dev/hvc0")
	vm:console():expect("ready")
	local snap = vm:snapshot()
	for _ = 1, 2 do
		vm:restore(snap)
		vm:console():write("typed\n")
		vm:console():expect("typed")	-- the terminal's echo
	end
end)
