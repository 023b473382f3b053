-- LabSnapshot: putting one back, into the lab it was made of or into another.

local core = ...

local raise = core.raise
local lab_of = core.lab
local json = core.json()
local at_once = lab_of.at_once

local STATES = { created = true, booted = true, paused = true, shutdown = true, dead = true }

-- ---- lab.json ----

local function is_name(x)
	return type(x) == "string" and #x <= 64 and x:find("^[A-Za-z0-9_.-]+$") ~= nil
end

local function is_vm_entry(m)
	local runs = type(m) == "table" and (m.state == "booted" or m.state == "paused")
	return type(m) == "table" and is_name(m.name) and type(m.profile) == "string" and STATES[m.state] ~= nil
		and math.type(m.key) == "integer" and (runs and type(m.dir) == "string" or not runs and m.dir == nil)
end

-- What is wrong with a lab's part of it, or nil.
local function find_damage(node)
	if type(node) ~= "table" or type(node.id) ~= "string" or type(node.vms) ~= "table" or type(node.labs) ~= "table" then
		return "it lacks a lab's id, vms or labs"
	end
	for i, member in ipairs(node.vms) do
		if not is_vm_entry(member) then
			return ("its VM number %d has no proper name, profile, state, key or dir"):format(i)
		end
	end
	for i, sub in ipairs(node.labs) do
		if type(sub) ~= "table" or not is_name(sub.name) then
			return ("its sub-lab number %d has no name"):format(i)
		end
		local why = find_damage(sub)
		if why then
			return why
		end
	end
end

local function exists(path)
	return os.rename(path, path) and true or false
end

local function read_description(dir)
	local file, message = io.open(dir .. "/lab.json", "r")
	if not file and exists(dir .. "/meta.json") then
		return nil, "it is a VM's snapshot, not a lab's (vm:restore)"
	elseif not file then
		return nil, ("cannot read its lab.json: %s"):format(message)
	end
	local text = file:read("a")
	file:close()
	local ok, node = pcall(json.decode, text)
	if not ok or type(node) ~= "table" then
		return nil, "its lab.json is damaged" .. (ok and "" or ": " .. tostring(node))
	elseif math.type(node.format) ~= "integer" or node.format < 1 then
		return nil, "its lab.json is damaged: it has no format"
	elseif node.format > lab_of.SNAPSHOT_FORMAT then
		return nil, ("it has format %d, made by a newer Provium; this one reads format %d"):format(node.format,
			lab_of.SNAPSHOT_FORMAT)
	end
	local why = find_damage(node)
	return not why and node or nil, why and "its lab.json is damaged: " .. why
end

-- ---- before anything changes ----

