-- --vmm local: commands, files, processes and clocks without a VM; the host is left as it was; any user may.

local nested = require("nested")

local PROFILE = '[profiles.guest]\nkernel = "none"\ncmdline = "quiet"\n'

local SUITE = [[
	local vm = provium:vm("a", "guest"):boot()

	test("commands", function(t)
		t:assert_eq(vm:run("echo out; echo err >&2; exit 3").exit_code, 3)
		t:assert_eq(vm:run("echo", { "two  words" }).stdout, "two  words\n")
		t:assert_eq(vm:run("cat", { args = {}, stdin = "fed" }).stdout, "fed")
		t:assert(vm:run("sleep 60", { timeout = "200ms" }).timed_out)
		local process = vm:run_async("read line; echo got $line")
		process:stdin_write("it\n")
		t:assert_eq(process:wait(10).stdout, "got it\n")
		local results = vm:batch(function(b) b:run("echo one") b:stat("/") end)
		t:assert(results[1].ok and results[2].ok)
	end)

	test("files", function(t)
		vm:mkdir("/tmp/d/e", { parents = true })
		vm:write_file("/tmp/d/e/f", "text", { mode = 384 })
		t:assert_eq(vm:stat("/tmp/d/e/f").perm, 384)
		vm:chmod("/tmp/d/e/f", 420)
		vm:rename("/tmp/d/e/f", "/tmp/d/g")
		t:assert_eq(vm:read_file("/tmp/d/g"), "text")
		t:assert_same(vm:listdir("/tmp/d"), { { name = "e", entry_type = "directory" }, { name = "g", entry_type = "file" } })
		vm:push_file("x.test.lua", "/tmp/pushed")
		vm:pull_file("/tmp/pushed", "pulled")
		t:assert_eq(#vm:read_file("/tmp/pushed"), vm:stat("/tmp/pushed").size)
		local file = vm:open_file("/tmp/d/g", { read = true })
		t:assert_eq(file:read_all(), "text")
		file:close()
		vm:unlink("/tmp/d", { recursive = true })
		t:assert(not vm:exists("/tmp/d"))
		vm:write_file("/tmp/provium-left-behind", "private")
	end)

	test("clock", function(t)
		vm:clock():set(1000000000)
		t:assert_near(vm:clock():get(), 1000000000, 5)
	end)

	test("sys", function(t) t:assert_eq(vm:syscall(39).ret > 0, true) end)
]]

-- Whether anything of a run is left: its run directory, a file of its private /tmp on the host, its processes.
local function check_clean(t, dir)
	t:assert_eq(nested.shell(("ls -A %s/tmp"):format(dir)), "")
	t:assert(not nested.exists("/tmp/provium-left-behind"), "the private /tmp is not the host's")
	-- Written as [t]mp..., so that the search does not find itself.
	t:assert_eq(nested.shell(("grep -l -a -s '[t]%s/tmp/provium' /proc/[0-9]*/cmdline"):format(dir:match("[^/]+$"):sub(2))),
		"", "no process is left")
end

test("everything that needs no machine works, and the host's clock is untouched", function(t)
	local before, began = os.time(), now()
	local r = nested.run_local(t, SUITE, nil, PROFILE)
	t:assert_eq(r.status, 0, r.out .. r.err)
	t:assert_contains(r.out, "PASS x.test.lua (4 passed, 0 failed, 0 skipped)")
	t:assert_near(os.time() - before, now() - began, 3, "the host's clock")
	check_clean(t, r.dir)
end)

test("the same as an ordinary user", function(t)
	if nested.shell("id -u") ~= "0" then
		t:skip("only root can become another user")
	end
	-- A directory and programs that this user can reach, wherever ours are.
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	nested.write(dir .. "/x.test.lua", SUITE)
	nested.write(dir .. "/provium.toml", '[provium]\nroots = ["."]\n' .. PROFILE)
	os.execute(("mkdir %s/tmp %s/bin && cp '%s' %s/bin/ && cp '%s/provium-agent' %s/bin/ && chown -R 65534 %s"):format(dir,
		dir, nested.binary, dir, nested.binary:match("^(.*)/"), dir, dir))
	local out = nested.shell(("cd %s && env -u PROVIUM_LOG HOME=%s TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun NO_COLOR=1 "
		.. "setpriv --reuid=65534 --regid=65534 --clear-groups %s/bin/provium --vmm local -v 2>&1; echo status $?"):format(
		dir, dir, dir, dir, dir))
	t:assert_contains(out, "PASS x.test.lua (4 passed, 0 failed, 0 skipped)")
	t:assert_contains(out, "status 0")
	check_clean(t, dir)
end)

test("SIGKILL to provium ends the local agent and what it runs", function(t)
	local dir = nested.suite(t, nested.prelude .. [[
		local vm = provium:vm("a", "guest"):boot()
		test("long", function() write("pids", tostring(vm:pid())) vm:run("sleep 600") end)]])
	local run = nested.start(dir, "--vmm local -v")
	local pids = nested.pids(run:wait_file("pids"))
	run:signal("KILL")
	nested.wait_dead(pids, 1)
	run:join(5)
	nested.write(dir .. "/x.test.lua", 'test("nothing", function() end)')
	t:assert_eq(nested.start(dir, "--vmm local"):join(30).status, 0)
	check_clean(t, dir)
end)
