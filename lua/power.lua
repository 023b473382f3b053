-- vm:qmp(): a command to the hypervisor itself.

local core, remote = ...

local json = core.json()

function core.VM.qmp(vm, command, arguments, ...)
	local signature = "vm:qmp(command [, {arguments}])"
	if not core.is_vm(vm) then
		core.raise(("expected a VM (call its methods with a colon), got a %s"):format(type(vm)))
	end
	remote.check_string(signature, 1, command)
	if select("#", ...) > 0 then
		core.raise(("expected %s, got more than 2 arguments"):format(signature))
	elseif arguments ~= nil and type(arguments) ~= "table" then
		core.raise(("expected %s, got a %s as argument 2"):format(signature, type(arguments)))
	end
	return json.decode(core.vm_qmp(vm, command, arguments and json.encode(arguments)))
end
