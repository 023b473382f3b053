-- Clock: a guest's wall clock.

local core, remote = ...

local raise, ask = core.raise, remote.ask

local Clock = { __name = "Clock" }
local methods = {}
local vm_of = setmetatable({}, { __mode = "k" })

local NS = 1000000000
local LIMIT = 9.2e9	-- seconds that fit into 63 bits of nanoseconds

local function check(self, method)
	remote.check_self(Clock, self, method)
	return vm_of[self]
end

local function check_finite(what, v)
	if type(v) ~= "number" then
		raise(("%s: value must be a number, got a %s"):format(what, type(v)))
	elseif v ~= v or v - v ~= 0 then
		raise(("%s: value must be a finite number (got NaN/inf)"):format(what))
	elseif v > LIMIT or v < -LIMIT then
		raise(("%s: value is out of range: %g seconds"):format(what, v))
	end
	return v
end

-- Whole nanoseconds; on Lua 5.4 an integer, so that nothing is lost.
local function to_ns(seconds)
	local whole = math.floor(seconds)
	local ns = math.floor((seconds - whole) * NS + 0.5)
	if math.tointeger then
		return math.tointeger(whole) * NS + math.tointeger(ns)
	end
	return whole * NS + ns
end

local function get_ns(vm)
	return ask(vm, "clock_get", {}, "", "clock:get").ns
end

local function set_ns(vm, ns)
	ask(vm, "clock_set", { ns = ns }, tostring(ns), "clock:set")
end

function methods.get(self)
	return get_ns(check(self, "get")) / NS
end

function methods.get_ns(self)
	return get_ns(check(self, "get_ns"))
end

function methods.set(self, seconds)
	set_ns(check(self, "set"), to_ns(check_finite("clock:set", seconds)))
end

function methods.set_ns(self, ns)
	local vm = check(self, "set_ns")
	if type(ns) == "number" and ns - ns == 0 and not remote.is_integer(ns) then
		raise(("clock:set_ns: value must be an integer, got %s"):format(tostring(ns)))
	end
	check_finite("clock:set_ns", type(ns) == "number" and ns / NS or ns)
	set_ns(vm, math.tointeger and math.tointeger(ns) or ns)
end

-- Here a duration may be negative: "-1h".
function methods.advance(self, duration)
	local vm = check(self, "advance")
	local negative = false
	if type(duration) == "string" and duration:match("^%s*%-") then
		negative, duration = true, duration:gsub("^%s*%-", "")
	elseif type(duration) == "number" then
		check_finite("clock:advance", duration)
		negative, duration = duration < 0, math.abs(duration)
	end
	local ns = to_ns(core.parse_duration(duration, "clock:advance"))
	set_ns(vm, get_ns(vm) + (negative and -ns or ns))
end

-- In the guest's time.
function methods.sleep(self, duration)
	local vm = check(self, "sleep")
	ask(vm, "sleep", { ns = to_ns(core.parse_duration(duration, "clock:sleep")) }, tostring(duration), "clock:sleep")
end

Clock.__index = methods
function Clock.__tostring(self)
	return ("Clock (%s)"):format(vm_of[self]:name())
end

function core.VM.clock(vm)
	if not core.is_vm(vm) then
		raise(("expected vm:clock(), got a %s"):format(type(vm)))
	end
	local clock = core.object(Clock)
	vm_of[clock] = vm
	return clock
end
