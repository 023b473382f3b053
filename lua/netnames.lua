-- What guests are told of their networks: addresses of their cards, names of the other members, routes, name servers.
--
-- All of it is noted for when the agent answers next (src/ops/guestnet.c); a running guest is told of changes at once.

local core, remote, network = ...

local VM = core.VM
local raise, ask = core.raise, remote.ask
local state, address = network.state, network.address
local is_open, sorted_members = network.is_open, network.sorted_members

local cards = setmetatable({}, { __mode = "k" })	-- of each VM: an array of members, by slot
local told = setmetatable({}, { __mode = "k" })		-- VMs whose guest has a block of names
local stale = setmetatable({}, { __mode = "k" })	-- VMs that could not be told of a change
network.cards = cards

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local function has_agent(vm)
	return vm:state() == "booted" and core.vm_has_agent(vm)
end

network.has_agent = has_agent

local function cards_of(vm)
	local list = {}
	for _, m in ipairs(cards[vm] or {}) do
		if core.nic_is_open(m.nic) then
			list[#list + 1] = m
		end
	end
	return list
end

network.cards_of = cards_of

function network.addresses(m)
	local s = m.s
	return address.host(s.base4, m.host), s.base6 and address.host(s.base6, m.host)
end

local function card_params(m)
	local s, addrs = m.s, {}
	local ip, ip6 = network.addresses(m)
	addrs[1] = ip .. "/" .. s.prefix4
	if ip6 then
		addrs[2] = ip6 .. "/" .. s.prefix6
	end
	return { mac = m.mac, name = m.guest_name, addrs = addrs, up = true, running = not m.down }
end

network.card_params = card_params

local function add_names(lines, s)
	for _, m in ipairs(sorted_members(s)) do
		local name = m.vm:name()
		local ip, ip6 = network.addresses(m)
		lines[#lines + 1] = ("%s %s.%s %s"):format(ip, name, s.name, name)
		if ip6 then
			lines[#lines + 1] = ("%s %s.%s %s"):format(ip6, name, s.name, name)
		end
	end
end

-- Not to networks where the guest has a card of its own.
local function add_routes(routes, s, vm)
	local gateway = address.host(s.base4, 1)
	for other in pairs(s.routes) do
		local o = state[other]
		if is_open(other) and not o.members[vm] then
			routes[#routes + 1] = { o.subnet, gateway }
			if s.base6 and o.base6 then
				routes[#routes + 1] = { o.subnet6, address.host(s.base6, 1) }
			end
		end
	end
	if s.uplink then
		routes[#routes + 1] = { "0.0.0.0/0", gateway }
	end
end

local function names_params(vm)
	local lines, routes, dns = {}, {}, {}
	for _, m in ipairs(cards_of(vm)) do
		if m.s.configure then
			add_names(lines, m.s)
			add_routes(routes, m.s, vm)
			if m.s.uplink then
				dns[#dns + 1] = "nameserver " .. address.host(m.s.base4, 1)
			end
		end
	end
	return { hosts = table.concat(lines, "\n"), dns = table.concat(dns, "\n"),
		routes = #routes > 0 and routes or nil }
end

-- Notes what the VM is told when its agent answers next. Returns what a running one is to be told now, or nil.
local function note(vm)
	local list, any = {}, false
	for _, m in ipairs(cards_of(vm)) do
		if m.s.configure then
			list[#list + 1] = "net_configure"
			list[#list + 1] = remote.encode(card_params(m))
			any = true
		end
	end
	if not any and not told[vm] then
		core.vm_net_set(vm, {})
		return nil
	end
	local names = names_params(vm)
	list[#list + 1] = "net_names"
	list[#list + 1] = remote.encode(names)
	core.vm_net_set(vm, list)
	return names, any
end

network.note = note

-- Notes it, and tells a running guest its names and routes.
local function refresh(vm)
	local names, any = note(vm)
	if not names then
		return
	end
	stale[vm] = nil
	told[vm] = any or nil
	if has_agent(vm) then
		ask(vm, "net_names", names, "names of its networks", "attach")
	elseif vm:state() == "paused" then
		stale[vm] = true
		told[vm] = true
	end
end

-- Refreshes several at the same time. One that ends meanwhile need not know any more.
local function refresh_all(vms)
	local tasks, first = {}, nil
	for i, vm in ipairs(vms) do
		tasks[i] = core.spawn("names of " .. vm:name(), refresh, vm)
	end
	for i, task in ipairs(tasks) do
		local status, message = core.task_wait(task)
		if status ~= "done" and has_agent(vms[i]) then
			first = first or message
		end
	end
	if first then
		error(first, 0)
	end
end

network.refresh_all = refresh_all

local function member_vms(s, more)
	local list, seen = {}, {}
	for _, m in ipairs(sorted_members(s)) do
		list[#list + 1] = m.vm
		seen[m.vm] = true
	end
	for _, vm in ipairs(more or {}) do
		if not seen[vm] then
			list[#list + 1] = vm
		end
	end
	return list
end

network.member_vms = member_vms

-- After something that lets the agent answer anew.
local function settle(vm)
	if cards[vm] and #cards_of(vm) > 0 then
		core.vm_net_settle(vm)
	end
	if stale[vm] and has_agent(vm) then
		refresh(vm)
	end
end

network.settle = settle

-- ---- what else concerns VMs ----

-- Returns fn with settling behind it: whatever made the agent answer anew, the guest knows its networks then.
local function settled(fn)
	return fn and function(vm, ...)
		local result = fn(vm, ...)
		settle(vm)
		return result
	end
end

for _, name in ipairs({ "boot", "reset", "resume", "wakeup", "restore" }) do
	VM[name] = settled(VM[name])
end
core.vm_boot_with = settled(core.vm_boot_with)

-- A capture of a bridge is of all its members.
local snapshot = VM.snapshot
function VM.snapshot(vm, ...)
	for _, m in ipairs(core.is_vm(vm) and cards_of(vm) or {}) do
		for stream in pairs(m.s.captures) do
			if core.stream_is_open(stream) then
				local site = stream:creation_site()
				raise(("vm:snapshot() failed for %s: 1 stream still open\n  - bridge:capture() of %s "
					.. "created at %s:%d\nClose streams before snapshotting."):format(quoted(vm:name()),
					quoted(m.s.name), site.file, site.line))
			end
		end
	end
	return snapshot(vm, ...)
end

-- A test's scope is closed: guests that outlive it forget the names that went with it.
local scope_close = core.scope_close
function core.scope_close(scope)
	scope_close(scope)
	local vms = {}
	for vm, list in pairs(cards) do
		local open = cards_of(vm)
		if #open < #list then
			vms[vm] = true
		end
	end
	for _, s in pairs(state) do
		local closed = {}
		for _, m in pairs(s.members) do
			closed[#closed + 1] = not core.nic_is_open(m.nic) and m or nil
		end
		for _, m in ipairs(closed) do
			network.release(m)
			network.detached(m)
		end
		for _, vm in ipairs(#closed > 0 and member_vms(s) or {}) do
			vms[vm] = true
		end
	end
	for vm in pairs(vms) do
		cards[vm] = cards_of(vm)
		if vm:state() == "booted" or vm:state() == "paused" then
			pcall(refresh, vm)
		else
			note(vm)
		end
	end
end
