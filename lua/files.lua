-- Conveniences over the file operations of VMs.

local core = ...

local VM, Worker = core.VM, core.Worker
local listdir, stat = VM.listdir, VM.stat

-- A handle of a VM keeps it alive: the C side borrows the VM from its userdata.
local vm_of = setmetatable({}, { __mode = "k" })

function VM.console(vm, ...)
	if select("#", ...) > 0 or not core.is_vm(vm) then
		core.raise("expected vm:console()")
	end
	local console = core.console_new(vm)
	vm_of[console] = vm
	return console
end

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

Worker.listdir, Worker.exists = VM.listdir, VM.exists
