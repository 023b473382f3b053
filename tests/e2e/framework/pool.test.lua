-- The pool: what does not fit waits, what never can is refused, a deadlock is decided and explained.

local nested = require("nested")

local PROFILE = '[profiles.p]\ncmdline = "quiet"\nmemory = "128M"\n'

-- Boots one VM, waits until the other file has one too, and wants a second.
local function wants_two(own, other)
	return nested.prelude .. ([[
		test("%s", function(t)
			provium:vm("first", "p"):boot()
			write("%s", "holds one")
			wait_until(function() return exists("%s") end)
			provium:vm("second", "p"):boot()
		end)]]):format(own, own, other)
end

test("a deadlock fails the youngest request, with who holds what, and the other goes on", function(t)
	local r = nested.run_local(t, { ["a.test.lua"] = wants_two("a", "b"), ["b.test.lua"] = wants_two("b", "a") },
		"--cpus 2", PROFILE)
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "2 file(s); 1 passed, 1 failed, 0 skipped")
	t:assert_contains(r.out, "vm `second`: boot: the pool of ")
	t:assert_contains(r.out, "is deadlocked")
	t:assert_contains(r.out, "a.test.lua holds 192 MiB and 1 vCPU, waits for 192 MiB and 1 vCPU")
	t:assert_contains(r.out, "b.test.lua holds 192 MiB and 1 vCPU, waits for 192 MiB and 1 vCPU")
	t:assert_contains(r.out, "lab:boot()")
end)

test("waiting for the pool counts in no timeout", function(t)
	local r = nested.run_local(t, {
		["a.test.lua"] = nested.prelude .. [[
			test("holds", function()
				provium:vm("a", "p"):boot()
				write("held", "")
				wait_until(function() return exists("waiting") end)
				sleep(2)
			end)]],
		["b.test.lua"] = nested.prelude .. [[
			test("waits", {timeout = 1}, function()
				wait_until(function() return exists("held") end)
				write("waiting", "")
				provium:vm("a", "p"):boot():shutdown()
			end)]],
	}, "--cpus 1 --timeout 20", PROFILE)
	t:assert_contains(r.out, "2 file(s); 2 passed, 0 failed, 0 skipped")
end)

test("more than the whole pool is refused at once", function(t)
	local r = nested.run_local(t, 'test("x", function() provium:vm("big", "p"):boot({memory = "4G"}) end)', "--mem 1G",
		PROFILE)
	t:assert_contains(r.out, "vm `big`: boot: 4.1 GiB and 1 vCPU asked for, but the whole pool is 1 GiB and ")
	t:assert_contains(r.out, "raise --mem")
end)

test("a lab acquires for all its VMs at once", function(t)
	local lab = [[
		test("x", function(t)
			for i = 1, 5 do
				local lab = provium:lab("l" .. i)
				lab:vm("a", "p")
				lab:vm("b", "p")
				lab:boot()
				lab:shutdown()
			end
		end)]]
	local r = nested.run_local(t, { ["a.test.lua"] = lab, ["b.test.lua"] = lab, ["c.test.lua"] = lab }, "--cpus 2", PROFILE)
	t:assert_contains(r.out, "3 file(s); 3 passed, 0 failed, 0 skipped")
end)
