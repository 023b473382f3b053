-- LabSnapshot: all VMs of a lab and its sub-labs at one moment, with what connects them.
--
-- A directory: lab.json, and for each VM that ran a snapshot of its own in vms/ (a sub-lab's in labs/NAME/vms/).
-- lab.json says of every VM what it was, so that restoring also puts back those that did not run.

local core = ...

local raise = core.raise
local lab_of = core.lab
local json = core.json()

local FORMAT = 1

local LabSnapshot = { __name = "LabSnapshot" }
LabSnapshot.__index = LabSnapshot

local function check(s, method)
	if getmetatable(s) ~= LabSnapshot then
		raise(("expected snapshot:%s() (a colon), got a %s"):format(method, type(s)))
	end
end

function LabSnapshot.__tostring(s)
	return ("LabSnapshot (%s, %s)"):format(s.lab, s.dir)
end

function LabSnapshot:path()
	check(self, "path")
	return self.dir
end

function LabSnapshot:size()
	check(self, "size")
	return core.snapshot_size(self.dir)
end

function LabSnapshot:delete()
	check(self, "delete")
	core.snapshot_remove(self.dir)
end

function LabSnapshot:stats()
	check(self, "stats")
	return { bytes = self.bytes, pause = self.pause }
end

function core.is_lab_snapshot(x)
	return getmetatable(x) == LabSnapshot
end

local function exists(path)
	return os.rename(path, path) and true or false
end

-- Calls fn(vm, node, lab) for every VM that a described lab has.
local function each(node, lab, fn)
	for _, member in ipairs(node.vms) do
		fn(member, lab)
	end
	for _, sub in ipairs(node.labs) do
		each(sub, sub.lab, fn)
	end
end

-- ---- saving ----

-- What lab.json says, with the VMs themselves beside it in `found`.
local function describe(lab, prefix, found)
	local node = { id = lab_of.id(lab), vms = json.array({}), labs = json.array({}) }
	for _, name in ipairs(lab:vm_names()) do
		local vm = lab:vm(name)
		local member = { name = name, profile = vm:profile(), state = vm:state() }
		if member.state == "booted" or member.state == "paused" then
			member.dir = ("%svms/%s.snap"):format(prefix, name)
			found[#found + 1] = { vm = vm, member = member }
		end
		node.vms[#node.vms + 1] = member
	end
	for _, name in ipairs(lab:sub_lab_names()) do
		local sub = describe(lab:lab(name), ("%slabs/%s/"):format(prefix, name), found)
		sub.name = name
		node.labs[#node.labs + 1] = sub
	end
	if lab_of.bridges_save then
		node.bridges = lab_of.bridges_save(lab)
	end
	return node
end

-- Runs fn(item) for each at the same time; waits for all; returns the failures, one text each.
local function at_once(what, items, fn)
	local started, failures = {}, {}
	for i, item in ipairs(items) do
		started[i] = core.spawn(("%s %s"):format(what, item.vm:name()), fn, item)
	end
	for i, task in ipairs(started) do
		local status, message = core.task_wait(task)
		if status ~= "done" then
			failures[#failures + 1] = ("%s: %s"):format(items[i].vm:name(), tostring(message))
		end
	end
	return failures
end

local function fail(lab, what, failures)
	raise(("lab `%s`: %s failed:\n%s"):format(lab:name(), what, table.concat(failures, "\n")))
end

local function write(path, text)
	local file, message = io.open(path, "w")
	local ok = file
	if file then
		ok, message = file:write(text)
		local closed, why = file:close()
		if ok and not closed then
			ok, message = nil, why
		end
	end
	if not ok then
		raise(("lab snapshot: cannot write `%s`: %s"):format(path, message))
	end
end

-- Stopped, saved, resumed: whatever happens, what ran runs again.
local function save_all(lab, dir, found)
	local running = {}
	for _, item in ipairs(found) do
		if item.member.state == "booted" then
			running[#running + 1] = item
		end
	end
	local began = core.now()
	local failures = at_once("pause", running, function(item) item.vm:pause() end)
	local bytes = 0
	if #failures == 0 then
		failures = at_once("snapshot", found, function(item)
			local _, written = core.vm_save(item.vm, dir .. "/" .. item.member.dir)
			bytes = bytes + written
		end)
	end
	local late = at_once("resume", running, function(item)
		if item.vm:state() == "paused" then
			item.vm:resume()
		end
	end)
	table.move(late, 1, #late, #failures + 1, failures)
	return failures, bytes, #running > 0 and core.now() - began or 0
end

local serial = 0

local function save(lab, dir)
	local found = {}
	local node = describe(lab, "", found)
	for _, item in ipairs(found) do
		core.vm_check_save(item.vm)
	end
	if lab_of.bridges_check then
		lab_of.bridges_check(lab)
	end
	if exists(dir) then
		raise(("lab snapshot: `%s` exists already"):format(dir))
	end
	serial = serial + 1
	local temporary = ("%s.part-%d"):format(dir, serial)
	core.snapshot_remove(temporary)
	core.make_dirs(temporary)
	local ok, failures, bytes, pause = pcall(save_all, lab, temporary, found)
	if ok and #failures == 0 then
		node.format, node.name = FORMAT, lab:name()
		ok, failures = pcall(write, temporary .. "/lab.json", json.encode(node) .. "\n")
		if ok then
			local moved, message = os.rename(temporary, dir)
			if moved then
				return setmetatable({ lab = lab:name(), dir = dir, bytes = bytes, pause = pause }, LabSnapshot)
			end
			ok, failures = false, ("lab snapshot: cannot make `%s`: %s"):format(dir, message)
		end
	end
	core.snapshot_remove(temporary)
	if not ok then
		error(failures, 0)
	end
	fail(lab, "snapshot", failures)
end

-- ---- restoring ----

local function read_description(dir)
	local file, message = io.open(dir .. "/lab.json", "r")
	if not file then
		return nil, ("cannot read its lab.json: %s"):format(message)
	end
	local text = file:read("a")
	file:close()
	local ok, node = pcall(json.decode, text)
	if not ok or type(node) ~= "table" or type(node.vms) ~= "table" or type(node.labs) ~= "table" then
		return nil, "its lab.json is damaged"
	elseif math.type(node.format) ~= "integer" or node.format > FORMAT then
		return nil, ("it has format %s, made by a newer Provium; this one reads format %d"):format(
			tostring(node.format), FORMAT)
	end
	return node
end

-- Finds, for everything in the snapshot, what is to become it; changes nothing. `same`: the lab is the one that was saved,
-- or was made of it.
local function plan(lab, node, items, problems)
	node.lab = lab
	local same = lab and lab_of.has_id(lab, node.id)
	for _, member in ipairs(node.vms) do
		local vm = lab and lab_of.member(lab, "vms", member.name)
		if vm and not (same and vm:profile() == member.profile) then
			problems[#problems + 1] = ("VM `%s` is in the lab already and is another one"):format(member.name)
		elseif not vm and lab and lab_of.is_taken(lab, member.name) then
			problems[#problems + 1] = ("the name `%s` is taken in the lab"):format(member.name)
		end
		items[#items + 1] = { vm = vm, member = member, node = node }
	end
	for _, sub in ipairs(node.labs) do
		local found = lab and lab_of.member(lab, "labs", sub.name)
		if not found and lab and lab_of.is_taken(lab, sub.name) then
			problems[#problems + 1] = ("the name `%s` is taken in the lab"):format(sub.name)
		end
		plan(found, sub, items, problems)
	end
	if lab and node.bridges and lab_of.bridges_plan then
		lab_of.bridges_plan(lab, node.bridges, same, problems)
	end
end

-- Makes the labs and VMs that are missing. `undo` gets what takes them out again.
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
		local member = item.member
		if not item.vm then
			local vm = core.vm_new(member.name, member.profile)
			item.vm = vm
			lab_of.add_vm(item.node.lab, member.name, vm)
			undo[#undo + 1] = function()
				lab_of.take_out(item.node.lab, "vms", member.name)
				vm:kill()
			end
		end
	end
end

-- VMs that did not run when it was made: no longer, either, and as if they never had, if they had not.
local function put_off(item)
	local vm, member = item.vm, item.member
	if vm:state() ~= "shutdown" and vm:state() ~= "dead" and vm:state() ~= "created" then
		vm:kill()
	end
	if member.state == "created" and vm:state() ~= "created" then
		core.vm_renew(vm)
	end
end

-- One pool acquisition for all VMs that hold no share yet.
local function acquire(dir, items)
	local vms, dirs, holders = {}, {}, {}
	for _, item in ipairs(items) do
		local state = item.vm:state()
		if item.member.dir and state ~= "booted" and state ~= "paused" then
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
local function restore_all(dir, items, options)
	local running, stale = {}, nil
	local failures = at_once("restore", items, function(item)
		if not item.member.dir then
			put_off(item)
			return
		end
		local vm, why = core.vm_restore(item.vm, dir .. "/" .. item.member.dir, options, item.lease)
		if not vm then
			stale = why
		elseif item.member.state == "booted" then
			running[#running + 1] = item
		end
	end)
	if #failures > 0 or stale then
		return failures, stale
	end
	return at_once("resume", running, function(item) item.vm:resume() end)
end

-- In the lab, or (nil) a new one. With options.stale: nil and why, when the snapshot does not fit.
function core.lab_restore(lab, dir, options)
	local stale = options and options.stale
	local node, why = read_description(dir)
	if not node then
		why = ("lab snapshot `%s`: %s"):format(dir, why)
		if stale then
			return nil, why
		end
		raise(why)
	end
	if not lab_of.has_id(lab, node.id) and lab_of.has_id(lab_of.of_file(lab), node.id) then
		lab = lab_of.of_file(lab)	-- a test's lab stands for what it falls through to
	end
	local items, problems = {}, {}
	plan(lab, node, items, problems)
	if #problems > 0 then
		raise(("lab `%s`: restore: %s"):format(lab:name(), table.concat(problems, "; ")))
	end
	for _, item in ipairs(items) do
		lab_of.check_profile(item.member.name, item.member.profile)
	end
	local undo = {}
	local ok, failures, unfit = pcall(function()
		make_labs(node, undo)
		make_vms(items, undo)
		if lab_of.bridges_before then
			lab_of.bridges_before(node)
		end
		acquire(dir, items)
		local failures, unfit = restore_all(dir, items, options)
		if #failures == 0 and not unfit and lab_of.bridges_after then
			lab_of.bridges_after(node)
		end
		return failures, unfit
	end)
	if ok and #failures == 0 and not unfit then
		return lab
	end
	for i = #undo, 1, -1 do
		undo[i]()
	end
	if not ok then
		error(failures, 0)
	elseif unfit and stale then
		return nil, unfit
	end
	fail(lab, "restore", unfit and { unfit } or failures)
end

-- ---- what test files call ----

local function check_path(path, signature)
	if type(path) ~= "string" or path == "" then
		raise(("expected %s, got %s as argument 1"):format(signature,
			path == "" and "an empty path" or "a " .. type(path)))
	end
	return core.host_path(path)
end

lab_of.method("snapshot", function(lab, path, ...)
	local signature = "lab:snapshot([directory])"
	if select("#", ...) > 0 then
		raise(("expected %s, got more than 1 argument"):format(signature))
	end
	return save(lab, path ~= nil and check_path(path, signature) or core.snapshot_unnamed("lab"))
end)

lab_of.method("restore", function(lab, x, options, ...)
	local signature = "lab:restore(LabSnapshot or directory [, {clock=\"keep\"}])"
	if select("#", ...) > 0 then
		raise(("expected %s, got more than 2 arguments"):format(signature))
	end
	local dir = core.is_lab_snapshot(x) and x.dir or check_path(x, signature)
	core.check_restore_options(options, "lab:restore")
	return core.lab_restore(lab, dir, options and { clock = options.clock })
end)

-- ---- reset_between_tests ----

local resets = {}
local pristine		-- of the file's lab, right after its chunk

function resets.wanted()
	return lab_of.config("reset_between_tests")
end

-- After the chunk.
function resets.begin(path)
	local open = core.file_streams()
	if open ~= "" then
		raise(("%s: cannot use reset_between_tests with file-scope streams:%s"):format(path, open))
	end
	pristine = save(lab_of.the_file(), core.snapshot_unnamed("lab"))
end

-- Before every test but the first.
function resets.again()
	core.lab_restore(lab_of.the_file(), pristine.dir)
end

core.resets = resets
