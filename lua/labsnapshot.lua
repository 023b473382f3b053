-- LabSnapshot: all VMs of a lab and its sub-labs at one moment, with what connects them. Here: making one.
--
-- A directory: lab.json, and for each VM that ran a snapshot of its own in vms/ (a sub-lab's in labs/NAME/vms/).
-- lab.json says of every VM what it was, so that restoring also puts back those that did not run. A VM that is in several
-- labs has one key in all of them.

local core = ...

local raise = core.raise
local lab_of = core.lab
local json = core.json()

local new_snapshot, is_snapshot = core.snapshot_type("LabSnapshot")
core.is_lab_snapshot = is_snapshot

-- ---- jobs: what must be finished, or put back, even when nobody waits for it any more ----

-- Runs fn(job, ...) in a task of the file. When the caller is cancelled, what job.parts holds at that moment is, too, and
-- the job sees job.cancelled and puts back what it has changed; the test that it is part of waits for that.
local function run_job(name, fn, ...)
	local job = {}
	local scope = core.scope_current()
	core.scope_current(nil)
	local task = core.spawn(name, fn, job, ...)
	core.scope_current(scope)
	local ok, status, value, more = pcall(core.task_wait, task)
	if not ok then
		job.cancelled = status
		for _, part in ipairs(job.parts or {}) do
			part:cancel(status)
		end
		local ctx = core.locals().test
		if ctx and not ctx.over then
			table.insert(ctx.defers, function() core.task_wait(task) end)
		end
		error(status, 0)
	elseif status ~= "done" then
		raise(tostring(value))
	end
	return value, more
end

-- Runs fn(item) for each at the same time, waits for all; returns the failures, one text each. With `may_end`, not for
-- longer than somebody waits for the job.
local function at_once(job, what, items, fn, may_end)
	local started, failures = {}, {}
	if may_end and job.cancelled then
		return { tostring(job.cancelled) }
	end
	for i, item in ipairs(items) do
		started[i] = core.spawn(("%s %s"):format(what, item.vm:name()), fn, item)
	end
	job.parts = may_end and started or nil
	for i, task in ipairs(started) do
		local status, message = core.task_wait(task)
		if status ~= "done" then
			failures[#failures + 1] = ("%s: %s"):format(items[i].vm:name(), tostring(message))
		end
	end
	job.parts = nil
	return failures
end

local function fail(lab, what, failures)
	raise(("lab `%s`: %s failed:\n%s"):format(lab:name(), what, table.concat(failures, "\n")))
end

-- ---- saving ----

-- What lab.json says, with each VM once in `all`.
local function describe(lab, prefix, all)
	local node = { id = lab_of.id(lab), vms = json.array({}), labs = json.array({}) }
	for _, name in ipairs(lab:vm_names()) do
		local vm = lab_of.member(lab, "vms", name)
		local item = all[vm]
		if not item then
			item = { vm = vm, key = #all + 1, state = vm:state() }
			if item.state == "booted" or item.state == "paused" then
				item.dir = ("%svms/%s.snap"):format(prefix, name)
			end
			all[vm], all[item.key] = item, item
		end
		node.vms[#node.vms + 1] = { name = name, profile = vm:profile(), state = item.state, key = item.key,
			dir = item.dir }
	end
	for _, name in ipairs(lab:sub_lab_names()) do
		local sub = describe(lab_of.member(lab, "labs", name), ("%slabs/%s/"):format(prefix, name), all)
		sub.name = name
		node.labs[#node.labs + 1] = sub
	end
	return node
end

-- Adds the bridges, whose members may be in any of the labs.
local function describe_bridges(lab, node, all)
	node.bridges = lab_of.bridges_save(lab, all)
	for _, sub in ipairs(node.labs) do
		describe_bridges(lab_of.member(lab, "labs", sub.name), sub, all)
	end
end

-- Why they cannot be saved now, all of them in one error.
local function check_all(lab, all)
	local failures = {}
	for _, item in ipairs(all) do
		local ok, why = true, nil
		if item.dir then
			ok, why = pcall(core.vm_check_save, item.vm)
		elseif core.vm_is_starting(item.vm) then
			ok, why = false, ("vm `%s`: it is being booted (cannot snapshot)"):format(item.vm:name())
		end
		if not ok then
			-- The position is that of the call, which raising again puts in front.
			local where = core.where()
			failures[#failures + 1] = why:sub(1, #where) == where and why:sub(#where + 1) or why
		end
	end
	if #failures > 0 then
		raise(table.concat(failures, "\n"))
	end
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
	return not ok and ("cannot write `%s`: %s"):format(path, message) or nil
end

-- Stopped, saved, resumed: whatever happens, what ran runs again.
local function save_all(job, dir, all)
	local running, saved, bytes = {}, {}, 0
	for _, item in ipairs(all) do
		running[#running + 1] = item.state == "booted" and item or nil
		saved[#saved + 1] = item.dir and item or nil
	end
	local began = core.now()
	local failures = at_once(job, "pause", running, function(item) item.vm:pause() end)
	if #failures == 0 then
		failures = at_once(job, "snapshot", saved, function(item)
			local _, written = core.vm_save(item.vm, dir .. "/" .. item.dir)
			bytes = bytes + written
		end, true)
	end
	local late = at_once(job, "resume", running, function(item)
		if item.vm:state() == "paused" then
			item.vm:resume()
		end
	end)
	table.move(late, 1, #late, #failures + 1, failures)
	return failures, bytes, #running > 0 and core.now() - began or 0
end

local function exists(path)
	return os.rename(path, path) and true or false
end

-- The whole of it, beside the directory; then it gets its name. Returns what went wrong, or what the snapshot cost.
local function make(job, dir, all, text)
	local temporary = ("%s.part-%s"):format(dir, core.new_id():sub(1, 8))
	core.remove_at_end(temporary)
	core.make_dirs(temporary)
	local failures, bytes, pause = save_all(job, temporary, all)
	if #failures == 0 and not job.cancelled then
		failures[1] = write(temporary .. "/lab.json", text)
	end
	if #failures == 0 and not job.cancelled then
		local ok, message = os.rename(temporary, dir)
		if ok then
			return nil, { bytes = bytes, pause = pause }
		end
		failures[1] = exists(dir) and ("`%s` exists already"):format(dir)
			or ("cannot make `%s`: %s"):format(dir, message)
	end
	core.snapshot_remove(temporary)
	return failures
end

local function save(lab, dir)
	local all = {}
	local node = describe(lab, "", all)
	check_all(lab, all)
	lab_of.bridges_check(lab)
	describe_bridges(lab, node, all)
	if exists(dir) then
		raise(("lab snapshot: `%s` exists already"):format(dir))
	end
	node.format, node.name = lab_of.SNAPSHOT_FORMAT, lab:name()
	local failures, cost = run_job("lab snapshot", make, dir, all, json.encode(node) .. "\n")
	if failures then
		fail(lab, "snapshot", failures)
	end
	return new_snapshot({ of = lab:name(), dir = dir, bytes = cost.bytes, pause = cost.pause })
end

-- ---- what test files call ----

local function check_path(path, signature)
	if type(path) ~= "string" or path == "" then
		raise(("expected %s, got %s as argument 1"):format(signature, path == "" and "an empty path"
			or core.is_snapshot(path) and "a Snapshot, which is of one VM (vm:restore)" or "a " .. type(path)))
	end
	return core.host_path(path)
end

lab_of.method("snapshot", function(lab, path, ...)
	local signature = "lab:snapshot([directory])"
	if select("#", ...) > 0 then
		raise(("expected %s, got more than 1 argument"):format(signature))
	end
	if #lab:members() == 0 then
		lab = lab_of.of_file(lab)	-- a test that has made nothing means what it sees
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

lab_of.SNAPSHOT_FORMAT = 1
lab_of.save = save
lab_of.run_job, lab_of.at_once, lab_of.failed = run_job, at_once, fail
