-- string.pack, utf8, table.move and the rest behave as Lua 5.4's, on Lua 5.4 and on LuaJIT.

local cases = {}

local function case(name, fn)
	cases[#cases + 1] = { name = name, fn = fn }
end

local function equal(got, want)
	if got ~= want then
		error(("got  %s\nwant %s"):format(tostring(got), tostring(want)), 2)
	end
end

local function hex(s)
	return (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function packs(want, format, ...)
	local packed = string.pack(format, ...)
	equal(hex(packed), want)
	local values = { string.unpack(format, packed) }
	equal(values[#values], #packed + 1)
	for i = 1, select("#", ...) do
		equal(values[i], (select(i, ...)))
	end
end

case("integers", function()
	packs("ff", "b", -1)
	packs("c8", "B", 200)
	packs("fdff", "<h", -3)
	packs("0102", ">H", 258)
	packs("01000000", "<i", 1)
	packs("feffff", "<i3", -2)
	packs("0000008000", ">I5", 32768)
	packs("c7e32320fdffffff", "<j", -12345678905)
	packs("0020000000000000", ">j", 9007199254740992)
	packs("fbffffffffffffffffffffffffffffff", "<i16", -5)
end)

case("floats", function()
	packs("000000000000f83f", "<d", 1.5)
	packs("bfd5555555555555", ">d", -1 / 3)
	packs("0000010000000000", "<d", 2 ^ -1058)
	packs("000080bf", "<f", -1)
	packs("0000000000000080", "<d", -0.0)
	packs("7ff0000000000000", ">d", math.huge)
	equal(hex(string.pack("<f", 0.1)), "cdcccc3d")
	equal(hex(string.pack(">f", 1e300)), "7f800000")
	local nan = string.unpack("<d", string.pack("<d", 0 / 0))
	assert(nan ~= nan)
end)

case("strings, padding and alignment", function()
	packs("03616263", "s1", "abc")
	packs("7a656400", "z", "zed")
	equal(hex(string.pack("c5", "ab")), "6162000000")
	packs("00017800", ">s2 z", "x", "")
	packs("010000000200000000000000", "!4 <b i8", 1, 2)
	packs("0100000002000000", "<!b Xi4 i4", 1, 2)
	equal(hex(string.pack("b x b", 1, 2)), "010002")
	equal(string.packsize("<!8 b d i4"), 20)
	equal(string.packsize("c7 h"), 9)
	equal(select(2, string.unpack("<h", "\1\2\3\4", 3)), 5)
	equal(string.unpack("<h", "\1\2\3\4", -2), 1027)
end)

case("pack errors", function()
	for _, args in ipairs({ { "b", 128 }, { "B", -1 }, { "B", 256 }, { "h", 1.5 }, { "i", "x" }, { "i17", 1 },
		{ "z", "a\0b" }, { "c1", "ab" }, { "s1", ("x"):rep(256) }, { "y", 1 }, { "d", {} }, { "c", "a" } }) do
		assert(not pcall(string.pack, args[1], args[2]), args[1])
	end
	assert(not pcall(string.unpack, "i4", "abc"))
	assert(not pcall(string.unpack, "s1", "\5ab"))
	assert(not pcall(string.unpack, "z", "ab"))
	assert(not pcall(string.unpack, "b", "a", 3))
	assert(not pcall(string.packsize, "s"))
end)

case("utf8", function()
	equal(utf8.char(97, 233, 8364, 128512), "aé€😀")
	equal(utf8.char(), "")
	equal(utf8.len("aé€😀"), 4)
	equal(utf8.len(""), 0)
	equal(utf8.len("aé€", 2, 4), 2)
	equal(select(2, utf8.len("ab\255")), 3)
	equal(utf8.len("\237\160\128"), nil)
	equal(utf8.len("\192\128"), nil)
	equal(utf8.codepoint("é€", 3), 8364)
	equal(select("#", utf8.codepoint("aé€", 1, -1)), 3)
	equal(utf8.offset("aé€z", 3), 4)
	equal(utf8.offset("aé€z", -1), 7)
	equal(utf8.offset("aé€z", 0, 5), 4)
	equal(utf8.offset("a", 5), nil)
	local seen = {}
	for at, code in utf8.codes("aé€") do
		seen[#seen + 1] = at .. "=" .. ("%d"):format(code)
	end
	equal(table.concat(seen, " "), "1=97 2=233 4=8364")
	seen = {}
	for c in ("aé€"):gmatch(utf8.charpattern) do
		seen[#seen + 1] = c
	end
	equal(table.concat(seen, "|"), "a|é|€")
	assert(not pcall(function() for _ in utf8.codes("\255") do end end))
	assert(not pcall(utf8.char, -1))
	assert(not pcall(utf8.codepoint, "\255"))
end)

case("table, math", function()
	local t = table.move({ 1, 2, 3 }, 1, 3, 2)
	equal(table.concat(t, ","), "1,1,2,3")
	equal(table.concat(table.move({ 1, 2, 3 }, 2, 3, 1), ","), "2,3,3")
	equal(table.concat(table.move({ 1, 2 }, 1, 2, 3, { 8, 9 }), ","), "8,9,1,2")
	equal(table.pack(1, nil, nil).n, 3)
	equal(select("#", table.unpack({ 1, nil, 3 }, 1, 3)), 3)
	equal(math.type(1), "integer")
	equal(math.type(1.5), "float")
	equal(math.type("1"), nil)
	equal(math.tointeger(3.0), 3)
	equal(math.tointeger(3.5), nil)
	equal(math.ult(1, 2), true)
	equal(math.ult(-1, 2), false)
	equal(rawlen({ 1, 2 }), 2)
end)

return cases
