-- How guests come to a bridge and leave it: attach, detach, close.

local core, remote, network = ...

local Bridge = core.Bridge
local raise, ask = core.raise, remote.ask
local state, address, hash = network.state, network.address, network.hash
local check, find_vm, find_member = network.check, network.find_vm, network.find_member
local is_open, sorted_members, member_vms = network.is_open, network.sorted_members, network.member_vms
local has_agent, cards, cards_of, card_params = network.has_agent, network.cards, network.cards_of, network.card_params
local note, refresh_all, a = network.note, network.refresh_all, network.shown

local FIRST_HOST = 2		-- 1 is the gateway

local macs = {}			-- those in use in this file

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

-- ---- what a new card gets ----

-- Locally administered, the same in every run, and of one card only in this file.
local function choose_mac(vm, bridge)
	local h = hash(vm .. "." .. bridge)
	while true do
		local mac = ("52:54:00:%02x:%02x:%02x"):format(math.floor(h / 65536), math.floor(h / 256) % 256, h % 256)
		if not macs[mac] then
			return mac
		end
		h = (h + 1) % 16777216
	end
end

local function choose_host(s, vm)
	local used = {}
	for _, m in pairs(s.members) do
		used[m.host] = true
	end
	local before = s.hosts[vm:name()]
	if before and not used[before] then
		return before
	end
	local last = 2 ^ (32 - s.prefix4) - 2
	for host = FIRST_HOST, last do
		if not used[host] then
			return host
		end
	end
	raise(("bridge %s: attach: no address is left in %s"):format(quoted(s.name), s.subnet))
end

-- ---- attach and detach ----

local function find_list(s, method, x, find)
	local list, seen = {}, {}
	for i, item in ipairs(type(x) == "table" and x or { x }) do
		local found = find(s, method, item)
		if seen[found] then
			raise(("bridge %s: %s: the same VM twice in the list"):format(quoted(s.name), method))
		end
		seen[found] = true
		list[i] = found
	end
	if #list == 0 then
		raise(("expected bridge:%s(vm | name | {vm...}), got %s"):format(method,
			type(x) == "table" and "an empty table" or a(x)))
	end
	return list
end

local function check_attachable(s, vm)
	local name, vm_state = quoted(vm:name()), vm:state()
	if s.members[vm] and core.nic_is_open(s.members[vm].nic) then
		raise(("bridge %s: attach: vm %s is attached already"):format(quoted(s.name), name))
	elseif vm_state == "paused" or core.vm_is_booting(vm) then
		raise(("bridge %s: attach: vm %s is %s"):format(quoted(s.name), name,
			vm_state == "paused" and "paused: resume it before" or "being booted by another task"))
	elseif vm_state == "booted" and s.configure and not has_agent(vm) then
		raise(("bridge %s: attach: vm %s has no agent to set its network up (make the bridge with "
			.. "configure = false, or attach before boot)"):format(quoted(s.name), name))
	end
	for other in pairs(s.members) do
		if other ~= vm and other:name() == vm:name() then
			raise(("bridge %s: attach: another VM named %s is attached"):format(quoted(s.name), name))
		end
	end
	for _, m in ipairs(cards_of(vm)) do
		if m.s.configure and s.configure and address.overlap(m.s, s) then
			raise(("bridge %s: attach: its addresses overlap with those of bridge %s, where vm %s is too")
				:format(quoted(s.name), quoted(m.s.name), name))
		end
	end
end

