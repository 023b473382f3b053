-- batch(fn): several operations in one round trip, in order; a failure does not stop the rest.

local core, remote, syscalls = ...

local raise = core.raise
local check_string, check_options = remote.check_string, remote.check_options

-- Each returns the request's name, its parameters, and what makes the Lua value of its reply.
local builders = {}

local function nothing()
	return true
end

function builders.run(command, options)
	local params = {}
	if type(command) == "table" then
		params.argv = command
	elseif type(options) == "table" and (#options > 0 or next(options) == nil) then
		params.argv = { command }
		for i, arg in ipairs(options) do
			params.argv[i + 1] = arg
		end
	else
		check_string("b:run(string) or b:run(program, {args})", 1, command)
		params.argv = { "/bin/sh", "-c", command }
	end
	local shown = table.concat(params.argv, " ")
	return "exec", params, function(reply)
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
	return "stat", { path = check_string("b:stat(path [, {follow=}])", 1, path), follow = o.follow ~= false },
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
