-- The object `t` that a test gets: assertions, skip, log, defer, artifact.
--
-- What a test does through `t` is kept in its context (lua/framework.lua makes one for each attempt):
-- failures, skip, log, defers, artifacts. That is how an assertion that a pcall swallowed still counts.

local core = ...
local show = core.embedded("show", core)

local error, pcall, setmetatable, tostring, type = error, pcall, setmetatable, tostring, type
local abs = math.abs
local getinfo = debug.getinfo
local remove = table.remove

local FAILURES_MAX = 64		-- remembered for each attempt; the first is what counts
local HAY_MAX = 2000		-- bytes shown of what assert_contains searched

local asserts = {}
local methods = {}
local context_of = setmetatable({}, { __mode = "k" })
local Skip = { __tostring = function(s) return "test skipped: " .. s.reason end }

-- The nearest line of the test file itself; of a helper when the test file is not on this stack.
local function position(ctx)
	local level = 3
	while true do
		local info = getinfo(level, "Sl")
		if not info then
			return core.where()
		end
		if info.source == ctx.source and info.currentline > 0 then
			return ("%s:%d: "):format(info.source:sub(2), info.currentline)
		end
		level = level + 1
	end
end

-- Remembers the failure, then raises it.
local function fail(ctx, reason)
	local where = position(ctx)
	local raised = where .. reason
	if #ctx.failures < FAILURES_MAX then
		ctx.failures[#ctx.failures + 1] = {
			reason = reason,
			where = where ~= "" and where:sub(1, -3) or nil,
			traceback = core.traceback(),
			raised = raised,
		}
	end
	error(raised, 0)
end

local function label(msg, default)
	if msg == nil then
		return default
	end
	return type(msg) == "string" and msg or show.value(msg)
end

local function misuse(signature, got)
	core.raise(("expected t:%s%s"):format(signature, got and ", got " .. got or ""))
end

local function method(signature, fn)
	local name = signature:match("^[%w_]+")
	methods[name] = function(self, ...)
		local ctx = self ~= nil and context_of[self]
		if not ctx then
			misuse(signature, ("%s as the object: call it with a colon on the test's own `t`")
				:format(self == nil and "nothing" or "a " .. type(self)))
		end
		if ctx.over then
			core.raise(('t:%s: test "%s" is over'):format(name, ctx.name))
		end
		return fn(ctx, ...)
	end
end

method("assert(v[, msg])", function(ctx, v, msg)
	if not v then
		fail(ctx, label(msg, "assertion failed"))
	end
	return v, msg
end)

method("assert_eq(a, b[, msg])", function(ctx, a, b, msg)
	if not (a == b) then
		fail(ctx, label(msg, "assert_eq") .. ": " .. show.unequal(a, b))
	end
end)

method("assert_neq(a, b[, msg])", function(ctx, a, b, msg)
	if a == b then
		fail(ctx, label(msg, "assert_neq") .. ": " .. show.value(a) .. " == " .. show.value(b))
	end
end)

method("assert_same(a, b[, msg])", function(ctx, a, b, msg)
	local path, va, vb = show.first_difference(a, b)
	if path then
		fail(ctx, ("%s: %s%s"):format(label(msg, "assert_same"), path ~= "" and "at " .. path .. ": " or "",
			show.unequal(va, vb)))
	end
end)

local function hay_text(hay)
	if #hay <= HAY_MAX and not hay:find("[%z\1-\8\11-\31\127]") and utf8.len(hay) then
		return hay
	end
	return show.quote(hay, HAY_MAX)
end

method("assert_contains(string, string[, msg])", function(ctx, hay, needle, msg)
	if type(hay) ~= "string" or type(needle) ~= "string" then
		misuse("assert_contains(string, string[, msg])", type(hay) .. ", " .. type(needle))
	end
	if not hay:find(needle, 1, true) then
		fail(ctx, ("%s: %s not found in: %s"):format(label(msg, "assert_contains"), show.quote(needle),
			hay_text(hay)))
	end
end)

local function matched(ctx, s, pattern, msg, first, ...)
	if first == nil then
		fail(ctx, ("%s: %s does not match pattern %s"):format(label(msg, "assert_match"), show.value(s),
			show.quote(pattern)))
	end
	return first, ...
end

method("assert_match(string, pattern[, msg])", function(ctx, s, pattern, msg)
	if type(s) ~= "string" or type(pattern) ~= "string" then
		misuse("assert_match(string, pattern[, msg])", type(s) .. ", " .. type(pattern))
	end
	return matched(ctx, s, pattern, msg, s:match(pattern))
end)

method("assert_near(number, number, eps[, msg])", function(ctx, a, b, eps, msg)
	if type(a) ~= "number" or type(b) ~= "number" or type(eps) ~= "number" then
		misuse("assert_near(number, number, eps[, msg])", type(a) .. ", " .. type(b) .. ", " .. type(eps))
	end
	if not (a == b or abs(a - b) <= eps) then
		fail(ctx, ("%s: %s and %s differ by %s, more than %s"):format(label(msg, "assert_near"), tostring(a),
			tostring(b), tostring(abs(a - b)), tostring(eps)))
	end
end)

-- Failures whose text is in the error that was caught are forgiven; one that a pcall in fn swallowed is not.
local function forgive(ctx, before, err)
	if type(err) ~= "string" then
		return
	end
	for i = #ctx.failures, before + 1, -1 do
		if err:find(ctx.failures[i].raised, 1, true) then
			remove(ctx.failures, i)
		end
	end
end

method("assert_raises(fn[, msg])", function(ctx, fn, msg)
	if type(fn) ~= "function" then
		misuse("assert_raises(fn[, msg])", type(fn))
	end
	local before = #ctx.failures
	local ok, err = pcall(fn)
	if ok then
		fail(ctx, label(msg, "assert_raises") .. ": expected to raise")
	end
	if asserts.is_skip(err) then
		error(err, 0)
	end
	forgive(ctx, before, err)
	return err
end)

method("fail([msg])", function(ctx, msg)
	fail(ctx, label(msg, "explicit failure (t:fail)"))
end)

method("skip([reason])", function(ctx, reason)
	local skip = setmetatable({ reason = label(reason, "skipped") }, Skip)
	if #ctx.failures == 0 and not ctx.skip then
		ctx.skip = skip
	end
	error(skip, 0)
end)

method("log(v)", function(ctx, v)
	ctx.log[#ctx.log + 1] = type(v) == "string" and v or show.value(v)
end)

method("defer(fn)", function(ctx, fn)
	if type(fn) ~= "function" then
		misuse("defer(fn)", type(fn))
	end
	ctx.defers[#ctx.defers + 1] = fn
end)

method("artifact(name, data)", function(ctx, name, data)
	if type(name) ~= "string" or type(data) ~= "string" then
		misuse("artifact(name, data)", type(name) .. ", " .. type(data))
	end
	if not name:find("^[%w_.-]+$") or name:find("^%.%.?$") or #name > 200 then
		core.raise(("t:artifact: bad name %s: a file name of letters, digits, '_', '.', '-'")
			:format(show.quote(name)))
	end
	ctx.artifacts[#ctx.artifacts + 1] = { name = name, data = data }
end)

function asserts.is_skip(err)
	return type(err) == "table" and getmetatable(err) == Skip
end

-- The `t` of one attempt at a test.
function asserts.new(ctx)
	local t = setmetatable({ name = ctx.name, meta = ctx.meta }, { __index = methods })
	context_of[t] = ctx
	return t
end

return asserts
