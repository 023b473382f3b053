-- Bridge: making one, what it can be asked, routes and the way out. How guests come to it is in attach.lua, what
-- they are told in netnames.lua, what goes wrong on the way in impair.lua, their cards in nic.lua.
--
-- Members are known by VM; each is a table with its card and its host number in the bridge's subnets.

local core, remote = ...

local Bridge = core.Bridge
local raise = core.raise
local address = core.embedded("address", core)

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

local state = setmetatable({}, { __mode = "k" })	-- of each bridge
local made = 0						-- bridges so far, for their subnets

local network = { state = state, address = address, shut = shut }

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local function a(v)
	return v == nil and "nil" or (type(v) == "userdata" and tostring(v) or "a " .. type(v))
end

network.shown = a

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

local function hash(text)
	local h = 5381
	for i = 1, #text do
		h = (h * 33 + text:byte(i)) % 16777216
	end
	return h
end

network.hash = hash

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
			base, prefix = address.parse(options.subnet)
		end
		if not base or prefix < 8 or prefix > 29 then
			bad("subnet", "an IPv4 network like \"10.1.2.0/24\" (/8 to /29)")
		end
	end
	if options.ipv6 ~= nil and type(options.ipv6) ~= "boolean" then
		local base, prefix = nil, nil
		if type(options.ipv6) == "string" and options.ipv6:find(":", 1, true) then
			base, prefix = address.parse(options.ipv6)
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
	s.base4, s.prefix4 = address.parse(subnet)
	s.subnet = address.host(s.base4, 0) .. "/" .. s.prefix4
	if ipv6 then
		s.base6, s.prefix6 = address.parse(ipv6)
		s.subnet6 = address.host(s.base6, 0) .. "/" .. s.prefix6
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
	set_gateway(b, address.host(s.base4, 1), s.prefix4, s.base6 and address.host(s.base6, 1), s.prefix6)
	s.gateway = true
end

local function check_routable(s, other)
	local o = check(other, "route")
	if o == s then
		raise(("bridge %s: route: to itself"):format(quoted(s.name)))
	elseif o.backend ~= s.backend then
		raise(("bridge %s: route: it is of backend `%s`, and bridge %s of `%s`"):format(quoted(s.name),
			s.backend, quoted(o.name), o.backend))
	elseif address.overlap(s, o) then
		raise(("bridge %s: route: its addresses overlap with those of bridge %s"):format(quoted(s.name),
			quoted(o.name)))
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
		for _, vm in ipairs(network.member_vms(o)) do
			vms[#vms + 1] = vm
		end
	end
	network.refresh_all(network.member_vms(s, vms))
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
	network.refresh_all(network.member_vms(s))
end

function Bridge.enable_uplink(b)
	uplink(b, "enable_uplink", true)
end

function Bridge.disable_uplink(b)
	uplink(b, "disable_uplink", false)
end

return network
