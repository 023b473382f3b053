-- Conveniences over the file operations of VMs.

local core = ...

local VM = core.VM
local listdir, stat = VM.listdir, VM.stat

function VM.listdir(vm, ...)
	local entries = listdir(vm, ...)
	table.sort(entries, function(a, b) return a.name < b.name end)
	return entries
end

-- Whether the path is there; a dangling symbolic link is.
function VM.exists(vm, path, ...)
	if select("#", ...) > 0 or type(path) ~= "string" then
		core.raise(("expected vm:exists(path), got a %s"):format(type(path)))
	end
	local ok, entry = pcall(stat, vm, path, { follow = false })
	if ok then
		return entry ~= nil
	elseif tostring(entry):find("(errno 2)", 1, true) or tostring(entry):find("(errno 20)", 1, true) then
		return false
	end
	error(entry, 0)
end
