-- 64 MiB pushed and pulled, and what a vm:stat takes meanwhile.

local bench = require("bench")

local MIB = 1 << 20
local size = bench.count(64, 4) * MIB
local idle, meanwhile = {}, { push = {}, pull = {} }
local speed = { push = {}, pull = {} }		-- with a vm:stat loop beside it
local alone = { push = {}, pull = {} }

local function same(a, b)
	local _, _, code = os.execute(("cmp -s '%s' '%s'"):format(a, b))
	return code == 0
end

local function move_alone(kind, fn)
	return function()
		local start = now_ns()
		fn()
		table.insert(alone[kind], size / MIB / ((now_ns() - start) / 1e9))
	end
end

-- Moves the file once while stat runs in a loop beside it.
local function move(vm, kind, fn)
	return function()
		bench.time_calls(idle, bench.count(200, 10), function() vm:stat("/etc/passwd") end)
		local start = now_ns()
		local mover = co.spawn(fn)
		while mover:status() ~= "done" and mover:status() ~= "failed" do
			bench.time_calls(meanwhile[kind], 1, function() vm:stat("/etc/passwd") end)
		end
		mover:join()
		table.insert(speed[kind], size / MIB / ((now_ns() - start) / 1e9))
	end
end

local function ratio(kind, p)
	return ("%.2f"):format(bench.quantile(meanwhile[kind], p) / bench.quantile(idle, p))
end

local function report(kind, name)
	bench.report("transfer: " .. name, ("%.0f MiB/s"):format(bench.median(alone[kind])),
		("%d MiB"):format(size / MIB))
	bench.report("transfer: " .. name .. " beside stats", ("%.0f MiB/s"):format(bench.median(speed[kind])),
		"a vm:stat loop without pauses")
	bench.report_latency("transfer: vm:stat during a " .. kind, meanwhile[kind],
		#meanwhile[kind] .. " calls")
	bench.report("transfer: p50 during a " .. kind .. " / idle", ratio(kind, 0.5))
	bench.report("transfer: p95 during a " .. kind .. " / idle", ratio(kind, 0.95), "aim: under 2")
end

test("transfer", { timeout = "30m" }, function(t)
	bench.need_tools()
	local here, back = bench.tools .. "/transfer.bin", bench.tools .. "/transfer.back"
	assert(os.execute(("head -c %d /dev/urandom >'%s'"):format(size, here)))
	local vm = provium:vm("transfer", "bench", { memory = "512M" }):boot()
	bench.time_calls({}, 50, function() vm:stat("/etc/passwd") end)
	local function push() vm:push_file(here, "/tmp/transfer.bin") end
	local function pull() vm:pull_file("/tmp/transfer.bin", back) end
	bench.interleave(bench.count(4, 1), move_alone("push", push), move(vm, "push", push),
		move_alone("pull", pull), move(vm, "pull", pull))
	t:assert(same(here, back), "what came back is what was sent")
	bench.report_latency("transfer: vm:stat idle", idle, #idle .. " calls")
	report("push", "vm:push_file")
	report("pull", "vm:pull_file")
end)
