-- What the pages name exists: places in doc/architecture.md, `file:function`; and what exists has its entry in
-- the manual: flags and configuration keys.

local here = debug.getinfo(1, "S").source:sub(2):match("^(.*)/[^/]*$") or "."
local TOP = here .. "/../../../"

local function read(path)
	local f = io.open(path)
	local text = f and f:read("*a")
	return text, f and f:close()
end

test("architecture.md names what exists", function(t)
	local page, n = assert((read(TOP .. "doc/architecture.md"))), 0
	for file, name in page:gmatch("`([%w_/]+%.[clh][ua]?[ua]?):([%w_.]+)`") do
		local text = read(TOP .. file)
		t:assert(text, "no such file: " .. file)
		local found = false
		for before in text:gmatch("([^\n]*)%f[%w_]" .. name:gsub("%.", "%%.") .. "%(") do
			found = found or before:find("^%a") ~= nil	-- a definition begins in the first column
		end
		t:assert(found or text:find("\nfunction%s+[%w_.]*%f[%w_]" .. name .. "%("), file .. " has no function " .. name)
		n = n + 1
	end
	t:assert(n > 60, ("only %d places were found"):format(n))
	for file in page:gmatch("`([%w_]+/[%w_/]+%.[clh][ua]?[ua]?)`") do
		t:assert(read(TOP .. file) or read(TOP .. "src/" .. file), "no such file: " .. file)
	end
end)

test("provium.1 has every flag", function(t)
	local page, args = assert((read(TOP .. "doc/provium.1"))), assert((read(TOP .. "src/run/args.c")))
	local n = 0
	for name in args:gmatch("\n\t{ \"([%w-]+)\", [%w']+, FLAG_") do
		n = n + 1
		t:assert(page:find("Fl %-" .. name:gsub("%-", "%%-") .. "%f[^%w-]"), "no --" .. name)
	end
	t:assert(n > 20, ("only %d flags were found"):format(n))
end)

test("provium.toml.5 has every key", function(t)
	local page, config = assert((read(TOP .. "doc/provium.toml.5"))), assert((read(TOP .. "lua/config.lua")))
	for _, list in ipairs({ "PROVIUM_KEYS", "PROFILE_KEYS", "DISK_KEYS" }) do
		local keys = config:match("local " .. list .. " = (%b{})")
		for key in keys:gmatch("([%l_]+) = ") do
			t:assert(page:find("%f[%w_]" .. key .. "%f[^%w_]"), ("%s: nothing of %s"):format(list, key))
		end
	end
end)
