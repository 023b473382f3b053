-- Fixtures: vm_fixture(), lab_fixture(), depends_on_file().

local core = ...

local lab_of = core.lab
local raise = core.raise
local KNOWN = { name = true, scope = true }
-- The entry of each VM and lab that was made of one: in use as long as it is.
local held = setmetatable({}, { __mode = "k" })

local function check_arguments(what, path, options, ...)
	local signature = ("provium:%s(path [, {name=, scope=}])"):format(what)
	if type(path) ~= "string" then
		raise(("expected %s, got a %s as path"):format(signature, type(path)))
	elseif path == "" or path:sub(1, 1) == "/" or ("/" .. path .. "/"):find("/%.%.?/") then
		raise(("%s: bad path `%s`: the fixture's file below a test root, without .fixture.lua"):format(what,
			path))
	elseif options ~= nil and type(options) ~= "table" then
		raise(("expected %s, got a %s as options"):format(signature, type(options)))
	elseif select("#", ...) > 0 then
		raise(("expected %s, got more than 2 arguments"):format(signature))
	end
	for key in pairs(options or {}) do
		if not KNOWN[key] then
			raise(("%s: unknown option `%s` (known: name, scope)"):format(what, tostring(key)))
		end
	end
	options = options or {}
	if options.scope ~= nil and options.scope ~= "file" and options.scope ~= "test" then
		raise(("%s: scope is \"test\" or \"file\", got %s"):format(what, tostring(options.scope)))
	end
	return options
end

-- The name asked for, or `name` and, when that is taken, name-2, name-3, ...
local function choose_name(lab, what, options, name)
	if options.name ~= nil then
		lab_of.check_name(what, options.name)
		lab_of.check_free(lab, what, options.name)
		return options.name
	end
	local candidate, n = name, 1
	while lab_of.is_taken(lab, candidate) do
		n = n + 1
		candidate = ("%s-%d"):format(name, n)
	end
	return candidate
end

-- Runs fn with new things belonging to the file when {scope = "file"} was given.
local function in_scope(options, fn, ...)
	local scope = core.scope_current()
	if options.scope ~= "file" or not scope then
		return fn(...)
	end
	core.scope_current(nil)
	local ok, value = pcall(fn, ...)
	core.scope_current(scope)
	if not ok then
		error(value, 0)
	end
	return value
end

-- Gets the entry and calls use(dir), which returns its result, or nil and why the snapshot is of no use: then it
-- is made again, once.
local function with_entry(what, path, want_lab, use)
	local why
	for attempt = 1, 2 do
		local entry = core.fixture_get(path)
		local dir, is_lab = core.fixture_entry(entry)
		if is_lab ~= want_lab then
			raise(("%s: fixture `%s` is a %s; use provium:%s"):format(what, path,
				is_lab and "lab's" or "VM's", is_lab and "lab_fixture" or "vm_fixture"))
		end
		local result
		result, why = use(dir)
		if result then
			held[result] = entry
			return result
		end
		core.fixture_bad(entry, path, why)
	end
	raise(("%s: fixture `%s` was built again and cannot be restored: %s"):format(what, path, why))
end

-- Checks what was given; returns the lab that gets the fixture, and the options.
local function begin(what, lab, path, ...)
	local options = check_arguments(what, path, ...)
	if options.scope == "file" then
		lab = lab_of.of_file(lab)
	end
	if options.name ~= nil then
		lab_of.check_name(what, options.name)
		lab_of.check_free(lab, what, options.name)
	end
	return lab, options
end

lab_of.method("vm_fixture", function(lab, path, ...)
	local options
	lab, options = begin("vm_fixture", lab, path, ...)
	local vm
	return with_entry("vm_fixture", path, false, function(dir)
		local name, profile = core.image_info(dir)
		if not name then
			return nil, profile
		end
		if not vm then
			name = choose_name(lab, "vm_fixture", options, name)
			lab_of.check_profile(name, profile)
			vm = in_scope(options, core.vm_new, name, profile)
			lab_of.add_vm(lab, name, vm)
		end
		return core.vm_restore(vm, dir, { stale = true })
	end)
end)

lab_of.method("lab_fixture", function(lab, path, ...)
	local options
	lab, options = begin("lab_fixture", lab, path, ...)
	local sub
	return with_entry("lab_fixture", path, true, function(dir)
		local ok, why = core.images_check(dir)
		if not ok then
			return nil, why
		elseif not sub then
			sub = lab:lab(choose_name(lab, "lab_fixture", options, path:match("[^/]+$")))
		end
		return in_scope(options, core.lab_restore, sub, dir, { stale = true })
	end)
end)

-- What the chunk of a fixture names with it is part of its key; here it is only looked whether it is there.
lab_of.method("depends_on_file", function(_, path, ...)
	local signature = "provium:depends_on_file(path)"
	if type(path) ~= "string" then
		raise(("expected %s, got a %s"):format(signature, type(path)))
	elseif select("#", ...) > 0 then
		raise(("expected %s, got more than 1 argument"):format(signature))
	end
	path = core.host_path(path)
	local file, message = io.open(path, "rb")
	if not file then
		raise(("depends_on_file: %s"):format(message))
	end
	file:close()
end)

-- The directory of a snapshot and whether it is a lab's; nil for anything else.
function core.snapshot_place(x)
	if core.is_snapshot(x) then
		return x:path(), false
	elseif core.is_lab_snapshot and core.is_lab_snapshot(x) then
		return x:path(), true
	end
end
