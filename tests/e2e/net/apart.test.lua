-- Networks of different files are apart, whatever they are called; and there are none with --vmm local.

local nested = require("nested")

-- It is named so that its profile's images are made, which the nested runs use.
provium:vm("unused", "guest")

-- Four of these run at once: the same bridge, the same addresses. Each waits until all are there, then asks for an
-- address that the others have, and looks who speaks on its bridge.
local FILE = [[
local lan = provium:bridge("lan", { backend = "%s", subnet = "10.5.0.0/24" })
local vm = provium:vm("vm%d", "guest", { memory = "96M" })
lan:attach(vm)
vm:boot()

local function exists(name)
	local f = io.open(name)
	return f and f:close()
end

test("nobody else is here", { timeout = "200s" }, function(t)
	t:assert_eq(vm:nic(lan):ip(), "10.5.0.2")
	io.open("ready%d", "w"):close()
	wait_until(function()
		return exists("ready1") and exists("ready2") and exists("ready3") and exists("ready4")
	end, { timeout = 150 })
	local capture = lan:capture()
	vm:run("ping -c 3 -W 1 -b 10.5.0.255; ping -c 2 -W 1 10.5.0.3")
	for _, f in ipairs(capture:frames(2)) do
		t:assert_eq(f.src, vm:nic(lan):mac())
	end
	capture:close()
	io.open("done%d", "w"):close()
	wait_until(function()
		return exists("done1") and exists("done2") and exists("done3") and exists("done4")
	end, { timeout = 100 })
end)
]]

local function apart(t, backend)
	local files = {}
	for i = 1, 4 do
		files[("file%d.test.lua"):format(i)] = FILE:format(backend, i, i, i)
	end
	local r = nested.start(nested.suite(t, files), "-v --cpus 4"):join(280)
	t:log(r.out .. r.err)
	t:assert_contains(r.out, "4 file(s); 4 passed, 0 failed, 0 skipped")
end

test("four files with the same bridge and addresses at once, user backend", { timeout = "300s" }, function(t)
	apart(t, "user")
end)

test("four files with the same bridge and addresses at once, kernel backend", { timeout = "300s" }, function(t)
	local ok, why = pcall(provium.bridge, provium, "probe", { backend = "kernel" })
	if not ok then
		t:skip(why)
	end
	apart(t, "kernel")
end)

test("with --vmm local", function(t)
	local r = nested.run_local(t, [[
		local vm = provium:vm("a", "guest")
		test("no networks", function(t)
			t:assert_contains(t:assert_raises(function() provium:bridge("lan") end),
				"bridge `lan`: not supported by --vmm local")
			t:assert_contains(t:assert_raises(function() vm:nic("eth0") end), "nic: not supported by --vmm local")
		end)]], nil, '[profiles.guest]\nkernel = "none"\ncmdline = ""\n')
	t:log(r.out .. r.err)
	t:assert_eq(r.status, 0)
end)
