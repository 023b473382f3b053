-- What connects the VMs of a lab, in snapshots of it: bridges with their members' cards and addresses, what goes wrong on
-- them, routes and uplinks.
--
-- A restored guest finds the very cards it had: in the same slots, with the same addresses. So they are made, or found to
-- be there, before its QEMU starts; what passes between them is set afterwards.

local core, network = ...

local raise = core.raise
local lab_of = core.lab
local json = core.json()

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local function each_bridge(node, fn)
	for _, saved in ipairs(node.bridges or {}) do
		fn(saved, node.lab)
	end
	for _, sub in ipairs(node.labs) do
		each_bridge(sub, fn)
	end
end

local function without_ipv6(options)
	local copy = {}
	for key, value in pairs(options) do
		copy[key] = value
	end
	copy.ipv6 = nil
	return copy
end

-- ---- saving ----

-- A capture would not be there in the restored lab. lab: and its sub-labs.
function lab_of.bridges_check(lab)
	for _, name in ipairs(lab:bridge_names()) do
		for stream in pairs(network.state[lab:bridge(name)].captures) do
			if core.stream_is_open(stream) then
				local site = stream:creation_site()
				raise(("lab snapshot: 1 stream still open\n  - capture of bridge %s created at %s:%d\n"
					.. "Close streams before snapshotting."):format(quoted(name), site.file, site.line))
			end
		end
	end
	for _, name in ipairs(lab:sub_lab_names()) do
		lab_of.bridges_check(lab:lab(name))
	end
end

local function save_members(s, all)
	local list = json.array({})
	for _, m in ipairs(network.sorted_members(s)) do
		if not all[m.vm] then
			raise(("lab snapshot: bridge %s has the member %s, which is not in the lab"):format(quoted(s.name),
				quoted(m.vm:name())))
		end
		list[#list + 1] = { key = all[m.vm].key, slot = m.slot, mac = m.mac, host = m.host, down = m.down or nil }
	end
	return list
end

-- Its options, with the IPv6 subnet that it has: one chosen for it would be another in the restored lab.
local function save_options(s)
	local options = without_ipv6(s.options)
	options.ipv6 = s.subnet6 or false
	return options
end

-- What lab.json says of a lab's own bridges. all: the VMs of the whole snapshot, with their keys.
function lab_of.bridges_save(lab, all)
	local list = json.array({})
	for _, name in ipairs(lab:bridge_names()) do
		local b = lab:bridge(name)
		local s = network.state[b]
		list[#list + 1] = { name = name, options = save_options(s), members = save_members(s, all),
			impairments = network.impairments_save(s), routes = json.array(b:routes()), uplink = s.uplink or false }
	end
	return list
end

-- ---- restoring ----

function lab_of.bridges_plan(lab, bridges, same, problems)
	for _, saved in ipairs(bridges) do
		if lab_of.has_bridge(lab, saved.name) then
			if not same then
				problems[#problems + 1] = ("bridge %s is in the lab already and is another one"):format(quoted(saved.name))
			end
		elseif lab_of.is_taken(lab, saved.name) then
			problems[#problems + 1] = ("the name %s is taken in the lab"):format(quoted(saved.name))
		end
	end
end

-- The cards that each VM is to have, by slot.
local function wanted_cards(node, items)
	local wanted = {}
	for _, item in ipairs(items) do
		wanted[item.vm] = {}
	end
	each_bridge(node, function(saved)
		for _, member in ipairs(saved.members) do
			local list = wanted[items[member.key].vm]
			list[#list + 1] = { bridge = saved.bridge, saved = member }
		end
	end)
	for _, list in pairs(wanted) do
		table.sort(list, function(x, y) return x.saved.slot < y.saved.slot end)
	end
	return wanted
end

local function has_all(vm, list)
	local have = network.cards_of(vm)
	for i, want in ipairs(list) do
		local m = have[i]
		if not m or m.bridge ~= want.bridge or m.slot ~= want.saved.slot or m.mac ~= want.saved.mac then
			return false
		end
	end
	return #have == #list
end

local function drop_cards(vm)
	if vm:state() == "booted" or vm:state() == "paused" then
		vm:kill()	-- it is about to be replaced, and need not be asked
	end
	for _, m in ipairs(network.cards_of(vm)) do
		network.detached(m)
		network.release(m)
		core.nic_remove(m.nic)
	end
end

local function make_card(vm, want)
	local s = network.state[want.bridge]
	local m = network.reserve(want.bridge, s, vm, want.saved.slot, want.saved.mac, want.saved.host)
	core.nic_attach(m.nic)
	m.ready = true
	network.attached(m)
end

-- Makes the bridges that are missing. node: the description of the whole lab, with its labs.
function lab_of.bridges_make(node, undo)
	each_bridge(node, function(saved, lab)
		local new = not lab_of.has_bridge(lab, saved.name)
		saved.bridge = lab:bridge(saved.name, new and saved.options or without_ipv6(saved.options))
		if new then
			undo[#undo + 1] = function() saved.bridge:close() end
		end
	end)
end

-- Before any QEMU starts: every VM gets the cards that it had.
function lab_of.bridges_before(node, items)
	local changed = {}
	for vm, list in pairs(wanted_cards(node, items)) do
		if not has_all(vm, list) then
			drop_cards(vm)
			changed[vm] = list
		end
	end
	for vm, list in pairs(changed) do
		for _, want in ipairs(list) do
			make_card(vm, want)
		end
	end
	-- What each is told when its agent answers.
	for _, item in ipairs(items) do
		network.note(item.vm)
	end
end

local function restore_links(s, saved)
	for _, m in ipairs(network.sorted_members(s)) do
		for _, member in ipairs(saved.members) do
			if member.mac == m.mac and (member.down or false) ~= (m.down or false) then
				m.nic[member.down and "disconnect" or "reconnect"](m.nic)
			end
		end
	end
end

-- When the guests go on.
function lab_of.bridges_after(node)
	each_bridge(node, function(saved, lab)
		local b, s = saved.bridge, network.state[saved.bridge]
		network.impairments_restore(b, saved.impairments)
		restore_links(s, saved)
		if saved.uplink ~= (s.uplink or false) then
			b[saved.uplink and "enable_uplink" or "disable_uplink"](b)
		end
		for _, name in ipairs(saved.routes) do
			local other = lab:bridge(name)
			if not s.routes[other] then
				b:route(other)
			end
		end
	end)
	each_bridge(node, function(saved)
		network.refresh_all(network.member_vms(network.state[saved.bridge]))
	end)
end
