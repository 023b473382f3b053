-- TOML documents and what they mean.

local toml = dofile(srcdir .. "/lua/toml.lua")

local cases = {}

-- One line for a value, so that expectations are easy to write: keys sorted, types marked.
local function show(value, kind, info)
	local parts = {}
	if kind == "table" then
		local keys = {}
		for key in pairs(value) do
			keys[#keys + 1] = key
		end
		table.sort(keys)
		for i, key in ipairs(keys) do
			parts[i] = key .. "=" .. show(value[key], info[value][key].type, info)
		end
		return "{" .. table.concat(parts, " ") .. "}"
	elseif kind == "array" then
		for i = 1, #value do
			parts[i] = show(value[i], info[value][i].type, info)
		end
		return "[" .. table.concat(parts, " ") .. "]"
	elseif kind == "string" then
		return "'" .. value .. "'"
	elseif kind == "integer" then
		return ("%.0f"):format(value)
	elseif kind == "float" then
		if value ~= value then
			return "nan"
		elseif value == math.huge or value == -math.huge then
			return value > 0 and "+inf" or "-inf"
		end
		return "f" .. ("%.6g"):format(value)
	elseif kind == "boolean" then
		return tostring(value)
	end
	return ("<%s %s>"):format(kind, value.text)
end

local function valid(name, text, expected)
	cases[#cases + 1] = { name = "valid: " .. name, fn = function()
		local root, info = toml.parse(text)
		if not root then
			error(("refused: %d:%d: %s"):format(info.line, info.column, info.message), 0)
		end
		local got = show(root, "table", info)
		if got ~= expected then
			error(("expected %s\n     got %s"):format(expected, got), 0)
		end
	end }
end

-- place is "LINE:COLUMN"; words must be part of the message.
local function invalid(name, text, place, words)
	cases[#cases + 1] = { name = "invalid: " .. name, fn = function()
		local root, failure = toml.parse(text)
		if root then
			error("accepted", 0)
		end
		local at = failure.line .. ":" .. failure.column
		if at ~= place or not failure.message:find(words, 1, true) then
			error(("expected %s: ...%s...\n     got %s: %s"):format(place, words, at, failure.message), 0)
		end
	end }
end

-- keys and pairs
valid("empty", "", "{}")
valid("only a comment", "# nothing", "{}")
valid("blank lines and CRLF", "\r\n\r\na = 1\r\n", "{a=1}")
valid("no newline at the end", "a = 1", "{a=1}")
valid("byte order mark", "\239\187\191a = 1", "{a=1}")
valid("space around", "  a\t=\t1  # one", "{a=1}")
valid("bare keys", "a-b_C9 = 1\n1234 = 2", "{1234=2 a-b_C9=1}")
valid("quoted keys", '"a b" = 1\n\'c"d\' = 2\n"" = 3', '{=3 a b=1 c"d=2}')
valid("escape in a key", '"\\u00e9" = 1', "{é=1}")
valid("dotted keys", "a.b.c = 1\na.b.d = 2\na . e = 3", "{a={b={c=1 d=2} e=3}}")
valid("numbers as dotted keys", "3.14 = 1", "{3={14=1}}")
valid("comment after each thing", "[a] # t\nb = 1 # p\n# end", "{a={b=1}}")
valid("UTF-8 in a comment", "# ünïcödé 🎉\na = 1", "{a=1}")
invalid("no value", "a =", "1:4", "expected a value, found the end of the file")
invalid("value on the next line", "a =\n1", "1:4", "expected a value, found the end of the line")
invalid("no equals sign", "a 1", "1:3", "expected `=` after the key")
invalid("no key", "= 1", "1:1", "expected a key, found `=`")
invalid("two pairs on a line", "a = 1 b = 2", "1:7", "expected the end of the line, found `b`")
invalid("key ends with a dot", "a. = 1", "1:4", "expected a key")
invalid("key starts with a dot", ".a = 1", "1:1", "expected a key")
invalid("bare key with a bad character", "a$b = 1", "1:2", "expected `=`")
invalid("non-ASCII bare key", "é = 1", "1:1", "expected a key, found `é`")
invalid("multi-line key", '"""a""" = 1', "1:1", "cannot be a key")
invalid("duplicate key", "a = 1\na = 2", "2:1", "`a` is defined twice")
invalid("duplicate quoted key", 'a = 1\n"a" = 2', "2:1", "defined twice")
invalid("dotted into a value", "a = 1\na.b = 2", "2:1", "cannot be added to")
invalid("value over a dotted table", "a.b = 1\na = 2", "2:1", "defined twice")
invalid("column counts characters", 'a = "é" x', "1:9", "expected the end of the line")

-- basic strings
valid("empty string", 'a = ""', "{a=''}")
valid("escapes", [[a = "\b\t\n\f\r\"\\"]], "{a='\b\t\n\f\r\"\\'}")
valid("\\u and \\U", [[a = "\u0041\u00E9\u20AC\U0001F600"]], "{a='Aé€😀'}")
valid("\\u0000", [[a = "\u0000"]], "{a='\0'}")
valid("tab in a string", 'a = "x\ty"', "{a='x\ty'}")
valid("hash in a string", 'a = "# no comment" # comment', "{a='# no comment'}")
invalid("unknown escape", [[a = "\q"]], "1:6", "`q` cannot follow a backslash")
invalid("short \\u", [[a = "\u12"]], "1:6", "needs 4 hexadecimal digits")
invalid("short \\U", [[a = "\U1234567"]], "1:6", "needs 8 hexadecimal digits")
invalid("surrogate", [[a = "\uD800"]], "1:6", "is not a Unicode character")
invalid("beyond Unicode", [[a = "\U00110000"]], "1:6", "is not a Unicode character")
invalid("string not closed", 'a = "x\nb = 1', "1:5", "this string is not closed")
invalid("string not closed at the end", 'a = "x', "1:5", "this string is not closed")
invalid("control character in a string", 'a = "x\1"', "1:7", "U+0001 is not allowed in a string")
invalid("DEL in a string", 'a = "\127"', "1:6", "U+007F")
invalid("bare CR in a string", 'a = "x\ry"', "1:7", "U+000D")
invalid("text after a string", 'a = "x" y', "1:9", "expected the end of the line")

-- literal strings
valid("literal", [[a = 'C:\dir\n']], [[{a='C:\dir\n'}]])
valid("empty literal", "a = ''", "{a=''}")
invalid("literal not closed", "a = 'x\n", "1:5", "this string is not closed: ' is missing")
invalid("control character in a literal", "a = '\0'", "1:6", "U+0000")

-- multi-line strings
valid("multi-line", 'a = """\nx\ny"""', "{a='x\ny'}")
valid("multi-line without a first newline", 'a = """x\n\ny\n"""', "{a='x\n\ny\n'}")
valid("multi-line CRLF", 'a = """\r\nx\r\ny"""', "{a='x\ny'}")
valid("empty multi-line", 'a = """"""', "{a=''}")
valid("quotes inside", 'a = """x "y" ""z"" """', "{a='x \"y\" \"\"z\"\" '}")
valid("one quote before the end", 'a = """x""""', "{a='x\"'}")
valid("two quotes before the end", 'a = """x"""""', "{a='x\"\"'}")
valid("escaped quotes", 'a = """x\\"""y"""', "{a='x\"\"\"y'}")
valid("line-ending backslash", 'a = """x \\\n   \n\t y"""', "{a='x y'}")
valid("line-ending backslash with spaces", 'a = """x\\  \n  y"""', "{a='xy'}")
valid("line-ending backslash, CRLF", 'a = """x\\\r\n\r\n y"""', "{a='xy'}")
valid("multi-line literal", "a = '''\nx\\\n'y' ''z'''", "{a='x\\\n'y' ''z'}")
valid("two quotes before a literal's end", "a = '''x'''''", "{a='x'''}")
invalid("multi-line not closed", 'a = """x\n', "1:5", 'this string is not closed: """ is missing')
invalid("multi-line literal not closed", "a = '''x\n''", "1:5", "this string is not closed: ''' is missing")
invalid("six quotes at the end", 'a = """x""""""', "1:14", "expected the end of the line")
invalid("backslash and text", 'a = """x\\ y"""', "1:9", "cannot follow a backslash")
invalid("bare CR in a multi-line string", 'a = """x\ry"""', "1:9", "U+000D")
invalid("control in a multi-line literal", "a = '''\n\2'''", "2:1", "U+0002")

-- integers
valid("integers", "a = 1\nb = -17\nc = +99\nd = 0\ne = -0\nf = +0", "{a=1 b=-17 c=99 d=0 e=0 f=0}")
valid("underscores", "a = 1_000\nb = 1_2_3", "{a=1000 b=123}")
valid("prefixes", "a = 0xDEAD_beef\nb = 0o755\nc = 0b1101_0110", "{a=3735928559 b=493 c=214}")
valid("zeros after a prefix", "a = 0x00ff\nb = 0o0\nc = 0b000", "{a=255 b=0 c=0}")
valid("the largest exact double", "a = 9007199254740992", "{a=9007199254740992}")
invalid("leading zero", "a = 01", "1:5", "leading zeros")
invalid("leading zero, signed", "a = -01", "1:5", "leading zeros")
invalid("trailing underscore", "a = 1_", "1:5", "stray underscores")
invalid("double underscore", "a = 1__2", "1:5", "stray underscores")
invalid("leading underscore", "a = _1", "1:5", "`_1` is not a value")
invalid("sign on hexadecimal", "a = +0x1", "1:5", "takes no sign")
invalid("upper-case prefix", "a = 0X1", "1:5", "malformed number")
invalid("empty hexadecimal", "a = 0x", "1:5", "malformed number")
invalid("bad octal digit", "a = 0o8", "1:5", "malformed number")
invalid("bad binary digit", "a = 0b2", "1:5", "malformed number")
invalid("underscore after the prefix", "a = 0x_1", "1:5", "malformed number")
invalid("too large", "a = 9223372036854775808", "1:5", "does not fit in 64 bits")
invalid("too small", "a = -9223372036854775809", "1:5", "does not fit in 64 bits")
invalid("too large hexadecimal", "a = 0x8000000000000000", "1:5", "does not fit in 64 bits")
invalid("double sign", "a = ++1", "1:5", "is not a value")
invalid("letters after digits", "a = 12abc", "1:5", "malformed number")

-- floats
valid("floats", "a = 1.0\nb = -0.25\nc = +3.5", "{a=f1 b=f-0.25 c=f3.5}")
valid("exponents", "a = 5e+22\nb = 1E06\nc = -2e-2\nd = 6.5e3", "{a=f5e+22 b=f1e+06 c=f-0.02 d=f6500}")
valid("underscores in floats", "a = 1_0.0_1\nb = 1e1_0", "{a=f10.01 b=f1e+10}")
valid("infinity", "a = inf\nb = +inf\nc = -inf", "{a=+inf b=+inf c=-inf}")
valid("not a number", "a = nan\nb = +nan\nc = -nan", "{a=nan b=nan c=nan}")
invalid("no digit before the point", "a = .5", "1:5", "is not a value")
invalid("no digit after the point", "a = 5.", "1:5", "malformed number")
invalid("point before the exponent", "a = 3.e5", "1:5", "malformed number")
invalid("leading zero of a float", "a = 03.1", "1:5", "malformed number")
invalid("two points", "a = 1.2.3", "1:5", "malformed number")
invalid("empty exponent", "a = 1e", "1:5", "malformed number")
invalid("fraction in the exponent", "a = 1e2.3", "1:5", "malformed number")
invalid("underscore beside the point", "a = 1_.0", "1:5", "malformed number")
invalid("capital Inf", "a = Inf", "1:5", "`Inf` is not a value")

-- booleans
valid("booleans", "a = true\nb = false", "{a=true b=false}")
invalid("capital True", "a = True", "1:5", "booleans are true and false")
invalid("a word", "a = yes", "1:5", "strings need quotes")
invalid("longer than true", "a = truer", "1:5", "`truer` is not a value")

-- dates and times
valid("offset date-time", "a = 1979-05-27T07:32:00Z\nb = 1979-05-27 00:32:00.999999-07:00",
	"{a=<offset date-time 1979-05-27T07:32:00Z> b=<offset date-time 1979-05-27 00:32:00.999999-07:00>}")
valid("lower-case t and z", "a = 1979-05-27t07:32:00z", "{a=<offset date-time 1979-05-27t07:32:00z>}")
valid("local date-time", "a = 1979-05-27T07:32:00.5", "{a=<local date-time 1979-05-27T07:32:00.5>}")
valid("local date", "a = 1979-05-27\nb = 2024-02-29 # leap", "{a=<local date 1979-05-27> b=<local date 2024-02-29>}")
valid("local time", "a = 07:32:00\nb = 00:32:00.999", "{a=<local time 07:32:00> b=<local time 00:32:00.999>}")
invalid("month 13", "a = 1979-13-01", "1:5", "there is no date 1979-13-01")
invalid("day 31 in April", "a = 1979-04-31", "1:5", "there is no date")
invalid("29 February", "a = 2023-02-29", "1:5", "there is no date")
invalid("29 February 1900", "a = 1900-02-29", "1:5", "there is no date")
invalid("hour 24", "a = 24:00:00", "1:5", "there is no time")
invalid("minute 60", "a = 23:60:00", "1:5", "there is no time")
invalid("no seconds", "a = 07:32", "1:5", "malformed time")
invalid("date, T, nothing", "a = 1979-05-27T", "1:16", "expected a time")
invalid("offset hour 24", "a = 1979-05-27T07:32:00+24:00", "1:24", "there is no offset")
invalid("half an offset", "a = 1979-05-27T07:32:00+01", "1:5", "malformed local date-time")
invalid("empty fraction", "a = 07:32:00.", "1:5", "malformed local time")
invalid("short year", "a = 199-09-09", "1:5", "malformed number")

-- arrays
valid("arrays", "a = []\nb = [1, 2]\nc = [[1], ['x', true]]", "{a=[] b=[1 2] c=[[1] ['x' true]]}")
valid("array over lines", "a = [ # first\n  1, # one\n\n  2,\n  # last\n]", "{a=[1 2]}")
valid("array without space", "a=[1,2,]", "{a=[1 2]}")
valid("array of inline tables", "a = [{b = 1}, {}]", "{a=[{b=1} {}]}")
invalid("array not closed", "a = [1, 2", "1:10", "expected `,` or `]`, found the end of the file")
invalid("no comma", "a = [1 2]", "1:8", "expected `,` or `]`, found `2`")
invalid("only a comma", "a = [,]", "1:6", "expected a value, found `,`")
invalid("two commas", "a = [1,,2]", "1:8", "expected a value, found `,`")
invalid("array extended by a header", "a = []\n[[a]]", "2:3", "is not an array of tables")
invalid("too deep", "a = " .. ("["):rep(200) .. ("]"):rep(200), "1:133", "nested deeper than 128 levels")

-- inline tables
valid("inline tables", "a = {}\nb = { x = 1, y.z = 'q' }", "{a={} b={x=1 y={z='q'}}}")
valid("inline with quoted keys", "a = {\"b c\" = 1,'d'=2}", "{a={b c=1 d=2}}")
valid("array over lines in an inline table", "a = { b = [1,\n2] }", "{a={b=[1 2]}}")
invalid("trailing comma", "a = { b = 1, }", "1:14", "expected a key, found `}`")
invalid("newline in an inline table", "a = { b = 1,\nc = 2 }", "1:13", "expected a key, found the end of the line")
invalid("inline table not closed", "a = { b = 1", "1:12", "expected `,` or `}`")
invalid("comma first", "a = { , b = 1 }", "1:7", "expected a key")
invalid("duplicate key inside", "a = { b = 1, b = 2 }", "1:14", "defined twice")
invalid("dotted into an inline table", "a = { b = 1 }\na.c = 2", "2:1", "cannot be added to")
invalid("dotted into an inner inline table", "a = { b = {c = 1}, b.d = 2 }", "1:20", "cannot be added to")
invalid("header of an inline table", "a = { b = 1 }\n[a]", "2:2", "defined twice")
invalid("header below an inline table", "a = { b = {} }\n[a.b.c]", "2:2", "`a` is already a value")
invalid("array header below an inline table", "a = {}\n[[a.b]]", "2:3", "`a` is already a value")

-- tables
valid("tables", "[a]\nb = 1\n[c.d]\ne = 2", "{a={b=1} c={d={e=2}}}")
valid("empty table", "[a]", "{a={}}")
valid("space in a header", "[ a . 'b' ]", "{a={b={}}}")
valid("child before parent", "[a.b]\nc = 1\n[a]\nd = 2", "{a={b={c=1} d=2}}")
valid("root keys before tables", "a = 1\n[b]\nc = 2", "{a=1 b={c=2}}")
valid("subtable of a dotted table", "[a]\nb.c = 1\n[a.b.d]\ne = 2", "{a={b={c=1 d={e=2}}}}")
valid("dotted key into an implied table", "[a.b.c]\n[a]\nb.d = 1", "{a={b={c={} d=1}}}")
valid("header beside a dotted key", "a.b = 1\n[a.c]", "{a={b=1 c={}}}")
invalid("table twice", "[a]\n[b]\n[a]", "3:2", "`a` is defined twice")
invalid("table over a value", "a = 1\n[a]", "2:2", "defined twice")
invalid("table below a value", "a = 1\n[a.b]", "2:2", "`a` is already a value")
invalid("table over a dotted table", "[a]\nb.c = 1\n[a.b]", "3:4", "`a.b` is defined twice")
invalid("implied table after a dotted key", "[a.b.c]\n[a]\nb.d = 1\n[a.b]", "4:4", "`a.b` is defined twice")
invalid("dotted key into a table with a header", "[a.b]\n[a]\nb.c = 1", "3:1", "`b` is already defined")
invalid("empty header", "[]", "1:2", "expected a key")
invalid("header not closed", "[a", "1:3", "expected `]`")
invalid("header and text", "[a] b = 1", "1:5", "expected the end of the line")
invalid("two names in a header", "[a b]", "1:4", "expected `]`")
invalid("newline in a header", "[a\n]", "1:3", "expected `]`")
invalid("empty part in a header", "[a..b]", "1:4", "expected a key")

-- arrays of tables
valid("array of tables", "[[a]]\nb = 1\n[[a]]\n[[a]]\nb = 3", "{a=[{b=1} {} {b=3}]}")
valid("nested arrays of tables", "[[a]]\n[[a.b]]\nc = 1\n[[a.b]]\nc = 2\n[[a]]\n[[a.b]]\nc = 3",
	"{a=[{b=[{c=1} {c=2}]} {b=[{c=3}]}]}")
valid("subtable of the last element", "[[a]]\n[a.b]\nc = 1\n[[a]]\n[a.b]\nc = 2", "{a=[{b={c=1}} {b={c=2}}]}")
invalid("array of tables over a table", "[a]\n[[a]]", "2:3", "is not an array of tables")
invalid("table over an array of tables", "[[a]]\n[a]", "2:2", "defined twice")
invalid("array of tables over an implied table", "[a.b]\n[[a]]", "2:3", "is not an array of tables")
invalid("dotted key into an array of tables", "[[a.b]]\n[a]\nb.c = 1", "3:1", "cannot be added to")
invalid("array header not closed", "[[a]", "1:4", "expected `]]`")
invalid("space between the brackets", "[ [a]]", "1:3", "expected a key")

-- the text as a whole
invalid("invalid UTF-8", 'a = "\255"', "1:6", "0xFF is not valid UTF-8")
invalid("overlong UTF-8", 'a = "\192\128"', "1:6", "0xC0 is not valid UTF-8")
invalid("UTF-8 surrogate", 'a = "\237\160\128"', "1:6", "0xED is not valid UTF-8")
invalid("truncated UTF-8 in a comment", "# \226\130", "1:3", "0xE2 is not valid UTF-8")
invalid("beyond Unicode in UTF-8", 'a = "\244\144\128\128"', "1:6", "0xF4")
invalid("control character in a comment", "# x\1", "1:4", "U+0001 is not allowed in a comment")
invalid("bare CR", "a = 1\rb = 2", "1:6", "U+000D")
invalid("bare CR in a comment", "# x\ry", "1:4", "U+000D")
invalid("NUL", "a = 1\0", "1:6", "U+0000")
invalid("line numbers with CRLF", "a = 1\r\nb = \r\n", "2:5", "expected a value")

-- places and values that show() does not reach
cases[#cases + 1] = { name = "places", fn = function()
	local root, info = toml.parse('[a]\n  b = 1\n"é" . d = [1,\n  2]')
	local a = root.a
	local place = function(t, key)
		return info[t][key].line .. ":" .. info[t][key].column .. ":" .. info[t][key].type
	end
	assert(place(root, "a") == "1:2:table")
	assert(place(a, "b") == "2:3:integer")
	assert(place(a, "é") == "3:1:table")
	assert(place(a["é"], "d") == "3:7:array")
	assert(place(a["é"].d, 2) == "4:3:integer")
end }

cases[#cases + 1] = { name = "fields of a date-time", fn = function()
	local d = toml.parse("a = 1979-05-27T07:32:05.25-01:30").a
	assert(getmetatable(d) == toml.datetime)
	assert(d.year == 1979 and d.month == 5 and d.day == 27)
	assert(d.hour == 7 and d.minute == 32 and d.second == 5 and d.fraction == 0.25 and d.offset == -90)
end }

cases[#cases + 1] = { name = "integers of 64 bits", fn = function()
	if 9007199254740993 == 9007199254740992 then
		return		-- doubles only
	end
	local t = toml.parse("a = 9223372036854775807\nb = -9223372036854775808\nc = 0x7fffffffffffffff")
	assert(t.a == math.maxinteger and t.b == math.mininteger and t.c == math.maxinteger)
	assert(math.type(t.a) == "integer" and math.type(toml.parse("a = 1.0").a) == "float")
end }

return cases
