-- Process: kill() of one that has ended is no error, whoever was first.

local core = ...

local Process = core.Process
local kill = Process.kill

function Process.kill(process, ...)
	local ok, message = pcall(kill, process, ...)
	if not ok and not tostring(message):find("(errno 3)", 1, true) then
		error(message, 0)
	end
end
