-- System calls, ioctls and memory of a guest executor.

local core, remote = ...

local raise, ask, is_integer = core.raise, remote.ask, remote.is_integer
local word, syscall_words, syscall_table = core.word, core.syscall_words, core.syscall_table

local SYSCALL_KEYS = { "args", "bufs", "ptrs", "nested", "align", "timeout" }
local IOCTL_KEYS = { "bufs", "ptr_offsets" }
local SLOTS = 6

local function check_list(what, key, v)
	if type(v) ~= "table" then
		raise(("%s: option `%s` must be an array, got a %s"):format(what, key, type(v)))
	end
	return v
end

-- The integer of 64 bits that v stands for: 2.0^63 and -2^63 are the same.
local function check_word(what, name, v)
	local w = word(v)
	if w == nil then
		raise(("%s: %s must be an integer, got %s"):format(what, name,
			type(v) == "number" and tostring(v) or "a " .. type(v)))
	end
	return w
end

-- Trailing arguments may be left out; holes are zero.
local function check_args(what, list, n)
	local words = {}
	if n > SLOTS then
		raise(("%s: a system call has at most %d arguments, got %d"):format(what, SLOTS, n))
	end
	for i = 1, n do
		words[i] = list[i] == nil and 0 or check_word(what, "argument " .. i, list[i])
	end
	return words
end

local function largest_index(t)
	local n = 0
	for k in pairs(t) do
		if is_integer(k) and k > n then
			n = k
		end
	end
	return n
end

