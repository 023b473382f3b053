-- What is cut off in the middle leaves nothing: a boot, a command, a transfer, a whole file with real VMs.

local nested = require("nested")

test("a boot that its test's timeout ends leaves no QEMU, and the VM can be booted again", function(t)
	local r = nested.run(t, nested.prelude .. [[
		local vm = provium:vm("a", "guest")
		test("late", { timeout = 30 }, function()
			co.spawn(function()
				while not vm:pid() do sleep(0.01) end
				write("pid", tostring(vm:pid()))
			end)
			vm:boot({ files = { { path = "/sbin/provium-agent", mode = 493, content = "#!/bin/sh\nexec sleep 600\n" } } })
		end)
		test("again", function(t)
			wait_until(function() return vm:state() == "dead" end)
			local f = io.open(("/proc/%s/stat"):format(io.open("pid"):read("*a")))
			t:assert(not f or f:read("*a"):match(".*%) (%a)") == "Z", "QEMU is gone")
			t:assert_eq(vm:boot({ files = {} }):run("echo well"):trim(), "well")
		end)]])
	t:assert_eq(r.status, 1, r.err)
	t:assert_contains(r.out, 'test timeout exceeded (30s) while waiting for vm "a": boot')
	t:assert_contains(r.out, "PASS again")
	t:assert_contains(r.out, "(1 passed, 1 failed, 0 skipped)")
end)

test("the file's timeout ends its VMs, and no other file's", function(t)
	local r = nested.run(t, {
		["a.test.lua"] = nested.prelude .. [[
			local vm = provium:vm("a", "guest"):boot()
			test("long", function(t)
				t:defer(function() write("deferred", vm:run("echo still here"):trim()) end)
				write("pid", tostring(vm:pid()))
				vm:run("sleep 900")
			end)
			test("never", function() end)]],
		["b.test.lua"] = nested.prelude .. [[
			test("short", function(t) wait_until(function() return exists("pid") end, { timeout = 28 }) end)]],
	}, "-v --timeout 30")
	t:assert_eq(r.status, 1, r.err)
	t:assert_contains(r.out, "TIME a.test.lua (0 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "file timeout exceeded (30s)")
	t:assert_contains(r.out, "PASS b.test.lua (1 passed, 0 failed, 0 skipped)")
	t:assert_eq(nested.read(r.dir .. "/deferred"), "still here")
	t:assert(not nested.alive(tonumber(nested.read(r.dir .. "/pid"))), "QEMU is gone")
	t:assert_eq(nested.shell(("ls -A %s/tmp"):format(r.dir)), "")
end)

local vm = provium:vm("a", "guest"):boot()

test("a cancelled command's whole process group is killed", function(t)
	local task = co.spawn(function() vm:run("sleep 9111 & echo up >/tmp/up; sleep 9222") end)
	wait_until(function() return vm:exists("/tmp/up") end)
	task:cancel()
	t:assert_eq((pcall(task.join, task, 5)), false)
	wait_until(function() return #vm:run("ps | grep '[s]leep 9[12]'").stdout == 0 end, { desc = "their end" })
end)

test("cancelled transfers leave the connection in order", function(t)
	local data = ("0123456789abcdef"):rep(2 * 1024 * 1024)	-- 32 MiB
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	nested.write(dir .. "/big", data)
	vm:run("dd if=/dev/zero of=/tmp/zeros bs=1M count=32 2>/dev/null"):assert_ok()
	for name, fn in pairs({
		read_file = function() vm:read_file("/tmp/zeros") end,
		write_file = function() vm:write_file("/tmp/copy", data) end,
		push_file = function() vm:push_file(dir .. "/big", "/tmp/copy") end,
		pull_file = function() vm:pull_file("/tmp/zeros", dir .. "/pulled") end,
	}) do
		for _, delay in ipairs({ 0, 0.01, 0.05 }) do
			local task = co.spawn(fn)
			sleep(delay)	-- so far it gets
			task:cancel()
			pcall(task.join, task, 5)
			t:assert_eq(vm:run("echo after"):trim(), "after", name)
		end
	end
	vm:write_file("/tmp/small", "whole")
	t:assert_eq(vm:read_file("/tmp/small"), "whole")
	wait_until(function() return vm:is_quiescent() end)
end)
