-- The places that doc/architecture.md names, `file:function`, are there.

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
