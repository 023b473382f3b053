-- A VM ends while operations wait: all of them fail at once and say why. One VM at a time, each test its own.

local nested = require("nested")
local waiting = require("guest.waiting")

local function directory(t)
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	return dir
end

test("the VM is killed: all fail at once with the reason", function(t)
	local own = provium:vm("own", "guest"):boot()
	local tasks = waiting.start_all(own)
	own:kill()
	local began = now()
	for name, task in pairs(tasks) do
		local ok, message = pcall(task.join, task, 5)
		t:assert_eq(ok, false, name)
		if name ~= "console:expect" and name ~= "console:read" then
			t:assert_contains(message, "killed", name)
		end
	end
	t:assert(now() - began < 2)
	t:assert_eq(own:state(), "dead")
	own:boot()
	t:assert_eq(own:run("echo again").stdout, "again\n")
end)

test("the guest shuts down: all fail at once", function(t)
	local own = provium:vm("own", "guest"):boot()
	local tasks = waiting.start_all(own, function(name) return name ~= "power_button" end)
	own:shutdown()
	for name, task in pairs(tasks) do
		local ok = pcall(task.join, task, 5)
		t:assert_eq(ok, false, name)
	end
	t:assert_eq(own:state(), "shutdown")
end)

test("the agent is killed: operations fail soon, and the VM's end says why", { timeout = "2m" }, function(t)
	local own = provium:vm("own", "guest"):boot()
	local tasks = waiting.start_all(own, function(name) return not name:match("^console") and name ~= "power_button" end)
	pcall(own.run, own, "kill -9 $(awk '/^PPid/ { print $2 }' /proc/$PPID/status)")
	for name, task in pairs(tasks) do
		local ok, message = pcall(task.join, task, 10)
		t:assert_eq(ok, false, name)
		t:assert(not tostring(message):find("timed out", 1, true), name .. ": " .. tostring(message))
	end
	wait_until(function() return own:state() == "dead" or pcall(own.run, own, "true") end, { timeout = 60 })
	if own:state() == "dead" then
		t:assert_contains(t:assert_raises(function() own:run("true") end), "agent gone")
	end
end)

test("killed in the middle of a reset", function(t)
	local b = provium:vm("a", "guest"):boot()
	local task = co.spawn(pcall, b.reset, b)
	wait_until(function() return b:state() ~= "booted" end, { interval = 0.001 })
	b:kill()
	local ok, message = task:join(10)
	t:assert_eq(ok, false)
	t:assert_contains(message, "vm `a`: reset: ")
	t:assert_eq(b:state(), "dead")
	t:assert_contains(t:assert_raises(function() b:reset() end), "cannot reset")
	b:boot()
	t:assert(b:run("true"):ok())
end)

test("a VM that dies under a pull leaves nothing on the host", function(t)
	local dir = directory(t)
	local own = provium:vm("own", "guest"):boot()
	own:run("head -c 33554432 /dev/zero >/tmp/zero"):assert_ok()
	local task = co.spawn(function() own:pull_file("/tmp/zero", dir .. "/f") end)
	sleep("50ms")
	own:kill()
	local ok, message = pcall(task.join, task, 5)
	t:assert(not ok)
	t:assert_contains(message, "pull_file `/tmp/zero` after ")
	t:assert_contains(message, "killed")
	t:assert_eq(nested.shell("ls -A " .. dir), "")
end)
