-- Lab snapshots in other labs, damaged ones, and what is left when making or restoring one fails or is cancelled.

local nested = require("nested")

local lab = provium:lab("net")
local inner = lab:lab("inner")
local a, b = lab:vm("a", "guest"), inner:vm("b", "kernel-only")
local never = lab:vm("never", "guest")
local home = nested.directory()
local dir = home .. "/base.lab"

co.all({ function() a:boot() end, function() b:boot() end })
a:write_file("/tmp/x", "saved")
b:write_file("/x", "saved too")
lab:snapshot(dir)

-- A copy whose files may be damaged: the large ones are shared, and replaced rather than changed.
local function copy(t)
	local to = home .. "/copy.lab"
	os.execute(("cp -al %s %s"):format(dir, to))
	t:defer(function() os.execute("rm -rf " .. to) end)
	return to
end

local function replace(path, text)
	os.remove(path)
	nested.write(path, text)
end

local function change(path, from, to)
	local text, n = nested.read(path):gsub(from, to, 1)
	assert(n == 1, "nothing to change in " .. path)
	replace(path, text)
end

local function names(x)
	return table.concat(x:vm_names(), " ") .. "; " .. table.concat(x:sub_lab_names(), " ")
end

local function files_in_home()
	return nested.shell("ls -A " .. home)
end

local function running()
	return a:state() .. " " .. b:state() .. " " .. a:run("echo on").stdout .. (b:exists("/x") and "fine" or "not fine")
end

test("a damaged one is refused before anything changes, and says what is wrong", function(t)
	local pids = { a:pid(), b:pid() }
	local to = copy(t)
	local json_path = to .. "/lab.json"
	local whole = nested.read(json_path)
	local function refused(...)
		local message = t:assert_raises(function() lab:restore(to) end)
		for _, text in ipairs({ ... }) do
			t:assert_contains(message, text)
		end
	end
	local function with_json(text, ...)
		replace(json_path, text)
		refused(to, ...)
		replace(json_path, whole)
	end
	with_json(whole:sub(1, 40), "its lab.json is damaged: ")
	with_json("", "its lab.json is damaged")
	with_json("[]", "its lab.json is damaged")
	with_json((whole:gsub('"format":1', '"format":99')), "it has format 99, made by a newer Provium; this one reads format 1")
	with_json((whole:gsub('"format":1,', "")), "its lab.json is damaged: it has no format")
	with_json((whole:gsub('"name":"a"', '"name":"../a"')), "its VM number 1 has no proper name")
	with_json((whole:gsub('"state":"booted"', '"state":"well"')), "has no proper name, profile, state, key or dir")
	os.remove(json_path)
	refused("cannot read its lab.json")
	replace(json_path, whole)
	change(json_path, '"guest"', '"gast"')
	t:assert_contains(t:assert_raises(function() provium:lab("empty"):restore(to) end),
		"vm `a`: no profile named `gast`, did you mean `guest`?")
	replace(json_path, whole)

	os.execute(("cd %s/vms/a.snap && head -c 4096 ram >r && mv r ram"):format(to))
	refused("lab `net`: restore failed:", "a: snapshot `", "its file `ram` has 4096 bytes and should have 134217728")
	os.remove(to .. "/labs/inner/vms/b.snap/state")
	refused("a: snapshot `", "b: snapshot `", "state")
	change(to .. "/labs/inner/vms/b.snap/meta.json", '"format": *%d+', '"format": 99')
	refused("made by a newer Provium")

	t:assert_eq(a:pid() .. " " .. b:pid(), pids[1] .. " " .. pids[2], "they run on")
	t:assert_eq(running(), "booted booted on\nfine")
	t:assert_eq(names(provium:lab("empty")), "; ")
end)

test("a name that means something else is refused before anything changes", function(t)
	local other = provium:lab("other")
	local function refused(text)
		local before = names(other)
		t:assert_contains(t:assert_raises(function() other:restore(dir) end), text)
		t:assert_eq(names(other), before)
	end
	other:vm("a", "guest")
	refused("lab `other`: restore: VM `a` is in the lab already and is another one")
	other:remove("a")
	other:lab("a")
	refused("the name `a` is taken in the lab")
	other:remove("a")
	other:vm("inner", "guest")
	refused("the name `inner` is taken in the lab")
	other:remove("inner")
	other:lab("inner"):vm("b", "kernel-only")
	other:vm("never", "guest")
	local message = t:assert_raises(function() other:restore(dir) end)
	t:assert_contains(message, "VM `b` is in the lab already")
	t:assert_contains(message, "VM `never` is in the lab already")

	lab:remove("never")
	lab:vm("never", "kernel-only")
	t:assert_contains(t:assert_raises(function() lab:restore(dir) end), "VM `never` is in the lab already")
	lab:remove("never")
	lab:include(never)
	t:assert_eq(running(), "booted booted on\nfine")
end)

test("QEMU killed meanwhile: the error names its VM, the others run on, nothing is left", function(t)
	os.execute("kill -STOP " .. b:pid())
	local task = co.spawn(function() lab:snapshot(home .. "/new.lab") end)
	wait_until(function() return a:state() == "paused" end)
	os.execute("kill -KILL " .. b:pid())
	local message = t:assert_raises(function() task:join() end)
	t:assert_contains(message, "lab `net`: snapshot failed:\nb: vm `b`: ")
	t:assert_contains(message, "signal 9")
	t:assert_eq(a:state() .. " " .. b:state(), "booted dead")
	t:assert_eq(files_in_home(), "base.lab")
	t:assert_eq(a:run("echo on").stdout, "on\n")
	lab:restore(dir)
	t:assert_eq(running(), "booted booted on\nfine")
end)

