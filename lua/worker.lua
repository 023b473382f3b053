-- Worker: how one is made and ends. Everything else it can do, a VM can too.

local core, remote = ...

local VM, Worker = core.VM, core.Worker
local raise, ask = core.raise, remote.ask
local ended, is_over, is_gone, require_live = Worker.ended, Worker.is_over, Worker.is_gone, Worker.require
Worker.ended, Worker.is_over, Worker.is_gone, Worker.require = nil, nil, nil, nil

local TERM_GRACE = 2	-- seconds between TERM and KILL
local KILL, TERM = 9, 15

local owner = setmetatable({}, { __mode = "k" })	-- the VM of each worker
local result = setmetatable({}, { __mode = "k" })	-- its status once it was joined

function VM.spawn_worker(vm, options)
	options = remote.check_options("vm:spawn_worker", options, { "thread" })
	if remote.check_boolean_option("vm:spawn_worker", options, "thread") then
		raise("vm:spawn_worker: `thread` is not supported: a worker is a process of its own, with its own pid, "
			.. "credentials and namespaces")
	end
	local reply = ask(vm, "worker_spawn", {}, "", "spawn_worker")
	local worker = core.worker_new(vm, reply.channel, reply.pid)
	owner[worker] = vm
	return worker
end

local function check(worker, method)
	if not owner[worker] then
		raise(("expected a Worker (worker:%s()), got a %s"):format(method, type(worker)))
	end
end

local function send(worker, signal)
	ask(owner[worker], "worker_signal", { channel = worker:handle(), signal = signal },
		"worker " .. worker:handle(), "kill")
end

-- Signals the worker itself; without a signal it is killed.
function Worker.kill(worker, signal)
	check(worker, "kill")
	if is_over(worker) then
		return
	end
	require_live(worker, "kill")
	send(worker, core.signal_number(signal, "worker:kill", KILL))
end

local function join_now(worker)
	local status = ask(owner[worker], "worker_join", { channel = worker:handle() }, "worker " .. worker:handle(),
		"join").status
	result[worker] = status
	ended(worker)
	return status
end

-- Its exit status (128 + signal when one killed it); nil when it has not ended within the timeout.
function Worker.join(worker, timeout)
	check(worker, "join")
	if result[worker] then
		return result[worker]
	elseif is_over(worker) then
		raise("worker is closed")
	end
	require_live(worker, "join")
	if timeout == nil then
		return join_now(worker)
	end
	local task = core.spawn("join of a worker", join_now, worker)
	local status, value = core.task_wait(task, core.parse_duration(timeout, "worker:join: timeout"))
	if status == "done" then
		return value
	elseif status == "timeout" then
		task:cancel("the join timed out")
		return nil
	end
	error(value, 0)
end

function Worker.close(worker)
	check(worker, "close")
	if is_over(worker) then
		return
	elseif is_gone(worker) then
		ended(worker)
		return
	end
	send(worker, TERM)
	if Worker.join(worker, TERM_GRACE) == nil then
		send(worker, KILL)
		join_now(worker)
	end
end
