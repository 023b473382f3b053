-- What Lua 5.4's libraries have and LuaJIT 2.1 lacks, installed into the globals where it is missing.

local error, select, type, unpack = error, select, type, unpack or table.unpack
local byte, char, rep, sub = string.byte, string.char, string.rep, string.sub
local floor, frexp, ldexp, huge = math.floor, math.frexp, math.ldexp, math.huge
local concat = table.concat

local EXACT = 2 ^ 53		-- every whole number up to here has its own double

local function is_whole(n)
	return type(n) == "number" and n == floor(n) and n ~= huge and n ~= -huge
end

local function bad_argument(n, name, text, level)
	error(("bad argument #%d to '%s' (%s)"):format(n, name, text), (level or 2) + 1)
end

-- ---- string.pack ----

local SIZES = { b = 1, B = 1, h = 2, H = 2, i = 4, I = 4, l = 8, L = 8, j = 8, J = 8, T = 8 }
local SIGNED = { b = true, h = true, i = true, l = true, j = true }

-- Iterates over a format: next() -> kind, size, padding before it. kind: int, uint, float, double, char,
-- string, zero, pad.
local function reader(format, name)
	local at, little, align = 1, true, 1
	local offset = 0

	local function number(default)
		local digits = format:match("^%d+", at)
		at = at + #(digits or "")
		return digits and tonumber(digits) or default
	end
	local function limited(default)
		local n = number(default)
		if n < 1 or n > 16 then
			error(("integral size (%d) out of limits [1,16]"):format(n), 4)
		end
		return n
	end
	local function option()
		local c = sub(format, at, at)
		at = at + 1
		if c == "i" or c == "I" then
			return c == "i" and "int" or "uint", limited(4)
		elseif SIZES[c] then
			return SIGNED[c] and "int" or "uint", SIZES[c]
		elseif c == "f" then
			return "float", 4
		elseif c == "d" or c == "n" then
			return "double", 8
		elseif c == "s" then
			return "string", limited(8)
		elseif c == "z" or c == "x" then
			return c == "z" and "zero" or "pad", c == "x" and 1 or 0
		elseif c == "c" then
			local n = number(nil)
			if not n then
				error("missing size for format option 'c'", 4)
			end
			return "char", n
		end
		return "control", 0, c
	end
	local function padding(size, kind)
		local to = size < align and size or align
		if to <= 1 or kind == "char" or kind == "zero" or kind == "pad" then
			return 0
		end
		if to ~= 2 and to ~= 4 and to ~= 8 and to ~= 16 then
			bad_argument(1, name, "format asks for alignment not power of 2", 4)
		end
		return (to - offset % to) % to
	end
	local function control(c)
		if c == "<" or c == "=" then
			little = true
		elseif c == ">" then
			little = false
		elseif c == "!" then
			align = limited(8)
		elseif c == "X" then
			local kind, size = option()
			if kind == "char" or kind == "control" or size == 0 then
				bad_argument(1, name, "invalid next option for option 'X'", 4)
			end
			return "align", 0, padding(size, kind)
		elseif c ~= " " then
			error(("invalid format option '%s'"):format(c), 4)
		end
	end

	local function next_option()
		while at <= #format do
			local kind, size, c = option()
			if kind ~= "control" then
				return kind, size, padding(size, kind), little
			end
			local aligned, zero, pad = control(c)
			if aligned then
				return aligned, zero, pad, little
			end
		end
	end
	return next_option, function(n) offset = offset + n end
end

local function order(bytes, little)
	return little and bytes or bytes:reverse()
end

local function pack_integer(n, size, signed, little, arg)
	if not is_whole(n) then
		bad_argument(arg, "pack", type(n) == "number" and "number has no integer representation"
			or "number expected, got " .. type(n), 3)
	end
	if size < 8 then
		local limit = 2 ^ (size * 8)
		if signed and (n < -limit / 2 or n >= limit / 2) then
			bad_argument(arg, "pack", "integer overflow", 3)
		elseif not signed and (n < -EXACT or n >= limit or n < 0) then
			bad_argument(arg, "pack", "unsigned overflow", 3)
		end
	end
	local bytes, negative = {}, n < 0
	-- Two's complement of a negative number: the complement of what -n - 1 is made of.
	local left = negative and -n - 1 or n
	for i = 1, size do
		local b = left % 256
		left = (left - b) / 256
		bytes[i] = char(negative and 255 - b or b)
	end
	return order(concat(bytes), little)
