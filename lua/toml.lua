-- TOML 1.0: text to Lua tables, with the place and the type of every key.
--
-- toml.parse(text) returns
--   on success  root, info     info[table][key] = {line=, column=, type=}
--   on failure  nil, {line=, column=, message=}
--
-- Strings, booleans, tables and arrays become what they are in Lua; integers are Lua integers where
-- the interpreter has them, else doubles; a date or a time is a table with the metatable
-- toml.datetime: {kind=, text=, year=, month=, day=, hour=, minute=, second=, fraction=, offset=}.
-- The types in info are "string", "integer", "float", "boolean", "array", "table" and the four kinds
-- of date-time; they tell {} from [] and 1 from 1.0, which Lua values cannot. Lines and columns
-- count from 1, columns in characters.

local toml = { datetime = {} }

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

-- Deeper nesting is refused, so that no document can exhaust the stack.
local MAX_DEPTH = 128

local INT_MAX, INT_MIN = "9223372036854775807", "9223372036854775808"

local ESCAPES = {
	b = "\b", t = "\t", n = "\n", f = "\f", r = "\r", ['"'] = '"', ["\\"] = "\\",
}

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- One parse: the text, the next byte, and what is known about the tables made so far.
--
-- kind[table] says how a table came to be, which decides who may still add to it:
--   "implicit"  named only inside a header such as [a.b]: may still get its own header
--   "header"    had its header
--   "dotted"    made by a dotted key: its section may go on adding, a header may not name it
--   "inline"    complete
--   "array"     complete
--   "tables"    an array of tables, grows by [[headers]]
local Parser = {}
Parser.__index = Parser

-- Raises the failure as a table; toml.parse catches it.
function Parser:fail(at, message, ...)
	local line, start = 1, 1
	for newline in self.text:gmatch("()\n") do
		if newline >= at then
			break
		end
		line, start = line + 1, newline + 1
	end
	local _, continuation = self.text:sub(start, at - 1):gsub("[\128-\191]", "")
	error({ line = line, column = at - start - continuation + 1, message = message:format(...) }, 0)
end

-- What stands at a position, for messages.
function Parser:describe(at)
	if at > #self.text then
		return "the end of the file"
	end
	local char = match(self.text, "^[%z\1-\127\194-\244][\128-\191]*", at) or sub(self.text, at, at)
	if char == "\n" or (char == "\r" and sub(self.text, at + 1, at + 1) == "\n") then
		return "the end of the line"
	elseif find(char, "^%c") then
		return ("the control character U+%04X"):format(byte(char))
	end
	return "`" .. char .. "`"
end

function Parser:expected(what)
	self:fail(self.pos, "expected %s, found %s", what, self:describe(self.pos))
end

-- Takes what the anchored pattern matches; nil when it does not.
function Parser:take(pattern)
	local first, last, capture = find(self.text, pattern, self.pos)
	if not first then
		return nil
	end
	self.pos = last + 1
	return capture or sub(self.text, first, last)
end

function Parser:skip_space()
	self.pos = find(self.text, "[^ \t]", self.pos) or #self.text + 1
end

-- Takes a comment, if there is one, up to its line's end.
function Parser:skip_comment()
	if sub(self.text, self.pos, self.pos) ~= "#" then
		return
	end
	self.pos = find(self.text, "[%z\1-\8\10-\31\127]", self.pos) or #self.text + 1
	if self.pos <= #self.text and not find(self.text, "^\r?\n", self.pos) then
		self:fail(self.pos, "%s is not allowed in a comment", self:describe(self.pos))
	end
end

-- Space, comments and newlines, as between the elements of an array.
function Parser:skip_lines()
	repeat
		self:skip_space()
		self:skip_comment()
	until not self:take("^\r?\n")
end

function Parser:end_of_line()
	self:skip_space()
	self:skip_comment()
	if self.pos <= #self.text and not self:take("^\r?\n") then
		self:expected("the end of the line")
	end
end

-- ---- strings ----

local function utf8_char(code)
	if code < 0x80 then
		return string.char(code)
	end
	local tail = ""
	local limit = 0x40
	while code >= limit do
		tail = string.char(0x80 + code % 0x40) .. tail
		code = math.floor(code / 0x40)
		limit = limit == 0x40 and 0x20 or limit / 2
	end
	return string.char(256 - 2 * limit + code) .. tail
end

