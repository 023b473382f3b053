-- batch(fn): several operations in one round trip, in order; a failure does not stop the rest.

local core, remote, syscalls = ...

local raise = core.raise
local check_string, check_options = remote.check_string, remote.check_options

-- Each returns the request's name, its parameters, and what makes the Lua value of its reply.
local builders = {}

local function nothing()
	return true
end

local RUN = "b:run(string [, options]), b:run(program, {args} [, options]) or b:run({program, args} [, options])"
local RUN_OPTIONS = { "args", "cwd", "env", "env_clear", "stdin", "user" }

local function is_list(x)
	return type(x) == "table" and (#x > 0 or next(x) == nil)
end

-- The items of a list of strings that has nothing else.
local function add_words(argv, list)
	for key, word in pairs(list) do
		if not remote.is_integer(key) or key < 1 or key > #list then
			raise(("b:run: unexpected key `%s` in the list (options go into a table of their own)"):format(tostring(key)))
		end
		check_string(RUN, 1, word)
	end
	for _, word in ipairs(list) do
		argv[#argv + 1] = word
	end
	return argv
end

function builders.run(command, x, y, z)
	local list, options, more = nil, x, y
	if type(command) ~= "table" and is_list(x) then
		list, options, more = x, y, z
	end
	if more ~= nil then
		raise(("expected %s, got more arguments"):format(RUN))
	end
	local o = check_options("b:run", options, RUN_OPTIONS)
	if o.args ~= nil and (list or type(command) == "table" or not is_list(o.args)) then
		raise("b:run: option `args` must be the only list of arguments")
	end
	list = list or o.args
	local argv
	if type(command) == "table" then
		argv = add_words({}, command)
		if #argv == 0 then
			raise("b:run: the list has no program")
		end
	elseif list then
		argv = add_words({ check_string(RUN, 1, command) }, list)
	else
		argv = { "/bin/sh", "-c", check_string(RUN, 1, command) }
	end
	local shown = type(command) == "string" and not list and command or table.concat(argv, " ")
	return "exec", { argv = argv, cwd = o.cwd, env = o.env, env_clear = o.env_clear, stdin = o.stdin, user = o.user },
		function(reply)
			return core.make_result(reply, shown)
		end
end

function builders.read_file(path)
	return "get_file", { path = check_string("b:read_file(path)", 1, path) }, function(reply)
		return reply.data
	end
end

function builders.write_file(path, data, options)
	local signature = "b:write_file(path, data [, {mode=, atomic=, append=}])"
	local o = check_options("b:write_file", options, { "mode", "atomic", "append" })
	return "put_file", { path = check_string(signature, 1, path), data = check_string(signature, 2, data), mode = o.mode,
		atomic = o.atomic, append = o.append }, nothing
end

function builders.stat(path, options)
	local o = check_options("b:stat", options, { "follow" })
	return "stat", { path = check_string("b:stat(path [, {follow=}])", 1, path),
			follow = remote.check_boolean_option("b:stat", o, "follow") ~= false },
		function(reply)
			return reply
		end
end

function builders.listdir(path)
	return "listdir", { path = check_string("b:listdir(path)", 1, path) }, function(reply)
		local entries = {}
		for i, entry in ipairs(reply.entries) do
			entries[i] = { name = entry[1], entry_type = entry[2] }
		end
		table.sort(entries, function(a, b) return a.name < b.name end)
		return entries
	end
end

function builders.mkdir(path, options)
	local o = check_options("b:mkdir", options, { "parents", "perm" })
	return "mkdir", { path = check_string("b:mkdir(path [, {parents=, perm=}])", 1, path), parents = o.parents,
		perm = o.perm }, nothing
end

function builders.unlink(path, options)
	local o = check_options("b:unlink", options, { "recursive" })
	return "unlink", { path = check_string("b:unlink(path [, {recursive=}])", 1, path), recursive = o.recursive }, nothing
end

function builders.rename(from, to)
	local signature = "b:rename(from, to)"
	return "rename", { from = check_string(signature, 1, from), to = check_string(signature, 2, to) }, nothing
end

function builders.syscall(nr, ...)
	local params, timeout = syscalls.parse("b:syscall", nr, ...)
	if timeout ~= nil then
		raise("b:syscall: a batch takes no `timeout`")
	end
	return "syscall", params, syscalls.result
end

-- How many arguments each takes. A command and a system call count their own.
local MOST = { read_file = 1, write_file = 3, stat = 2, listdir = 1, mkdir = 2, unlink = 2, rename = 2 }

-- As src/vmm/ words the errors of requests of their own.
local function error_text(body)
	if body.errno then
		return ("os: %s (errno %d)"):format(body.message, body.errno)
	end
	return "agent: " .. tostring(body.message)
end

local function batch(target, fn)
	if type(fn) ~= "function" then
		raise(("expected vm:batch(function), got a %s as argument 1"):format(type(fn)))
	end
	local ops, makers = {}, {}
	local b = {}
	for name, build in pairs(builders) do
		b[name] = function(self, ...)
			if self ~= b then
				raise(("expected b:%s(...) (a colon)"):format(name))
			elseif MOST[name] and select("#", ...) > MOST[name] then
				raise(("b:%s takes at most %d arguments, got %d"):format(name, MOST[name], select("#", ...)))
			end
			local op, params, make = build(...)
			ops[#ops + 1] = { op, params }
			makers[#ops] = make
		end
	end
	fn(b)
	if #ops == 0 then
		return {}
	end
	local replies = remote.ask(target, "batch", { ops = ops }, ("%d operations"):format(#ops)).results
	local results = {}
	for i, reply in ipairs(replies) do
		if reply[1] then
			results[i] = { ok = makers[i](reply[2]) }
		else
			results[i] = { err = error_text(reply[2]) }
		end
	end
	return results
end

remote.add({ batch = batch })