end

local function unpack_integer(bytes, size, signed, little)
	bytes = order(bytes, little)
	local top = byte(bytes, size)
	local negative = signed and top >= 128
	local n = 0
	for i = size, 1, -1 do
		local b = byte(bytes, i)
		n = n * 256 + (negative and 255 - b or b)
	end
	return negative and -n - 1 or n
end

-- IEEE 754: mantissa and exponent bits for each size.
local FLOATS = { [4] = { 23, 8 }, [8] = { 52, 11 } }

local function pack_float(n, size, little, arg)
	if type(n) ~= "number" then
		bad_argument(arg, "pack", "number expected, got " .. type(n), 3)
	end
	local mantissa_bits, exponent_bits = FLOATS[size][1], FLOATS[size][2]
	local bias, top = 2 ^ (exponent_bits - 1) - 1, 2 ^ exponent_bits - 1
	local negative = n < 0 or (n == 0 and 1 / n < 0)
	local exponent, mantissa
	if n ~= n then
		exponent, mantissa, negative = top, 2 ^ (mantissa_bits - 1), false
	elseif n == huge or n == -huge then
		exponent, mantissa = top, 0
	elseif n == 0 then
		exponent, mantissa = 0, 0
	else
		local m, e = frexp(negative and -n or n)
		exponent = e - 1 + bias
		if exponent > 0 then
			mantissa = (m * 2 - 1) * 2 ^ mantissa_bits
		else
			mantissa = ldexp(m, e + bias - 1 + mantissa_bits)
			exponent = 0
		end
		-- To the nearest, ties to even; the carry may reach the exponent.
		local whole = floor(mantissa)
		local rest = mantissa - whole
		if rest > 0.5 or (rest == 0.5 and whole % 2 == 1) then
			whole = whole + 1
		end
		mantissa = whole
		if mantissa >= 2 ^ mantissa_bits then
			mantissa, exponent = mantissa - 2 ^ mantissa_bits, exponent + 1
		end
		if exponent >= top then
			exponent, mantissa = top, 0
		end
	end
	local bytes = {}
	local low = mantissa
	local high_bits = mantissa_bits % 8
	for i = 1, (mantissa_bits - high_bits) / 8 do
		local b = low % 256
		low = (low - b) / 256
		bytes[i] = char(b)
	end
	local head = low + exponent * 2 ^ high_bits + (negative and 2 ^ (high_bits + exponent_bits) or 0)
	bytes[#bytes + 1] = char(head % 256)
	bytes[#bytes + 1] = char(floor(head / 256))
	return order(concat(bytes), little)
end

local function unpack_float(bytes, size, little)
	bytes = order(bytes, little)
	local mantissa_bits, exponent_bits = FLOATS[size][1], FLOATS[size][2]
	local high_bits = mantissa_bits % 8
	local head = byte(bytes, size) * 256 + byte(bytes, size - 1)
	local sign = head >= 32768 and -1 or 1
	local exponent = floor(head % 32768 / 2 ^ high_bits)
	local mantissa = head % 2 ^ high_bits
	for i = size - 2, 1, -1 do
		mantissa = mantissa * 256 + byte(bytes, i)
	end
	local bias = 2 ^ (exponent_bits - 1) - 1
	if exponent == 2 ^ exponent_bits - 1 then
		return mantissa == 0 and sign * huge or 0 / 0
	elseif exponent == 0 then
		return sign * ldexp(mantissa, 1 - bias - mantissa_bits)
	end
	return sign * ldexp(1 + mantissa / 2 ^ mantissa_bits, exponent - bias)
end

local function pack_string(s, kind, size, little, arg)
	if type(s) == "number" then
		s = tostring(s)
	elseif type(s) ~= "string" then
		bad_argument(arg, "pack", "string expected, got " .. type(s), 3)
	end
	if kind == "zero" then
		if s:find("\0", 1, true) then
			bad_argument(arg, "pack", "string contains zeros", 3)
		end
		return s .. "\0"
	elseif kind == "char" then
		if #s > size then
			bad_argument(arg, "pack", "string longer than given size", 3)
		end
		return s .. rep("\0", size - #s)
	end
	if size < 8 and #s >= 2 ^ (size * 8) then
		bad_argument(arg, "pack", "string length does not fit in given size", 3)
	end
	return pack_integer(#s, size, false, little, arg) .. s
end

local function string_pack(format, ...)
	local next_option, advance = reader(format, "pack")
	local out, arg = {}, 1
	for kind, size, pad, little in next_option do
		local piece = rep("\0", pad)
		if kind == "pad" then
			piece = piece .. "\0"
		elseif kind ~= "align" then
			local v = select(arg, ...)
			arg = arg + 1
			if kind == "int" or kind == "uint" then
				piece = piece .. pack_integer(v, size, kind == "int", little, arg)
			elseif kind == "float" or kind == "double" then
				piece = piece .. pack_float(v, size, little, arg)
			else
				piece = piece .. pack_string(v, kind, size, little, arg)
			end
		end
		out[#out + 1] = piece
		advance(#piece)
	end
	return concat(out)
end

local function string_packsize(format)
	local next_option, advance = reader(format, "packsize")
	local total = 0
	for kind, size, pad in next_option do
		if kind == "string" or kind == "zero" then
			bad_argument(1, "packsize", "variable-length format")
		end
		total = total + pad + size
		advance(pad + size)
	end
	return total
end

local function string_unpack(format, s, init)
	local next_option, advance = reader(format, "unpack")
	local at = init or 1
	local values, n = {}, 0
	if at < 0 then
		at = #s + at + 1
	end
	if at < 1 or at > #s + 1 then
		bad_argument(3, "unpack", "initial position out of string")
	end
	advance(at - 1)
	local function take(size)
		if at + size - 1 > #s then
			bad_argument(2, "unpack", "data string too short", 3)
		end
		local piece = sub(s, at, at + size - 1)
		at = at + size
		advance(size)
		return piece
	end
	for kind, size, pad, little in next_option do
		take(pad)
		local v
		if kind == "int" or kind == "uint" then
			v = unpack_integer(take(size), size, kind == "int", little)
		elseif kind == "float" or kind == "double" then
			v = unpack_float(take(size), size, little)
		elseif kind == "char" then
			v = take(size)
		elseif kind == "string" then
			v = take(unpack_integer(take(size), size, false, little))
		elseif kind == "zero" then
			local stop = s:find("\0", at, true)
			if not stop then
				bad_argument(2, "unpack", "unfinished string for format 'z'")
			end
			v = sub(take(stop - at + 1), 1, -2)
		else
			take(size)
		end
		if v ~= nil then
			n = n + 1
			values[n] = v
		end
	end
	values[n + 1] = at
	return unpack(values, 1, n + 1)
end

-- ---- utf8 ----

local utf8 = {}
utf8.charpattern = "[%z\1-\127\194-\253][\128-\191]*"

local MAX_CODE = 2 ^ 31 - 1
local FIRST = { 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000 }	-- least code of each length

-- The code at byte i and the byte after it; nil when that is no UTF-8.
local function decode(s, i, lax)
	local c = byte(s, i)
	if not c then
		return nil
	elseif c < 0x80 then
		return c, i + 1
	elseif c < 0xc0 or c >= 0xfe then
		return nil
	end
	local extra = c < 0xe0 and 1 or c < 0xf0 and 2 or c < 0xf8 and 3 or c < 0xfc and 4 or 5
	local code = c % 2 ^ (6 - extra)
	for k = 1, extra do
		local b = byte(s, i + k)
		if not b or b < 0x80 or b >= 0xc0 then
			return nil
		end
		code = code * 64 + b - 0x80
	end
	if code < FIRST[extra + 1] or (not lax and (code > 0x10ffff or (code >= 0xd800 and code <= 0xdfff))) then
		return nil
	end
	return code, i + extra + 1
end

local function encode(code)
	if code < 0x80 then
		return char(code)
	end
	local tail, head = "", 0x3f
	repeat
		tail = char(0x80 + code % 64) .. tail
		code = floor(code / 64)
		head = floor(head / 2)
	until code <= head
	return char(256 - 2 * (head + 1) + code) .. tail
end

function utf8.char(...)
	local out = {}
	for i = 1, select("#", ...) do
		local code = select(i, ...)
		if not is_whole(code) then
			bad_argument(i, "char", "number expected, got " .. type(code))
		elseif code < 0 or code > MAX_CODE then
			bad_argument(i, "char", "value out of range")
		end
		out[i] = encode(code)
	end
	return concat(out)
end

local function absolute(i, len)
	return i >= 0 and i or (-i > len and 0 or len + i + 1)
end

function utf8.len(s, i, j, lax)
	i, j = absolute(i or 1, #s), absolute(j or -1, #s)
	if i < 1 or i > #s + 1 then
		bad_argument(2, "len", "initial position out of bounds")
	elseif j > #s then
		bad_argument(3, "len", "final position out of bounds")
	end
	local n = 0
	while i <= j do
		local code, after = decode(s, i, lax)
		if not code then
			return nil, i
		end
		i, n = after, n + 1
	end
	return n
end

function utf8.codepoint(s, i, j, lax)
	i = absolute(i or 1, #s)
	j = absolute(j or i, #s)
	if i < 1 then
		bad_argument(2, "codepoint", "out of bounds")
	elseif j > #s then
		bad_argument(3, "codepoint", "out of bounds")
	end
	local codes, n = {}, 0
	while i <= j do
		local code, after = decode(s, i, lax)
		if not code then
			error("invalid UTF-8 code", 2)
		end
		n = n + 1
		codes[n], i = code, after
	end
	return unpack(codes, 1, n)
end

local function is_continuation(s, i)
	local b = byte(s, i)
	return b ~= nil and b >= 0x80 and b < 0xc0
end

function utf8.offset(s, n, i)
	i = absolute(i or (n >= 0 and 1 or #s + 1), #s)
	if i < 1 or i > #s + 1 then
		bad_argument(3, "offset", "position out of bounds")
	end
	if n == 0 then
		while i > 1 and is_continuation(s, i) do
			i = i - 1
		end
		return i
	end
	if is_continuation(s, i) then
		error("initial position is a continuation byte", 2)
	end
	while n < 0 and i > 1 do
		repeat
			i = i - 1
		until i <= 1 or not is_continuation(s, i)
		n = n + 1
	end
	while n > 1 and i <= #s do
		repeat
			i = i + 1
		until not is_continuation(s, i)
		n = n - 1
	end
	return (n == 0 or n == 1) and i or nil
end

function utf8.codes(s, lax)
	return function(_, i)
		i = i + 1
		while i > 1 and is_continuation(s, i) do
			i = i + 1
		end
		if i > #s then
			return nil
		end
		local code, after = decode(s, i, lax)
		if not code or is_continuation(s, after) then
			error("invalid UTF-8 code", 2)
		end
		return i, code
	end, s, 0
end

-- ---- table, math and the rest ----

local function table_move(from, first, last, to, dest)
	dest = dest or from
	if last < first then
		return dest
	end
	if to > last or to <= first or dest ~= from then
		for i = 0, last - first do
			dest[to + i] = from[first + i]
		end
	else
		for i = last - first, 0, -1 do
			dest[to + i] = from[first + i]
		end
	end
	return dest
end

local function math_tointeger(n)
	return is_whole(n) and n or nil
end

local function math_type(...)
	local n = ...
	if select("#", ...) == 0 then
		bad_argument(1, "type", "value expected")
	end
	if type(n) ~= "number" then
		return nil
	end
	return is_whole(n) and n >= -EXACT and n <= EXACT and "integer" or "float"
end

local function math_ult(a, b)
	return (a < 0 and a + 2 ^ 64 or a) < (b < 0 and b + 2 ^ 64 or b)
end

local function provide(library, name, value)
	if library[name] == nil then
		library[name] = value
	end
end

provide(string, "pack", string_pack)
provide(string, "packsize", string_packsize)
provide(string, "unpack", string_unpack)
provide(table, "move", table_move)
provide(table, "pack", function(...) return { n = select("#", ...), ... } end)
provide(table, "unpack", unpack)
provide(math, "tointeger", math_tointeger)
provide(math, "type", math_type)
provide(math, "ult", math_ult)
provide(math, "maxinteger", EXACT)
provide(math, "mininteger", -EXACT)
provide(_G, "utf8", utf8)
provide(_G, "rawlen", function(v) return #v end)
