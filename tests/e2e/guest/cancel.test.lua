-- Every waiting operation is ended while it waits: by its task, its test, its VM's death, its executor's death.

local waiting = require("guest.waiting")

local vm = provium:vm("a", "guest"):boot()

test("Task:cancel ends each at once and leaves the VM usable", function(t)
	for round = 1, 2 do
		local tasks = waiting.start_all(vm)
		for name, task in pairs(tasks) do
			task:cancel()
			local began = now()
			local ok, message = pcall(task.join, task, 5)
			t:assert_eq(ok, false, name)
			t:assert_contains(message, "cancelled", name)
			t:assert(now() - began < 1, name)
		end
	end
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(vm:run("echo fine").stdout, "fine\n")
end)

test("... and nothing of them is left", function(t)
	waiting.check_clean(t, vm)
	t:assert(vm:is_quiescent())
	t:assert_eq(vm:open_stream_count(), 0)
	t:assert(#vm:run("ps | grep '[p]rovium-worker'"):lines() == 0, "workers of a test end with it")
end)

test("what a worker had open outlives it", function(t)
	for _ = 1, 20 do
		local worker = vm:spawn_worker()
		worker:open_file("/etc/passwd", { read = true })
		worker:run_async("sleep 100")
		worker:close()
	end
	collectgarbage()
	collectgarbage()
end)

test("the executor is killed: its operations fail, the others go on", function(t)
	local old = vm:open_file("/etc/hostname", { read = true })
	local tasks = waiting.start_all(vm, function(name) return name ~= "power_button" end)
	pcall(vm.run, vm, "kill -9 $PPID")
	for name, task in pairs(tasks) do
		if waiting.ops[name].on == "executor" then
			local ok, message = pcall(task.join, task, 5)
			t:assert_eq(ok, false, name)
			t:assert_contains(message, "executor", name)
		else
			t:assert_eq(task:status(), "running", name)
		end
	end
	t:assert_eq(vm:run("echo another one").stdout, "another one\n")
	local new = vm:open_file("/etc/passwd", { read = true })
	t:assert_contains(t:assert_raises(function() old:read(1) end), "handle")
	t:assert(#new:read(5) == 5)
	for _, task in pairs(tasks) do
		task:cancel()
	end
end)

test("a worker is killed while it works", function(t)
	local worker = vm:spawn_worker()
	local task = co.spawn(function() return worker:syscall(34) end)
	sleep("100ms")
	worker:kill()
	local ok, message = pcall(task.join, task, 5)
	t:assert_eq(ok, false)
	t:assert_contains(message, "worker died: signal 9")
	t:assert_eq(worker:join(5), 137)
	t:assert_raises(function() worker:run("true") end)
	waiting.check_clean(t, vm)
end)

test("what could not be waited for in time can be waited for again", function(t)
	local p = vm:run_async("read -r line; echo \"got $line\"; exit 7")
	t:assert_eq(p:wait("200ms", { keep = true }), nil)
	p:stdin_write("it\n")
	local r = p:wait(5)
	t:assert_eq(r.exit_code, 7)
	t:assert_eq(r.stdout, "got it\n")
	waiting.check_clean(t, vm)
end)
