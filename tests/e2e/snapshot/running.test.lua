-- A running VM is saved and runs on: the guest sees nothing but time passing, no longer than was reported.

local places = require("snapshot.places")

local vm = provium:vm("a", "guest"):boot()
vm:write_file("/tmp/count", [[
i=0
while :; do
	i=$((i + 1))
	echo "count $i"
done
]])

-- The longest time in which the guest's counter, printed on the console, stood still while fn ran; and fn's result.
local function longest_gap(fn)
	local over, longest = false, 0
	local watcher = co.spawn(function()
		local last, since = #vm:console():read_log(), now()
		while true do
			sleep("1ms")
			local length = #vm:console():read_log()
			if length ~= last then
				longest = math.max(longest, now() - since)
				last, since = length, now()
				if over then
					return		-- it has gone on since
				end
			end
		end
	end)
	sleep("100ms")
	local result = fn()
	over = true
	watcher:join(60)
	return longest, result
end

test("a counter in the guest stands still for no longer than the reported pause", function(t)
	local process = vm:run_async("exec sh /tmp/count >/dev/hvc0")
	wait_until(function() return vm:console():read_log():find("count 50", 1, true) end)
	local usual = longest_gap(function() sleep("500ms") end)
	local gap, snap = longest_gap(function() return vm:snapshot() end)
	local stats = snap:stats()
	t:log({ usual = usual, gap = gap, pause = stats.pause })
	t:assert(stats.pause > 0)
	-- A busy machine adds to both; what it may add here is far from a guest that does not go on.
	t:assert(gap <= stats.pause + math.max(1, 5 * usual), ("%.3f s, reported %.3f s"):format(gap, stats.pause))
	process:kill()
	process:wait()

	local last = 0
	for n in vm:console():read_log({ clean = true }):gmatch("count (%d+)\n") do
		t:assert(tonumber(n) > last, ("%s after %d: nothing comes twice"):format(n, last))
		last = tonumber(n)
	end
	t:assert(last > 50)
end)

test("stats() and size() say what it cost", function(t)
	local began = now()
	local snap = vm:snapshot()
	local took, stats = now() - began, snap:stats()
	t:assert(stats.pause > 0 and stats.pause <= took)
	t:assert(stats.bytes > 1048576 and stats.bytes < 128 * 1048576, "without the memory that is zero")
	t:assert_near(snap:size(), stats.bytes, 65536)
	t:assert_same(stats, snap:stats())
end)

test("two tasks on it: one saves, the other finds it out", function(t)
	local dir = places.dir(t)
	local saving = co.spawn(function() return vm:snapshot(dir .. "/one.snap") end)
	wait_until(function() return places.list(dir) ~= "" end, { interval = 0.001 })
	if saving:status() == "running" then
		for name, fn in pairs {
			snapshot = function() vm:snapshot(dir .. "/two.snap") end,
			restore = function() vm:restore(dir .. "/one.snap") end,
			pause = function() vm:pause() end,
			reset = function() vm:reset() end,
		} do
			if saving:status() == "running" then
				t:assert_raises(fn, name)
			end
		end
	end
	saving:join()
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(places.list(dir), "one.snap ")
	t:assert(vm:run("true"):ok())
end)

test("several snapshots of one VM, each of its own time", function(t)
	local snaps = {}
	for i = 1, 3 do
		vm:write_file("/tmp/i", tostring(i))
		snaps[i] = vm:snapshot()
	end
	for _, i in ipairs({ 2, 1, 3, 1 }) do
		vm:restore(snaps[i])
		t:assert_eq(vm:read_file("/tmp/i"), tostring(i))
	end
end)

test("shutdown while it is saved ends both", function(t)
	local dir = places.dir(t)
	local saving = co.spawn(pcall, vm.snapshot, vm, dir .. "/one.snap")
	wait_until(function() return places.list(dir) ~= "" end, { interval = 0.001 })
	vm:shutdown()
	local ok, message = saving:join()
	t:assert_eq(vm:state(), "shutdown")
	if not ok then
		t:assert_contains(message, "vm `a`: snapshot:")
		t:assert_eq(places.list(dir), "", "nothing is left of it")
	end
end)
