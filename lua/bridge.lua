-- Bridge: members, their addresses and names, and the host's side. What goes wrong on the way is in impair.lua.
--
-- Members are known by VM; each has its card (nic.lua) and its host number in the bridge's subnets.

local core, remote = ...

local Bridge, VM = core.Bridge, core.VM
local raise, ask = core.raise, remote.ask

-- Not for tests: only what lua.md names stays a method.
local is_open, shut, set_gateway, set_route, set_uplink, count =
	Bridge.is_open, Bridge.shut, Bridge.set_gateway, Bridge.set_route, Bridge.set_uplink, Bridge.count
local backend_of = Bridge.backend
core.bridge_impair, core.bridge_set_blocks = Bridge.impair, Bridge.set_blocks
for _, name in ipairs({ "is_open", "shut", "set_gateway", "set_route", "set_uplink", "count", "backend", "impair",
	"set_blocks" }) do
	Bridge[name] = nil
end

local OPTIONS = { "subnet", "ipv6", "configure", "backend", "seed" }
local FIRST_HOST = 2		-- 1 is the gateway

local state = setmetatable({}, { __mode = "k" })	-- of each bridge
local cards = setmetatable({}, { __mode = "k" })	-- of each VM: an array of members, by slot
local told = setmetatable({}, { __mode = "k" })		-- VMs whose guest has a block of names
local stale = setmetatable({}, { __mode = "k" })	-- VMs that could not be told of a change
local macs = {}						-- those in use in this file
local made = 0						-- bridges so far, for their subnets

local network = { state = state, cards = cards }

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local function a(v)
	return v == nil and "nil" or (type(v) == "userdata" and tostring(v) or "a " .. type(v))
end

-- The state of an open bridge.
local function check(b, method)
	local s = state[b]
	if not s then
		raise(("expected a Bridge (call its methods with a colon: bridge:%s()), got %s"):format(method, a(b)))
	elseif not is_open(b) then
		raise(("bridge %s is closed (cannot %s)"):format(quoted(s.name), method))
	end
	return s
end

network.check = check

-- ---- addresses ----

local function to_number(bytes)
	local n = 0
	for i = 1, 4 do
		n = n * 256 + bytes:byte(i)
	end
	return n
end

local function to_bytes(n)
	local t = {}
	for i = 4, 1, -1 do
		t[i] = string.char(n % 256)
		n = math.floor(n / 256)
	end
	return table.concat(t)
end

-- The network of "a.b.c.d/n" or "x::/n": its bytes with the rest zero, and n; nil when it is none.
local function parse_subnet(text)
	local address, prefix = text:match("^([%x.:]+)/(%d+)$")
	local bytes = address and core.ip_parse(address)
	prefix = tonumber(prefix)
	if not bytes or prefix > #bytes * 8 then
		return nil
	end
	local out = {}
	for i = 1, #bytes do
		local keep = math.max(0, math.min(8, prefix - (i - 1) * 8))
		local byte = bytes:byte(i)
		out[i] = string.char(byte - byte % 2 ^ (8 - keep))
	end
	return table.concat(out), prefix
end

local function host_address(base, host)
	if #base == 4 then
		return core.ip_format(to_bytes(to_number(base) + host))
	end
	return core.ip_format(base:sub(1, 12) .. to_bytes(to_number(base:sub(13)) + host))
end

local function inside(base, prefix, other)
	for i = 1, #base do
		local keep = math.max(0, math.min(8, prefix - (i - 1) * 8))
		local unit = 2 ^ (8 - keep)
		if math.floor(base:byte(i) / unit) ~= math.floor(other:byte(i) / unit) then
			return false
		end
	end
	return true
end

local function overlap(s, t)
	return inside(s.base4, math.min(s.prefix4, t.prefix4), t.base4) or s.base6 and t.base6
		and inside(s.base6, math.min(s.prefix6, t.prefix6), t.base6)
end

network.overlap = overlap

