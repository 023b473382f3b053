-- Labs: graphs of VMs, bridges and sub-labs, and the scopes of tests, each with a lab of its own.

local core, network = ...

local raise = core.raise
local RESERVED = {}		-- method names; filled at the end
local CONFIG_KEYS = { "reset_between_tests", "timeout" }

local Lab = {}			-- methods
local state = setmetatable({}, { __mode = "k" })	-- of each lab: name, vms, labs, parent
local config = {}		-- what was assigned to `provium`
local file_lab, lab_of_scope

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local mt = { __name = "Lab" }

local function new_lab(name, parent)
	local lab = core.object(mt)
	state[lab] = { name = name, parent = parent, vms = {}, bridges = {}, labs = {}, ids = {}, unnamed = 0 }
	return lab
end

-- `provium` stands for the lab of whichever scope the calling task is in.
local function resolve(lab)
	if lab == provium then
		local scope = core.scope_current()
		return scope and lab_of_scope[scope] or file_lab
	end
	return lab
end

-- Methods work with colon and with dot: a dot call on `provium` has no lab in front.
local function method(name, fn)
	RESERVED[name] = true
	Lab[name] = function(first, ...)
		if state[first] then
			return fn(resolve(first), ...)
		end
		return fn(resolve(provium), first, ...)
	end
end

