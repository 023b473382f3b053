-- Disks and snapshots: each restored VM has its own, as they were, and the user's files are nobody's to write.

local nested = require("nested")
local places = require("snapshot.places")

local MIB = 1048576

local dir = nested.directory()
places.sh(("cd %s && truncate -s 4M user.img template.img && printf user >user.img && truncate -s 4M user.img "
	.. "&& printf template >template.img && truncate -s 4M template.img"):format(dir))

local vm = provium:vm("a", "guest", { disks = {
	{ scratch = "4M", id = "scratch" },
	{ template = dir .. "/template.img", id = "template" },
	{ path = dir .. "/user.img", id = "user" },
	{ path = dir .. "/template.img", id = "fixed", readonly = true },
} }):boot()

local DEVICE = { scratch = "/dev/vda", template = "/dev/vdb", user = "/dev/vdc", fixed = "/dev/vdd" }

local function put(id, text, which)
	local r = (which or vm):run(("printf '%%s' '%s' | dd of=%s conv=notrunc,fsync,sync bs=512 2>&1"):format(text, DEVICE[id]))
	return r:assert_ok()
end

-- What the device holds, past the guest's cache.
local function get(id, which)
	which = which or vm
	which:write_file("/proc/sys/vm/drop_caches", "3")
	local text = which:run(("dd if=%s bs=512 count=1 2>/dev/null"):format(DEVICE[id])):assert_ok().stdout
	return text:sub(1, (text:find("\0", 1, true) or #text + 1) - 1)
end

test("written before, written after: a restore has what was there", function(t)
	t:assert_eq(get("template"), "template")
	t:assert_eq(get("user"), "user")
	put("scratch", "scratch at the snapshot")
	put("template", "template at the snapshot")
	put("user", "user at the snapshot")
	local snap = vm:snapshot()
	put("scratch", "scratch later")
	put("template", "template later")
	put("user", "user later")
	t:assert_contains(nested.read(dir .. "/user.img"), "user later", "a booted VM writes to the user's file")
	local sum = places.sha256(dir .. "/user.img")

	vm:restore(snap)
	t:assert_eq(get("scratch"), "scratch at the snapshot")
	t:assert_eq(get("template"), "template at the snapshot")
	t:assert_eq(get("user"), "user at the snapshot")
	t:assert_eq(get("fixed"), "template")
	put("user", "of a restored VM")
	t:assert_eq(places.sha256(dir .. "/user.img"), sum, "a restored one never does")

	vm:restore(snap)
	t:assert_eq(get("user"), "user at the snapshot")
end)

test("a snapshot of a restored VM has the disks as they are then", function(t)
	put("scratch", "second")
	put("user", "second")
	local second = vm:snapshot()
	put("scratch", "third")
	vm:restore(second)
	t:assert_eq(get("scratch"), "second")
	t:assert_eq(get("user"), "second")
	local b = provium:vm("b", "guest"):restore(second)
	t:assert_eq(get("scratch", b), "second")
	put("scratch", "of b", b)
	t:assert_eq(get("scratch"), "second", "each has its own")
	b:kill()
end)

test("what the guest has not flushed belongs to its memory, and comes back with it", function(t)
	vm:run("printf unflushed | dd of=/dev/vda conv=notrunc bs=512 2>&1"):assert_ok()
	local snap = vm:snapshot()
	vm:restore(snap)
	t:assert_eq(vm:run("dd if=/dev/vda bs=512 count=1 2>/dev/null").stdout:sub(1, 9), "unflushed")
	vm:run("sync"):assert_ok()
	t:assert_eq(get("scratch"):sub(1, 9), "unflushed")
end)

test("a reset and a reboot of a restored VM keep its own disks", function(t)
	put("user", "kept over a reset")
	local sum = places.sha256(dir .. "/user.img")
	vm:reset()
	t:assert_eq(get("user"), "kept over a reset")
	put("user", "after the reset")
	t:assert_eq(places.sha256(dir .. "/user.img"), sum)
	vm:shutdown()
	vm:boot()
	put("user", "booted once more")
	t:assert_eq(places.sha256(dir .. "/user.img"), sum, "also when it is booted again")
end)

test("the snapshot restores when the user's files are gone", function(t)
	local snap = vm:snapshot()
	places.sh("mv " .. dir .. "/user.img " .. dir .. "/moved.img")
	vm:restore(snap)
	t:assert_eq(get("user"), "booted once more")
	places.sh("mv " .. dir .. "/moved.img " .. dir .. "/user.img")
end)

test("a disk that the snapshot should have and has not", function(t)
	local copy = places.copy(t, vm:snapshot())
	places.sh("rm " .. copy .. "/disk-user")
	local pid = vm:pid()
	t:assert_contains(t:assert_raises(function() vm:restore(copy) end), "its file `disk-user`: No such file")
	t:assert_eq(vm:pid(), pid)
	places.sh("rm -r " .. dir)
end)
