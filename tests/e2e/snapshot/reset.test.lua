-- reset_between_tests: every test begins with what the chunk has left, whatever the ones before have done.

provium.reset_between_tests = true

local lab = provium:lab("net")
local a, b = provium:vm("a", "guest"):boot(), lab:vm("b", "kernel-only")
a:write_file("/tmp/log", "chunk\n")
a:run("mkdir -p /tmp/memory; mount -t tmpfs none /tmp/memory; echo kept >/tmp/memory/kept"):assert_ok()
a:run("echo first >/dev/hvc0; echo second >/dev/hvc0"):assert_ok()
a:console():expect("first")
a:console():expect("second")
local file = a:open_file("/tmp/log", { read = true, write = true })
file:read(3)
local worker = a:spawn_worker()
worker:run("echo worker >/tmp/worker"):assert_ok()
worker:syscall(80, { bufs = { "/tmp\0" }, ptrs = { 0 } })	-- chdir, as its own state
local process = a:run_async("while read line; do echo got $line; done")
local ticking = a:run_async("n=0; while true; do n=$((n + 1)); echo $n >/tmp/memory/ticks; sleep 0.05; done")
local pids = { worker = worker:pid(), process = process:pid(), ticking = ticking:pid() }
a:clock():set(1000000000)
local log, rounds = a:console():read_log(), 0

-- What each test finds.
local function pristine(t)
	rounds = rounds + 1
	t:assert_eq(a:state() .. " " .. b:state(), "booted created")
	t:assert_eq(a:read_file("/tmp/log"), "chunk\n")
	t:assert_eq(a:read_file("/tmp/memory/kept"), "kept\n")
	t:assert(not a:exists("/tmp/mark") and not a:exists("/tmp/memory/mark"), "a file of another test")
	t:assert_eq(a:run("pgrep -f '[s]leep 777' | wc -l").stdout, "0\n", "a process of another test")
	t:assert_eq(table.concat(provium:vm_names(), " "), "", "the test's own lab is empty")
	t:assert_eq(table.concat(lab:vm_names(), " "), "b")
	t:assert_eq(table.concat(lab:sub_lab_names(), " "), "")
	t:assert_eq(a:open_stream_count(), 0)
	t:assert_eq(file:tell(), 3)
	t:assert_eq(file:read(2), "nk")
	t:assert_eq(worker:pid(), pids.worker)
	t:assert_eq(worker:run("cat /tmp/worker; pwd").stdout, "worker\n/tmp\n")
	t:assert_eq(process:status() .. " " .. process:pid(), "running " .. pids.process)
	t:assert_eq(ticking:status() .. " " .. ticking:pid(), "running " .. pids.ticking)
	local ticks = tonumber(a:read_file("/tmp/memory/ticks"))
	wait_until(function() return (tonumber(a:read_file("/tmp/memory/ticks")) or 0) > (ticks or 0) end)
	t:assert_eq(a:console():read_log():sub(1, #log), log, "the console begins as it was")
	t:assert(not a:console():read_log():find("said by", 1, true), "another test's console")
	t:assert_near(a:clock():get(), rounds == 1 and 1000000000 or os.time(), 60, "the clock is the host's after a reset")
end

-- As much of a mess as one can make.
local function mess(name)
	a:write_file("/tmp/log", name)
	a:write_file("/tmp/mark", name)
	a:write_file("/tmp/memory/mark", name)
	a:unlink("/tmp/memory/kept")
	file:seek(0, "end")
	worker:run("rm /tmp/worker")
	worker:syscall(80, { bufs = { "/\0" }, ptrs = { 0 } })
	a:run_async("sleep 777")
	a:run(("echo said by %s >/dev/hvc0"):format(name)):assert_ok()
	a:console():expect("said by " .. name)
	a:clock():advance(-86400)
	lab:lab("sub-" .. name)
	lab:vm("vm-" .. name, "guest")
	process:stdin_write("a line\n")
end

for i = 1, 4 do
	test("mess " .. i, function(t)
		pristine(t)
		mess("mess" .. i)
	end)
end

test("expect goes on where the chunk has left it", function(t)
	pristine(t)
	t:assert_contains(t:assert_raises(function() a:console():expect("second", 0.2) end), "timed out")
	a:run("echo third >/dev/hvc0")
	a:console():expect("third")
	mess("expect")
end)

test("a process talks on, in every test", function(t)
	pristine(t)
	process:stdin_write("hello\n")
	t:assert_eq(process:stdout_stream():read_line(), "got hello")
	process:stdin_write("unread\n")
	mess("process")
end)

test("... and has not heard what another test said", function(t)
	pristine(t)
	process:stdin_write("again\n")
	t:assert_eq(process:stdout_stream():read_line(), "got again")
	mess("again")
	process:kill()
	t:assert_eq(process:wait().status, "signalled")
	t:assert_eq(process:status(), "exited")
end)

test("what the chunk has started can be ended", function(t)
	pristine(t)
	mess("end")
	process:signal("kill")
	wait_until(function() return process:status() == "exited" end)
	worker:kill()
	worker:join()
end)

for _, how in ipairs({ "kill", "shutdown", "pause", "reset", "panic" }) do
	test("a VM is there again after " .. how, function(t)
		pristine(t)
		if how == "panic" then
			a:run_async("sleep 0.1; echo c >/proc/sysrq-trigger")
			wait_until(function() return a:state() == "dead" end)
		else
			a[how](a)
		end
	end)
end

test("a VM that a test has booted is put back", function(t)
	pristine(t)
	a:kill()
	b:boot()
	b:write_file("/mark", "")
end)

test("... and boots anew", function(t)
	pristine(t)
	a:kill()
	b:boot()
	t:assert(not b:exists("/mark"))
end)

test("together", { parallel = true }, function(t)
	pristine(t)
	mess("parallel1")
	sleep(0.1)
	t:assert_eq(a:read_file("/tmp/log"), "parallel1", "nobody else is at it")
end)

test("alone", { parallel = true }, function(t)
	pristine(t)
	mess("parallel2")
	sleep(0.1)
	t:assert_eq(a:read_file("/tmp/log"), "parallel2")
end)

local attempts = 0
test("each attempt begins anew", { retries = 2 }, function(t)
	pristine(t)
	mess("attempt")
	attempts = attempts + 1
	t:assert_eq(attempts, 3)
end)
