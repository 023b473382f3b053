-- Nic: one guest's card on a bridge; and vm:nic().

local core, remote, network = ...

local Nic, Bridge, VM = core.Nic, core.Bridge, core.VM
local raise = core.raise
local is_open, set_link, limit, count = Nic.is_open, Nic.set_link, Nic.limit, Nic.count
core.nic_is_open, core.nic_slot, core.nic_drop, core.nic_attach, core.nic_remove =
	Nic.is_open, Nic.slot, Nic.drop, Nic.attach, Nic.remove
for _, name in ipairs({ "is_open", "slot", "drop", "attach", "remove", "set_link", "limit", "count" }) do
	Nic[name] = nil
end

local member = setmetatable({}, { __mode = "k" })	-- of each card

function network.nic_made(m)
	member[m.nic] = m
end

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

local function check(nic, method)
	local m = member[nic]
	if not m then
		raise(("expected a Nic (call its methods with a colon: nic:%s()), got a %s"):format(method, type(nic)))
	elseif not is_open(nic) then
		raise(("the network card of vm %s on bridge %s is detached (cannot %s)"):format(quoted(m.vm:name()),
			quoted(m.s.name), method))
	end
	return m
end

-- Without configure the guest chooses its own.
function Nic.ip(nic)
	local m = check(nic, "ip")
	return m.s.configure and (network.addresses(m)) or nil
end

function Nic.ip6(nic)
	local m = check(nic, "ip6")
	return m.s.configure and select(2, network.addresses(m)) or nil
end

function Nic.mac(nic)
	return check(nic, "mac").mac
end

function Nic.guest_name(nic)
	return check(nic, "guest_name").guest_name
end

function Nic.vm_name(nic)
	local m = member[nic]
	return m and m.vm:name() or check(nic, "vm_name")
end

function Nic.bridge(nic)
	return check(nic, "bridge").bridge
end

-- As the guest sees it: what the host received from it, it sent.
function Nic.counters(nic)
	check(nic, "counters")
	local rx_packets, rx_bytes, tx_packets, tx_bytes, dropped = count(nic)
	return { tx_packets = rx_packets, tx_bytes = rx_bytes, rx_packets = tx_packets, rx_bytes = tx_bytes,
		errors = dropped }
end

function Nic.disconnect(nic)
	local m = check(nic, "disconnect")
	set_link(nic, false)
	m.down = true
	network.note(m.vm)
end

function Nic.reconnect(nic)
	local m = check(nic, "reconnect")
	set_link(nic, true)
	m.down = nil
	network.note(m.vm)
end

function Nic.set_rate(nic, bps)
	local m = check(nic, "set_rate")
	if not remote.is_integer(bps) or bps < 0 then
		raise(("expected nic:set_rate(bits a second, 0: no limit), got %s as argument 1"):format(
			type(bps) == "number" and tostring(bps) or bps == nil and "nil" or "a " .. type(bps)))
	end
	limit(nic, bps)
	m.rate = bps
end

-- ---- captures ----

local CAPTURE = { "filter", "snaplen" }

local function capture(what, b, nic, options)
	options = remote.check_options(what, options, CAPTURE)
	local filter, snaplen = options.filter, options.snaplen
	if filter ~= nil and type(filter) ~= "string" then
		raise(("%s: option `filter` must be a string, got a %s"):format(what, type(filter)))
	elseif snaplen ~= nil and (not remote.is_integer(snaplen) or snaplen < 1 or snaplen > 262144) then
		raise(("%s: option `snaplen` must be an integer from 1 to 262144, got %s"):format(what,
			type(snaplen) == "number" and tostring(snaplen) or "a " .. type(snaplen)))
	end
	return core.capture_new(b, nic, filter, snaplen or 0)
end

function Nic.capture(nic, options)
	local m = check(nic, "capture")
	return capture("nic:capture", m.bridge, nic, options)
end

function Bridge.capture(b, options)
	local s = network.check(b, "capture")
	local stream = capture("bridge:capture", b, nil, options)
	s.captures[stream] = true
	return stream
end

-- ---- vm:nic() ----

function VM.nic(vm, x)
	if not core.is_vm(vm) then
		raise(("expected a VM (call its methods with a colon), got a %s"):format(type(vm)))
	elseif core.is_local() then
		raise(("vm %s: nic: not supported by --vmm local"):format(quoted(vm:name())))
	end
	local b = network.state[x]
	if not b and type(x) ~= "string" then
		raise(("expected vm:nic(bridge | \"ethN\"), got %s as argument 1"):format(
			x == nil and "nil" or "a " .. type(x)))
	end
	local has = {}
	for _, m in ipairs(network.cards_of(vm)) do
		if m.s == b or m.guest_name == x then
			return m.nic
		end
		has[#has + 1] = ("%s on `%s`"):format(m.guest_name, m.s.name)
	end
	for _, m in ipairs(network.cards_of(vm)) do
		if m.s.name == x then
			return m.nic
		end
	end
	raise(("vm %s: nic: no network card %s (it has: %s)"):format(quoted(vm:name()),
		b and "on bridge " .. quoted(b.name) or quoted(x), #has > 0 and table.concat(has, ", ") or "none"))
end
