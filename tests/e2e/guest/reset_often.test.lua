-- vm:reset() again and again, and in the middle of large transfers.

local vm = provium:vm("a", "guest")
vm:boot()

local function boot_id()
	return vm:read_file("/proc/sys/kernel/random/boot_id")
end

test("ten resets in a row", function(t)
	local seen = { [boot_id()] = true }
	for i = 1, 10 do
		vm:reset()
		local id = boot_id()
		t:assert(not seen[id], "reset " .. i .. " booted anew")
		seen[id] = true
	end
end)

test("in the middle of transfers in both directions", function(t)
	local big = ("0123456789abcdef"):rep(4194304)
	for _ = 1, 2 do
		local push = co.spawn(pcall, vm.write_file, vm, "/tmp/big", big)
		local pull = co.spawn(pcall, vm.run, vm, "cat /dev/zero")
		wait_until(function() return vm:exists("/tmp/big") and vm:stat("/tmp/big").size > 1048576 end)
		vm:reset()
		t:assert_contains(select(2, push:join()), "the VM was reset")
		t:assert_contains(select(2, pull:join()), "the VM was reset")
		t:assert_eq(vm:run("echo fine").stdout, "fine\n")
	end
end)
