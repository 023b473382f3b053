-- Addresses of networks: parsing "10.1.2.0/24" and "fd12::/64", hosts in them, and whether two overlap.

local core = ...

local address = {}

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
function address.parse(text)
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

function address.host(base, host)
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

function address.overlap(s, t)
	return inside(s.base4, math.min(s.prefix4, t.prefix4), t.base4) or s.base6 and t.base6
		and inside(s.base6, math.min(s.prefix6, t.prefix6), t.base6)
end

return address
