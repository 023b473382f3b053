-- An agent that lies: its VM ends with a clear error, a bystander in the same file notices nothing.

local bystander = provium:vm("bystander", "guest"):boot()
bystander:write_file("/tmp/mark", "untouched")

-- The first process of the guest: opens the agent's port, answers the sync mark, then says `lie` (printf's format).
local function liar(lie, sync)
	return { { path = "/sbin/provium-agent", mode = 493, content = ([[#!/bin/sh
PATH=/bin:/sbin
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
while read -r m; do
	insmod "/${m#/}"
done </provium/modules.list
until [ "$port" ]; do
	usleep 100000
	for p in /sys/class/virtio-ports/*; do
		[ "$(cat $p/name 2>/dev/null)" = org.provium.agent.0 ] && port=/dev/${p##*/}
	done
done
until exec 3<>$port; do usleep 10000; done
%s
echo lying
printf '%s' >&3
exec sleep 600
]]):format(sync or "dd bs=32 count=1 <&3 >/tmp/mark 2>/dev/null; cat /tmp/mark >&3", lie) } }
end

-- A frame of these bytes, as printf writes it.
local function frame(bytes)
	return ("\\000\\000\\000\\%03o"):format(#bytes) .. bytes:gsub(".", function(c)
		return ("\\%03o"):format(c:byte())
	end)
end

local lies = {
	{ "a length beyond all bounds", "\\177\\377\\377\\377garbage", "a frame of 2147483647 bytes (the most is 67108864)" },
	{ "deep nesting", frame(("\145"):rep(200)), "a malformed frame of 200 bytes: it is nested too deep" },
	{ "wrong types", frame("\148\1\192\161x\128"), "its type, channel or id is no unsigned 32-bit number" },
	{ "a reply to what was never asked", frame("\148\1\0\99\128"), "a reply for id 99, which is not outstanding" },
	{ "a hello with wrong types", frame("\148\1\0\1\129\176protocol_version\163one"),
		"a reply to hello without the number `protocol_version`" },
}

local function check_bystander(t)
	t:assert_eq(bystander:read_file("/tmp/mark"), "untouched")
	t:assert_eq(bystander:run("echo alive"):trim(), "alive")
end

for _, lie in ipairs(lies) do
	test(lie[1], function(t)
		local vm = provium:vm("victim", "guest")
		local err = t:assert_raises(function() vm:boot({ files = liar(lie[2]), agent_timeout = "30s" }) end)
		t:assert_contains(err, "vm `victim`: boot: failed while shaking hands with the agent: "
			.. "the guest's agent broke the protocol: ")
		t:assert_contains(err, lie[3])
		t:assert_contains(err, "lying")
		t:assert_eq(vm:state(), "dead")
		t:assert_contains(vm:console():read_log(), "lying")
		check_bystander(t)
	end)
end

test("noise before the sync mark is dropped", function(t)
	local vm = provium:vm("victim", "guest")
	local err = t:assert_raises(function()
		vm:boot({ agent_timeout = "30s", files = liar(lies[4][2], "dd bs=32 count=1 <&3 >/tmp/mark 2>/dev/null; "
			.. "dd if=/dev/urandom bs=64k count=16 >&3; cat /tmp/mark >&3") })
	end)
	t:assert_contains(err, "the guest's agent broke the protocol: " .. lies[4][3])
	check_bystander(t)
end)

test("silence after the sync mark", function(t)
	local vm = provium:vm("victim", "guest")
	local err = t:assert_raises(function() vm:boot({ files = liar(""), agent_timeout = "20s" }) end)
	t:assert_contains(err, "failed while waiting for the agent's handshake: agent silent for 20 s: "
		.. "it opened its connection but did not answer")
	t:assert_eq(vm:state(), "booted")
	check_bystander(t)
end)

-- Takes the port's descriptor away from the running agent and lets the executor write into it.
local function write_to_port(vm, bytes)
	local mux = vm:syscall(110).ret		-- getppid
	local fd = vm:run(("ls -l /proc/%d/fd"):format(mux)):assert_ok().stdout:match("(%d+) %-> /dev/vport")
	local pidfd = vm:syscall(434, mux, 0).ret
	local stolen = vm:syscall(438, pidfd, tonumber(fd), 0).ret
	vm:syscall(1, { args = { stolen, 0, #bytes }, bufs = { bytes }, ptrs = { 1 } })
end

test("garbage between good frames", function(t)
	local vm = provium:vm("victim", "guest"):boot()
	if vm:cid() then
		t:skip("the agent is reached by vsock")
	end
	local pending = co.spawn(function() return pcall(vm.run, vm, "sleep 600") end)
	sleep(0.2)
	local began = now()
	local err = t:assert_raises(function() write_to_port(vm, ("\127"):rep(64)) vm:run("sleep 600") end)
	local ok, message = pending:join(5)
	t:assert(now() - began < 5, "at once")
	t:assert_eq(ok, false)
	for _, text in ipairs({ err, message }) do
		t:assert_contains(text, "vm `victim`: ")
		t:assert_contains(text, "the guest's agent broke the protocol: a frame of 2139062143 bytes")
		t:assert_contains(text, "console (last 4 KiB):\nguest: init is up")
	end
	t:assert_eq(vm:state(), "dead")
	check_bystander(t)
end)

test("the agent is killed", function(t)
	local vm = provium:vm("victim", "guest"):boot()
	local mux = vm:syscall(110).ret
	local began = now()
	local err = t:assert_raises(function() vm:run(("kill -KILL %d; sleep 600"):format(mux)) end)
	t:assert(now() - began < 3, "at once")
	t:assert_contains(err, "the guest's agent closed its connection")
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "vm `victim`: VM has no agent (cannot run)")
	check_bystander(t)
	wait_until(function() return vm:state() == "dead" end, { timeout = 30, desc = "giving the agent up" })
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "agent gone: the guest's agent closed its "
		.. "connection, and it did not come back for 20 s")
end)
