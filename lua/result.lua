-- RunResult: what a finished command is, and its conveniences.

local core = ...

local TAIL = 4096

local RunResult = {}
RunResult.__index = RunResult
RunResult.__name = "RunResult"

local function tail(s)
	if #s <= TAIL then
		return s
	end
	return ("[… %d bytes before]\n"):format(#s - TAIL) .. s:sub(-TAIL)
end

local function how(r)
	if r.status == "timed_out" then
		return ("timed out after %.1fs"):format(r.duration)
	elseif r.status == "signalled" then
		return "killed by signal " .. tostring(r.signal)
	end
	return "exit status " .. r.exit_code
end

local function is_result(r, method)
	if getmetatable(r) ~= RunResult then
		core.raise(("expected result:%s() (a colon), got a %s"):format(method, type(r)))
	end
end

function RunResult:ok()
	is_result(self, "ok")
	return self.exit_code == 0
end

function RunResult:assert_ok()
	is_result(self, "assert_ok")
	if self.exit_code == 0 then
		return self
	end
	core.raise(("command failed: %s: %s\n--- stdout ---\n%s\n--- stderr ---\n%s"):format(self.command, how(self),
		tail(self.stdout), tail(self.stderr)))
end

-- The lines of stdout, without their ends; a last line need not have one.
function RunResult:lines()
	is_result(self, "lines")
	local lines = {}
	for line in (self.stdout:gsub("([^\n])$", "%1\n")):gmatch("(.-)\r?\n") do
		lines[#lines + 1] = line
	end
	return lines
end

function RunResult:trim()
	is_result(self, "trim")
	return (self.stdout:match("^%s*(.-)%s*$"))
end

function RunResult:__tostring()
	return ("RunResult (%s: %s)"):format(self.command, how(self))
end

-- A result from the agent's answer to a command in a batch.
function core.make_result(reply, command)
	local exited = reply.status == "exited"
	return setmetatable({
		exit_code = exited and reply.code or reply.status == "timed_out" and -2 or -1,
		status = reply.status, signal = not exited and reply.signal ~= 0 and reply.signal or nil,
		timed_out = reply.status == "timed_out", duration = reply.duration / 1e9,
		command = command, stdout = reply.stdout, stderr = reply.stderr,
	}, RunResult)
end

return RunResult	-- which the ops that make one set as its metatable
