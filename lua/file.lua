-- File: an open file of a guest executor; and the streams of files and descriptors.

local core, remote = ...

local raise = core.raise
local ask, check_string, check_integer = remote.ask, remote.check_string, remote.check_integer

local CHUNK = 512 * 1024	-- bytes in one request; larger reads and writes take several

local File = { __name = "File" }
local methods = {}
local state = setmetatable({}, { __mode = "k" })	-- of each File: owner, handle, fd, remote, path

local MODE_KEYS = { "read", "write", "create", "truncate", "append", "exclusive", "perm", "nonblock" }

local function check(self, method)
	remote.check_self(File, self, method)
	local s = state[self]
	if not s.remote:is_open() then
		raise("file is closed")
	end
	s.remote:require(method)
	return s
end

local function open_file(owner, path, mode)
	local signature = "vm:open_file(path, {read=, write=, ...})"
	check_string(signature, 1, path)
	if type(mode) ~= "table" then
		raise(("expected %s, got a %s as argument 2"):format(signature, type(mode)))
	end
	remote.check_options("vm:open_file", mode, MODE_KEYS)
	local params = { path = path }
	for _, key in ipairs(MODE_KEYS) do
		if key == "perm" then
			if mode.perm ~= nil then
				params.perm = check_integer("perm=mode bits in the mode table", 2, mode.perm, 0)
			end
		else
			params[key] = remote.check_boolean_option("vm:open_file", mode, key)
		end
	end
	if not (mode.read or mode.write or mode.append) then
		raise("vm:open_file: the mode table needs `read`, `write` or `append`")
	end
	local reply = ask(owner, "open", params, path, "open_file")
	local file = core.object(File)
	state[file] = { owner = owner, handle = reply.handle, fd = reply.fd, path = path,
		remote = core.remote_file(owner, reply.handle) }
	return file
end

local function read_some(s, name, n, off)
	local data = ask(s.owner, name, { handle = s.handle, n = n, off = off }, s.path).data
	if type(data) ~= "string" then
		raise(("%s `%s`: the guest's answer has no data"):format(name, s.path))
	end
	return data
end

-- One request when n is small, as read(2) would; a long read goes on until n bytes or the end.
local function read_long(s, name, n, off)
	if n <= CHUNK then
		return read_some(s, name, n, off)
	end
	local parts, got = {}, 0
	while got < n do
		local part = read_some(s, name, math.min(CHUNK, n - got), off and off + got)
		parts[#parts + 1] = part
		got = got + #part
		if #part == 0 then
			break
		end
	end
	return table.concat(parts)
end

function methods.read(self, n)
	local s = check(self, "read")
	return read_long(s, "read", check_integer("file:read(n)", 1, n, 0))
end

function methods.read_all(self)
	local s = check(self, "read_all")
	local parts = {}
	repeat
		parts[#parts + 1] = read_some(s, "read", CHUNK)
	until parts[#parts] == ""
	return table.concat(parts)
end

local function write_long(s, name, data, off)
	local sent = 0
	repeat
		local part = data:sub(sent + 1, sent + CHUNK)
		local written = ask(s.owner, name, { handle = s.handle, data = part, off = off and off + sent }, s.path).written
		if not remote.is_integer(written) or written > #part or written < math.min(1, #part) then
			raise(("%s `%s`: the guest says that it wrote %s of %d bytes, after %d"):format(name, s.path,
				tostring(written), #part, sent))
		end
		sent = sent + written
	until sent >= #data
	return sent
end

function methods.write(self, data)
	local s = check(self, "write")
	return write_long(s, "write", check_string("file:write(string)", 1, data))
end

function methods.pread(self, off, n)
	local s = check(self, "pread")
	local signature = "file:pread(offset, n)"
	return read_long(s, "pread", check_integer(signature, 2, n, 0), check_integer(signature, 1, off, 0))
end

function methods.pwrite(self, off, data)
	local s = check(self, "pwrite")
	local signature = "file:pwrite(offset, string)"
	return write_long(s, "pwrite", check_string(signature, 2, data), check_integer(signature, 1, off, 0))
end

function methods.seek(self, off, whence)
	local s = check(self, "seek")
	whence = whence == nil and "set" or whence
	check_integer("file:seek(offset [, \"set\"|\"cur\"|\"end\"])", 1, off)
	if whence ~= "set" and whence ~= "cur" and whence ~= "end" then
		raise(("file:seek: unknown whence `%s` (known: set, cur, end)"):format(tostring(whence)))
	end
	return ask(s.owner, "seek", { handle = s.handle, off = off, whence = whence }, s.path).off
end

function methods.tell(self)
	local s = check(self, "tell")
	return ask(s.owner, "seek", { handle = s.handle, off = 0, whence = "cur" }, s.path, "tell").off
end

function methods.truncate(self, n)
	local s = check(self, "truncate")
	ask(s.owner, "truncate", { handle = s.handle, size = check_integer("file:truncate(n)", 1, n, 0) }, s.path)
end

function methods.sync(self)
	local s = check(self, "sync")
	ask(s.owner, "sync", { handle = s.handle }, s.path)
end

-- The descriptor's number in the guest's executor; 0 when closed.
function methods.fd(self)
	remote.check_self(File, self, "fd")
	local s = state[self]
	return s.remote:is_open() and s.fd or 0
end

function methods.tail_stream(self)
	local s = check(self, "tail_stream")
	return core.tail(s.owner, remote.encode({ handle = s.handle }), "fd_stream", s.path)
end

function methods.close(self)
	remote.check_self(File, self, "close")
	state[self].remote:close()
end

File.__index = methods
function File.__tostring(self)
	return ("File (%s%s)"):format(state[self].path, state[self].remote:is_open() and "" or ", closed")
end

-- start: "end", "beginning"/"start", an offset, or a negative one from the end.
local function tail_file(owner, path, options)
	check_string("vm:tail_file(path [, {start=, follow=}])", 1, path)
	options = remote.check_options("vm:tail_file", options, { "start", "follow" })
	local start, follow = options.start, options.follow
	if start == "beginning" then
		start = "start"
	end
	if start ~= nil and start ~= "end" and start ~= "start" and not remote.is_integer(start) then
		raise(("vm:tail_file: option `start` must be \"end\", \"beginning\" or an offset, got `%s`"):format(tostring(start)))
	elseif follow ~= nil and follow ~= "name" then
		raise(("vm:tail_file: option `follow` must be \"name\", got `%s`"):format(tostring(follow)))
	end
	return core.tail(owner, remote.encode({ path = path, start = start, follow = follow }), "tail_file", path)
end

local function fd_stream(owner, fd)
	if getmetatable(fd) == File then
		return fd:tail_stream()
	end
	check_integer("vm:fd_stream(fd or File)", 1, fd, 0)
	return core.tail(owner, remote.encode({ fd = fd }), "fd_stream", "fd " .. tostring(fd))
end

remote.add({ open_file = open_file, tail_file = tail_file, fd_stream = fd_stream })
