-- A test that computes for ever fails by its timeout, and a neighbour file hardly notices.

local nested = require("nested")

-- Generous: the machine may be busy. tests/bench measures it.
local BOUND = 0.250

test("a spinning test does not hold up another file's guest", function(t)
	local r = nested.run(t, {
		["spin.test.lua"] = nested.prelude .. [[
			wait_until(function() return exists("ready") end, { timeout = 120 })
			for i = 1, 4 do
				test("spin " .. i, { timeout = "300ms" }, function() while true do end end)
			end
			test("after", function() write("over", "") end)]],
		["stat.test.lua"] = nested.prelude .. [[
			local vm = provium:vm("a", "guest"):boot()
			test("stat", function(t)
				vm:stat("/")
				write("ready", "")
				local times = {}
				while not exists("over") do
					local began = now()
					vm:stat("/")
					times[#times + 1] = now() - began
				end
				table.sort(times)
				write("p95", ("%.6f %d"):format(times[math.ceil(#times * 0.95)], #times))
			end)]],
	})
	t:assert_eq(r.status, 1)
	t:assert_contains(r.out, "FAIL spin.test.lua (1 passed, 4 failed, 0 skipped)")
	t:assert_contains(r.out, "test timeout exceeded (0.3s) while computing")
	t:assert_contains(r.out, "PASS stat.test.lua (1 passed, 0 failed, 0 skipped)")
	local p95, n = nested.read(r.dir .. "/p95"):match("(%S+) (%d+)")
	t:log(("p95 of %d vm:stat calls: %.1f ms"):format(n, p95 * 1000))
	t:assert(tonumber(n) > 20, "calls went on: " .. n)
	t:assert(tonumber(p95) < BOUND, ("p95 is %.1f ms"):format(p95 * 1000))
end)
