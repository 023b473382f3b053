-- Registration of tests: test(), todo(), and the checks of names and meta.

local core = ...
local show = core.embedded("show", core)

local next, pairs, select, tostring, type = next, pairs, select, tostring, type
local floor, huge = math.floor, math.huge

local META_DEPTH = 16
local RETRIES_MAX = 100

local registry = {}
local tests, by_name = {}, {}
local todo_reason
local closed = false		-- or why

local function is_integer(v)
	return type(v) == "number" and v == floor(v) and v ~= huge and v ~= -huge
end

local function bad_meta(name, key, expected, v)
	core.raise(('test "%s": meta.%s: expected %s, got %s'):format(name, key, expected,
		type(v) == "number" and tostring(v) or "a " .. type(v)))
end

local function check_boolean(name, key, v)
	if type(v) ~= "boolean" then
		bad_meta(name, key, "true or false", v)
	end
end

local function check_skip(name, key, v)
	if type(v) ~= "boolean" and type(v) ~= "string" then
		bad_meta(name, key, "true, false or a reason", v)
	end
end

local function check_tags(name, key, v)
	if type(v) == "string" then
		return
	end
	if type(v) ~= "table" then
		bad_meta(name, key, "a string or an array of strings", v)
	end
	for k, tag in pairs(v) do
		if not is_integer(k) or k < 1 or k > #v then
			core.raise(('test "%s": meta.tags: expected an array of strings, got the key `%s`')
				:format(name, tostring(k)))
		end
		if type(tag) ~= "string" then
			bad_meta(name, ("tags[%d]"):format(k), "a string", tag)
		end
	end
end

local function check_timeout(name, key, v, test)
	test.timeout = core.parse_duration(v, ('test "%s": meta.timeout'):format(name))
end

local function check_retries(name, key, v)
	if not is_integer(v) or v < 0 or v > RETRIES_MAX then
		bad_meta(name, key, ("a whole number from 0 to %d"):format(RETRIES_MAX), v)
	end
end

local known_keys = {
	slow = check_boolean, skip = check_skip, tags = check_tags,
	timeout = check_timeout, parallel = check_boolean, retries = check_retries,
}

-- Any other key goes into the event stream: only what that can carry.
local function check_passed_on(name, path, v, depth)
	local kind = type(v)
	if kind == "table" then
		if depth >= META_DEPTH then
			core.raise(('test "%s": meta.%s: nested deeper than %d levels'):format(name, path, META_DEPTH))
		end
		for k, inner in next, v do
			if type(k) ~= "string" and not is_integer(k) then
				core.raise(('test "%s": meta.%s: a key is a %s; keys are strings or integers')
					:format(name, path, type(k)))
			end
			check_passed_on(name, path .. "." .. tostring(k), inner, depth + 1)
		end
	elseif kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
		core.raise(('test "%s": meta.%s: a %s cannot go into events; use strings, numbers, booleans and tables')
			:format(name, path, kind))
	end
end

local function check_meta(name, meta, test)
	for key, v in pairs(meta) do
		if type(key) ~= "string" then
			core.raise(('test "%s": meta keys are strings, got the key %s (tags go into tags = {...})')
				:format(name, show.value(key)))
		end
		if known_keys[key] then
			known_keys[key](name, key, v, test)
		else
			check_passed_on(name, key, v, 1)
		end
	end
end

local function check_open(what)
	if type(closed) == "string" then
		core.raise(("%s: called in a fixture: %s"):format(what, closed))
	elseif closed then
		local ctx = core.locals().test
		core.raise(("%s: called %s: tests are registered at file scope, while the chunk runs"):format(what,
			ctx and ('inside test "%s"'):format(ctx.name) or "after the file's chunk"))
	end
end

local function test(...)
	local name, meta, fn = ...
	check_open("test")
	if select("#", ...) == 2 then
		meta, fn = nil, meta
	end
	if type(name) ~= "string" or name == "" or type(fn) ~= "function" or select("#", ...) > 3
		or (meta ~= nil and type(meta) ~= "table") then
		core.raise("test(name, [meta,] fn): bad arguments")
	end
	if by_name[name] then
		core.raise(("test: duplicate name `%s` in this file"):format(name))
	end
	local new = { name = name, meta = meta or {}, fn = fn }
	check_meta(name, new.meta, new)
	by_name[name] = new
	tests[#tests + 1] = new
end

local function todo(reason)
	check_open("todo")
	if reason ~= nil and type(reason) ~= "string" then
		core.raise("expected todo([reason]), got a " .. type(reason))
	end
	todo_reason = reason or "todo"
end

-- The reason of todo(), or nil.
function registry.todo_reason()
	return todo_reason
end

function registry.close(why)
	closed = why or true
end

function registry.tests()
	return tests
end

function registry.install(env)
	env.test, env.todo = test, todo
end

return registry
