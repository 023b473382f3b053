-- Snapshot: a VM's state on disk. vm:snapshot(), vm:restore(), and what a snapshot can be asked.

local core = ...

local raise = core.raise

-- A type of what is kept in a directory: {of=, dir=, bytes=, pause=}. Returns what makes one, and what tells one.
function core.snapshot_type(name)
	local Type = { __name = name }
	Type.__index = Type

	local function is_one(x)
		return getmetatable(x) == Type
	end

	local function method(key, fn)
		Type[key] = function(s)
			if not is_one(s) then
				raise(("expected snapshot:%s() (a colon), got a %s"):format(key, type(s)))
			end
			return fn(s)
		end
	end

	function Type.__tostring(s)
		return ("%s (%s, %s)"):format(name, s.of, s.dir)
	end

	method("path", function(s) return s.dir end)
	-- Bytes on disk.
	method("size", function(s) return core.snapshot_size(s.dir) end)
	method("delete", function(s) core.snapshot_remove(s.dir) end)
	-- What it cost to make: bytes written, and the seconds that the guest stood still.
	method("stats", function(s) return { bytes = s.bytes, pause = s.pause } end)

	return function(fields) return setmetatable(fields, Type) end, is_one
end

local new_snapshot, is_snapshot = core.snapshot_type("Snapshot")

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
	return new_snapshot({ of = vm:name(), dir = dir, bytes = bytes, pause = pause })
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
