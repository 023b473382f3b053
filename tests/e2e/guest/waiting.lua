-- Every operation on a guest that waits, for the tests that end one while it does.

local waiting = {}

local PAUSE, NANOSLEEP = 34, 35

-- A FIFO that has both ends open in the main executor: readers wait for ever, and writers once it is full.
local nfifos = 0
local function fifo(vm)
	nfifos = nfifos + 1
	local path = "/tmp/fifo" .. nfifos
	vm:run("mkfifo " .. path):assert_ok()
	return path, vm:open_file(path, { read = true, write = true })
end

-- name -> function(vm) that prepares and returns the function that then waits for ever. on: what ends with it,
-- "executor" when the main executor's death ends it, else "vm".
waiting.ops = {
	run = { on = "executor", start = function(vm)
		return function() return vm:run("sleep 900") end
	end },
	run_direct = { on = "executor", start = function(vm)
		return function() return vm:run("sleep", { "901" }) end
	end },
	run_stdin = { on = "executor", start = function(vm)
		return function() return vm:run("sleep 902", { stdin = ("x"):rep(8388608) }) end
	end },
	run_tty = { on = "executor", start = function(vm)
		return function() return vm:run("sleep 903", { tty = true }) end
	end },
	["proc:wait"] = { on = "executor", start = function(vm)
		local p = vm:run_async("sleep 904")
		return function() return p:wait() end
	end },
	["proc:stdin_write"] = { on = "executor", start = function(vm)
		local p = vm:run_async("sleep 905")
		return function() return p:stdin_write(("x"):rep(1048576)) end
	end },
	["stdout:next"] = { on = "executor", start = function(vm)
		local s = vm:run_async("sleep 906"):stdout_stream()
		return function() return s:next(900) end
	end },
	["stdout:expect"] = { on = "executor", start = function(vm)
		local s = vm:run_async("echo some; sleep 907"):stdout_stream()
		return function() return s:expect("never", 900) end
	end },
	["tail:read_line"] = { on = "executor", start = function(vm)
		local s = vm:tail_file("/etc/hostname")
		return function() return s:read_line(900) end
	end },
	["tail:match"] = { on = "executor", start = function(vm)
		local s = vm:tail_file("/etc/hostname", { start = "beginning" })
		return function() return s:match("never", 900) end
	end },
	["tail:drain"] = { on = "executor", start = function(vm)
		local s = vm:tail_file("/etc/hostname")
		return function()
			s:drain(900)
			error("drained: the guest's executor is gone, killed, reset", 0)	-- it does not raise at the end
		end
	end },
	read_file = { on = "executor", start = function(vm)
		local path = fifo(vm)
		return function() return vm:read_file(path) end
	end },
	pull_file = { on = "executor", start = function(vm)
		local path, name = fifo(vm), os.tmpname()
		os.remove(name)		-- it appears only when it is whole, which is never
		return function() return vm:pull_file(path, name) end
	end },
	write_file = { on = "executor", start = function(vm)
		local path = fifo(vm)
		return function() return vm:write_file(path, ("x"):rep(4194304)) end
	end },
	["file:read"] = { on = "executor", start = function(vm)
		local _, file = fifo(vm)
		return function() return file:read(1) end
	end },
	batch = { on = "executor", start = function(vm)
		return function() return vm:batch(function(b) b:run("sleep 908") end) end
	end },
	["clock:sleep"] = { on = "executor", start = function(vm)
		return function() return vm:clock():sleep(900) end
	end },
	syscall_async = { on = "executor", start = function(vm)
		local pending = vm:syscall_async(NANOSLEEP, { bufs = { string.pack("<i8i8", 900, 0) }, ptrs = { 0 } })
		return function() return pending:await() end
	end },
	["worker:syscall"] = { on = "vm", start = function(vm)
		local worker = vm:spawn_worker()
		return function() return worker:syscall(PAUSE) end
	end },
	["worker:run"] = { on = "vm", start = function(vm)
		local worker = vm:spawn_worker()
		return function() return worker:run("sleep 909") end
	end },
	["worker:join"] = { on = "vm", start = function(vm)
		local worker = vm:spawn_worker()
		return function() return worker:join() end
	end },
	["console:expect"] = { on = "vm", start = function(vm)
		return function() return vm:console():expect("never said", 900) end
	end },
	["console:read"] = { on = "vm", start = function(vm)
		local s = vm:console():read()
		return function() return s:expect("never said", 900) end
	end },
	power_button = { on = "vm", start = function(vm)
		return function() return vm:power_button(900) end
	end },
}

-- Starts all of them on a VM (or those that `select` wants), and returns name -> task once each waits.
function waiting.start_all(vm, select)
	local tasks = {}
	for name, op in pairs(waiting.ops) do
		if not select or select(name, op) then
			tasks[name] = co.spawn(op.start(vm))
		end
	end
	sleep("200ms")		-- what a guest has not been asked yet, it is asked now
	for name, task in pairs(tasks) do
		if task:status() ~= "running" then
			error(name .. " does not wait: " .. tostring(select(2, pcall(task.join, task))), 0)
		end
	end
	return tasks
end

-- Nothing that they have started is left in the guest.
function waiting.check_clean(t, vm)
	wait_until(function() return not vm:run("pidof sleep"):ok() end, { desc = "commands of cancelled operations to be gone" })
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
end

return waiting
