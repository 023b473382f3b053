-- What is not the snapshot's after a restore: random numbers and the time.

local GETRANDOM = 318

local vm = provium:vm("a", "guest"):boot()
vm:read_file("/proc/sys/kernel/random/boot_id")
local snap = vm:snapshot()

-- The first that a restored guest draws, by each way; the restore was the last that was done to it.
local ways = {
	["/dev/urandom"] = function(which) return which:run("head -c 32 /dev/urandom").stdout end,
	getrandom = function(which)
		return which:syscall(GETRANDOM, { args = { 0, 32, 0 }, bufs = { { len = 32 } }, ptrs = { [1] = 0 } }).out_bufs[1]
	end,
	uuid = function(which) return which:read_file("/proc/sys/kernel/random/uuid") end,
}

for name, draw in pairs(ways) do
	test("no two restores draw the same: " .. name, function(t)
		local seen = {}
		for round = 1, 4 do
			vm:restore(snap)
			local drawn = draw(vm)
			t:assert(#drawn >= 32)
			t:assert_eq(seen[drawn], nil, "round " .. round)
			seen[drawn] = round
		end
	end)
end

test("two VMs of one snapshot at the same time draw different numbers from their first call", function(t)
	local b = provium:vm("b", "guest")
	co.all{ function() vm:restore(snap) end, function() b:restore(snap) end }
	local drawn = co.all{ function() return ways.getrandom(vm) end, function() return ways.getrandom(b) end }
	t:assert_neq(drawn[1], drawn[2])
	t:assert_neq(ways["/dev/urandom"](vm), ways["/dev/urandom"](b))
	b:kill()
end)

test("a paused snapshot's guests, when they go on", function(t)
	vm:restore(snap)
	vm:pause()
	local paused = vm:snapshot()
	local seen = {}
	for round = 1, 3 do
		vm:restore(paused)
		vm:resume()
		local drawn = ways.getrandom(vm)
		t:assert_eq(seen[drawn], nil, "round " .. round)
		seen[drawn] = round
	end
end)

test("a worker and a process that were there before draw anew, too", function(t)
	vm:restore(snap)
	local w = vm:spawn_worker()
	local with_worker = vm:snapshot()
	local seen = {}
	for round = 1, 3 do
		vm:restore(with_worker)
		local drawn = ways.getrandom(w)
		t:assert_eq(seen[drawn], nil, "round " .. round)
		seen[drawn] = round
	end
end)

test("the clock is the host's right after a restore", function(t)
	vm:restore(snap)
	vm:clock():set(1e9)
	local past = vm:snapshot()
	vm:restore(past)
	t:assert_near(vm:clock():get(), os.time(), 3)
	t:assert_near(tonumber(vm:run("date +%s"):trim()), os.time(), 5)
end)

test("... and the snapshot's with {clock = \"keep\"}", function(t)
	vm:restore(snap)
	vm:clock():set(1e9)
	local past = vm:snapshot()
	vm:restore(past, { clock = "keep" })
	t:assert_near(vm:clock():get(), 1e9, 60)
	vm:restore(past, {})
	t:assert_near(vm:clock():get(), os.time(), 3)
end)

test("... also when it was paused and goes on later", function(t)
	vm:restore(snap)
	vm:clock():set(1e9)
	vm:pause()
	local past = vm:snapshot()
	vm:restore(past, { clock = "keep" })
	vm:resume()
	t:assert_near(vm:clock():get(), 1e9, 60)
	vm:restore(past)
	vm:resume()
	t:assert_near(vm:clock():get(), os.time(), 3)
end)

test("time since boot goes on from the snapshot's", function(t)
	local function uptime() return tonumber((vm:read_file("/proc/uptime"):match("^%S+"))) end
	vm:restore(snap)
	local early = vm:snapshot()
	local at = uptime()
	vm:clock():sleep("300ms")
	vm:restore(early)
	local after = uptime()
	t:assert(after < at + 60 and after > at - 60)
end)