-- A string, or {len=N} for a buffer that the call fills.
local function check_bufs(what, bufs)
	local out = {}
	for i, buf in ipairs(check_list(what, "bufs", bufs)) do
		if type(buf) == "string" then
			out[i] = buf
		elseif type(buf) == "table" and is_integer(buf.len) and buf.len >= 0 and next(buf, next(buf)) == nil then
			out[i] = buf.len
		else
			raise(("%s: buffer %d must be a string or {len=N}"):format(what, i))
		end
	end
	if largest_index(bufs) ~= #out then
		raise(("%s: `bufs` has a hole at %d"):format(what, #out + 1))
	end
	return out
end

-- ptrs[i] is the zero-based argument slot of bufs[i]; on the wire -1 says none.
local function check_ptrs(what, ptrs, nbufs)
	local out = {}
	check_list(what, "ptrs", ptrs)
	if largest_index(ptrs) > nbufs then
		raise(("%s: `ptrs` names buffer %d, but there are %d"):format(what, largest_index(ptrs), nbufs))
	end
	for i = 1, nbufs do
		local slot = ptrs[i]
		if slot == nil then
			slot = -1
		elseif not is_integer(slot) or slot < 0 or slot >= SLOTS then
			raise(("%s: ptrs[%d] must be an argument slot, 0 to %d, got %s"):format(what, i, SLOTS - 1, tostring(slot)))
		end
		out[i] = slot
	end
	return out
end

local function check_nested(what, nested, nbufs)
	local out = {}
	for i, n in ipairs(check_list(what, "nested", nested)) do
		if type(n) ~= "table" then
			raise(("%s: nested[%d] must be {parent=, child=, offset=}, got a %s"):format(what, i, type(n)))
		end
		remote.check_options(("%s: nested[%d]"):format(what, i), n, { "parent", "child", "offset" })
		for _, key in ipairs({ "parent", "child" }) do
			if not is_integer(n[key]) or n[key] < 1 or n[key] > nbufs then
				raise(("%s: nested[%d].%s must be a buffer, 1 to %d, got %s"):format(what, i, key, nbufs, tostring(n[key])))
			end
		end
		if n.offset ~= nil and (not is_integer(n.offset) or n.offset < 0) then
			raise(("%s: nested[%d].offset must be a byte offset, got %s"):format(what, i, tostring(n.offset)))
		end
		out[i] = { n.parent - 1, n.child - 1, n.offset or 0 }
	end
	return out
end

local function non_empty(t)
	return #t > 0 and t or nil
end

local function parse_syscall(what, nr, ...)
	nr = check_word(what, "the system call's number", nr)
	local first = ...
	if type(first) ~= "table" then
		local n = select("#", ...)
		return { nr = nr, args = non_empty(check_args(what, { ... }, n)) }
	elseif select("#", ...) > 1 then
		raise(("%s: expected %s(nr, integers...) or %s(nr, {args=, bufs=, ...})"):format(what, what, what))
	end
	local o = remote.check_options(what, first, SYSCALL_KEYS)
	local args = o.args == nil and {} or check_list(what, "args", o.args)
	local bufs = o.bufs and check_bufs(what, o.bufs) or {}
	if (o.ptrs or o.nested) and #bufs == 0 then
		raise(("%s: `%s` needs `bufs`"):format(what, o.ptrs and "ptrs" or "nested"))
	elseif o.align ~= nil and (not is_integer(o.align) or o.align < 1) then
		raise(("%s: option `align` must be a positive integer, got %s"):format(what, tostring(o.align)))
	end
	return {
		nr = nr, args = non_empty(check_args(what, args, largest_index(args))), bufs = non_empty(bufs),
		ptrs = o.ptrs and check_ptrs(what, o.ptrs, #bufs), nested = o.nested and non_empty(check_nested(what, o.nested, #bufs)),
		align = o.align,
	}, o.timeout
end

local function result(reply)
	return { ret = reply.ret, result = reply.ret, errno = reply.errno, out_bufs = reply.bufs or {} }
end

-- A limit needs a thread of its own in the guest: the executor's must not be lost to a call that blocks.
local function add_timeout(params, timeout, what)
	if timeout ~= nil then
		params.async = true
		params.timeout = math.floor(core.parse_duration(timeout, what .. ": timeout") * 1e9)
	end
	return params
end

local function syscall(target, nr, ...)
	if type((...)) ~= "table" then
		return syscall_words(target, nr, ...)
	end
	local params, timeout = parse_syscall("vm:syscall", nr, ...)
	return syscall_table(target, add_timeout(params, timeout, "vm:syscall"), "syscall", tostring(nr))
end

local Pending = { __name = "Pending" }
local pending_methods = {}
local task_of = setmetatable({}, { __mode = "k" })

-- The call's result; nil when it has not returned within the timeout (it goes on).
function pending_methods.await(self, timeout)
	remote.check_self(Pending, self, "await")
	local seconds = timeout ~= nil and core.parse_duration(timeout, "Pending:await: timeout") or nil
	local status, value = core.task_wait(task_of[self], seconds)
	if status == "done" then
		return value
	elseif status == "timeout" then
		return nil
	end
	error(value, 0)
end

Pending.__index = pending_methods

local function syscall_async(target, nr, ...)
	local params, timeout = parse_syscall("vm:syscall_async", nr, ...)
	params.async = true
	add_timeout(params, timeout, "vm:syscall_async")
	local pending = core.object(Pending)
	task_of[pending] = core.spawn("system call " .. nr, function()
		return syscall_table(target, params, "syscall_async", tostring(nr))
	end)
	return pending
end

local function ioctl(target, fd, cmd, data, options)
	fd = check_word("vm:ioctl", "the descriptor", fd)
	cmd = check_word("vm:ioctl", "the command", cmd)
	if data ~= nil and type(data) ~= "string" then
		if word(data) == nil then
			raise(("vm:ioctl: data must be a string or an integer, got a %s"):format(type(data)))
		end
		data = word(data)
	end
	local o = remote.check_options("vm:ioctl", options, IOCTL_KEYS)
	local bufs = o.bufs and check_bufs("vm:ioctl", o.bufs) or {}
	if o.ptr_offsets ~= nil then
		check_list("vm:ioctl", "ptr_offsets", o.ptr_offsets)
		for i, offset in ipairs(o.ptr_offsets) do
			check_word("vm:ioctl", ("ptr_offsets[%d]"):format(i), offset)
		end
	end
	local reply = ask(target, "ioctl", { fd = fd, cmd = cmd, data = data, bufs = non_empty(bufs),
		ptr_offsets = o.ptr_offsets and non_empty(o.ptr_offsets) }, ("0x%x"):format(cmd % 2 ^ 32))
	return { ret = reply.ret, result = reply.ret, errno = reply.errno, out_data = reply.data, out_bufs = reply.bufs or {} }
end

-- A bad address is an answer, not a failure: nil and the errno.
local function value_or_errno(ok, value)
	if ok then
		return value
	end
	local errno = tostring(value):match("%(errno (%d+)%)")
	if not errno then
		error(value, 0)
	end
	return nil, tonumber(errno)
end

local function read_mem(target, addr, n)
	addr = check_word("vm:read_mem", "the address", addr)
	n = check_word("vm:read_mem", "the length", n)
	return value_or_errno(pcall(function()
		return ask(target, "read_mem", { addr = addr, n = n }, ("%s bytes"):format(tostring(n))).data
	end))
end

local function write_mem(target, addr, data)
	addr = check_word("vm:write_mem", "the address", addr)
	remote.check_string("vm:write_mem(address, string)", 2, data)
	return value_or_errno(pcall(function()
		ask(target, "write_mem", { addr = addr, data = data }, ("%d bytes"):format(#data))
		return true
	end))
end

remote.add({ syscall = syscall, syscall_async = syscall_async, ioctl = ioctl, read_mem = read_mem,
	write_mem = write_mem })

return { parse = parse_syscall, result = result }