local function hash(text)
	local h = 5381
	for i = 1, #text do
		h = (h * 33 + text:byte(i)) % 16777216
	end
	return h
end

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

-- ---- making ----

local function check_options(what, options)
	remote.check_options(what, options, OPTIONS)
	local function bad(key, wanted)
		local v = options[key]
		raise(("%s: option `%s` must be %s, got %s"):format(what, key, wanted,
			(type(v) == "string" and ("%q"):format(v)) or (type(v) == "number" and tostring(v)) or a(v)))
	end
	if options.subnet ~= nil then
		local base, prefix = nil, nil
		if type(options.subnet) == "string" and not options.subnet:find(":", 1, true) then
			base, prefix = parse_subnet(options.subnet)
		end
		if not base or prefix < 8 or prefix > 29 then
			bad("subnet", "an IPv4 network like \"10.1.2.0/24\" (/8 to /29)")
		end
	end
	if options.ipv6 ~= nil and type(options.ipv6) ~= "boolean" then
		local base, prefix = nil, nil
		if type(options.ipv6) == "string" and options.ipv6:find(":", 1, true) then
			base, prefix = parse_subnet(options.ipv6)
		end
		if not base or prefix < 8 or prefix > 112 then
			bad("ipv6", "a boolean, or a network like \"fd12::/64\" (/8 to /112)")
		end
	end
	if options.configure ~= nil and type(options.configure) ~= "boolean" then
		bad("configure", "a boolean")
	elseif options.backend ~= nil and options.backend ~= "auto" and options.backend ~= "kernel"
		and options.backend ~= "user" then
		bad("backend", "\"auto\", \"kernel\" or \"user\"")
	elseif options.seed ~= nil and not remote.is_integer(options.seed) then
		bad("seed", "an integer")
	end
end

local function choose_backend(name, wanted)
	if wanted == "user" then
		return "user"
	elseif wanted == "kernel" then
		local why = core.net_kernel_usable()
		if why then
			raise(("bridge %s: backend `kernel`: %s"):format(quoted(name), why))
		end
		return "kernel"
	end
	local backend, why = core.net_auto()
	if why then
		core.notice("networks: backend `user`: " .. why)
	end
	return backend
end

local function default_subnet(n)
	return ("10.%d.%d.0/24"):format(111 + math.floor(n / 256) % 100, n % 256), ("fd70:726f:7669:%x::/64"):format(n)
end

-- The options that differ from those the bridge was made with.
local function check_same(b, options)
	local s = state[b]
	for _, key in ipairs(OPTIONS) do
		local wanted = options[key]
		if wanted ~= nil and wanted ~= s.options[key] and not (key == "backend" and wanted == s.backend) then
			raise(("bridge %s exists already, with `%s` = %s"):format(quoted(s.name), key,
				tostring(s.options[key])))
		end
	end
end

-- Makes a bridge, or checks that the one there is has these options. find(name) looks a VM up; place is a table whose
-- `bridge` it becomes, and tell(bridge) is called, as soon as it exists, before it has come about.
function network.bridge(existing, name, options, place, find, tell)
	if core.is_local() then
		raise(("bridge %s: not supported by --vmm local"):format(quoted(name)))
	end
	options = options == nil and {} or options
	if type(options) ~= "table" then
		raise(("bridge: options must be a table, got %s"):format(a(options)))
	end
	check_options("bridge " .. quoted(name), options)
	if existing then
		check_same(existing, options)
		return existing
	end
	local backend = choose_backend(name, options.backend or "auto")
	made = made + 1
	local subnet, ipv6 = default_subnet(made)
	subnet = options.subnet or subnet
	if options.ipv6 == false then
		ipv6 = nil
	elseif type(options.ipv6) == "string" then
		ipv6 = options.ipv6
	end
	local s = { name = name, backend = backend, find = find, members = {}, hosts = {}, routes = {}, options = {},
		configure = options.configure ~= false, captures = setmetatable({}, { __mode = "k" }) }
	s.base4, s.prefix4 = parse_subnet(subnet)
	s.subnet = host_address(s.base4, 0) .. "/" .. s.prefix4
	if ipv6 then
		s.base6, s.prefix6 = parse_subnet(ipv6)
		s.subnet6 = host_address(s.base6, 0) .. "/" .. s.prefix6
	end
	for _, key in ipairs(OPTIONS) do
		s.options[key] = options[key]
	end
	s.options.configure, s.options.ipv6 = s.configure, options.ipv6 == nil or options.ipv6
	s.options.backend, s.options.subnet = options.backend or "auto", options.subnet or s.subnet
	s.seed = options.seed or hash(name)
	network.impair_state(s)
	setmetatable(place, { __newindex = function(t, key, b)
		rawset(t, key, b)
		state[b] = s
		tell(b)
	end })
	core.bridge_new(name, backend, s.seed, place)
	return place.bridge
