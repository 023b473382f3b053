-- Wrong arguments and wrong states of snapshot, restore and Snapshot's methods: each says what was expected.

local nested = require("nested")

local vm = provium:vm("a", "kernel-only"):boot()
local snap = vm:snapshot()

local function raises(t, expected, fn)
	t:assert_contains(t:assert_raises(fn, expected), expected)
end

test("vm:snapshot", function(t)
	raises(t, "expected vm:snapshot([path]), got a number as argument 1", function() vm:snapshot(5) end)
	raises(t, "expected vm:snapshot([path]), got a table as argument 1", function() vm:snapshot({}) end)
	raises(t, "expected vm:snapshot([path]), got an empty path", function() vm:snapshot("") end)
	raises(t, "expected vm:snapshot([path]), got more than 1 argument", function() vm:snapshot("/tmp/x", 1) end)
	raises(t, "expected vm:snapshot([path]) (call it with a colon), got a string", function() vm.snapshot("x") end)
	raises(t, "expected vm:snapshot([path]) (call it with a colon), got a nil", function() vm.snapshot() end)
end)

test("vm:restore", function(t)
	local signature = "expected vm:restore(Snapshot or path [, {clock=\"keep\"}])"
	raises(t, signature .. ", got a nil as argument 1", function() vm:restore() end)
	raises(t, signature .. ", got a boolean as argument 1", function() vm:restore(true) end)
	raises(t, signature .. ", got an empty path", function() vm:restore("") end)
	raises(t, signature .. ", got more than 2 arguments", function() vm:restore(snap, {}, 1) end)
	raises(t, signature .. " (call it with a colon), got a table", function() vm.restore(snap) end)
	raises(t, "vm:restore: unknown option `clok` (known: clock)", function() vm:restore(snap, { clok = "keep" }) end)
	raises(t, "vm:restore: unknown option `1` (known: clock)", function() vm:restore(snap, { "keep" }) end)
	raises(t, "vm:restore: clock is \"keep\" or not given, got `set`", function() vm:restore(snap, { clock = "set" }) end)
	raises(t, "vm:restore: clock is \"keep\" or not given, got `true`", function() vm:restore(snap, { clock = true }) end)
	raises(t, "vm:restore: options must be a table, got a string", function() vm:restore(snap, "keep") end)
	t:assert_eq(vm:state(), "booted", "it was left alone")
end)

test("Snapshot's methods need their Snapshot", function(t)
	for _, method in ipairs({ "path", "size", "delete", "stats" }) do
		raises(t, ("expected snapshot:%s() (a colon), got a nil"):format(method), function() snap[method]() end)
		raises(t, ("expected snapshot:%s() (a colon), got a table"):format(method), function() snap[method]({}) end)
	end
end)

test("states", function(t)
	local b = provium:vm("b", "kernel-only")
	raises(t, "vm `b`: VM not booted (cannot snapshot)", function() b:snapshot() end)
	b:shutdown()
	raises(t, "vm `b`: VM", function() b:snapshot() end)
	vm:kill()
	raises(t, "vm `a`: VM is dead (cannot snapshot)", function() vm:snapshot() end)
	vm:restore(snap)
	local booting = co.spawn(function() b:boot() end)
	sleep("50ms")
	raises(t, "vm `b`: another task is booting it (cannot restore)", function() b:restore(snap) end)
	booting:cancel()
	pcall(booting.join, booting)
end)

test("--vmm local has none of it", function(t)
	local r = nested.run_local(t, { ["x.test.lua"] = [[
		local vm = provium:vm("a", "any"):boot()
		test("snapshot", function(t)
			t:assert_contains(t:assert_raises(function() vm:snapshot() end), "not supported by --vmm local")
			t:assert_contains(t:assert_raises(function() vm:restore("/nope") end), "not supported by --vmm local")
			t:assert_eq(vm:state(), "booted")
		end)]] }, "-v", '[profiles.any]\nkernel = "/nope"\ncmdline = ""\n')
	t:assert_eq(r.status, 0, r.out .. r.err)
end)
