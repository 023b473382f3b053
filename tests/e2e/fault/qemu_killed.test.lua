-- SIGKILL to one QEMU while something of its guest is pending: that fails at once and says why; others go on.

local nested = require("nested")

-- What must stand in the error of every operation that was pending.
local function check(t, err, op)
	t:assert_contains(err, "vm `a`: ")
	t:assert_contains(err, "QEMU died: signal 9 (Killed)")
	t:assert_match(err, "console %(last %d+ KiB%):\n")
	t:assert_contains(err, "guest: init is up", "the console's tail")
	if op then
		t:assert_contains(err, op)
	end
end

-- Kills vm's QEMU as soon as the caller waits, and checks how fast fn() raises.
local function raises_soon(t, vm, fn, op)
	local pid, killed = vm:pid(), nil
	local task = co.spawn(function()
		sleep(0.3)	-- the operation is under way in the guest
		killed = now()
		os.execute("kill -KILL " .. pid)
	end)
	local err = t:assert_raises(fn)
	local took = now() - killed
	task:join()
	check(t, err, op)
	t:assert(took < 1, ("it raised only %.2f s after the kill"):format(took))
	t:assert_eq(vm:state(), "dead")
	t:assert_eq(vm:pid(), nil)
	t:assert_contains(vm:console():read_log(), "guest: init is up")
	t:log(("%s raised %.0f ms after the kill"):format(op or "it", took * 1000))
end

local vm = provium:vm("a", "guest"):boot()

test("a command", function(t)
	raises_soon(t, vm, function() vm:run("echo begun >/dev/console; sleep 600") end, "run")
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "VM is dead (cannot run)")
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "signal 9 (Killed)")
end)

test("the same VM boots again", function(t)
	t:assert_eq(vm:boot():run("echo new life"):trim(), "new life")
	t:assert_eq(vm:state(), "booted")
end)

test("everything that is pending at the same time", function(t)
	local pid, errors, killed = vm:pid(), {}, nil
	local process = vm:run_async("sleep 600")
	local big = ("x"):rep(64 * 1024 * 1024)
	local pending = {
		run = function() vm:run("sleep", { "600" }) end,
		wait = function() process:wait() end,
		read = function() while true do vm:read_file("/bin/busybox") end end,
		write = function() while true do vm:write_file("/tmp/big", big) end end,
		stat = function() while true do vm:stat("/") end end,
		listdir = function() while true do vm:listdir("/bin") end end,
		batch = function() vm:batch(function(b) b:run("sleep 600") end) end,
		sleep = function() vm:clock():sleep(600) end,
		stdout = function() process:stdout_stream():next(600) end,
		expect = function() vm:console():expect("never printed", 600) end,
	}
	local tasks = {}
	for name, fn in pairs(pending) do
		tasks[name] = co.spawn(function()
			local ok, err = pcall(fn)
			errors[name] = not ok and { err = err, at = now() } or { err = "it returned", at = now() }
		end)
	end
	sleep(0.5)
	killed = now()
	os.execute("kill -KILL " .. pid)
	for name, task in pairs(tasks) do
		task:join(10)
		t:assert(errors[name].at - killed < 1, ("%s took %.2f s"):format(name, errors[name].at - killed))
		if name ~= "expect" then
			t:assert_contains(errors[name].err, "QEMU died: signal 9 (Killed)", name)
		else
			t:assert_contains(errors[name].err, "ended with the VM", name)
		end
	end
	t:assert_eq(vm:state(), "dead")
end)

test("in the report, that test alone fails", function(t)
	local r = nested.run(t, {
		["a.test.lua"] = nested.prelude .. [[
			local vm = provium:vm("a", "guest"):boot()
			test("victim", function()
				co.spawn(function() sleep(0.3) os.execute("kill -KILL " .. vm:pid()) end)
				vm:run("echo doomed >/dev/console; sleep 600")
			end)
			test("next", function(t) t:assert_eq(vm:boot():run("echo fine"):trim(), "fine") end)]],
		["b.test.lua"] = [[
			local vm = provium:vm("a", "guest"):boot()
			test("other", function(t) for i = 1, 30 do vm:run("true"):assert_ok() sleep(0.1) end end)]],
	})
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "FAIL a.test.lua (1 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "FAIL victim")
	t:assert_contains(r.out, "QEMU died: signal 9 (Killed)")
	t:assert_contains(r.out, "doomed")
	t:assert_contains(r.out, "PASS next")
	t:assert_contains(r.out, "PASS b.test.lua (1 passed, 0 failed, 0 skipped)")
end)
