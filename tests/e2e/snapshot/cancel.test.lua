-- Snapshots and restores that are ended while they are under way: nothing is left of them, and the VM is usable where
-- it lives.

local nested = require("nested")
local places = require("snapshot.places")

local vm = provium:vm("a", "guest"):boot()
local snap = vm:snapshot()
local run_dir = snap:path():match("^(.*)/[^/]+$")

local function check_lives(t)
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(vm:qmp("query-status").running, true)
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
end

-- Starts a snapshot into dir/one.snap as a task and returns it when its first file is there.
local function begin(dir)
	local task = co.spawn(function() return vm:snapshot(dir .. "/one.snap") end)
	wait_until(function() return places.list(dir) ~= "" end, { interval = 0.001 })
	return task
end

-- Ends a snapshot that is under way with fn(task), many times at whatever point it is then, and checks what is left.
local function ended_by(t, fn, check)
	local interrupted = 0
	for round = 1, 6 do
		local dir = places.dir(t)
		local task = begin(dir)
		sleep(0.003 * (round - 1))
		fn(task)
		local ok, result = pcall(task.join, task, 20)
		if not ok then
			interrupted = interrupted + 1
			wait_until(function() return places.list(dir) == "" end, { desc = "nothing to be left, not " .. places.list(dir) })
		else
			t:assert_eq(places.list(dir), "one.snap ")
		end
		check(t, ok, result)
	end
	t:log(("%d of 6 were interrupted"):format(interrupted))
end

test("a snapshot is cancelled with its task", function(t)
	for _, restored in ipairs({ false, true }) do
		if restored then
			vm:restore(snap)
		end
		ended_by(t, function(task) task:cancel() end, function(_, ok, message)
			if not ok then
				t:assert_contains(message, "cancelled")
			end
			check_lives(t)
		end)
	end
end)

test("a snapshot is ended by the timeout of its test", function(t)
	local r = nested.run(t, { ["x.test.lua"] = nested.prelude .. [[
		local vm = provium:vm("a", "kernel-only"):boot()
		test("too slow", { timeout = "20ms" }, function()
			for i = 1, 1000 do vm:snapshot("gone/" .. i .. ".snap"):delete() end
		end)
		test("next", function(t)
			t:assert_eq(vm:read_file("/proc/sys/kernel/ostype"), "Linux\n")
			t:assert_eq(vm:state(), "booted")
			vm:restore(vm:snapshot("kept.snap"))
		end)]] })
	t:assert_contains(r.out, "test timeout exceeded (0.02s) while waiting for vm \"a\": ")
	t:assert_contains(r.out, "PASS next")
	t:assert_eq(places.list(r.dir .. "/gone"):gsub("%d+%.snap ?", ""), "", "no temporary directory")
	t:assert_eq(places.list(r.dir .. "/tmp"), "", "and none in the run directory")
end)

test("kill while a snapshot is under way", function(t)
	ended_by(t, function() vm:kill() end, function(_, ok, message)
		if not ok then
			t:assert_contains(message, "vm `a`: snapshot:")
		end
		t:assert_eq(vm:state(), "dead")
		vm:restore(snap)
		check_lives(t)
	end)
end)

test("QEMU is killed while a snapshot is under way", function(t)
	ended_by(t, function() os.execute("kill -KILL " .. vm:pid()) end, function(_, ok, message)
		if not ok then
			t:assert_contains(message, "vm `a`: snapshot:")
		end
		wait_until(function() return vm:state() == "dead" end, { interval = 0.01 })
		vm:restore(snap)
		check_lives(t)
	end)
end)

test("QEMU does not answer: a stopped process, then cancelled", function(t)
	local dir = places.dir(t)
	os.execute("kill -STOP " .. vm:pid())
	local task = begin(dir)
	sleep("100ms")
	t:assert_eq(task:status(), "running")
	task:cancel()
	pcall(task.join, task)
	os.execute("kill -CONT " .. vm:pid())
	wait_until(function() return places.list(dir) == "" end)
	check_lives(t)
end)

-- ---- restores ----

test("a restore is cancelled with its task: what ran is gone, what was half restored, too", function(t)
	for round = 1, 6 do
		local old = vm:pid()
		local task = co.spawn(function() vm:restore(snap) end)
		sleep(0.02 * (round - 1))
		task:cancel()
		local ok, message = pcall(task.join, task, 20)
		if not ok then
			t:assert_contains(message, "cancelled")
		end
		wait_until(function() return vm:state() == "dead" or ok end, { desc = "the VM's end" })
		t:assert_neq(vm:pid(), old)
		vm:restore(snap)
		check_lives(t)
	end
end)

test("kill while a restore is under way", function(t)
	for round = 1, 4 do
		local task = co.spawn(pcall, vm.restore, vm, snap)
		sleep(0.02 * (round - 1))
		vm:kill()
		local ok, message = task:join(20)
		if not ok then
			t:assert_contains(message, "vm `a`: restore: failed while ")
		end
		t:assert_eq(vm:state(), "dead")
		t:assert_eq(vm:pid(), nil)
		vm:restore(snap)
		check_lives(t)
	end
end)

test("QEMU is killed while a restore is under way", function(t)
	for _ = 1, 3 do
		local old = vm:pid()
		local task = co.spawn(pcall, vm.restore, vm, snap)
		wait_until(function() return vm:pid() and vm:pid() ~= old end, { interval = 0.001 })
		os.execute("kill -KILL " .. vm:pid())
		local ok, message = task:join(30)
		if not ok then
			t:assert_contains(message, "vm `a`: restore: failed while ")
			t:assert_contains(message, "signal 9 (Killed)")
			wait_until(function() return vm:state() == "dead" end, { interval = 0.01 })
		end
		-- It may have come about all the same: with another QEMU, when the one that was killed was started ahead.
		wait_until(function() return vm:state() ~= "booted" or vm:pid() end, { interval = 0.01 })
		vm:restore(snap)
		check_lives(t)
	end
end)

test("two restores at once: one of them is told", function(t)
	local first = co.spawn(pcall, vm.restore, vm, snap)
	local second = co.spawn(pcall, vm.restore, vm, snap)
	local a, b = { first:join() }, { second:join() }
	t:assert(a[1] or b[1])
	if not (a[1] and b[1]) then
		t:assert_contains(a[1] and b[2] or a[2], "another task is booting it (cannot restore)")
	end
	check_lives(t)
end)

test("delete is cancelled: the removal goes on", function(t)
	local dir = places.dir(t)
	local one = vm:snapshot(dir .. "/one.snap")
	local task = co.spawn(function() one:delete() end)
	sleep(0)
	task:cancel()
	pcall(task.join, task)
	wait_until(function() return places.list(dir) == "" end)
end)

test("nothing is left in the run directory", function(t)
	wait_until(function() return not places.list(run_dir):find("%.snap%.") end, { desc = "the end of temporary directories" })
	check_lives(t)
end)
