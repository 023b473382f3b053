-- os.execute, io.popen and os.exit: versions that do not stop the loop.

local core = ...

function os.execute(command)
	if command == nil then
		return true
	end
	local how, code = core.shell(command, false)
	return how == "exit" and code == 0 or nil, how, code
end

function os.exit()
	core.raise("os.exit: a test cannot end Provium; return, or fail with error() or t:fail()")
end

-- A popen for reading collects the output when it is first read from (or closed); one for writing
-- runs the command when it is closed. Either way the loop goes on meanwhile.
local Popen = {}
Popen.__index = Popen
Popen.__name = "popen"

local function finish(p)
	if not p.how then
		p.how, p.code, p.output = core.shell(p.command, p.mode == "r", p.mode == "w" and table.concat(p.written) or nil)
		p.output = p.output or ""
		p.pos = 1
	end
end

local function check_open(p)
	if getmetatable(p) ~= Popen then
		core.raise("expected a popen handle (call its methods with a colon)")
	elseif p.closed then
		core.raise("attempt to use a closed file")
	end
end

local function read_line(p, keep)
	if p.pos > #p.output then
		return nil
	end
	local stop = p.output:find("\n", p.pos, true) or #p.output
	local line = p.output:sub(p.pos, stop)
	p.pos = stop + 1
	return keep and line or (line:gsub("\n$", ""))
end

local function read_one(p, format)
	if type(format) == "number" then
		if p.pos > #p.output then
			return nil
		end
		local s = p.output:sub(p.pos, p.pos + format - 1)
		p.pos = p.pos + #s
		return s
	end
	format = format:gsub("^%*", ""):sub(1, 1)
	if format == "a" then
		local s = p.output:sub(p.pos)
		p.pos = #p.output + 1
		return s
	elseif format == "l" or format == "L" then
		return read_line(p, format == "L")
	elseif format == "n" then
		local start, stop = p.output:find("^%s*[-+%w.]+", p.pos)
		if not start then
			return nil
		end
		p.pos = stop + 1
		return tonumber(p.output:sub(start, stop))
	end
	core.raise("bad argument to 'read' (invalid format)")
end

function Popen:read(...)
	check_open(self)
	finish(self)
	local n = select("#", ...)
	if n == 0 then
		return read_line(self)
	end
	local values = {}
	for i = 1, n do
		values[i] = read_one(self, (select(i, ...)))
		if values[i] == nil then
			break
		end
	end
	return (table.unpack or unpack)(values, 1, n)
end

function Popen:lines(format)
	check_open(self)
	finish(self)
	return function()
		return read_one(self, format or "l")
	end
end

function Popen:write(...)
	check_open(self)
	for i = 1, select("#", ...) do
		self.written[#self.written + 1] = tostring((select(i, ...)))
	end
	return self
end

function Popen:flush()
	check_open(self)
	return self
end

function Popen:close()
	check_open(self)
	finish(self)
	self.closed = true
	return self.how == "exit" and self.code == 0 or nil, self.how, self.code
end

function io.popen(command, mode)
	mode = mode or "r"
	if mode ~= "r" and mode ~= "w" then
		core.raise("io.popen: mode must be \"r\" or \"w\", got \"" .. tostring(mode) .. "\"")
	end
	return setmetatable({ command = command, mode = mode, written = {} }, Popen)
end

-- Standard input is the terminal's or the pipeline's, and waiting for it would stop everything.
function io.read()
	core.raise("io.read: standard input is not a test's; open a file, or read from a guest")
end
