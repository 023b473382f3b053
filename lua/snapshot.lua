-- Snapshot: a VM's state on disk. vm:snapshot(), vm:restore(), and what a snapshot can be asked.

local core = ...

local raise = core.raise

local Snapshot = { __name = "Snapshot" }
Snapshot.__index = Snapshot

local function is_snapshot(x)
	return getmetatable(x) == Snapshot
end

local function check(s, method)
	if not is_snapshot(s) then
		raise(("expected snapshot:%s() (a colon), got a %s"):format(method, type(s)))
	end
end

function Snapshot.__tostring(s)
	return ("Snapshot (%s, %s)"):format(s.vm, s.dir)
end

function Snapshot:path()
	check(self, "path")
	return self.dir
end

-- Bytes on disk.
function Snapshot:size()
	check(self, "size")
	return core.snapshot_size(self.dir)
end

function Snapshot:delete()
	check(self, "delete")
	core.snapshot_remove(self.dir)
end

-- What it cost to make: bytes written, and the seconds that the guest stood still.
function Snapshot:stats()
	check(self, "stats")
	return { bytes = self.bytes, pause = self.pause }
end

local function check_vm(vm, signature)
	if not core.is_vm(vm) then
		raise(("expected %s (call it with a colon), got a %s"):format(signature, type(vm)))
	end
end

local function check_path(path, signature)
	if type(path) ~= "string" then
		raise(("expected %s, got a %s as argument 1"):format(signature, type(path)))
	elseif path == "" then
		raise(("expected %s, got an empty path"):format(signature))
	end
	return core.host_path(path)
end

function core.VM.snapshot(vm, path, ...)
	local signature = "vm:snapshot([path])"
	check_vm(vm, signature)
	if select("#", ...) > 0 then
		raise(("expected %s, got more than 1 argument"):format(signature))
	end
	path = path ~= nil and check_path(path, signature)
	core.vm_check_save(vm)
	local dir, bytes, pause = core.vm_save(vm, path or core.snapshot_unnamed("snap"))
	return setmetatable({ vm = vm:name(), dir = dir, bytes = bytes, pause = pause }, Snapshot)
end

local RESTORE_OPTIONS = { clock = true }

-- The options of vm:restore() and of what else restores.
function core.check_restore_options(options, what)
	if options ~= nil and type(options) ~= "table" then
		raise(("%s: options must be a table, got a %s"):format(what, type(options)))
	end
	for key, value in pairs(options or {}) do
		if not RESTORE_OPTIONS[key] then
			raise(("%s: unknown option `%s` (known: clock)"):format(what, tostring(key)))
		elseif value ~= "keep" then
			raise(("%s: clock is \"keep\" or not given, got `%s`"):format(what, tostring(value)))
		end
	end
	return options
end

function core.VM.restore(vm, x, options, ...)
	local signature = "vm:restore(Snapshot or path [, {clock=\"keep\"}])"
	check_vm(vm, signature)
	if select("#", ...) > 0 then
		raise(("expected %s, got more than 2 arguments"):format(signature))
	end
	local dir = is_snapshot(x) and x.dir or check_path(x, signature)
	core.check_restore_options(options, "vm:restore")
	return core.vm_restore(vm, dir, options)
end

core.is_snapshot = is_snapshot
