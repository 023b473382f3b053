-- What the runtime puts around Lua: yielding ops that raise, and coroutines that let our yields through.
--
-- A yielding op returns (true, results...) or (false, message) when it is resumed; raising is done
-- here, in Lua, so that no C continuation is needed and LuaJIT works too.

local core = ...
local raise = core.raise

local function finish(ok, ...)
	if ok then
		return ...
	end
	raise((...))
end

local function shim(op)
	return function(...)
		return finish(op(...))
	end
end

-- What a task runs: its function under a protected call, so that what an error or a cancellation unwinds is
-- closed (`<close>`) while it may still wait, and its variables can be collected.
local xpcall, caught = xpcall, core.caught

local function pass(...)
	return ...
end

local function body(fn, ...)
	return pass(xpcall(fn, caught, ...))	-- no tail call: it would show in tracebacks
end

-- A yield that comes out of a user's coroutine is either the user's own (handed to whoever
-- resumed it) or the scheduler's (an op waits, or the slice is over): that one goes on outwards, and
-- what the scheduler resumes us with goes back in.

local resume, yield, create = coroutine.resume, coroutine.yield, coroutine.create
local status, isyieldable = coroutine.status, coroutine.isyieldable
local scheduled, resume_blocked, at_top = core.scheduled, core.resume_blocked, core.at_top
local waiting = setmetatable({}, { __mode = "k" })
local step

local function go_on(co, ...)
	waiting[co] = nil
	return step(co, resume(co, ...))
end

function step(co, ok, ...)
	if ok and scheduled() then
		waiting[co] = true
		return go_on(co, yield())
	end
	return ok, ...
end

function coroutine.resume(co, ...)
	if waiting[co] then
		return false, "cannot resume a coroutine that waits for a guest"
	end
	if isyieldable() then
		return step(co, resume(co, ...))
	end
	return resume_blocked(resume, co, ...)
end

function coroutine.yield(...)
	if at_top() then
		raise("attempt to yield from outside a coroutine")
	end
	return yield(...)
end

local function results_or_error(ok, ...)
	if ok then
		return ...
	end
	error((...), 0)
end

function coroutine.wrap(fn)
	local co = create(fn)
	return function(...)
		return results_or_error(coroutine.resume(co, ...))
	end
end

function coroutine.status(co)
	return waiting[co] and "normal" or status(co)
end

local close = coroutine.close
if close then
	function coroutine.close(co)
		if waiting[co] then
			raise("cannot close a coroutine that waits for a guest")
		end
		return close(co)
	end
end

function debug.sethook()
	raise("debug.sethook: hooks belong to the runtime, which preempts computing code with them")
end

return shim, body
