-- The test framework: test() and todo(), and the run of one file's chunk and tests.
--
-- One instance for each test file. An attempt at a test is a task of its own with a scope of its own;
-- its context (`ctx`) is what `t` (lua/asserts.lua) writes to and what its outcome is read from:
-- name, meta, source, failures, skip, log, defers, artifacts, scope, thread, over.

local core = ...
local show = core.embedded("show", core)
local asserts = core.embedded("asserts", core)
local tasks = core.embedded("tasks", core)
local registry = core.embedded("registry", core)

local error, ipairs, pcall, select, tostring, type = error, ipairs, pcall, select, tostring, type
local concat, remove = table.concat, table.remove
local running = coroutine.running
local getinfo = debug.getinfo

local DEFER_LIMIT = 60		-- seconds for each deferred function
local CANCEL_GRACE = 2		-- seconds; the scheduler drops a cancelled task after one

local framework = {}
local source			-- the test file's chunk name, as debug.getinfo gives it
local unfinished = {}		-- attempts whose runner was cancelled: {ctx, task}
local runners = {}		-- tasks that run the latest parallel tests

-- "FILE:LINE", "message" of an error value that carries its position.
local function split_position(err)
	local text = type(err) == "string" and err or show.value(err)
	local file, line, message = text:match("^([^\n:]+%.lua):(%d+): (.*)$")
	if not file then
		return nil, text
	end
	local tail = file:match("^%.%.%.(.+)$")
	if tail and source:sub(-#tail) == tail then
		file = source:sub(2)	-- Lua shortens long chunk names
	end
	return file .. ":" .. line, message
end

-- Where a suspended coroutine stands in test code.
local function position_of(thread)
	local level = 0
	while thread do
		local info = getinfo(thread, level, "Sl")
		if not info then
			return nil
		end
		if info.currentline > 0 and info.source:sub(1, 1) == "@" then
			return info.source:sub(2) .. ":" .. info.currentline
		end
		level = level + 1
	end
end

-- core.task_wait with a limit in seconds (nil: none) that does not count waiting for the pool.
local function await(task, limit)
	if not limit then
		return core.task_wait(task)
	end
	local began = core.now() - core.pool_waited()
	local left = limit
	repeat
		local status, a, b = core.task_wait(task, left)
		if status ~= "timeout" then
			return status, a, b
		end
		left = limit - (core.now() - core.pool_waited() - began)
	until left <= 0
	return "timeout"
end

-- Ends a task that took too long. Returns the reason.
local function expire(task, what, limit)
	local waiting = core.task_waiting_for(task)
	local reason = ("%s (%gs) while %s"):format(what, limit,
		waiting ~= "" and "waiting for " .. waiting or "computing")
	task:cancel(reason)
	core.task_wait(task, CANCEL_GRACE)
	return reason
end

local function enter(ctx, fn, ...)
	core.scope_current(ctx.scope)
	core.locals().test = ctx
	ctx.thread = running()
	fn(...)
end

local function new_context(test)
	return {
		name = test.name, meta = test.meta, source = source,
		failures = {}, log = {}, defers = {}, artifacts = {}, spawned = {},
		scope = core.scope_open("test:" .. test.name),
	}
end

local function run_defers(ctx)
	local first
	while #ctx.defers > 0 do
		local fn = remove(ctx.defers)
		local task = core.spawn("defer of " .. ctx.name, enter, ctx, fn)
		local status, err, traceback = await(task, DEFER_LIMIT)
		local failure
		if status == "timeout" then
			failure = { reason = expire(task, "deferred function took too long", DEFER_LIMIT) }
		elseif status ~= "done" and not asserts.is_skip(err) then
			local where, reason = split_position(err)
			failure = { reason = "deferred function: " .. reason, where = where,
				traceback = core.traceback(traceback) }
		end
		if failure and first then
			ctx.log[#ctx.log + 1] = failure.reason
		end
		first = first or failure
	end
	return first
end

local LOST = "a task failed and nobody joined it: "

-- What the body came to, before the deferred functions: a failure, or nil.
local function judge(ctx, status, err, traceback)
	local lost = ""
	if ctx.failures[1] and (status == "done" or status == "failed") then
		return ctx.failures[1]
	end
	if ctx.skip then
		return nil
	end
	if status == "done" then
		err, traceback = tasks.lost_error(ctx.spawned)
		if err == nil or asserts.is_skip(err) then
			return nil
		end
		lost = LOST
	end
	local where, reason = split_position(err)
	reason = lost .. reason
	return { reason = reason, where = where, traceback = traceback and core.traceback(traceback) }
end

-- The file is being stopped: what is left to do for this attempt is framework.cleanup's.
local function abandon(ctx, task, reason)
	task:cancel(reason)
	unfinished[#unfinished + 1] = { ctx = ctx, task = task }
	error(reason, 0)
end

-- The context of the attempt at test that was abandoned, if there was one.
local function abandoned(test)
	for _, attempt in ipairs(unfinished) do
		if attempt.ctx.name == test.name then
			return attempt.ctx
		end
	end
end

local function run_body(ctx, test, t)
	local limit = test.timeout or core.default_timeout()
	if limit and limit <= 0 then
		limit = nil	-- 0 disables, as --timeout does
	end
	local task = core.spawn("test " .. test.name, enter, ctx, test.fn, t)
	local ok, status, err, traceback = pcall(await, task, limit)
	if not ok then
		abandon(ctx, task, status)
	end
	if status ~= "timeout" then
		return judge(ctx, status, err, traceback)
	end
	local where, stack = position_of(ctx.thread), core.traceback(ctx.thread)
	return { reason = expire(task, "test timeout exceeded", limit), where = where, traceback = stack }
end

local fresh = true		-- no test has run yet

-- With reset_between_tests: puts the file's lab back. The failure, or nil.
local function reset()
	if fresh or not core.resets.wanted() then
		fresh = false
		return nil
	end
	local status, err, traceback = core.task_wait(core.spawn("reset before a test", core.resets.again))
	if status == "cancelled" then
		error(err, 0)
	elseif status == "failed" then
		local where, reason = split_position(err)
		return { reason = "reset_between_tests: " .. reason, where = where, traceback = core.traceback(traceback) }
	end
end

-- One attempt, from an empty scope to a closed one. Returns the failure, or nil, and the context.
local function attempt(test)
	local unfit = reset()
	local ctx = new_context(test)
	local began = core.now_ns()
	local failure = unfit or run_body(ctx, test, asserts.new(ctx))
	local excerpt = failure and core.scope_console(ctx.scope)
	local deferred = run_defers(ctx)
	if deferred and failure then
		ctx.log[#ctx.log + 1] = deferred.reason
	elseif deferred or (ctx.failures[1] and not failure) then
		failure = deferred or ctx.failures[1]
		excerpt = core.scope_console(ctx.scope)
	end
	ctx.duration_ns = core.now_ns() - began
	ctx.over = true
	core.scope_close(ctx.scope)
	return failure, ctx, excerpt
end

local function report_failed(test, ctx, failure, excerpt)
	core.report("test_failed", {
		name = test.name, meta = test.meta, duration_ns = ctx.duration_ns, log = ctx.log,
		reason = failure.reason, where = failure.where, traceback = failure.traceback,
		console_excerpt = excerpt or "", artifacts = ctx.artifacts,
	})
end

local function report_skipped(test, reason, log)
	core.report("test_skipped", { name = test.name, meta = test.meta, reason = reason, log = log })
end

local function report(test, failure, ctx, excerpt, attempts)
	if failure then
		report_failed(test, ctx, failure, excerpt)
	elseif ctx.skip then
		report_skipped(test, ctx.skip.reason, ctx.log)
	else
		core.report("test_passed", {
			name = test.name, meta = test.meta, duration_ns = ctx.duration_ns, log = ctx.log,
			flaky = attempts > 1 or nil,
		})
	end
end

-- Attempts until one passes or meta.retries is used up.
local function attempts_at(test)
	local earlier = {}
	for n = 1, 1 + (test.meta.retries or 0) do
		local failure, ctx, excerpt = attempt(test)
		if not failure or n > (test.meta.retries or 0) then
			for i, line in ipairs(ctx.log) do
				earlier[#earlier + 1] = line
			end
			ctx.log = earlier
			return report(test, failure, ctx, excerpt, n)
		end
		earlier[#earlier + 1] = ("attempt %d failed: %s%s"):format(n, failure.reason,
			failure.where and " (" .. failure.where .. ")" or "")
	end
end

local function run_test(test)
	core.report("test_started", { name = test.name, meta = test.meta })
	local reason = registry.todo_reason() or core.select(test.name, test.meta)
	if reason then
		return report_skipped(test, reason, {})
	end
	local began = core.now_ns()
	local ok, err = pcall(attempts_at, test)
	if not ok then
		-- Only the end of the whole file gets here; the test that it ended still gets its outcome.
		local ctx = abandoned(test)
		report_failed(test, { duration_ns = core.now_ns() - began, log = ctx and ctx.log or {},
			artifacts = ctx and ctx.artifacts or {} }, { reason = tostring(err) },
			ctx and core.scope_console(ctx.scope))
		error(err, 0)
	end
end

-- Parallel neighbours, from..to, at the same time.
local function run_together(tests, from, to)
	runners = {}
	for i = from, to do
		runners[#runners + 1] = core.spawn("runner of " .. tests[i].name, run_test, tests[i])
	end
	for _, runner in ipairs(runners) do
		core.task_wait(runner)
	end
end

local function run_tests(tests)
	local i = 1
	while i <= #tests do
		local last = i
		-- What is put back between tests cannot be shared by two at a time.
		while not core.resets.wanted() and tests[i].meta.parallel and tests[last + 1] and tests[last + 1].meta.parallel do
			last = last + 1
		end
		if last > i then
			run_together(tests, i, last)
		else
			run_test(tests[i])
		end
		i = last + 1
	end
end

-- Runs the file: its chunk, a loaded function, then its tests.
function framework.run(chunk, path)
	source = getinfo(chunk, "S").source
	local status, err, traceback = core.task_wait(core.spawn("chunk of " .. (path or source), chunk))
	registry.close()
	if status == "done" and core.resets.wanted() then
		status, err, traceback = core.task_wait(core.spawn("snapshot for reset_between_tests", core.resets.begin,
			path or source))
	end
	if status == "failed" then
		core.report("chunk_error", { message = type(err) == "string" and err or show.value(err),
			traceback = core.traceback(traceback) })
	elseif status == "cancelled" then
		error(err, 0)
	else
		run_tests(registry.tests())
		err, traceback = tasks.lost_error()
		if err ~= nil then
			core.report("chunk_error", { message = LOST .. show.value(err), traceback = core.traceback(traceback) })
		end
	end
end

local function kind_of(v)
	local mt = getmetatable(v)
	return type(mt) == "table" and type(mt.__name) == "string" and mt.__name:gsub("^provium%.", "") or type(v)
end

-- Runs a fixture's chunk, which must return a snapshot.
function framework.fixture(chunk, path)
	source = getinfo(chunk, "S").source
	registry.close("it has no tests, it returns a snapshot")
	local status, result, traceback = core.task_wait(core.spawn("chunk of " .. (path or source), chunk))
	if status == "cancelled" then
		error(result, 0)
	elseif status == "failed" then
		return core.report("chunk_error", { message = type(result) == "string" and result or show.value(result),
			traceback = core.traceback(traceback) })
	end
	local dir, is_lab = core.snapshot_place(result)
	local lost, where = tasks.lost_error()
	if not dir then
		core.report("chunk_error", { message = ("%s: fixture must return vm:snapshot() or provium:snapshot(); got %s")
			:format(source:sub(2), result == nil and "nil" or kind_of(result)) })
	elseif lost ~= nil then
		core.report("chunk_error", { message = LOST .. show.value(lost), traceback = core.traceback(where) })
	else
		core.report("fixture", { path = dir, lab = is_lab })
	end
end

-- After run was cancelled (the file's timeout, Ctrl-C): ends its tests as their own end would have.
function framework.cleanup(reason)
	for _, runner in ipairs(runners) do
		runner:cancel(reason)
	end
	for _, runner in ipairs(runners) do
		core.task_wait(runner, CANCEL_GRACE)
	end
	for _, attempt in ipairs(unfinished) do
		core.task_wait(attempt.task, CANCEL_GRACE)
		run_defers(attempt.ctx)
		attempt.ctx.over = true
		core.scope_close(attempt.ctx.scope)
	end
end

-- Each line with the name of the test that prints it.
local function print_named(...)
	local parts = {}
	for i = 1, select("#", ...) do
		parts[i] = tostring((select(i, ...)))
	end
	local ctx = core.locals().test
	local text = concat(parts, "\t")
	if ctx then
		local prefix = "[" .. ctx.name .. "] "
		text = prefix .. text:gsub("\n", "\n" .. prefix:gsub("%%", "%%%%"))
	end
	core.print(text)
end

-- Puts the framework's globals into env.
function framework.install(env)
	env.now, env.now_ns = core.now, core.now_ns
	tasks.install(env)
	registry.install(env)
	env.print = print_named
end

return framework
