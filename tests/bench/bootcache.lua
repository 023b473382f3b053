-- One of many files that boot a VM each and do a little with it; tests/bench/run makes the copies.

test("one VM", function(t)
	local vm = provium:vm("one", "bench"):boot()
	vm:run("true"):assert_ok()
	t:assert_eq(vm:read_file("/proc/sys/kernel/ostype"), "Linux\n")
end)
