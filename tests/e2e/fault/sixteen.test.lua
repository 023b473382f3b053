-- Sixteen files, each with a VM of its own, at the same time, from one process with one thread.

local nested = require("nested")

local N = 16

-- Each file boots, tells, and waits until all have told; the first one then looks at the process that runs them.
local member = nested.prelude .. [[
	local vm = provium:vm("a", "guest"):boot()
	local me, all = %d, %d
	local function all_up()
		for i = 1, all do
			if not exists("up." .. i) then
				return false
			end
		end
		return true
	end
	test("together", function(t)
		write("up." .. me, ("%%d\n"):format(vm:pid()))
		wait_until(all_up, { timeout = 240, desc = "every file's VM" })
		if me == 1 then
			os.execute("ls /proc/$PPID/task >threads; echo $PPID >owner")
			write("looked", "")
		end
		wait_until(function() return exists("looked") end, { timeout = 60 })
		t:assert_eq(vm:run("echo " .. me):trim(), tostring(me))
	end)]]

test("sixteen VMs, one thread", { timeout = 280 }, function(t)
	local files = {}
	for i = 1, N do
		files[("f%02d.test.lua"):format(i)] = member:format(i, N)
	end
	local began = now()
	local run = nested.start(nested.suite(t, files), ("-v --cpus %d --mem 8G"):format(N))
	run:wait_file("looked", 270)
	t:log(("all up after %.1f s"):format(now() - began))
	local owner = run:pid()
	t:assert_eq(tonumber(nested.read(run.dir .. "/owner")), owner, "one process runs all the files")
	t:assert_eq(nested.read(run.dir .. "/threads"), owner .. "\n", "it has exactly one thread")
	local seen, qemus = {}, {}
	for i = 1, N do
		local pid = nested.pids(nested.read(run.dir .. "/up." .. i))[1]
		t:assert(not seen[pid], "each file has a QEMU of its own")
		seen[pid], qemus[i] = true, pid
	end
	local r = run:join(60)
	t:assert_eq(r.status, 0, r.out .. r.err)
	t:assert_contains(r.out, ("%d file(s); %d passed, 0 failed, 0 skipped"):format(N, N))
	nested.wait_dead(qemus, 1)
end)
