-- States, options of a boot, and what a failed boot tells.

test("a guest goes through its states", function(t)
	local vm = provium:vm("cycle", "guest")
	t:assert_eq(vm:state(), "created")
	vm:boot({ memory = "192M", cpus = 1 })
	t:assert_eq(vm:state(), "booted")
	vm:shutdown()
	t:assert_eq(vm:state(), "shutdown")
	vm:boot()
	t:assert_eq(vm:run("echo again"):trim(), "again")
end)

test("files can be put into the guest before it boots", function(t)
	local vm = provium:vm("files", "guest"):boot({
		files = { { path = "/etc/greeting", content = "hello\n" } },
	})
	t:assert_eq(vm:read_file("/etc/greeting"), "hello\n")
end)

test("a call in the wrong state says so", function(t)
	local vm = provium:vm("off", "guest")
	local err = t:assert_raises(function() vm:run("true") end)
	t:assert_contains(err, "vm `off`: VM not booted (cannot run)")
end)
