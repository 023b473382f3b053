-- json and msgpack as a test file sees them (tests/unit/lua/json_cases.lua has the corners).

test("json round trip", function(t)
	local v = { name = "vm", list = { 1, 2.5, "three", { deep = true } } }
	t:assert_eq(json.encode(v), '{"list":[1,2.5,"three",{"deep":true}],"name":"vm"}')
	t:assert_same(json.decode(json.encode(v)), v)
	t:assert_eq(json.encode({}), "{}")
	t:assert_eq(json.encode(json.array({})), "[]")
	t:assert_eq(json.encode({ [3] = "x" }), '[null,null,"x"]')
end)

test("json null", function(t)
	t:assert_same(json.decode("[1,null,3]"), { 1, nil, 3 })
	t:assert_eq(json.decode('{"a":null}', { null = true }).a, json.null)
	t:assert_eq(json.encode({ a = json.null }), '{"a":null}')
end)

test("json errors carry line, column and the caller's position", function(t)
	t:assert_match(t:assert_raises(function() json.decode('{\n "a": tru}') end),
		"formats%.test%.lua:%d+: json%.decode: line 2, column 7: expected a value, got 't'$")
	t:assert_contains(t:assert_raises(function() json.encode({ a = { print } }) end),
		"json.encode: at .a[1]: a function has no JSON form")
end)

test("json integers are exact in 64 bits", { tags = "lua54" }, function(t)
	t:assert_eq(json.encode(math.maxinteger), "9223372036854775807")
	t:assert_eq(json.decode("9223372036854775807"), math.maxinteger)
	t:assert_eq(json.decode("18446744073709551615"), -1)
	t:assert_eq(math.type(json.decode("1.0")), "float")
	t:assert_eq(json.encode(1.0), "1.0")
end)

test("msgpack round trip", function(t)
	local v = { name = "vm", bytes = "\255\0", list = { 1, -2, 2.5, true } }
	t:assert_same(msgpack.decode(msgpack.encode(v)), v)
	t:assert_contains(t:assert_raises(function() msgpack.decode("\221\255\255\255\255") end), "msgpack.decode: ")
end)

test("what LuaJIT lacks is there", function(t)
	t:assert_eq(string.unpack("<i4", string.pack("<i4", -7)), -7)
	t:assert_eq(utf8.len("aé€"), 3)
	t:assert_eq(#table.move({ 1, 2 }, 1, 2, 2), 3)
	t:assert_eq(math.tointeger(3.0), 3)
end)