local function sorted(t)
	local names = {}
	for name in pairs(t) do
		names[#names + 1] = name
	end
	table.sort(names)
	return names
end

local function check_name(what, name)
	if type(name) ~= "string" then
		raise(("%s: the name must be a string, got a %s"):format(what, type(name)))
	elseif not name:match("^[A-Za-z0-9_.-]+$") or #name > 64 then
		raise(("%s: bad name %s: 1 to 64 of A-Z a-z 0-9 _ . -"):format(what, quoted(name)))
	elseif RESERVED[name] then
		raise(("%s: the name %s is reserved (a lab's method)"):format(what, quoted(name)))
	end
end

-- Looks a member up in a lab and, for a test's lab, in its file's.
local function lookup(lab, kind, name)
	local s = state[lab]
	local found = s[kind][name]
	if found == nil and s.falls_through then
		found = state[s.falls_through][kind][name]
	end
	return found
end

-- The bridge of that name that is not closed.
local function open_bridge(s, name)
	local b = s.bridges[name]
	return b and network.is_open(b) and b or nil
end

local function lookup_bridge(lab, name)
	local s = state[lab]
	return open_bridge(s, name) or s.falls_through and open_bridge(state[s.falls_through], name)
end

local function check_free(lab, what, name)
	local s = state[lab]
	if s.vms[name] or s.labs[name] or open_bridge(s, name) then
		raise(("%s: %s is already declared in this lab"):format(what, quoted(name)))
	end
	local file = s.falls_through and state[s.falls_through]
	if file and (file.vms[name] or file.labs[name] or open_bridge(file, name)) then
		raise(("%s: %s is already declared at file scope; use provium:%s(\"%s\") to reuse it"):format(what,
			quoted(name), file.vms[name] and "vm" or file.labs[name] and "lab" or "bridge", name))
	end
end

local function check_profile(name, profile)
	if type(profile) ~= "string" then
		raise(("expected lab:vm(name, profile [, options]), got a %s as profile"):format(type(profile)))
	end
	local known = core.profile_names()
	for _, candidate in ipairs(known) do
		if candidate == profile then
			return
		end
	end
	local near = core.nearest(profile, known)
	raise(("vm %s: no profile named %s%s (known: %s)"):format(quoted(name), quoted(profile),
		near and ", did you mean " .. quoted(near) .. "?" or "", #known > 0 and table.concat(known, ", ") or "none"))
end

method("vm", function(lab, name, profile, options)
	if profile == nil and options == nil then
		local vm = type(name) == "string" and lookup(lab, "vms", name)
		if not vm then
			check_name("vm", name)
			raise(("no vm named %s in this lab"):format(quoted(name)))
		end
		return vm
	end
	check_name("vm", name)
	check_free(lab, "vm", name)
	check_profile(name, profile)
	local vm = core.vm_new(name, profile, options)
	state[lab].vms[name] = vm
	return vm
end)

method("lab", function(lab, name)
	local s = state[lab]
	if name == nil then
		repeat
			s.unnamed = s.unnamed + 1
			name = "__lab_" .. s.unnamed
		until not s.labs[name]
	else
		check_name("lab", name)
	end
	local found = lookup(lab, "labs", name)
	if found then
		return found
	end
	check_free(lab, "lab", name)
	s.labs[name] = new_lab(name, lab)
	return s.labs[name]
end)

-- Gets or makes a bridge.
method("bridge", function(lab, name, options)
	local found = type(name) == "string" and lookup_bridge(lab, name) or nil
	if not found then
		check_name("bridge", name)
		check_free(lab, "bridge", name)
	end
	local s = state[lab]
	local place = {}
	local ok, b = pcall(network.bridge, found, name, options, place, function(vm)
		return lookup(resolve(provium), "vms", vm) or lookup(lab, "vms", vm)
	end, function(new)
		s.bridges[name] = new
	end)
	if not ok then
		if not found and s.bridges[name] == place.bridge then
			s.bridges[name] = nil
		end
		error(b, 0)
	end
	return b
end)

-- What a value that include() or remove() takes is: kind, name.
local function member_kind(x)
	if state[x] then
		return "labs", state[x].name
	elseif core.is_vm(x) then
		return "vms", x:name()
	elseif network.state[x] then
		return "bridges", x:name()
	end
	raise(("expected a VM, a bridge, a lab, or an array of them, got a %s"):format(type(x)))
end

local function is_ancestor(candidate, lab)
	while lab do
		if lab == candidate then
			return true
		end
		lab = state[lab].parent
	end
	return false
end

method("include", function(lab, x)
	if x == nil then
		member_kind(x)
	end
	local list = type(x) == "table" and x or { x }
	local new = {}
	for _, member in ipairs(list) do
		local kind, name = member_kind(member)
		if member == provium or (kind == "labs" and is_ancestor(member, lab)) then
			raise(("include: %s would contain itself"):format(quoted(name)))
		elseif state[lab][kind][name] ~= member then
			check_free(lab, "include", name)
			if new[name] and new[name] ~= member then
				raise(("include: two members are named %s"):format(quoted(name)))
			end
		end
		new[name] = member
	end
	for name, member in pairs(new) do
		state[lab][member_kind(member)][name] = member
	end
end)

method("remove", function(lab, x)
	local s = state[lab]
	local list = type(x) == "table" and x or { x }
	local doomed = {}
	for _, member in ipairs(list) do
		local name = member
		if type(member) ~= "string" then
			name = select(2, member_kind(member))
		end
		if not s.vms[name] and not s.labs[name] and not open_bridge(s, name) then
			raise(("remove: no member named %s in this lab"):format(quoted(name)))
		end
		doomed[#doomed + 1] = name
	end
	for _, name in ipairs(doomed) do
		s.vms[name], s.labs[name], s.bridges[name] = nil, nil, nil
	end
end)

local function open_bridges(s)
	local names = {}
	for _, name in ipairs(sorted(s.bridges)) do
		names[#names + 1] = open_bridge(s, name) and name or nil
	end
	return names
end

method("members", function(lab)
	local s, list = state[lab], {}
	for _, name in ipairs(sorted(s.vms)) do
		list[#list + 1] = { name = name, kind = "vm" }
	end
	for _, name in ipairs(open_bridges(s)) do
		list[#list + 1] = { name = name, kind = "bridge" }
	end
	for _, name in ipairs(sorted(s.labs)) do
		list[#list + 1] = { name = name, kind = "sub_lab" }
	end
	table.sort(list, function(a, b) return a.name < b.name end)
	return list
end)

method("vm_names", function(lab) return sorted(state[lab].vms) end)
method("bridge_names", function(lab) return open_bridges(state[lab]) end)
method("sub_lab_names", function(lab) return sorted(state[lab].labs) end)
method("name", function(lab) return state[lab].name end)
method("pack", function(_, ...) return string.pack(...) end)
method("unpack", function(_, ...) return string.unpack(...) end)

local function all_vms(lab, list)
	list = list or {}
	for _, name in ipairs(sorted(state[lab].vms)) do
		list[#list + 1] = state[lab].vms[name]
	end
	for _, name in ipairs(sorted(state[lab].labs)) do
		all_vms(state[lab].labs[name], list)
	end
	return list
end

-- Runs fn(vm) for each VM at the same time; failures name each VM.
local function each_vm(lab, what, vms, fn)
	local tasks, failures = {}, {}
	for i, vm in ipairs(vms) do
		tasks[i] = core.spawn(("%s %s"):format(what, vm:name()), fn, vm, i)
	end
	for i, task in ipairs(tasks) do
		local status, message = core.task_wait(task)
		if status ~= "done" then
			failures[#failures + 1] = ("%s: %s"):format(vms[i]:name(), tostring(message))
		end
	end
	if #failures > 0 then
		raise(("lab %s: %s failed for %d of %d VMs:\n%s"):format(quoted(state[lab].name), what, #failures, #vms,
			table.concat(failures, "\n")))
	end
end

local function in_state(lab, wanted)
	local list = {}
	for _, vm in ipairs(all_vms(lab)) do
		for _, name in ipairs(wanted) do
			if vm:state() == name then
				list[#list + 1] = vm
			end
		end
	end
	return list
end

-- One pool acquisition for all, so that two labs cannot each get half of what both need.
method("boot", function(lab)
	local vms = in_state(lab, { "created", "shutdown", "dead" })
	local shares = core.vm_lease(vms)
	each_vm(lab, "boot", vms, function(vm, i)
		core.vm_boot_with(vm, shares[i])
	end)
	return lab
end)

method("shutdown", function(lab)
	each_vm(lab, "shutdown", in_state(lab, { "booted", "paused" }), function(vm) vm:shutdown() end)
end)

method("pause", function(lab)
	each_vm(lab, "pause", in_state(lab, { "booted" }), function(vm) vm:pause() end)
end)

method("resume", function(lab)
	each_vm(lab, "resume", in_state(lab, { "paused" }), function(vm) vm:resume() end)
end)

local function arrivals_text(n, count)
	return ("%d of %d arrived"):format(n, count)
end

method("barrier", function(lab, name, count, options)
	local s = state[lab]
	check_name("barrier", name)
	if type(count) ~= "number" or count < 1 or count % 1 ~= 0 then
		raise("barrier: the count must be a positive integer")
	elseif options ~= nil and type(options) ~= "table" then
		raise(("barrier: options must be a table, got a %s"):format(type(options)))
	end
	for key in pairs(options or {}) do
		if key ~= "timeout" then
			raise(("barrier: unknown option %s (known: timeout)"):format(quoted(key)))
		end
	end
	local timeout = core.parse_duration(options and options.timeout or 60, "barrier: timeout")
	s.barriers = s.barriers or {}
	local b = s.barriers[name]
	if not b then
		b = { latch = core.latch(), count = count }
		s.barriers[name] = b
	elseif b.count ~= count then
		raise(("barrier %s: called with count %d, but %d before"):format(quoted(name), count, b.count))
	end
	if b.latch:waiting() + 1 == count then
		s.barriers[name] = nil	-- the next round starts anew
		b.latch:open()
		return
	end
	local ok, opened, arrived = pcall(b.latch.wait, b.latch, ("barrier \"%s\""):format(name), timeout)
	if ok and opened then
		return
	end
	-- Whoever has stopped waiting is not counted any more, and the last one of them ends the round.
	if b.latch:waiting() == 0 and s.barriers[name] == b then
		s.barriers[name] = nil
	end
	if not ok then
		error(opened, 0)
	end
	raise(("barrier %s: timed out after %gs: %s"):format(quoted(name), timeout, arrivals_text(arrived, count)))
end)

-- For the files that add methods.
core.lab = {
	method = method, check_name = check_name, check_free = check_free, check_profile = check_profile,
	is_taken = function(lab, name)
		return not pcall(check_free, lab, "", name)
	end,
	-- The file's lab for a test's; any other is its own.
	of_file = function(lab)
		return state[lab].falls_through or lab
	end,
	add_vm = function(lab, name, vm)
		state[lab].vms[name] = vm
	end,
	-- What the lab itself has of a kind ("vms", "labs"); setting it to nil takes it out.
	member = function(lab, kind, name)
		return state[lab][kind][name]
	end,
	take_out = function(lab, kind, name)
		state[lab][kind][name] = nil
	end,
	has_bridge = function(lab, name)
		return open_bridge(state[lab], name) ~= nil
	end,
	the_file = function()
		return file_lab
	end,
	-- What puts the members of the lab and its sub-labs back to what they are now.
	remember = function(lab)
		local kept = {}
		local function keep(one)
			local s = state[one]
			local copy = { s = s, unnamed = s.unnamed }
			for _, kind in ipairs({ "vms", "labs", "bridges" }) do
				copy[kind] = {}
				for name, member in pairs(s[kind]) do
					copy[kind][name] = member
				end
			end
			kept[#kept + 1] = copy
			for _, sub in pairs(s.labs) do
				keep(sub)
			end
		end
		keep(lab)
		return function()
			for _, copy in ipairs(kept) do
				copy.s.unnamed = copy.unnamed
				for _, kind in ipairs({ "vms", "labs", "bridges" }) do
					local members = copy.s[kind]
					for name in pairs(members) do
						members[name] = nil
					end
					for name, member in pairs(copy[kind]) do
						members[name] = member
					end
				end
			end
		end
	end,
	-- What tells a lab from all others, in snapshots of it; one that was restored has that of the saved one, too.
	id = function(lab)
		local s = state[lab]
		if not s.id then
			s.id = core.new_id()
			s.ids[s.id] = true
		end
		return s.id
	end,
	has_id = function(lab, id)
		return state[lab].ids[id] == true
	end,
	add_id = function(lab, id, have)
		state[lab].ids[id] = have
	end,
	config = function(key)
		return config[key]
	end,
}

function mt.__index(lab, key)
	if Lab[key] then
		return Lab[key]
	end
	if lab == provium and config[key] ~= nil then
		return config[key]
	end
	if type(key) ~= "string" then
		return nil
	end
	lab = resolve(lab)
	return lookup(lab, "vms", key) or lookup_bridge(lab, key) or lookup(lab, "labs", key)
end

function mt.__newindex(lab, key, value)
	if lab ~= provium then
		raise("cannot assign to a lab: its members are made by lab:vm() and lab:lab()")
	elseif key == "timeout" then
		config.timeout = core.parse_duration(value, "provium.timeout")
		return
	elseif key == "reset_between_tests" then
		if type(value) ~= "boolean" then
			raise(("provium.reset_between_tests: expected a boolean, got a %s"):format(type(value)))
		end
		config.reset_between_tests = value
		return
	end
	raise(("cannot set `provium.%s`: not a recognised file-scope config key"):format(tostring(key)))
end

function mt.__tostring(lab)
	return ("Lab (%s)"):format(state[resolve(lab)].name)
end

for name in pairs(Lab) do
	RESERVED[name] = true
end
for _, name in ipairs(CONFIG_KEYS) do
	RESERVED[name] = true
end

lab_of_scope = setmetatable({}, { __mode = "k" })
file_lab = new_lab("provium")
provium = core.object(mt)
state[provium] = state[file_lab]

function core.default_timeout()
	return config.timeout
end

function core.scope_open(name)
	local scope = core.scope_new(name)
	local lab = new_lab(name)
	state[lab].falls_through = file_lab
	lab_of_scope[scope] = lab
	return scope
end

-- The last 4 KiB of the console of each VM that the scope's test could reach, a header line each.
function core.scope_console(scope)
	local parts = {}
	local function add(vms)
		for _, vm in ipairs(vms) do
			local text = core.vm_console_tail(vm, 4096)
			if #text > 0 then
				parts[#parts + 1] = ("--- console of %s ---\n%s"):format(vm:name(), text)
			end
		end
	end
	if lab_of_scope[scope] then
		add(all_vms(lab_of_scope[scope]))
	end
	add(all_vms(file_lab))
	return table.concat(parts, "\n")
end
