-- Operations on networks that are cancelled while they are pending, and guests that end meanwhile: what they leave is a
-- network that works.

local reach = require("net.reach")

local lan = provium:bridge("lan", { backend = "user" })
local side = provium:bridge("side", { backend = "user" })
local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
lan:attach({ a, b })
provium:boot()

local ops = {
	{ "add_latency", function() lan:add_latency(1) end, function() lan:add_latency(0) end },
	{ "drop_rate", function() lan:drop_rate({ from = a, to = b, p = 5 }) end, function() lan:reset() end },
	{ "partition", function() lan:partition(a, b) end, function() lan:unpartition(a, b) end },
	{ "partition_all", function() lan:partition_all() end, function() lan:restore_all() end },
	{ "isolate", function() lan:isolate(a) end, function() lan:unisolate(a) end },
	{ "reset", function() lan:reset() end },
	{ "counters", function() lan:counters() end },
	{ "nic:counters", function() a:nic(lan):counters() end },
	{ "set_rate", function() a:nic(lan):set_rate(1000000) end, function() a:nic(lan):set_rate(0) end },
	{ "disconnect", function() a:nic(lan):disconnect() end, function() a:nic(lan):reconnect() end },
	{ "route", function() lan:route(side) end },
	{ "frames", function() lan:capture():frames(900) end },
	{ "bridge", function() provium:bridge("another", { backend = "user" }) end },
	{ "attach", function() side:attach(a) end, function()
		if #side:members() > 0 then
			side:detach(a)
		end
	end },
	{ "detach", function() lan:detach(b) end, function()
		if #lan:members() < 2 then	-- it had begun
			wait_until(function() return not b:exists("/sys/class/net/eth0") end, { timeout = 30 })
			lan:attach(b)
		end
	end },
}

for _, op in ipairs(ops) do
	local name, start, undo = op[1], op[2], op[3]
	for _, delay in ipairs({ 0, 0.03 }) do
		test(("%s, cancelled after %gs"):format(name, delay), { timeout = "100s" }, function(t)
			local task = co.spawn(start)
			if delay > 0 then
				sleep(delay)
			end
			task:cancel("enough")
			pcall(task.join, task, 30)
			if undo then
				undo()
			end
			t:assert_same(lan:members(), { "a", "b" })
			t:assert(reach.can(a, "b.lan"), "the network does not work any more")
		end)
	end
end

test("a bridge that was closed by a cancelled task is closed", function(t)
	local gone = provium:bridge("gone", { backend = "user" })
	gone:attach(a)
	local task = co.spawn(function() gone:close() end)
	task:cancel("enough")
	pcall(task.join, task, 30)
	gone:close()
	wait_until(function() return not a:exists("/sys/class/net/eth1") end, { timeout = 30 })
	t:assert_contains(t:assert_raises(function() gone:members() end), "is closed")
end)

test("a boot that is cancelled leaves the cards for the next", function(t)
	b:shutdown()
	local task = co.spawn(function() b:boot() end)
	sleep(0.5)
	task:cancel("enough")
	pcall(task.join, task, 30)
	wait_until(function() return b:state() ~= "booted" and not pcall(b.pid, nil) end, { timeout = 30 })
	wait_until(function() return b:pid() == nil end, { timeout = 30 })
	b:boot()
	t:assert(reach.can(a, "b.lan"))
end)

test("a guest that is killed while its card is taken out", function(t)
	local task = co.spawn(function() lan:detach(b) end)
	b:kill()
	local ok, e = pcall(task.join, task, 30)
	t:assert(ok or tostring(e):find("vm `b`", 1, true), tostring(e))
	t:assert_same(lan:members(), { "a" })
	lan:attach(b)
	b:boot()
	t:assert(reach.can(a, "b.lan"))
end)

test("a guest that is killed while it gets a card", function(t)
	local task = co.spawn(function() side:attach(b) end)
	b:kill()
	local ok, e = pcall(task.join, task, 60)
	if not ok then
		t:assert_contains(tostring(e), "vm `b`")
	end
	b:boot()
	t:assert(reach.can(a, "b.lan"))
end)

test("a guest that is killed while others are told of it", function(t)
	for _ = 1, 3 do
		lan:detach(a)
		local task = co.spawn(function() lan:attach(a) end)
		b:kill()
		task:join(60)
		b:boot()
		t:assert(reach.can(a, "b.lan"))
	end
end)