end

function network.is_open(b)
	return is_open(b)
end

-- ---- who a VM is ----

-- The VM that is meant: itself, or the name of a member or of one in the lab.
local function find_vm(s, method, x)
	if core.is_vm(x) then
		return x
	elseif type(x) ~= "string" then
		raise(("bridge %s: %s: expected a VM or its name, got %s"):format(quoted(s.name), method, a(x)))
	end
	for vm in pairs(s.members) do
		if vm:name() == x then
			return vm
		end
	end
	local vm = s.find(x)
	if not vm then
		raise(("bridge %s: %s: no vm named %s in this lab"):format(quoted(s.name), method, quoted(x)))
	end
	return vm
end

-- The member, which must be one.
local function find_member(s, method, x)
	local vm = find_vm(s, method, x)
	local m = s.members[vm]
	if not m or not core.nic_is_open(m.nic) then
		raise(("bridge %s: %s: vm %s is not attached"):format(quoted(s.name), method, quoted(vm:name())))
	end
	return m
end

network.find_vm, network.find_member = find_vm, find_member

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
		raise(("expected bridge:%s(vm | name | {vm...}), got %s"):format(method, type(x) == "table" and "an empty table"
			or a(x)))
	end
	return list
end

local function sorted_members(s)
	local list = {}
	for _, m in pairs(s.members) do
		if core.nic_is_open(m.nic) then
			list[#list + 1] = m
		end
	end
	table.sort(list, function(x, y) return x.vm:name() < y.vm:name() end)
	return list
end

network.sorted_members = sorted_members

-- ---- what guests are told ----

local function has_agent(vm)
	return vm:state() == "booted" and core.vm_has_agent(vm)
end

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
	return host_address(s.base4, m.host), s.base6 and host_address(s.base6, m.host)
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

local function add_routes(routes, s)
	local gateway = host_address(s.base4, 1)
	for other in pairs(s.routes) do
		local o = state[other]
		if is_open(other) then
			routes[#routes + 1] = { o.subnet, gateway }
			if s.base6 and o.base6 then
				routes[#routes + 1] = { o.subnet6, host_address(s.base6, 1) }
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
			add_routes(routes, m.s)
			if m.s.uplink then
				dns[#dns + 1] = "nameserver " .. host_address(m.s.base4, 1)
			end
		end
	end
	return { hosts = table.concat(lines, "\n"), dns = table.concat(dns, "\n"), routes = #routes > 0 and routes or nil }
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

-- ---- attach and detach ----

local function check_attachable(s, vm)
	local name, vm_state = quoted(vm:name()), vm:state()
	if s.members[vm] and core.nic_is_open(s.members[vm].nic) then
		raise(("bridge %s: attach: vm %s is attached already"):format(quoted(s.name), name))
	elseif vm_state == "paused" or core.vm_is_booting(vm) then
		raise(("bridge %s: attach: vm %s is %s"):format(quoted(s.name), name,
			vm_state == "paused" and "paused: resume it before" or "being booted by another task"))
	elseif vm_state == "booted" and s.configure and not has_agent(vm) then
		raise(("bridge %s: attach: vm %s has no agent to set its network up (make the bridge with configure = false, "
			.. "or attach before boot)"):format(quoted(s.name), name))
	end
	for _, m in ipairs(cards_of(vm)) do
		if m.s.configure and s.configure and overlap(m.s, s) then
			raise(("bridge %s: attach: its addresses overlap with those of bridge %s, where vm %s is too"):format(
				quoted(s.name), quoted(m.s.name), name))
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
	shut(b)
	refresh_all(vms)
end

-- ---- asking ----

function Bridge.name(b)
	local s = state[b]
	return s and s.name or check(b, "name")
end

function Bridge.members(b)
	local names = {}
	for i, m in ipairs(sorted_members(check(b, "members"))) do
		names[i] = m.vm:name()
	end
	return names
end

function Bridge.subnet(b)
	return check(b, "subnet").subnet
end

function Bridge.backend(b)
	check(b, "backend")
	return backend_of(b)
end

function Bridge.nic(b, x)
	return find_member(check(b, "nic"), "nic", x).nic
end

function Bridge.counters(b)
	check(b, "counters")
	local rx_packets, rx_bytes, tx_packets, tx_bytes, dropped = count(b)
	return { rx_packets = rx_packets, rx_bytes = rx_bytes, tx_packets = tx_packets, tx_bytes = tx_bytes,
		dropped = dropped }
end

-- ---- the host's side ----

local function need_gateway(b, s)
	if s.gateway then
		return
	end
	set_gateway(b, host_address(s.base4, 1), s.prefix4, s.base6 and host_address(s.base6, 1), s.prefix6)
	s.gateway = true
end

local function check_routable(s, other)
	local o = check(other, "route")
	if o == s then
		raise(("bridge %s: route: to itself"):format(quoted(s.name)))
	elseif o.backend ~= s.backend then
		raise(("bridge %s: route: it is of backend `%s`, and bridge %s of `%s`"):format(quoted(s.name), s.backend,
			quoted(o.name), o.backend))
	elseif overlap(s, o) then
		raise(("bridge %s: route: its addresses overlap with those of bridge %s"):format(quoted(s.name), quoted(o.name)))
	end
	return o
end

function Bridge.route(b, x)
	local s = check(b, "route")
	if x == nil then
		raise("expected bridge:route(bridge | {bridge...}), got nil as argument 1")
	end
	local list, vms = type(x) == "table" and x or { x }, {}
	for _, other in ipairs(list) do
		check_routable(s, other)
	end
	for _, other in ipairs(list) do
		local o = state[other]
		need_gateway(b, s)
		need_gateway(other, o)
		set_route(b, other, true)
		s.routes[other], o.routes[b] = true, true
		for _, vm in ipairs(member_vms(o)) do
			vms[#vms + 1] = vm
		end
	end
	refresh_all(member_vms(s, vms))
end

function Bridge.routes(b)
	local names = {}
	for other in pairs(check(b, "routes").routes) do
		if is_open(other) then
			names[#names + 1] = state[other].name
		end
	end
	table.sort(names)
	return names
end

local function uplink(b, method, on)
	local s = check(b, method)
	if on == (s.uplink or false) then
		return
	end
	if on then
		need_gateway(b, s)
	end
	set_uplink(b, on)
	s.uplink = on
	refresh_all(member_vms(s))
end

function Bridge.enable_uplink(b)
	uplink(b, "enable_uplink", true)
end

function Bridge.disable_uplink(b)
	uplink(b, "disable_uplink", false)
end

-- ---- what else concerns VMs ----

-- Returns fn with settling behind it: whatever made the agent answer anew, the guest knows its networks when it returns.
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
				raise(("vm:snapshot() failed for %s: 1 stream still open\n  - bridge:capture() of %s created at %s:%d\n"
					.. "Close streams before snapshotting."):format(quoted(vm:name()), quoted(m.s.name), site.file,
					site.line))
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
			release(m)
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

return network
