-- A `core` for the framework's tests: tasks as plain coroutines, a clock that jumps to the next deadline.

local fake = {}
local unpack = table.unpack or unpack

local function load_embedded(name, ...)
	local path = srcdir .. "/lua/" .. name .. ".lua"
	local file = assert(io.open(path, "rb"))
	local text = file:read("*a")
	file:close()
	return assert((loadstring or load)(text, "=provium:" .. name))(...)
end

local function where()
	for level = 2, 200 do
		local info = debug.getinfo(level, "Sl")
		if not info then
			return ""
		end
		if info.currentline > 0 and info.source:sub(1, 1) == "@" then
			return ("%s:%d: "):format(info.source:sub(2), info.currentline)
		end
	end
end

local function parse_duration(v, what)
	local units = { [""] = 1, ms = 0.001, s = 1, m = 60, h = 3600 }
	if type(v) == "string" then
		local n, unit = v:match("^(%d+%.?%d*)(%a*)$")
		v = units[unit] and tonumber(n) * units[unit]
	end
	if type(v) ~= "number" then
		error(where() .. what .. ": bad duration", 0)
	end
	return v
end

-- The scheduler: returns core and a function that runs everything until nothing is left to do.
function fake.new(options)
	options = options or {}
	local core = { reports = {}, printed = {}, scopes = {}, Task = {} }
	local clock, all, current = 1000, {}, nil
	local Task = core.Task

	local function over(task, status, ...)
		task.state, task.results = status, { n = select("#", ...), ... }
	end

	local function step(task)
		local wait = task.wait
		task.wait = nil
		current = task
		local r = { n = 0 }
		local function keep(...)
			r = { n = select("#", ...), ... }
		end
		if wait == nil and not task.started then
			task.started = true
			keep(coroutine.resume(task.co, unpack(task.args, 1, task.args.n)))
		elseif task.reason then
			keep(coroutine.resume(task.co, false, task.reason))
		else
			keep(coroutine.resume(task.co, true, wait))
		end
		current = nil
		if coroutine.status(task.co) ~= "dead" then
			task.wait = r[2]
			task.wait.armed = clock
		elseif r[1] then
			over(task, "done", unpack(r, 2, r.n))
		elseif task.reason then
			over(task, "cancelled", task.reason)
		else
			over(task, "failed", r[2], core.traceback(task.co))
		end
	end

	local function ready(task)
		local w = task.wait
		return not task.state and (not w or task.reason or (w.task and w.task.state) or (w.at and w.at <= clock))
	end

	local function next_deadline()
		local at
		for _, task in ipairs(all) do
			local w = not task.state and task.wait
			if w and w.at and (not at or w.at < at) then
				at = w.at
			end
		end
		return at
	end

	function fake.turn()
		for _, task in ipairs(all) do
			if ready(task) then
				step(task)
				return true
			end
		end
		local at = next_deadline()
		if at and fake.stop_when_idle then
			fake.stop_when_idle()
			fake.stop_when_idle = nil
		elseif at then
			clock = math.max(clock, at)
		end
		return at ~= nil
	end

	local function block(wait)
		if current.reason then
			core.raise(current.reason)
		end
		local ok, what = coroutine.yield(wait)
		if not ok then
			core.raise(what)
		end
		return what
	end

	function core.spawn(name, fn, ...)
		local task = { name = name, co = coroutine.create(fn), args = { n = select("#", ...), ... }, locals = {} }
		for k, v in pairs(current and current.locals or {}) do
			task.locals[k] = v
		end
		all[#all + 1] = task
		return setmetatable({ task = task }, { __index = Task })
	end

	function core.task_wait(self, seconds)
		local task = self.task
		if not task.state then
			block({ what = 'task "' .. task.name .. '"', task = task, at = seconds and clock + seconds })
		end
		if not task.state then
			return "timeout"
		end
		return task.state, unpack(task.results, 1, task.results.n)
	end

	function Task.cancel(self, reason)
		local task = self.task
		if not task.state then
			task.reason = task.reason or reason
		end
	end

	function Task.status(self)
		return self.task.state or "running"
	end

	function core.task_waiting_for(self)
		return self.task.wait and self.task.wait.what or ""
	end

	function core.sleep(seconds)
		block({ what = "sleep", at = clock + seconds })
	end

	-- Waits as a boot that waits for the pool does.
	function core.pool(seconds)
		local since, before = clock, core.pool_waited()
		core.pool_waited = function() return before + clock - since end
		block({ what = "pool", at = clock + seconds })
		core.pool_waited = function() return before + seconds end
	end

	function core.locals()
		return current.locals
	end

	function core.scope_open(name)
		local scope = { name = name, open = true }
		core.scopes[#core.scopes + 1] = scope
		return scope
	end

	function core.scope_current(scope)
		current.locals.scope = scope or current.locals.scope
		return current.locals.scope
	end

	function core.scope_close(scope)
		for _, task in ipairs(all) do
			if task.locals.scope == scope and not task.state and task ~= current then
				task.reason = task.reason or "the scope that made this task is over"
			end
		end
		core.sleep(0.001)
		scope.open = false
	end

	function core.traceback(thread)
		if type(thread) == "string" then
			return thread
		end
		return debug.traceback(thread or coroutine.running(), "")
	end

	core.embedded = load_embedded
	core.where = where
	core.parse_duration = parse_duration
	core.now = function() return clock end
	core.now_ns = function() return clock * 1000000000 end
	core.pool_waited = function() return 0 end
	core.scope_console = function(scope) return "console of " .. scope.name end
	core.select = function(name) return options.select and options.select(name) end
	core.resets = { wanted = function() return false end }
	core.default_timeout = function() return options.timeout end
	core.report = function(kind, fields) core.reports[#core.reports + 1] = { kind = kind, fields = fields } end
	core.print = function(text) core.printed[#core.printed + 1] = text end
	core.raise = function(message) error(where() .. message, 0) end
	core.all = all
	return core
end

-- Runs a test file given as text. Returns core (reports, printed, scopes) and the file's environment.
function fake.run(text, options)
	local core = fake.new(options)
	local env = setmetatable({ core = core }, { __index = _G })
	local chunk = assert((loadstring or load)(text, "@tests/x.test.lua"))
	if setfenv then
		setfenv(chunk, env)
	else
		debug.upvaluejoin(chunk, 1, function() return env end, 1)
	end
	local framework = load_embedded("framework", core)
	framework.install(env)
	local main = core.spawn("main", framework.run, chunk, "tests/x.test.lua")
	if options and options.stop then
		fake.stop_when_idle = function()
			main:cancel(options.stop)
			core.spawn("clean-up", function()
				core.task_wait(main)
				framework.cleanup(options.stop)
			end)
		end
	end
	repeat until not fake.turn()
	assert(main:status() ~= "running", "the file did not end")
	core.main = main.task
	return core, env
end

-- The reports of one kind, or of one test's outcome.
function fake.reports(core, kind)
	local found = {}
	for _, r in ipairs(core.reports) do
		if r.kind == kind then
			found[#found + 1] = r.fields
		end
	end
	return found
end

function fake.outcome(core, name)
	local found
	for _, r in ipairs(core.reports) do
		if r.fields.name == name and r.kind ~= "test_started" then
			assert(not found, "two outcomes for " .. name)
			found = { kind = r.kind:gsub("^test_", "") }
			setmetatable(found, { __index = r.fields })
		end
	end
	return assert(found, "no outcome for " .. name)
end

return fake