function Parser:escape()
	local at = self.pos
	local letter = sub(self.text, at + 1, at + 1)
	if ESCAPES[letter] then
		self.pos = at + 2
		return ESCAPES[letter]
	end
	local digits
	if letter == "u" then
		digits = match(self.text, "^%x%x%x%x", at + 2)
	elseif letter == "U" then
		digits = match(self.text, "^%x%x%x%x%x%x%x%x", at + 2)
	else
		self:fail(at, "%s cannot follow a backslash in a string", self:describe(at + 1))
	end
	if not digits then
		self:fail(at, "`\\%s` needs %d hexadecimal digits", letter, letter == "u" and 4 or 8)
	end
	local code = tonumber(digits, 16)
	if code > 0x10FFFF or (code >= 0xD800 and code <= 0xDFFF) then
		self:fail(at, "`\\%s%s` is not a Unicode character", letter, digits)
	end
	self.pos = at + 2 + #digits
	return utf8_char(code)
end

function Parser:basic_string()
	local start, parts = self.pos, {}
	self.pos = start + 1
	while true do
		parts[#parts + 1] = self:take('^[^%z\1-\8\10-\31\127"\\]+')
		local char = sub(self.text, self.pos, self.pos)
		if char == '"' then
			self.pos = self.pos + 1
			return table.concat(parts)
		elseif char == "\\" then
			parts[#parts + 1] = self:escape()
		else
			self:bad_string(start, '"')
		end
	end
end

function Parser:literal_string()
	local start = self.pos
	self.pos = start + 1
	local value = self:take("^[^%z\1-\8\10-\31\127']*")
	if sub(self.text, self.pos, self.pos) ~= "'" then
		self:bad_string(start, "'")
	end
	self.pos = self.pos + 1
	return value
end

-- A string that ran into a control character, a line's end or the file's end.
function Parser:bad_string(start, quote)
	local at = self.pos
	if at > #self.text or (#quote == 1 and find(self.text, "^\r?\n", at)) then
		self:fail(start, "this string is not closed: %s is missing", quote)
	end
	self:fail(at, "%s is not allowed in a string", self:describe(at))
end

-- """ and ''' strings. Up to two quotes may stand right before the closing three.
function Parser:multiline_string(quote)
	local start, parts = self.pos, {}
	local plain = quote == '"' and '^[^%z\1-\8\10-\31\127"\\]+' or "^[^%z\1-\8\10-\31\127']+"
	self.pos = start + 3
	self:take("^\r?\n")
	while true do
		parts[#parts + 1] = self:take(plain)
		local quotes = self:take("^" .. quote .. "+")
		if quotes and #quotes >= 3 then
			local extra = math.min(#quotes - 3, 2)
			self.pos = self.pos - #quotes + 3 + extra
			parts[#parts + 1] = quote:rep(extra)
			return table.concat(parts)
		elseif quotes then
			parts[#parts + 1] = quotes
		elseif self:take("^\r?\n") then
			parts[#parts + 1] = "\n"
		elseif quote == '"' and sub(self.text, self.pos, self.pos) == "\\" then
			-- A backslash that ends its line swallows all space up to the next character.
			if self:take("^\\[ \t]*\r?\n") then
				while self:take("^[ \t]+") or self:take("^\r?\n") do end
			else
				parts[#parts + 1] = self:escape()
			end
		else
			self:bad_string(start, quote:rep(3))
		end
	end
end

-- ---- numbers, booleans, dates ----

-- Digits in which every underscore stands between two digits; nil otherwise.
local function plain_digits(text)
	if text == "" or find(text, "^_") or find(text, "_$") or find(text, "__", 1, true) then
		return nil
	end
	return (text:gsub("_", ""))
end

local function decimal_integer(sign, text)
	local digits = plain_digits(text)
	if not digits or (#digits > 1 and find(digits, "^0")) then
		return nil, "leading zeros and stray underscores are not allowed in a number"
	end
	local limit = sign == "-" and INT_MIN or INT_MAX
	if #digits > #limit or (#digits == #limit and digits > limit) then
		return nil, "the integer does not fit in 64 bits"
	end
	return tonumber((sign == "-" and "-" or "") .. digits) + 0	-- doubles: -0 becomes 0
end

local function prefixed_integer(prefix, text)
	local base = ({ x = 16, o = 8, b = 2 })[prefix]
	local digits = plain_digits(text)
	if not digits or find(digits, ({ x = "%X", o = "[^0-7]", b = "[^01]" })[prefix]) then
		return nil, "malformed number"
	end
	digits = digits:gsub("^0+", "")
	local most = ({ x = 16, o = 21, b = 63 })[prefix]
	if #digits > most or (base == 16 and #digits == 16 and find(digits, "^[^0-7]")) then
		return nil, "the integer does not fit in 64 bits"
	end
	local value = 0
	for digit in digits:gmatch(".") do
		value = value * base + tonumber(digit, 16)
	end
	return value
end

local function float(sign, text)
	local whole, rest = match(text, "^([%d_]+)(.*)$")
	whole = whole and plain_digits(whole)
	if not whole or (#whole > 1 and find(whole, "^0")) then
		return nil
	end
	local fraction, exponent = match(rest, "^%.([%d_]+)(.*)$")
	if fraction then
		fraction, rest = plain_digits(fraction), exponent
		if not fraction then
			return nil
		end
	end
	local exponent_sign, power = match(rest, "^[eE]([+-]?)([%d_]+)$")
	if power then
		power = plain_digits(power)
	elseif rest ~= "" then
		return nil
	end
	if not fraction and not power then
		return nil
	end
	local value = tonumber(whole .. "." .. (fraction or "0") .. "e" .. (exponent_sign or "") .. (power or "0"))
	return sign == "-" and -value or value
end

-- The value of a number's text: value, type; or nil, message.
local function number(text)
	local sign, rest = match(text, "^([+-]?)(.*)$")
	if rest == "inf" then
		return sign == "-" and -math.huge or math.huge, "float"
	elseif rest == "nan" then
		return 0 / 0, "float"
	end
	local prefix, digits = match(rest, "^0([xob])(.*)$")
	if prefix then
		if sign ~= "" then
			return nil, "a hexadecimal, octal or binary number takes no sign"
		end
		local value, message = prefixed_integer(prefix, digits)
		return value, value and "integer" or message
	elseif find(rest, "^[%d_]+$") then
		local value, message = decimal_integer(sign, rest)
		return value, value and "integer" or message
	end
	local value = float(sign, rest)
	return value, value and "float" or "malformed number"
end

local function valid_date(d)
	local days = DAYS[d.month]
	if d.month == 2 and d.year % 4 == 0 and (d.year % 100 ~= 0 or d.year % 400 == 0) then
		days = 29
	end
	return days and d.day >= 1 and d.day <= days
end

-- Takes HH:MM:SS[.fraction] into d; false when there is none.
function Parser:time(d)
	local at = self.pos
	local hour, minute, second = match(self.text, "^(%d%d):(%d%d):(%d%d)", at)
	if not hour then
		return false
	end
	d.hour, d.minute, d.second = tonumber(hour), tonumber(minute), tonumber(second)
	if d.hour > 23 or d.minute > 59 or d.second > 60 then
		self:fail(at, "there is no time %s:%s:%s", hour, minute, second)
	end
	self.pos = at + 8
	local fraction = self:take("^%.(%d+)")
	d.fraction = fraction and tonumber("0." .. fraction) or 0
	return true
end

-- Takes Z or +HH:MM into d.offset (minutes); false when there is none.
function Parser:offset(d)
	local at = self.pos
	if self:take("^[Zz]") then
		d.offset = 0
		return true
	end
	local sign, hour, minute = match(self.text, "^([+-])(%d%d):(%d%d)", at)
	if not sign then
		return false
	end
	if tonumber(hour) > 23 or tonumber(minute) > 59 then
		self:fail(at, "there is no offset %s%s:%s", sign, hour, minute)
	end
	d.offset = (sign == "-" and -1 or 1) * (tonumber(hour) * 60 + tonumber(minute))
	self.pos = at + 6
	return true
end

-- A date, a time or both, when one starts here.
function Parser:datetime()
	local start = self.pos
	local d = setmetatable({}, toml.datetime)
	local year, month, day = match(self.text, "^(%d%d%d%d)-(%d%d)-(%d%d)", start)
	if year then
		d.year, d.month, d.day = tonumber(year), tonumber(month), tonumber(day)
		if not valid_date(d) then
			self:fail(start, "there is no date %s-%s-%s", year, month, day)
		end
		self.pos = start + 10
		d.kind = "local date"
		if self:take("^[Tt]") or (find(self.text, "^ %d%d:", self.pos) and self:take("^ ")) then
			if not self:time(d) then
				self:expected("a time HH:MM:SS")
			end
			d.kind = self:offset(d) and "offset date-time" or "local date-time"
		end
	elseif find(self.text, "^%d%d:", start) then
		if not self:time(d) then
			self:fail(start, "malformed time, expected HH:MM:SS")
		end
		d.kind = "local time"
	else
		return nil
	end
	d.text = sub(self.text, start, self.pos - 1)
	if find(self.text, "^[%w_.:+-]", self.pos) then
		self:fail(start, "malformed %s", d.kind)
	end
	return d, d.kind
end

-- ---- values ----

-- Returns the value and its type.
function Parser:value(depth)
	local at = self.pos
	local char = sub(self.text, at, at)
	if depth > MAX_DEPTH then
		self:fail(at, "values are nested deeper than %d levels", MAX_DEPTH)
	elseif char == '"' or char == "'" then
		if sub(self.text, at, at + 2) == char:rep(3) then
			return self:multiline_string(char), "string"
		end
		return char == '"' and self:basic_string() or self:literal_string(), "string"
	elseif char == "[" then
		return self:array(depth), "array"
	elseif char == "{" then
		return self:inline_table(depth), "table"
	end
	local date, kind = self:datetime()
	if date then
		return date, kind
	end
	local word = self:take("^[%w_+.-]+")
	if word == "true" or word == "false" then
		return word == "true", "boolean"
	elseif word and (find(word, "^[+-]?%d") or find(word, "^[+-]?inf$") or find(word, "^[+-]?nan$")) then
		local value, what = number(word)
		if value == nil then
			self:fail(at, "%s: `%s`", what, word)
		end
		return value, what
	elseif word then
		self:fail(at, "`%s` is not a value: strings need quotes, booleans are true and false", word)
	end
	self:expected("a value")
end

function Parser:array(depth)
	local array, places = {}, {}
	self.kind[array], self.info[array] = "array", places
	self.pos = self.pos + 1
	self:skip_lines()
	while not self:take("^%]") do
		local at = self.pos
		local value, what = self:value(depth + 1)
		array[#array + 1] = value
		places[#array] = { at = at, type = what }
		self:skip_lines()
		if not self:take("^,") and sub(self.text, self.pos, self.pos) ~= "]" then
			self:expected("`,` or `]`")
		end
		self:skip_lines()
	end
	return array
end

function Parser:inline_table(depth)
	local inline = self:new_table("dotted")
	self.pos = self.pos + 1
	self:skip_space()
	if not self:take("^}") then
		repeat
			self:skip_space()
			self:pair(inline, depth + 1)
			self:skip_space()
		until not self:take("^,")
		if not self:take("^}") then
			self:expected("`,` or `}`")
		end
	end
	self.kind[inline] = "inline"
	return inline
end

-- ---- keys and tables ----

function Parser:new_table(kind)
	local t = {}
	self.kind[t], self.info[t] = kind, {}
	return t
end

-- Takes a key of one or more parts: {name, ...} with the position of each in .at.
function Parser:key()
	local parts = { at = {} }
	repeat
		self:skip_space()
		local at = self.pos
		local char = sub(self.text, at, at)
		local name
		if char == '"' or char == "'" then
			if sub(self.text, at, at + 2) == char:rep(3) then
				self:fail(at, "a multi-line string cannot be a key")
			end
			name = char == '"' and self:basic_string() or self:literal_string()
		else
			name = self:take("^[%w_-]+") or self:expected("a key")
		end
		parts[#parts + 1] = name
		parts.at[#parts] = at
		if #parts > MAX_DEPTH then
			self:fail(at, "the key has more than %d parts", MAX_DEPTH)
		end
		self:skip_space()
	until not self:take("^%.")
	return parts
end

local function key_text(parts, n)
	return table.concat(parts, ".", 1, n)
end

function Parser:set(t, key, value, at, what)
	t[key] = value
	self.info[t][key] = { at = at, type = what }
end

-- Takes `key = value` into t.
function Parser:pair(t, depth)
	local parts = self:key()
	if not self:take("^=") then
		self:expected("`=` after the key")
	end
	self:skip_space()
	local last = #parts
	for i = 1, last - 1 do
		local child = t[parts[i]]
		if child == nil then
			child = self:new_table("dotted")
			self:set(t, parts[i], child, parts.at[i], "table")
		elseif self.kind[child] == "implicit" then
			self.kind[child] = "dotted"
		elseif self.kind[child] ~= "dotted" then
			self:fail(parts.at[i], "`%s` is already defined and cannot be added to", key_text(parts, i))
		end
		t = child
	end
	if t[parts[last]] ~= nil then
		self:fail(parts.at[last], "the key `%s` is defined twice", key_text(parts, last))
	end
	local value, what = self:value(depth + last - 1)
	self:set(t, parts[last], value, parts.at[last], what)
end

-- Finds the table that holds a header's last part, making what is missing.
function Parser:header_parent(root, parts)
	local t = root
	for i = 1, #parts - 1 do
		local child = t[parts[i]]
		local kind = self.kind[child]
		if child == nil then
			child = self:new_table("implicit")
			self:set(t, parts[i], child, parts.at[i], "table")
		elseif kind == "tables" then
			child = child[#child]
		elseif kind ~= "implicit" and kind ~= "header" and kind ~= "dotted" then
			self:fail(parts.at[i], "`%s` is already a value and cannot be added to", key_text(parts, i))
		end
		t = child
	end
	return t
end

-- Takes [a.b] or [[a.b]] and returns the table it opens.
function Parser:header(root)
	local double = self:take("^%[%[") ~= nil
	if not double then
		self.pos = self.pos + 1
	end
	local parts = self:key()
	if not self:take(double and "^%]%]" or "^%]") then
		self:expected(double and "`]]`" or "`]`")
	end
	local parent = self:header_parent(root, parts)
	local last = #parts
	local name, at = parts[last], parts.at[last]
	local known = parent[name]
	if not double then
		if known == nil then
			known = self:new_table("header")
			self:set(parent, name, known, at, "table")
		elseif self.kind[known] == "implicit" then
			self.kind[known] = "header"
			self.info[parent][name].at = at
		else
			self:fail(at, "`%s` is defined twice", key_text(parts, last))
		end
		return known
	end
	if known == nil then
		known = {}
		self.kind[known], self.info[known] = "tables", {}
		self:set(parent, name, known, at, "array")
	elseif self.kind[known] ~= "tables" then
		self:fail(at, "`%s` is already defined and is not an array of tables", key_text(parts, last))
	end
	local element = self:new_table("header")
	self:set(known, #known + 1, element, at, "table")
	return element
end

function Parser:document()
	local root = self:new_table("header")
	local current = root
	self:skip_lines()
	while self.pos <= #self.text do
		if sub(self.text, self.pos, self.pos) == "[" then
			current = self:header(root)
		else
			self:pair(current, 1)
		end
		self:end_of_line()
		self:skip_lines()
	end
	return root
end

-- ---- the text as a whole ----

-- The position of the first byte that is not valid UTF-8 (overlong forms and surrogates included).
local function invalid_utf8(text)
	local pos = 1
	while true do
		pos = find(text, "[\128-\255]", pos)
		if not pos then
			return nil
		end
		local _, last = find(text, "^[\194-\223][\128-\191]", pos)
		if not last then
			_, last = find(text, "^[\224-\239][\128-\191][\128-\191]", pos)
			local a, b = byte(text, pos, pos + 1)
			if last and ((a == 0xE0 and b < 0xA0) or (a == 0xED and b > 0x9F)) then
				return pos
			end
		end
		if not last then
			_, last = find(text, "^[\240-\244][\128-\191][\128-\191][\128-\191]", pos)
			local a, b = byte(text, pos, pos + 1)
			if last and ((a == 0xF0 and b < 0x90) or (a == 0xF4 and b > 0x8F)) then
				return pos
			end
		end
		if not last then
			return pos
		end
		pos = last + 1
	end
end

-- Positions were kept as offsets; makes them lines and columns, in one pass over the text.
local function resolve_places(text, info)
	local places = {}
	for _, keys in pairs(info) do
		for _, place in pairs(keys) do
			places[#places + 1] = place
		end
	end
	table.sort(places, function(a, b) return a.at < b.at end)
	local line, start = 1, 1
	for _, place in ipairs(places) do
		local newline = find(text, "\n", start, true)
		while newline and newline < place.at do
			line, start = line + 1, newline + 1
			newline = find(text, "\n", start, true)
		end
		local _, continuation = sub(text, start, place.at - 1):gsub("[\128-\191]", "")
		place.line, place.column, place.at = line, place.at - start - continuation + 1, nil
	end
end

function toml.parse(text)
	text = text:gsub("^\239\187\191", "")
	local parser = setmetatable({ text = text, pos = 1, kind = {}, info = {} }, Parser)
	local ok, result = pcall(function()
		local bad = invalid_utf8(text)
		if bad then
			parser:fail(bad, "the byte 0x%02X is not valid UTF-8", byte(text, bad))
		end
		return parser:document()
	end)
	if not ok then
		if type(result) ~= "table" then
			error(result, 0)
		end
		return nil, result
	end
	resolve_places(text, parser.info)
	return result, parser.info
end

return toml
