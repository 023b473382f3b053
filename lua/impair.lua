-- What goes wrong on a bridge: latency, loss, rates, partitions, isolation. All of it is set, not added, and is kept
-- here; the backend is told the whole of what changed.

local core, network = ...

local Bridge = core.Bridge
local raise = core.raise
local impair, set_blocks = core.bridge_impair, core.bridge_set_blocks
local check, find_vm, find_member = network.check, network.find_vm, network.find_member
local sorted_members = network.sorted_members
core.bridge_impair, core.bridge_set_blocks = nil, nil

local function quoted(name)
	return "`" .. tostring(name) .. "`"
end

function network.impair_state(s)
	s.settings = {}		-- by "from\0to" of VM names, "" for any: the fields of impair()
	s.pairs = {}		-- partitions of two: by both names, sorted
	s.ways = {}		-- partitions of one direction: by "from\0to"
	s.isolated = {}		-- names of VMs
end

-- ---- settings ----

-- Each kind: the option that carries its value, the field, the unit's bounds, and what else it takes.
local KINDS = {
	add_latency = { option = "ms", field = "latency",
		extra = { jitter = "jitter", correlation = "latency_correlation" } },
	drop_rate = { option = "p", field = "loss", max = 100, extra = { correlation = "loss_correlation" } },
	bandwidth_limit = { option = "bps", field = "rate", extra = { burst = "burst" } },
	duplicate = { option = "p", field = "duplicate", max = 100, extra = {} },
	reorder = { option = "p", field = "reorder", max = 100, extra = {} },
	corrupt = { option = "p", field = "corrupt", max = 100, extra = {} },
}
local LIMITS = { correlation = 100 }

local function check_number(s, method, what, v, max)
	if type(v) ~= "number" then
		raise(("bridge %s: %s: %s must be a number, got %s"):format(quoted(s.name), method, what,
			v == nil and "nil" or "a " .. type(v)))
	elseif v ~= v or v < 0 or v == math.huge or (max and v > max) then
		raise(("bridge %s: %s: %s must be %s, got %s"):format(quoted(s.name), method, what,
			max and ("between 0 and %d"):format(max) or "0 or more", tostring(v)))
	end
	return v
end

