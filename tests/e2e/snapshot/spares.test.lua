-- QEMUs started ahead: taken by restores of a snapshot in demand, harmless when killed, never left behind.

local nested = require("nested")

provium:vm("images", "guest")	-- so that they are built

-- Shared by the suites: restores n times and says which QEMU each one got.
local restores = nested.prelude .. [[
	local function children()
		local list = {}
		local p = io.popen("pgrep -P $PPID qemu-system")
		for line in p:read("a"):gmatch("%d+") do
			list[tonumber(line)] = true
		end
		p:close()
		return list
	end
	-- The QEMUs of this run that no VM has: its spares. Waits for there to be n.
	local function spares(t, n, ...)
		local mine, list = { ... }, nil
		wait_until(function()
			list = {}
			local all = children()
			for _, vm in ipairs(mine) do
				all[vm:pid()] = nil
			end
			for pid in pairs(all) do
				list[#list + 1] = pid
			end
			return #list == n
		end, { desc = n .. " spares" })
		return list
	end
]]

local function run(t, text, profiles)
	local dir = nested.suite(t, restores .. text, profiles)
	local r = nested.start(dir):join()
	t:assert_eq(r.status, 0, r.out .. r.err)
	return r
end

test("the second restore prepares one, the third takes it; one killed does no harm", function(t)
	run(t, [[
		test("x", function(t)
			local a = provium:vm("a", "guest"):boot()
			a:write_file("/x", "saved")
			local s = a:snapshot()
			a:restore(s)
			spares(t, 0, a)
			a:restore(s)
			for i = 1, 4 do
				local spare = spares(t, 1, a)[1]
				sleep(1)	-- until it is loaded
				a:unlink("/x")
				a:restore(s)
				t:assert_eq(a:pid(), spare, "round " .. i)
				t:assert_eq(a:read_file("/x"), "saved")
			end
			for i = 1, 3 do
				local spare = spares(t, 1, a)[1]
				sleep(i * 0.05)
				os.execute("kill -KILL " .. spare)
				a:restore(s)
				t:assert_eq(a:read_file("/x"), "saved")
				t:assert_neq(a:pid(), spare)
			end
			s:delete()	-- the one that is there is of no use any more, and in nobody's way
			t:assert_contains(t:assert_raises(function() a:restore(s) end), "meta.json")
			t:assert_eq(a:run("echo on").stdout, "on\n")
		end)]])
end)

test("guests with disks have none", function(t)
	local r = run(t, [[
		test("x", function(t)
			local a = provium:vm("a", "guest", { disks = { { id = "data", scratch = "1M" } } }):boot()
			local s = a:snapshot()
			for i = 1, 4 do
				a:restore(s)
				spares(t, 0, a)
			end
		end)]])
	t:assert_contains(r.out, "1 passed")
end)

local waiting = restores .. [[
	local a = provium:vm("a", "guest"):boot()
	local s = a:snapshot()
	test("x", function(t)
		a:restore(s)
		a:restore(s)
		write("pids", spares(t, 1, a)[1] .. " " .. a:pid())
		if exists("end") then
			return
		end
		a:run("sleep 600")
	end)
]]

for _, signal in ipairs({ "KILL", "INT" }) do
	test("none survives SIG" .. signal, function(t)
		local running = nested.start(nested.suite(t, waiting))
		local pids = nested.pids(running:wait_file("pids"))
		t:assert_eq(#pids, 2)
		running:signal(signal)
		nested.wait_dead(pids, 10)
		running:join(30)
	end)
end

test("none survives the end of a run", function(t)
	local dir = nested.suite(t, waiting)
	nested.write(dir .. "/end", "")
	local r = nested.start(dir):join()
	t:assert_eq(r.status, 0, r.out .. r.err)
	nested.wait_dead(nested.pids(nested.read(dir .. "/pids")), 10)
	t:assert_eq(nested.shell("ls -A " .. dir .. "/tmp"), "")
end)
