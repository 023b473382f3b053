-- Values as text for failure messages, logs and the prompt: quoting, tables, differences.

local floor = math.floor
local concat, sort = table.concat, table.sort
local pairs, pcall, rawequal, tostring, type = pairs, pcall, rawequal, tostring, type
local getmetatable, next, rawget = getmetatable, next, rawget
local utf8_len = utf8.len

local LONG = 60			-- bytes from which strings are compared as a diff
local STRING_MAX = 400		-- bytes of one string shown
local ITEMS_MAX, DEPTH_MAX = 60, 8
local DIFF_LINES_MAX, DIFF_CONTEXT = 30, 2
local WINDOW = 24		-- bytes shown on both sides of a difference

local show = {}

local escapes, escapes_binary = {}, {}
for byte = 0, 255 do
	local c = string.char(byte)
	if byte < 32 or byte == 127 then
		escapes[c] = ("\\x%02x"):format(byte)
	end
	if byte < 32 or byte >= 127 then
		escapes_binary[c] = ("\\x%02x"):format(byte)
	end
end
for c, text in pairs({ ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" }) do
	escapes[c], escapes_binary[c] = text, text
end

-- At most limit bytes, whole UTF-8 characters, and what to say about the rest.
local function shorten(s, limit)
	if not limit or #s <= limit then
		return s, ""
	end
	local head = s:sub(1, limit)
	if not utf8_len(head) then
		local cut = head:gsub("[\192-\255][\128-\191]*$", "")
		head = utf8_len(cut) and cut or head
	end
	return head, ("... (%d bytes)"):format(#s)
end

-- The string in double quotes; bytes that are no UTF-8 as \xNN. limit: bytes shown.
function show.quote(s, limit)
	local head, rest = shorten(s, limit)
	local text = head:gsub('[%c"\\\127-\255]', utf8_len(head) and escapes or escapes_binary)
	return '"' .. text .. '"' .. rest
end

-- Numbers before strings before everything else, each in its own order.
local function key_before(a, b)
	local ta, tb = type(a), type(b)
	if ta ~= tb then
		local rank = { number = 1, string = 2, boolean = 3 }
		return (rank[ta] or 4) < (rank[tb] or 4)
	end
	if ta == "number" or ta == "string" then
		return a < b
	end
	return tostring(a) < tostring(b)
end

local function sorted_keys(t, other)
	local keys, n = {}, 0
	for k in next, t do
		n = n + 1
		keys[n] = k
	end
	if other then
		for k in next, other do
			if rawget(t, k) == nil then
				n = n + 1
				keys[n] = k
			end
		end
	end
	sort(keys, key_before)
	return keys, n
end

local function is_name(k)
	return type(k) == "string" and k:find("^[%a_][%w_]*$") ~= nil
end

local render

local function render_table(t, depth, above)
	if above[t] then
		return "<cycle>"
	end
	if depth >= DEPTH_MAX then
		return next(t) == nil and "{}" or "{...}"
	end
	above[t] = true
	local parts, expected = {}, 1
	local keys, n = sorted_keys(t)
	for i = 1, n do
		local k = keys[i]
		if i > ITEMS_MAX then
			parts[i] = ("... %d more"):format(n - ITEMS_MAX)
			break
		end
		local v = render(rawget(t, k), depth + 1, above)
		if k == expected then
			parts[i], expected = v, expected + 1
		elseif is_name(k) then
			parts[i] = k .. " = " .. v
		else
			parts[i] = "[" .. render(k, depth + 1, above) .. "] = " .. v
		end
	end
	above[t] = nil
	return "{" .. concat(parts, ", ") .. "}"
end

function render(v, depth, above)
	if type(v) == "string" then
		return show.quote(v, STRING_MAX)
	end
	if type(v) ~= "table" then
		return tostring(v)
	end
	local mt = getmetatable(v)
	if type(mt) == "table" and mt.__tostring then
		local ok, text = pcall(tostring, v)
		if ok then
			return text
		end
	end
	return render_table(v, depth, above)
end

-- Any value on one line.
function show.value(v)
	return render(v, 0, {})
end

local function lines_of(s)
	local lines, n = {}, 0
	for line in (s .. "\n"):gmatch("(.-)\n") do
		n = n + 1
		lines[n] = line
	end
	return lines, n
end

local function add_lines(out, mark, lines, from, to)
	local last = math.min(to, from + DIFF_LINES_MAX - 1)
	for i = from, last do
		local head, rest = shorten(lines[i], STRING_MAX)
		out[#out + 1] = "  " .. mark .. " " .. head:gsub("%c", escapes) .. rest
	end
	if to > last then
		out[#out + 1] = ("  %s ... %d more lines"):format(mark, to - last)
	end
end

-- What both have in front and at the end is left out, but for some lines of context.
local function line_diff(a, b)
	local la, na = lines_of(a)
	local lb, nb = lines_of(b)
	local head, tail = 0, 0
	while head < na and head < nb and la[head + 1] == lb[head + 1] do
		head = head + 1
	end
	while tail < na - head and tail < nb - head and la[na - tail] == lb[nb - tail] do
		tail = tail + 1
	end
	local out = { ("strings differ from line %d on (- first, + second)"):format(head + 1) }
	add_lines(out, " ", la, math.max(1, head + 1 - DIFF_CONTEXT), head)
	add_lines(out, "-", la, head + 1, na - tail)
	add_lines(out, "+", lb, head + 1, nb - tail)
	add_lines(out, " ", la, na - tail + 1, math.min(na, na - tail + DIFF_CONTEXT))
	return concat(out, "\n")
end

-- The first byte where they differ, by halving: strings may be megabytes.
local function first_difference(a, b)
	local lo, hi = 0, math.min(#a, #b)
	while lo < hi do
		local mid = floor((lo + hi + 1) / 2)
		if a:sub(lo + 1, mid) == b:sub(lo + 1, mid) then
			lo = mid
		else
			hi = mid - 1
		end
	end
	return lo + 1
end

local function window(s, at)
	local from, to = math.max(1, at - WINDOW), math.min(#s, at + WINDOW)
	return (from > 1 and "..." or "") .. show.quote(s:sub(from, to)) .. (to < #s and "..." or "")
end

local function byte_diff(a, b)
	local at = first_difference(a, b)
	return ("strings differ at byte %d (%d and %d bytes)\n  - %s\n  + %s"):format(at, #a, #b,
		window(a, at), window(b, at))
end

-- "A ~= B"; long strings as a diff.
function show.unequal(a, b)
	if type(a) == "string" and type(b) == "string" and (#a > LONG or #b > LONG) then
		if utf8_len(a) and utf8_len(b) and a:find("\n", 1, true) and b:find("\n", 1, true) then
			return line_diff(a, b)
		end
		return byte_diff(a, b)
	end
	local text_a, text_b = show.value(a), show.value(b)
	if text_a == text_b and type(a) == type(b) and type(a) == "table" then
		return ("%s ~= %s (two different tables: t:assert_same compares what is in them)"):format(text_a, text_b)
	end
	if text_a == text_b and type(a) ~= type(b) then
		return ("%s (%s) ~= %s (%s)"):format(text_a, type(a), text_b, type(b))
	end
	return text_a .. " ~= " .. text_b
end

local function differ(a, b, path, seen)
	if rawequal(a, b) or a == b then
		return nil
	end
	if type(a) ~= "table" or type(b) ~= "table" then
		return path, a, b
	end
	local known = seen[a]
	if not known then
		known = {}
		seen[a] = known
	elseif known[b] then
		return nil
	end
	known[b] = true
	local keys, n = sorted_keys(a, b)
	for i = 1, n do
		local k = keys[i]
		local step = is_name(k) and "." .. k or "[" .. show.value(k) .. "]"
		local where, va, vb = differ(rawget(a, k), rawget(b, k), path .. step, seen)
		if where then
			return where, va, vb
		end
	end
	return nil
end

-- Deep comparison: nil when the same, else the path of the first difference and both values there.
function show.first_difference(a, b)
	return differ(a, b, "", {})
end

return show
