-- The examples of doc/lua.md, each as a test on one shared VM; and every method is in that page.

local here = debug.getinfo(1, "S").source:sub(2):match("^(.*)/[^/]*$") or "."
local PAGE = here .. "/../../../doc/lua.md"

local vm = provium:vm("shared", "guest"):boot()

local function read(path)
	local f = assert(io.open(path))
	local text = f:read("*a")
	f:close()
	return text
end

-- Calls found(heading, line, info, text) for each fenced block of a page.
local function each_block(page, found)
	local heading, info, first, lines, number = "?", nil, nil, nil, 0
	for line in (page .. "\n"):gmatch("(.-)\n") do
		number = number + 1
		if info and line == "```" then
			found(heading, first, info, table.concat(lines, "\n"))
			info = nil
		elseif info then
			lines[#lines + 1] = line
		elseif line:find("^```") then
			info, first, lines = line:sub(4), number + 1, {}
		elseif line:find("^#") then
			heading = line:gsub("^#+%s*", ""):gsub("[`*]", "")
		end
	end
end

local page = read(PAGE)

each_block(page, function(heading, line, info, text)
	if info ~= "lua" then
		return
	end
	-- Lines in front, and the parameters on the last of them, so that failures name lines of the page; the
	-- chunk's name is that of a file here, for paths relative to the calling file.
	local source = ("\n"):rep(line - 2) .. "local t, vm = ...\n" .. text
	test(("line %d: %s"):format(line, heading), { timeout = "100s" }, function(t)
		local chunk, message = (loadstring or load)(source, "@" .. here .. "/lua.md")
		t:assert(chunk, message)
		chunk(t, vm)
	end)
end)

local function check_methods(t, kind, object)
	for name in pairs(object) do
		if not name:find("^__") and not page:find("[:.]" .. name .. "[%(`{ ]") then
			t:fail(("doc/lua.md says nothing of %s:%s"):format(kind, name))
		end
	end
end

test("every method is in the page", function(t)
	local p = vm:run_async("cat")
	local objects = {
		VM = vm, Process = p, Stream = p:stdout_stream(), Console = vm:console(), Clock = vm:clock(),
		File = vm:open_file("/etc/passwd", { read = true }), Worker = vm:spawn_worker(), t = t,
		RunResult = vm:run("true"), Bridge = provium:bridge("every"),
	}
	objects.Bridge:attach(vm)
	objects.Nic = vm:nic("every")
	for kind, object in pairs(objects) do
		check_methods(t, kind, getmetatable(object).__index)
	end
	for _, kind in ipairs({ "json", "msgpack", "co" }) do
		check_methods(t, kind, _G[kind])
	end
end)