local function known_options(kind)
	local known = { "from", "to", kind.option }
	for name in pairs(kind.extra) do
		known[#known + 1] = name
	end
	table.sort(known)
	return known
end

-- The value, what comes with it, and whose way it is: from and to are members or nil.
local function parse(s, method, kind, x)
	local what = ("bridge %s: %s"):format(quoted(s.name), method)
	if type(x) ~= "table" then
		return { [kind.field] = check_number(s, method, "the value", x, kind.max) }
	end
	core.remote.check_options(what, x, known_options(kind))
	local set = { [kind.field] = check_number(s, method, "`" .. kind.option .. "`", x[kind.option], kind.max) }
	for name, field in pairs(kind.extra) do
		if x[name] ~= nil then
			set[field] = check_number(s, method, "`" .. name .. "`", x[name], LIMITS[name])
		end
	end
	local from, to = x.from ~= nil and find_member(s, method, x.from) or nil, nil
	to = x.to ~= nil and find_member(s, method, x.to) or nil
	if from and from == to then
		raise(("%s: `from` and `to` are the same VM"):format(what))
	end
	return set, from, to
end

local function key_of(from, to)
	return (from and from.vm:name() or "") .. "\0" .. (to and to.vm:name() or "")
end

local function tell(b, setting)
	impair(b, setting.from and setting.from.nic, setting.to and setting.to.nic, setting.values)
end

-- Whether its cards are there: those of a VM that died with its scope are gone.
local function is_ready(setting)
	return (not setting.from or setting.from.ready) and (not setting.to or setting.to.ready)
end

local function is_empty(values)
	for _, v in pairs(values) do
		if v ~= 0 then
			return false
		end
	end
	return true
end

-- Puts a kind's fields, and returns those that were there.
local function put_kind(values, kind, set)
	local before = { [kind.field] = values[kind.field] }
	values[kind.field] = set[kind.field]
	for _, field in pairs(kind.extra) do
		before[field], values[field] = values[field], set[field]
	end
	return before
end

for method, kind in pairs(KINDS) do
	Bridge[method] = function(b, x)
		local s = check(b, method)
		local set, from, to = parse(s, method, kind, x)
		local key = key_of(from, to)
		local setting = s.settings[key] or { from = from, to = to, values = {} }
		setting.from, setting.to = from, to
		local before = put_kind(setting.values, kind, set)
		s.settings[key] = not is_empty(setting.values) and setting or nil
		local settings = s.settings
		local ok, err = pcall(tell, b, setting)
		if not ok then
			-- The backend has what it had, unless a reset or a detach came meanwhile.
			if s.settings == settings and (settings[key] or setting) == setting then
				put_kind(setting.values, kind, before)
				settings[key] = is_ready(setting) and not is_empty(setting.values) and setting or nil
			end
			error(err, 0)
		end
	end
end

Bridge.add_directional_latency = Bridge.add_latency
Bridge.directional_drop_rate = Bridge.drop_rate

local function whole(b, method, field)
	local setting = check(b, method).settings["\0"]
	return setting and setting.values[field] or 0
end

function Bridge.latency_ms(b)
	return whole(b, "latency_ms", "latency")
end

function Bridge.drop_rate_pct(b)
	return whole(b, "drop_rate_pct", "loss")
end

function Bridge.bandwidth_bps(b)
	return whole(b, "bandwidth_bps", "rate")
end

local SHOWN = {
	latency = "latency_ms", jitter = "jitter_ms", latency_correlation = "latency_correlation_pct", loss = "drop_rate_pct",
	loss_correlation = "drop_rate_correlation_pct", duplicate = "duplicate_pct", reorder = "reorder_pct",
	corrupt = "corrupt_pct", rate = "bandwidth_bps", burst = "burst_bytes",
}

-- Everything that is set: the whole bridge first, then the ways by name.
function Bridge.impairments(b)
	local s = check(b, "impairments")
	local keys, list = {}, {}
	for key in pairs(s.settings) do
		keys[#keys + 1] = key
	end
	table.sort(keys)
	for i, key in ipairs(keys) do
		local setting = s.settings[key]
		local shown = { from = setting.from and setting.from.vm:name(), to = setting.to and setting.to.vm:name() }
		for field, value in pairs(setting.values) do
			if value ~= 0 then
				shown[SHOWN[field]] = value
			end
		end
		list[i] = shown
	end
	return list
end

-- ---- partitions and isolation ----

-- The name of a VM, which need not be a member, nor exist yet.
local function name_of(s, method, x)
	return type(x) == "string" and x or find_vm(s, method, x):name()
end

local function pair_key(x, y)
	return x < y and x .. "\0" .. y or y .. "\0" .. x
end

local function is_blocked(s, from, to)
	return s.isolated[from] or s.isolated[to] or s.all or s.pairs[pair_key(from, to)] or s.ways[from .. "\0" .. to]
		or false
end

-- Tells the backend every pair of members between which nothing passes.
local function apply_blocks(b, s)
	local list, members = {}, sorted_members(s)
	for _, from in ipairs(members) do
		for _, to in ipairs(members) do
			if from ~= to and from.ready and to.ready and is_blocked(s, from.vm:name(), to.vm:name()) then
				list[#list + 1] = from.nic
				list[#list + 1] = to.nic
			end
		end
	end
	s.blocked = #list > 0
	set_blocks(b, list)
end

local function parse_partition(s, method, x, y)
	if type(x) == "table" and not core.is_vm(x) then
		core.remote.check_options(("bridge %s: %s"):format(quoted(s.name), method), x, { "from", "to" })
		if x.from == nil or x.to == nil then
			raise(("bridge %s: %s: expected %s{from=, to=}, got no `%s`"):format(quoted(s.name), method, method,
				x.from == nil and "from" or "to"))
		end
		return true, find_member(s, method, x.from).vm:name(), find_member(s, method, x.to).vm:name()
	elseif x == nil or y == nil then
		raise(("expected bridge:%s(vm, vm) or bridge:%s{from=, to=}, got %s"):format(method, method,
			x == nil and "nothing" or "one VM"))
	end
	return false, name_of(s, method, x), name_of(s, method, y)
end

local function partition(method, on)
	Bridge[method] = function(b, x, y)
		local s = check(b, method)
		local directed, from, to = parse_partition(s, method, x, y)
		if from == to then
			raise(("bridge %s: %s: vm %s with itself"):format(quoted(s.name), method, quoted(from)))
		elseif directed then
			s.ways[from .. "\0" .. to] = on
		else
			s.pairs[pair_key(from, to)] = on
			if not on then
				s.ways[from .. "\0" .. to], s.ways[to .. "\0" .. from] = nil, nil
			end
		end
		apply_blocks(b, s)
	end
end

partition("partition", true)
partition("unpartition", nil)

function Bridge.is_partitioned(b, x, y)
	local s = check(b, "is_partitioned")
	local _, from, to = parse_partition(s, "is_partitioned", x, y)
	return (s.all or s.pairs[pair_key(from, to)] or s.ways[from .. "\0" .. to]) and true or false
end

function Bridge.partition_all(b)
	local s = check(b, "partition_all")
	s.all = true
	apply_blocks(b, s)
end

function Bridge.restore_all(b)
	local s = check(b, "restore_all")
	s.all = nil
	apply_blocks(b, s)
end

function Bridge.isolate(b, x)
	local s = check(b, "isolate")
	s.isolated[find_member(s, "isolate", x).vm:name()] = true
	apply_blocks(b, s)
end

function Bridge.unisolate(b, x)
	local s = check(b, "unisolate")
	s.isolated[name_of(s, "unisolate", x)] = nil
	apply_blocks(b, s)
end

function Bridge.is_isolated(b, x)
	local s = check(b, "is_isolated")
	return s.isolated[name_of(s, "is_isolated", x)] or false
end

-- Other tasks may change settings while the backend is told: what they set meanwhile stays.
local function clear_settings(b, s)
	local old = s.settings
	s.settings = {}
	for key, setting in pairs(old) do
		setting.values = {}
		if not s.settings[key] and is_ready(setting) then
			tell(b, setting)
		end
	end
end

function Bridge.reset(b)
	local s = check(b, "reset")
	clear_settings(b, s)
	s.pairs, s.ways, s.all = {}, {}, nil
	apply_blocks(b, s)
end

-- ---- snapshots of labs ----

local function split(key)
	return key:match("^(.-)%z(.*)$")
end

-- As a table that JSON takes.
function network.impairments_save(s)
	local array = core.json().array
	local saved = { settings = array({}), pairs = array({}), ways = array({}), isolated = array({}), all = s.all }
	for _, setting in pairs(s.settings) do
		saved.settings[#saved.settings + 1] = { from = setting.from and setting.from.vm:name(),
			to = setting.to and setting.to.vm:name(), values = setting.values }
	end
	for _, kind in ipairs({ "pairs", "ways" }) do
		for key in pairs(s[kind]) do
			saved[kind][#saved[kind] + 1] = { split(key) }
		end
	end
	for name in pairs(s.isolated) do
		saved.isolated[#saved.isolated + 1] = name
	end
	return saved
end

-- The members are there.
function network.impairments_restore(b, saved)
	local s = check(b, "restore")
	clear_settings(b, s)
	s.pairs, s.ways, s.isolated, s.all = {}, {}, {}, saved.all
	for _, was in ipairs(saved.settings) do
		local from = was.from and find_member(s, "restore", was.from)
		local to = was.to and find_member(s, "restore", was.to)
		local setting = { from = from, to = to, values = was.values }
		s.settings[key_of(from, to)] = setting
		tell(b, setting)
	end
	for _, kind in ipairs({ "pairs", "ways" }) do
		for _, names in ipairs(saved[kind]) do
			s[kind][names[1] .. "\0" .. names[2]] = true
		end
	end
	for _, name in ipairs(saved.isolated) do
		s.isolated[name] = true
	end
	apply_blocks(b, s)
end

-- ---- members that come and go ----

-- Nothing passes to or from a new member that should not, before its guest knows of it.
function network.attached(m)
	local s, name = m.s, m.vm:name()
	for _, other in ipairs(sorted_members(s)) do
		if other ~= m and (is_blocked(s, name, other.vm:name()) or is_blocked(s, other.vm:name(), name)) then
			apply_blocks(m.bridge, s)
			return
		end
	end
end

-- What names one way or one card goes with it; partitions of two are remembered by name.
function network.detached(m)
	local s, name = m.s, m.vm:name()
	for key, setting in pairs(s.settings) do
		if setting.from == m or setting.to == m then
			s.settings[key] = nil
		end
	end
	for key in pairs(s.ways) do
		local from, to = key:match("^(.-)%z(.*)$")
		if from == name or to == name then
			s.ways[key] = nil
		end
	end
	s.isolated[name] = nil
end