test("a full disk: all run on, nothing is left", function(t)
	local small = home .. "/small"
	os.execute("mkdir " .. small)
	if not os.execute(("mount -t tmpfs -o size=2m none %s 2>/dev/null"):format(small)) then
		os.execute("rmdir " .. small)
		t:skip("no right to mount")
	end
	t:defer(function() os.execute(("umount %s; rmdir %s"):format(small, small)) end)
	local message = t:assert_raises(function() lab:snapshot(small .. "/x/new.lab") end)
	t:assert_contains(message, "lab `net`: snapshot failed:")
	t:assert_contains(message, "a: vm `a`: snapshot: ")
	t:assert_contains(message, "No space left on device")
	t:assert_eq(running(), "booted booted on\nfine")
	t:assert_eq(nested.shell("find " .. small .. "/x"), small .. "/x")
end)

test("a snapshot that is cancelled: nothing is left, all run on", function(t)
	os.execute("kill -STOP " .. b:pid())
	local task = co.spawn(function() lab:snapshot(home .. "/new.lab") end)
	wait_until(function() return a:state() == "paused" end)
	task:cancel()
	t:assert_contains(t:assert_raises(function() task:join() end), "the task was cancelled")
	os.execute("kill -CONT " .. b:pid())
	wait_until(function() return a:state() == "booted" and b:state() == "booted" end)
	t:assert_eq(running(), "booted booted on\nfine")
	wait_until(function() return files_in_home() == "base.lab" end)
end)

-- Cut off at every stage of it, wherever that is.
test("... at any moment", function(t)
	for i = 0, 8 do
		local task = co.spawn(function() lab:snapshot(home .. "/new.lab") end)
		sleep(i * 0.02)
		task:cancel()
		local ok = pcall(task.join, task)
		wait_until(function() return a:state() == "booted" and b:state() == "booted" end)
		wait_until(function() return files_in_home() == (ok and "base.lab\nnew.lab" or "base.lab") end)
		os.execute(("rm -rf %s/new.lab"):format(home))
		t:assert_eq(running(), "booted booted on\nfine")
	end
end)

test("a restore that is cancelled ends what it has begun; the next one works", function(t)
	for i = 0, 8 do
		local task = co.spawn(function() lab:restore(dir) end)
		sleep(i * 0.03)
		task:cancel()
		local ok, message = pcall(task.join, task)
		if not ok then
			t:assert_contains(message, "the task was cancelled")
			wait_until(function() return a:state() == b:state() and (a:state() == "dead" or a:state() == "booted") end)
		end
		lab:restore(dir)
		t:assert_eq(running(), "booted booted on\nfine")
	end
end)

test("in an empty lab its VMs and sub-labs are made, from wherever it was moved", function(t)
	lab:shutdown()
	local to = home .. "/moved"
	assert(os.rename(dir, to))
	local new = provium:lab("new")
	t:assert_eq(new:restore(to), new)
	t:assert_eq(names(new), "a never; inner")
	t:assert_eq(names(new:lab("inner")), "b; ")
	local na, nb = new:vm("a"), new:lab("inner"):vm("b")
	t:assert_eq(na:state() .. " " .. nb:state() .. " " .. new:vm("never"):state(), "booted booted created")
	t:assert_eq(na:profile() .. " " .. nb:profile(), "guest kernel-only")
	t:assert_eq(na:read_file("/tmp/x") .. ", " .. nb:read_file("/x"), "saved, saved too")
	t:assert(na ~= a)

	na:write_file("/tmp/x", "changed")
	nb:kill()
	new:restore(to)
	t:assert_eq(na:read_file("/tmp/x") .. ", " .. nb:read_file("/x"), "saved, saved too", "it is its lab now")
	local again = new:snapshot()
	na:unlink("/tmp/x")
	new:restore(again)
	t:assert_eq(na:read_file("/tmp/x"), "saved")
	new:shutdown()
	assert(os.rename(to, dir))
end)

test("... and none of them, when it is cancelled or fails", function(t)
	for i = 0, 4 do
		local task = co.spawn(function() provium:lab("short"):restore(dir) end)
		sleep(i * 0.02)
		task:cancel()
		if not pcall(task.join, task) then
			wait_until(function() return names(provium:lab("short")) == "; " end)
		end
		provium:lab("short"):shutdown()
		provium:remove("short")
	end
	local to = copy(t)
	local state = to .. "/vms/a.snap/state"
	replace(state, ("x"):rep(#nested.read(state)))	-- of the right size: only QEMU can tell
	local broken = provium:lab("broken")
	local message = t:assert_raises(function() broken:restore(to) end)
	t:assert_contains(message, "lab `broken`: restore failed:\na: vm `a`: restore: failed while loading the snapshot")
	t:assert_eq(names(broken), "; ")
end)

test("two labs of which the pool holds one at a time wait for each other whole", function(t)
	local file = ([[
		local lab = provium:lab("net")
		test("x", function(t)
			for i = 1, 3 do
				lab:restore("%s")
				t:assert_eq(lab:vm("a"):read_file("/tmp/x"), "saved")
				lab:shutdown()
			end
		end)]]):format(dir)
	local r = nested.run(t, { ["one.test.lua"] = file, ["two.test.lua"] = file }, "--cpus 2 --jobs 2 -v")
	t:assert_contains(r.out, "2 file(s); 2 passed, 0 failed, 0 skipped", r.err)
	os.execute("rm -rf " .. home)
end)
