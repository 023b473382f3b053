-- json and msgpack: what is accepted, what comes out, and what errors say.

local cases = {}
local integers = math.type(2 ^ 53) == "float"	-- Lua 5.4: integers are a type of their own

local function case(name, fn)
	cases[#cases + 1] = { name = name, fn = fn }
end

local function equal(got, want)
	if got ~= want then
		error(("got  %s\nwant %s"):format(tostring(got), tostring(want)), 2)
	end
end

local function encodes(v, want)
	equal(json.encode(v), want)
end

local function raises(want, fn, ...)
	local ok, err = pcall(fn, ...)
	equal(ok, false)
	err = err:gsub("^[^\n]-%.lua:%d+: ", "")
	equal(err, want)
end

local function nested(depth)
	local t = {}
	for _ = 2, depth do
		t = { t }
	end
	return t
end

case("encode scalars", function()
	encodes(nil, "null")
	encodes(json.null, "null")
	encodes(true, "true")
	encodes(1, "1")
	encodes(-12, "-12")
	encodes(0.1, "0.1")
	encodes(1e300, "1e+300")
	encodes(1 / 3, "0.3333333333333333")
	encodes(0 / 0, "null")
	encodes(-1 / 0, "null")
	encodes("a\"b\\c\n\t\1\127\0", [["a\"b\\c\n\t\u0001]] .. "\127" .. [[\u0000"]])
	encodes("é€😀", '"é€😀"')
end)

case("encode integers and floats of Lua 5.4", function()
	if not integers then
		return
	end
	encodes(math.maxinteger, "9223372036854775807")
	encodes(math.mininteger, "-9223372036854775808")
	encodes(1.0, "1.0")
	encodes(-0.0, "-0.0")
	encodes(2 ^ 53, "9007199254740992.0")
	encodes(1e15, "1e+15")
end)

case("encode tables", function()
	encodes({}, "{}")
	encodes(json.array({}), "[]")
	encodes({ 1, { 2, {} } }, "[1,[2,{}]]")
	encodes({ b = 1, a = 2, ["a b"] = 3, [""] = 4 }, '{"":4,"a":2,"a b":3,"b":1}')
	encodes({ [3] = "x" }, '[null,null,"x"]')
	encodes({ [1024] = 1 }, "[" .. ("null,"):rep(1023) .. "1]")
	encodes({ json.null, 2 }, "[null,2]")
	local half = {}
	for i = 1, 2000, 2 do
		half[i + 1] = i
	end
	equal(#json.decode(json.encode(half), { null = true }), 2000)
	equal(#json.encode(nested(512)), 1024)
end)

case("encode errors", function()
	raises("json.encode: a function has no JSON form", json.encode, print)
	raises("json.encode: at .a[2].b: a function has no JSON form", json.encode, { a = { 1, { b = print } } })
	raises("json.encode: a string that is not UTF-8 (byte 3 is 0xff)", json.encode, "ab\255")
	raises("json.encode: at .k: a string that is not UTF-8 (byte 1 is 0xed)", json.encode, { k = "\237\160\128" })
	raises("json.encode: a table's keys must be all strings (an object) or all positive integers (an array)",
		json.encode, { 1, a = 2 })
	raises("json.encode: at .t: a table's keys must be all strings (an object) or all positive integers (an array)",
		json.encode, { t = { [0] = 1 } })
	raises("json.encode: an array with 1 elements set is mostly holes; make its keys strings, or fill it",
		json.encode, { [1025] = 1 })
	raises("json.encode: nested deeper than 512 levels", json.encode, nested(513))
	local loop = { a = {} }
	loop.a.b = loop
	raises("json.encode: at .a.b: a table that contains itself", json.encode, loop)
	raises("expected json.encode(value), got 0 arguments", json.encode)
	raises("expected json.array(table), got a number", json.array, 3)
end)

case("the same table twice is no cycle", function()
	local t = { 1 }
	encodes({ t, t }, "[[1],[1]]")
end)

case("decode scalars", function()
	equal(json.decode(" null "), nil)
	equal(json.decode("null", { null = true }), json.null)
	equal(tostring(json.null), "null")
	equal(json.decode("true"), true)
	equal(json.decode("-12"), -12)
	equal(json.decode("0"), 0)
	equal(json.decode("1.5e2"), 150)
	equal(json.decode("1E-2"), 0.01)
	equal(json.decode([["a\"\\\/\b\f\n\r\té\ud83d\ude00"]]), "a\"\\/\b\f\n\r\té😀")
	equal(json.decode([["x\u0000y"]]), "x\0y")
	equal(json.decode('"plain é"'), "plain é")
end)

case("decode integers and floats of Lua 5.4", function()
	if not integers then
		equal(json.decode("9007199254740993"), 9007199254740992)
		equal(json.decode("18446744073709551615"), 2 ^ 64)
		return
	end
	equal(json.decode("9223372036854775807"), math.maxinteger)
	equal(json.decode("-9223372036854775808"), math.mininteger)
	equal(json.decode("9223372036854775808"), math.mininteger)
	equal(json.decode("18446744073709551615"), -1)
	equal(json.decode("18446744073709551616"), 2.0 ^ 64)
	equal(math.type(json.decode("18446744073709551616")), "float")
	equal(math.type(json.decode("1.0")), "float")
	equal(math.type(json.decode("1e3")), "float")
	equal(math.type(json.decode("1")), "integer")
end)

case("decode tables", function()
	local t = json.decode(' { "a" : [ 1 , null , 3 ] , "b" : null, "c": {}, "d": [] } ')
	equal(t.a[1], 1)
	equal(t.a[2], nil)
	equal(t.a[3], 3)
	equal(t.b, nil)
	encodes(t, '{"a":[1,null,3],"c":{},"d":[]}')
	t = json.decode('{"b":null,"a":[null]}', { null = true })
	equal(t.b, json.null)
	equal(t.a[1], json.null)
	equal(json.decode('{"a":1,"a":2}').a, 2)
	equal(json.encode(json.decode(("["):rep(512) .. ("]"):rep(512))), ("["):rep(512) .. ("]"):rep(512))
end)

case("decode errors say line and column", function()
	local function bad(text, message)
		raises("json.decode: " .. message, json.decode, text)
	end
	bad("", "line 1, column 1: expected a value, got the end of the text")
	bad("{\n  \"é\": tru\n}", "line 2, column 8: expected a value, got 't'")
	bad("[1,]", "line 1, column 4: expected a value, got ']'")
	bad("[1 2]", "line 1, column 4: expected ',' or ']', got '2'")
	bad('{"a":1,}', "line 1, column 8: expected a key in double quotes, got '}'")
	bad('{"a" 1}', "line 1, column 6: expected ':', got '1'")
	bad('{"a":1', "line 1, column 7: expected ',' or '}', got the end of the text")
	bad("{a:1}", "line 1, column 2: expected a key in double quotes, got 'a'")
	bad("1 2", "line 1, column 3: expected the end of the text, got '2'")
	bad("01", "line 1, column 2: expected the end of the text, got '1'")
	bad("-", "line 1, column 2: expected a digit, got the end of the text")
	bad("1.", "line 1, column 3: expected a digit after the decimal point, got the end of the text")
	bad("1e+", "line 1, column 4: expected a digit in the exponent, got the end of the text")
	bad("0x10", "line 1, column 2: expected the end of the text, got 'x'")
	bad("1e999", "line 1, column 1: a number too large for a double")
	bad('"abc', "line 1, column 5: expected a closing '\"', got the end of the text")
	bad('"a\\', "line 1, column 4: expected one of \" \\ / b f n r t u after a backslash, got the end of the text")
	bad('"a\nb"', "line 1, column 3: a control character in a string; write it as an escape")
	bad('"\\q"', "line 1, column 3: expected one of \" \\ / b f n r t u after a backslash, got 'q'")
	bad('"\\u12g4"', "line 1, column 6: expected four hexadecimal digits after \\u, got 'g'")
	bad('"x\\ud800y"', "line 1, column 3: half of a surrogate pair")
	bad('"\\udc00"', "line 1, column 2: half of a surrogate pair")
	bad('"\\ud800\\u0041"', "line 1, column 2: half of a surrogate pair")
	bad('"\255"', "line 1, column 2: a string that is not UTF-8")
	bad("\239\187\191{}", "line 1, column 1: expected a value, got byte 0xef")
	bad("[1]\0", "line 1, column 4: expected the end of the text, got byte 0x00")
	bad(("["):rep(513), "line 1, column 513: nested deeper than 512 levels")
	raises("expected json.decode(string [, {null=}]), got a nil", json.decode, nil)
end)

case("decode options are checked", function()
	local ok, err = pcall(json.decode, "1", { nul = true })
	equal(ok, false)
	assert(err:find("nul", 1, true) and err:find("null", 1, true), err)
	ok, err = pcall(json.decode, "1", { null = 1 })
	equal(ok, false)
	assert(err:find("boolean", 1, true), err)
end)

case("strings of many escapes and large documents", function()
	local s = ("\n\"é"):rep(50000)
	equal(json.decode(json.encode(s)), s)
	local t = {}
	for i = 1, 20000 do
		t[i] = { id = i, name = "n" .. i }
	end
	local back = json.decode(json.encode(t))
	equal(#back, 20000)
	equal(back[20000].name, "n20000")
end)

local function hex(s)
	return (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

case("msgpack round trips", function()
	for _, v in ipairs({ true, false, 0, 1, -1, 127, 128, -32, -33, 65536, 2 ^ 40, -2 ^ 40, 1.5, -0.25, "", "é",
		"\255\0\1", ("x"):rep(70000) }) do
		equal(msgpack.decode(msgpack.encode(v)), v)
	end
	equal(msgpack.decode(msgpack.encode(nil)), nil)
	equal(msgpack.decode(msgpack.encode(json.null)), nil)
	local t = msgpack.decode(msgpack.encode({ a = { 1, 2, { b = "c" } }, [5] = "five", [-1] = 2.5 }))
	equal(t.a[3].b, "c")
	equal(t[5], "five")
	equal(t[-1], 2.5)
end)

case("msgpack forms", function()
	equal(hex(msgpack.encode({ 1, 2 })), "920102")
	equal(hex(msgpack.encode({})), "80")
	equal(hex(msgpack.encode(json.array({}))), "90")
	equal(hex(msgpack.encode("a")), "a161")
	equal(hex(msgpack.encode("\255")), "c401ff")
	equal(hex(msgpack.encode({ [2] = true })), "92c0c3")
	equal(hex(msgpack.encode({ [5000] = true })), "81cd1388c3")
	equal(hex(msgpack.encode(0.5)), "cb3fe0000000000000")
	equal(hex(msgpack.encode(msgpack.decode("\144"))), "90")
	if integers then
		equal(hex(msgpack.encode(1.0)), "cb3ff0000000000000")
		equal(msgpack.decode("\207" .. ("\255"):rep(8)), -1)
		equal(msgpack.decode("\202\63\128\0\0"), 1.0)
	else
		equal(hex(msgpack.encode(2 ^ 60)), "cf1000000000000000")
		equal(hex(msgpack.encode(-2 ^ 60)), "d3f000000000000000")
		equal(hex(msgpack.encode(2 ^ 63)), "cb43e0000000000000")
	end
end)

case("msgpack errors", function()
	raises("msgpack.encode: a function has no msgpack form", msgpack.encode, { print })
	raises("msgpack.encode: a table as a key of a map", msgpack.encode, { [{}] = 1 })
	raises("expected msgpack.encode(value), got 0 arguments", msgpack.encode)
	raises("expected msgpack.decode(string), got a number", msgpack.decode, 1)
	raises("msgpack.decode: an empty string", msgpack.decode, "")
	raises("msgpack.decode: 1 bytes follow the value, which ends at byte 1", msgpack.decode, "\1\1")
	raises("msgpack.decode: extension type 5 has no Lua form", msgpack.decode, "\212\5\0")
	raises("msgpack.decode: a map with the key nil, which Lua tables cannot have", msgpack.decode, "\129\192\1")
	for _, text in ipairs({ "\146\1", "\221\255\255\255\255", "\193", ("\145"):rep(100) .. "\1",
		"\219\255\255\255\255x" }) do
		local ok, err = pcall(msgpack.decode, text)
		equal(ok, false)
		assert(err:find("msgpack.decode: ", 1, true), err)
	end
	local loop = {}
	loop[1] = loop
	raises("msgpack.encode: nested deeper than 31 levels, or a table that contains itself", msgpack.encode, loop)
	for depth = 1, 31 do
		assert(msgpack.decode(msgpack.encode(nested(depth))), depth)
	end
end)

return cases