-- What a name in the lab stands for already, as one that a VM of the snapshot wants.
local function check_vm_name(lab, member, vm, same, problems)
	if vm and not (same and vm:profile() == member.profile) then
		problems[#problems + 1] = ("VM `%s` is in the lab already and is another one"):format(member.name)
	elseif vm and core.vm_is_starting(vm) then
		problems[#problems + 1] = ("VM `%s` is being booted"):format(member.name)
	elseif not vm and lab_of.is_taken(lab, member.name) then
		problems[#problems + 1] = ("the name `%s` is taken in the lab"):format(member.name)
	end
end

-- Finds what in the lab is to become each part of the snapshot; changes nothing. Items are the VMs, each once; where they
-- are to be put is in `places`. A sub-lab that is missing has no lab yet.
local function plan(lab, node, items, problems)
	node.lab = lab
	local same = lab and lab_of.has_id(lab, node.id)
	for _, member in ipairs(node.vms) do
		local vm = lab and lab_of.member(lab, "vms", member.name)
		local item = items[member.key]
		if not item then
			item = { member = member, places = {} }
			items[member.key], items[#items + 1] = item, item
		end
		if lab then
			check_vm_name(lab, member, vm, same, problems)
		end
		if vm and item.vm and vm ~= item.vm then
			problems[#problems + 1] = ("VM `%s` was one in several labs and is not any more"):format(member.name)
		end
		item.vm = item.vm or vm
		if not vm then
			table.insert(item.places, { node = node, name = member.name })
		end
	end
	for _, sub in ipairs(node.labs) do
		local found = lab and lab_of.member(lab, "labs", sub.name)
		if lab and not found and lab_of.is_taken(lab, sub.name) then
			problems[#problems + 1] = ("the name `%s` is taken in the lab"):format(sub.name)
		end
		plan(found, sub, items, problems)
	end
	if lab and node.bridges then
		lab_of.bridges_plan(lab, node.bridges, same, problems)
	end
end

-- The parts that cannot be restored: a text each, and whether all of them are only stale.
local function check_members(dir, items)
	local failures, stale = {}, true
	for _, item in ipairs(items) do
		local member = item.member
		lab_of.check_profile(member.name, member.profile)
		if member.dir then
			local ok, why, only_stale = core.vm_check_image(dir .. "/" .. member.dir)
			if not ok then
				failures[#failures + 1] = ("%s: %s"):format(member.name, why)
				stale = stale and only_stale
			end
		end
	end
	return failures, stale
end

-- ---- what is missing is made ----

-- `undo` gets what takes it out again.
local function make_labs(node, undo)
	if not lab_of.has_id(node.lab, node.id) then
		lab_of.add_id(node.lab, node.id, true)
		undo[#undo + 1] = function() lab_of.add_id(node.lab, node.id, nil) end
	end
	for _, sub in ipairs(node.labs) do
		if not sub.lab then
			sub.lab = node.lab:lab(sub.name)
			undo[#undo + 1] = function() lab_of.take_out(node.lab, "labs", sub.name) end
		end
		make_labs(sub, undo)
	end
end

local function make_vms(items, undo)
	for _, item in ipairs(items) do
		item.vm = item.vm or core.vm_new(item.member.name, item.member.profile)
		for _, place in ipairs(item.places) do
			lab_of.add_vm(place.node.lab, place.name, item.vm)
			undo[#undo + 1] = function() lab_of.take_out(place.node.lab, "vms", place.name) end
		end
	end
end

-- ---- the change ----

-- VMs that did not run when it was made: no longer, either, and as if they never had, if they had not.
local function put_off(item)
	local vm, member = item.vm, item.member
	if vm:state() == "booted" or vm:state() == "paused" then
		vm:kill()
	end
	if member.state == "created" and vm:state() ~= "created" then
		core.vm_renew(vm)
	end
end

-- One pool acquisition for all VMs that hold no share yet, so that two labs cannot each get half of what both need.
local function acquire(dir, items)
	local vms, dirs, holders = {}, {}, {}
	for _, item in ipairs(items) do
		local state = item.vm:state()
		if state ~= "booted" and state ~= "paused" then
			vms[#vms + 1], dirs[#dirs + 1], holders[#holders + 1] = item.vm, dir .. "/" .. item.member.dir, item
		end
	end
	if #vms > 0 then
		for i, lease in ipairs(core.vm_lease(vms, dirs)) do
			holders[i].lease = lease
		end
	end
end

-- Every VM is loaded first, stopped as it was saved; then all go on at once.
local function change(job, dir, node, items, options)
	local off, on, running, stale = {}, {}, {}, nil
	for _, item in ipairs(items) do
		local list = item.member.dir and on or off
		list[#list + 1] = item
		running[#running + 1] = item.member.state == "booted" and item or nil
	end
	lab_of.bridges_before(node, items)
	local failures = at_once(job, "kill", off, put_off)
	if #failures == 0 and #on > 0 then
		failures = at_once(job, "room for", { { vm = on[1].vm } }, function() acquire(dir, on) end, true)
		failures[1] = failures[1] and failures[1]:sub(#on[1].vm:name() + 3)	-- it is about all of them
	end
	if #failures == 0 then
		failures = at_once(job, "restore", on, function(item)
			item.begun = true
			local vm, why = core.vm_restore(item.vm, dir .. "/" .. item.member.dir, options, item.lease)
			stale = not vm and why or stale
		end, true)
	end
	if #failures == 0 and not stale then
		failures = at_once(job, "resume", running, function(item) item.vm:resume() end, true)
	end
	if #failures == 0 and not stale and not job.cancelled then
		lab_of.bridges_after(node)
	end
	return failures, stale
end

-- What has begun to be restored is neither what it was nor what it should be: it is ended.
local function put_back(job, items, undo)
	local begun = {}
	for _, item in ipairs(items) do
		begun[#begun + 1] = item.begun and item or nil
		if item.lease then
			core.lease_drop(item.lease)
		end
	end
	at_once(job, "kill", begun, function(item) item.vm:kill() end)
	for i = #undo, 1, -1 do
		undo[i]()
	end
end

-- Returns the failures, none when it is restored, and why when the snapshot does not fit.
local function restore(job, dir, node, items, options, undo)
	local ok, failures, stale = pcall(change, job, dir, node, items, options)
	if not ok then
		failures, stale = { tostring(failures) }, nil
	end
	if #failures > 0 or stale or job.cancelled then
		put_back(job, items, undo)
	end
	return failures, stale
end

-- options: those of lab:restore(); with `stale`, nil and why are returned for a snapshot that does not fit.
function core.lab_restore(lab, dir, options)
	local may_be_stale = options and options.stale
	local node, why = read_description(dir)
	if not node then
		why = ("lab snapshot `%s`: %s"):format(dir, why)
		if may_be_stale then
			return nil, why
		end
		raise(why)
	end
	if not lab_of.has_id(lab, node.id) and lab_of.has_id(lab_of.of_file(lab), node.id) then
		lab = lab_of.of_file(lab)	-- a test's lab stands for what it falls through to
	end
	local items, problems, undo = {}, {}, {}
	plan(lab, node, items, problems)
	if #problems > 0 then
		raise(("lab `%s`: restore: %s"):format(lab:name(), table.concat(problems, "; ")))
	end
	local failures, stale = check_members(dir, items)
	if #failures > 0 and stale and may_be_stale then
		return nil, table.concat(failures, "\n")
	elseif #failures > 0 then
		lab_of.failed(lab, "restore", failures)
	end
	make_labs(node, undo)
	make_vms(items, undo)
	lab_of.bridges_make(node, undo)
	failures, stale = lab_of.run_job("lab restore", restore, dir, node, items, options, undo)
	if stale and may_be_stale and #failures == 0 then
		return nil, stale
	elseif #failures > 0 or stale then
		lab_of.failed(lab, "restore", #failures > 0 and failures or { stale })
	end
	return lab
end

-- ---- reset_between_tests ----

local resets = {}
local pristine		-- of the file's lab, right after its chunk
local graph		-- puts its members back

function resets.wanted()
	return lab_of.config("reset_between_tests")
end

-- After the chunk.
function resets.begin(path)
	local open = core.file_streams()
	if open ~= "" then
		raise(("%s: cannot use reset_between_tests with file-scope streams:%s"):format(path, open))
	end
	pristine = lab_of.save(lab_of.the_file(), core.snapshot_unnamed("lab"))
	graph = lab_of.remember(lab_of.the_file())
end

-- Before every test but the first. What tests have put into the file's labs goes with them.
function resets.again()
	graph()
	core.lab_restore(lab_of.the_file(), pristine.dir)
end

core.resets = resets
