-- The files of doc/writing-tests.md: each is run by a provium of its own, on the local backend, those that need a VM on
-- one of the profile `guest`.

local nested = require("nested")

local here = debug.getinfo(1, "S").source:sub(2):match("^(.*)/[^/]*$") or "."
local page = assert(io.open(here .. "/../../../doc/writing-tests.md")):read("*a")

local PROFILE = '[provium]\nroots = ["."]\n\n[profiles.guest]\nkernel = "none"\ncmdline = ""\n'

local modules, files = {}, {}
for name, text in page:gmatch("\n```lua file ?([^\n]*)\n(.-)\n```") do
	if name ~= "" then
		modules[name] = text
	else
		files[#files + 1] = text
	end
end

test("needs the image", function() provium:vm("image", "guest") end)

test("what needs a VM runs", function(t)
	local suite, n = {}, 0
	for name, text in page:gmatch("\n```lua vm ?([^\n]*)\n(.-)\n```") do
		n = n + 1
		suite[name ~= "" and name or ("guide%d.test.lua"):format(n)] = text
	end
	t:assert(n >= 2)
	local r = nested.start(nested.suite(t, suite), "-v --cpus 2", "PROVIUM_FIXTURE_CACHE=cache"):join(120)
	t:log(r.out .. r.err)
	t:assert_eq(r.status, 0)
	t:assert_contains(r.out, " 0 failed, 0 skipped;")
end)

test("every file runs", function(t)
	t:assert(#files >= 4)
	local suite = { ["provium.toml"] = PROFILE }
	for i, text in ipairs(files) do
		suite[("guide%d.test.lua"):format(i)] = text
	end
	for name, text in pairs(modules) do
		suite[name] = text
	end
	local r = nested.run_local(t, suite)
	t:log(r.out .. r.err)
	t:assert_eq(r.status, 0)
	t:assert_contains(r.out, " 0 failed, 0 skipped;")
end)