local function reserve(b, s, vm, slot, mac, host)
	local m = { s = s, bridge = b, vm = vm, host = host or choose_host(s, vm) }
	m.mac = mac or choose_mac(vm:name(), s.name)
	m.nic = core.nic_new(b, vm, m.mac, slot or -1)
	macs[m.mac] = true
	m.slot = core.nic_slot(m.nic)
	m.guest_name = "eth" .. m.slot
	network.nic_made(m)
	s.members[vm] = m
	s.hosts[vm:name()] = m.host
	local list = cards_of(vm)
	list[#list + 1] = m
	table.sort(list, function(x, y) return x.slot < y.slot end)
	cards[vm] = list
	return m
end

network.reserve = reserve

local function release(m)
	m.s.members[m.vm] = m.s.members[m.vm] ~= m and m.s.members[m.vm] or nil
	macs[m.mac] = nil
	m.ready = false
	for i, other in ipairs(cards[m.vm] or {}) do
		if other == m then
			table.remove(cards[m.vm], i)
		end
	end
end

network.release = release

local function plug(m)
	core.nic_attach(m.nic)
	m.ready = true
	network.attached(m)
	note(m.vm)
	if m.s.configure and has_agent(m.vm) then
		ask(m.vm, "net_configure", card_params(m), m.guest_name, "attach")
	end
end

-- Waits for all tasks; the first failure, or an error that came from being cancelled.
local function wait_for(tasks)
	local first
	local ok, err = pcall(function()
		for _, task in ipairs(tasks) do
			local status, message = core.task_wait(task)
			if status ~= "done" then
				first = first or message
			end
		end
	end)
	if not ok then
		for _, task in ipairs(tasks) do
			task:cancel("attach was cancelled")
		end
	end
	return ok and first or err
end

function Bridge.attach(b, x, ...)
	local s = check(b, "attach")
	if select("#", ...) > 0 then
		raise("expected bridge:attach(vm | name | {vm...}), got more than 1 argument")
	end
	local vms = find_list(s, "attach", x, find_vm)
	for _, vm in ipairs(vms) do
		check_attachable(s, vm)
	end
	local new, tasks = {}, {}
	for i, vm in ipairs(vms) do
		local ok, m = pcall(reserve, b, s, vm)
		if not ok then
			for _, other in ipairs(new) do
				core.nic_drop(other.nic)
				release(other)
			end
			error(m, 0)
		end
		new[i] = m
	end
	for i, m in ipairs(new) do
		tasks[i] = core.spawn(("attach of %s to %s"):format(m.vm:name(), s.name), plug, m)
	end
	local failure = wait_for(tasks)
	if not failure then
		local ok, err = pcall(refresh_all, member_vms(s))
		failure = not ok and err
	end
	if failure then
		for _, m in ipairs(new) do
			core.nic_drop(m.nic)
			release(m)
			note(m.vm)
		end
		pcall(refresh_all, member_vms(s))
		error(failure, 0)
	end
end

local function check_detachable(m)
	if m.vm:state() == "paused" or core.vm_is_booting(m.vm) then
		raise(("bridge %s: detach: vm %s is %s"):format(quoted(m.s.name), quoted(m.vm:name()),
			m.vm:state() == "paused" and "paused: resume it before" or "being booted by another task"))
	end
end

local function unplug(m)
	release(m)
	network.detached(m)
	core.nic_remove(m.nic)
end

local function detach_all(s, members)
	local tasks, vms = {}, {}
	for i, m in ipairs(members) do
		tasks[i] = core.spawn(("detach of %s from %s"):format(m.vm:name(), s.name), unplug, m)
		vms[i] = m.vm
	end
	local failure = wait_for(tasks)
	refresh_all(member_vms(s, vms))
	if failure then
		error(failure, 0)
	end
end

function Bridge.detach(b, x, ...)
	local s = check(b, "detach")
	if select("#", ...) > 0 then
		raise("expected bridge:detach(vm | name | {vm...}), got more than 1 argument")
	end
	local members = find_list(s, "detach", x, find_member)
	for _, m in ipairs(members) do
		check_detachable(m)
	end
	detach_all(s, members)
end

function Bridge.close(b)
	if state[b] and not is_open(b) then
		return
	end
	local s = check(b, "close")
	local members = sorted_members(s)
	for _, m in ipairs(members) do
		check_detachable(m)
	end
	local vms = member_vms(s)
	for other in pairs(s.routes) do
		state[other].routes[b] = nil
		for _, vm in ipairs(member_vms(state[other])) do
			vms[#vms + 1] = vm
		end
	end
	for _, m in ipairs(members) do
		release(m)
	end
	network.shut(b)
	refresh_all(vms)
end
