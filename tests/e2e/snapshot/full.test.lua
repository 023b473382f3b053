-- A snapshot onto a file system that is full: it names what it needs, leaves nothing, and the VM runs on.

local nested = require("nested")
local places = require("snapshot.places")

local vm = provium:vm("a", "guest"):boot()

-- A file system of this size, or the test is skipped.
local function small(t, size)
	local dir = places.dir(t)
	if not os.execute(("mount -t tmpfs -o size=%s none %s 2>/dev/null"):format(size, dir)) then
		t:skip("may not mount a tmpfs")
	end
	t:defer(function() os.execute("umount " .. dir) end)
	return dir
end

local function check(t, dir)
	local message = t:assert_raises(function() vm:snapshot(dir .. "/one.snap") end)
	t:assert_contains(message, "vm `a`: snapshot: ")
	t:assert_contains(message, "No space left on device")
	t:assert_contains(message, dir .. "/one.snap")
	t:assert_eq(places.list(dir), "", "nothing is left")
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(vm:qmp("query-status").running, true)
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
	return message
end

test("memory does not fit", function(t)
	local dir = small(t, "8M")
	local message = check(t, dir)
	t:assert_match(message, "needs? %d+")
	t:assert_contains(message, "/ram")
end)

test("nothing fits", function(t)
	check(t, small(t, "4k"))
end)

test("the disks do not fit", function(t)
	vm:kill()
	local own = provium:vm("own", "guest", { disks = { { scratch = "64M", id = "big" } } }):boot()
	own:run("dd if=/dev/urandom of=/dev/vda bs=1M count=48 conv=fsync 2>&1"):assert_ok()
	local whole = own:snapshot()
	local dir = small(t, whole:stats().bytes // 1024 - 24 * 1024 .. "k")
	local message = t:assert_raises(function() own:snapshot(dir .. "/one.snap") end)
	t:assert_contains(message, "vm `own`: snapshot: ")
	t:assert_contains(message, "No space left on device")
	t:assert_eq(places.list(dir), "")
	t:assert(own:run("true"):ok())
	own:kill()
	vm:boot()
end)

test("the device state does not fit: QEMU is who finds it out", function(t)
	local big = small(t, "400M")
	local first = vm:snapshot(big .. "/base.snap")
	vm:restore(first)
	local second = vm:snapshot(big .. "/second.snap")
	local need = second:stats().bytes // 1024
	second:delete()
	-- Room for the changes, and not for the state beside them.
	local free = tonumber(nested.shell("df --output=avail -k " .. big .. " | tail -1"))
	places.sh(("head -c %dK /dev/zero >%s/filler"):format(free - need * 9 // 10, big))
	local message = t:assert_raises(function() vm:snapshot(big .. "/third.snap") end)
	t:assert_contains(message, "vm `a`: snapshot: ")
	t:assert_contains(message, "No space left on device: it needs ")
	t:assert_eq(places.list(big), "base.snap filler ")
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
	os.remove(big .. "/filler")
	vm:restore(vm:snapshot(big .. "/third.snap"))
	vm:restore(vm:snapshot())
	t:assert(vm:run("true"):ok())
end)
