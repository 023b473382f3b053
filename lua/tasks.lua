-- Globals for waiting and for doing things at once: wait_until, sleep, co.

local core = ...

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local select, tostring, type = select, tostring, type
local min = math.min
local unpack = table.unpack or unpack

local tasks = {}

local function pack(...)
	return { n = select("#", ...), ... }
end

function tasks.sleep(duration)
	if duration == nil then
		core.raise("expected sleep(duration), got nothing")
	end
	core.sleep(core.parse_duration(duration, "sleep"))
end

local function wait_options(opts)
	local known = { timeout = 10, interval = 0.1, desc = "condition" }
	for k, v in pairs(opts or {}) do
		if known[k] == nil then
			core.raise(("wait_until: unknown option `%s` (known: timeout, interval, desc)"):format(tostring(k)))
		end
		if k ~= "desc" then
			known[k] = core.parse_duration(v, "wait_until: " .. k)
		elseif type(v) == "string" then
			known.desc = v
		else
			core.raise("wait_until: desc: expected a string, got " .. type(v))
		end
	end
	return known
end

-- Polls pred until it is true. Time spent waiting for the pool does not count.
function tasks.wait_until(pred, opts)
	if type(pred) ~= "function" or (opts ~= nil and type(opts) ~= "table") then
		core.raise(("expected wait_until(function[, table]), got %s%s"):format(type(pred),
			opts ~= nil and ", " .. type(opts) or ""))
	end
	local o = wait_options(opts)
	local began = core.now() - core.pool_waited()
	while true do
		local v = pred()
		if v then
			return v
		end
		local left = o.timeout - (core.now() - core.pool_waited() - began)
		if left <= 0 then
			core.raise(("wait_until: %s not met within %gs"):format(o.desc, o.timeout))
		end
		core.sleep(min(o.interval, left))
	end
end

local function task_name()
	local where = core.where()
	return where ~= "" and "task at " .. where:sub(1, -3) or "task"
end

-- An error in a task must not be lost because nobody joins it: each test, and the file, knows the tasks it made.
local joined_tasks = setmetatable({}, { __mode = "k" })
local file_spawned = {}

local function spawn(fn, ...)
	if type(fn) ~= "function" then
		core.raise("expected co.spawn(function, ...), got " .. type(fn))
	end
	local task = core.spawn(task_name(), fn, ...)
	local ctx = core.locals().test
	local spawned = ctx and ctx.spawned or file_spawned
	spawned[#spawned + 1] = task
	return task
end

-- The first of these tasks that failed without having been joined: its error and traceback.
function tasks.lost_error(spawned)
	for _, task in ipairs(spawned or file_spawned) do
		if not joined_tasks[task] and task:status() == "failed" then
			return select(2, core.task_wait(task))
		end
	end
end

local function wrap(fn)
	if type(fn) ~= "function" then
		core.raise("expected co.wrap(function), got " .. type(fn))
	end
	return function(...)
		return spawn(fn, ...)
	end
end

local function check_functions(what, fns)
	if type(fns) ~= "table" then
		core.raise(("expected %s{function, ...}, got %s"):format(what, type(fns)))
	end
	for i = 1, #fns do
		if type(fns[i]) ~= "function" then
			core.raise(("%s: element %d: expected a function, got %s"):format(what, i, type(fns[i])))
		end
	end
	for k in pairs(fns) do
		if type(k) ~= "number" or k < 1 or k > #fns then
			core.raise(("%s: unexpected key `%s`: expected a list of functions"):format(what, tostring(k)))
		end
	end
end

local function cancel_all(children, reason, but)
	for i, child in ipairs(children) do
		if i ~= but then
			child:cancel(reason)
		end
	end
end

-- Starts every fn; settled(i, ok, ...) is called by each child as it ends, before it is over. Returns when
-- all are. When the caller is cancelled, so are they.
local function run_together(what, fns, settled)
	local children = {}
	local name = what .. " " .. task_name()
	for i = 1, #fns do
		children[i] = core.spawn(name, function()
			settled(children, i, pcall(fns[i]))
		end)
	end
	local ok, err = pcall(function()
		for _, child in ipairs(children) do
			core.task_wait(child)
		end
	end)
	if not ok then
		cancel_all(children, err)
		error(err, 0)
	end
end

local function all(fns)
	check_functions("co.all", fns)
	local results, failed = { n = #fns }, nil
	run_together("co.all", fns, function(children, i, ok, value)
		if ok then
			results[i] = value
		elseif not failed then
			failed = { value }
			cancel_all(children, "another function of co.all failed", i)
		end
	end)
	if failed then
		error(failed[1], 0)
	end
	return results
end

local function race(fns)
	check_functions("co.race", fns)
	if #fns == 0 then
		core.raise("co.race: expected at least one function")
	end
	local first
	run_together("co.race", fns, function(children, i, ...)
		if not first then
			first = pack(...)
			cancel_all(children, "another function of co.race was first", i)
		end
	end)
	if not first[1] then
		error(first[2], 0)
	end
	return unpack(first, 2, first.n)
end

-- Task:join([timeout]): the task's results; its error is raised as it is.
local function joined(task, timeout, status, ...)
	if status == "done" then
		return ...
	elseif status == "timeout" then
		local waiting = core.task_waiting_for(task)
		core.raise(("Task:join: %s still runs after %gs%s"):format(tostring(task), timeout,
			waiting ~= "" and ", waiting for " .. waiting or ""))
	end
	error((...), 0)
end

local function join(task, timeout)
	if type(task) ~= "userdata" then
		core.raise("expected Task:join([timeout]): call it with a colon")
	end
	joined_tasks[task] = true
	if timeout == nil then
		return joined(task, nil, core.task_wait(task))
	end
	timeout = core.parse_duration(timeout, "Task:join: timeout")
	return joined(task, timeout, core.task_wait(task, timeout))
end

function tasks.install(env)
	core.Task.join = join
	env.sleep = tasks.sleep
	env.wait_until = tasks.wait_until
	env.co = { spawn = spawn, wrap = wrap, all = all, race = race }
end

return tasks
