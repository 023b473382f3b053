-- The kernel backend with netem and real guests: Provium and its guests in a guest with Debian's full kernel. Those are
-- emulated twice, so this takes a quarter of an hour and more (--include-slow --timeout 0).

local outer = require("nested.outer")
local modules = require("nested.netmodules")

local SUITE = [[
local lan = provium:bridge("lan", { backend = "kernel" })
local a, b = provium:vm("a", "guest", { agent_timeout = "15m" }), provium:vm("b", "guest", { agent_timeout = "15m" })
lan:attach({ a, b })
provium:boot()

local function round_trip(from, ip)
	local out = from:run("ping -4 -c 3 -i 0.2 -W 60 " .. ip, { timeout = "10m" }):assert_ok().stdout
	return tonumber(out:match("= ([%d.]+)/"))
end

test("latency of a pair", function(t)
	round_trip(a, "b.lan")
	lan:add_latency({ from = a, to = b, ms = 700 })
	t:assert(round_trip(a, "b.lan") >= 700)
	t:assert(round_trip(b, "a.lan") >= 700)
	lan:add_latency({ from = b, to = a, ms = 600 })
	t:assert(round_trip(a, "b.lan") >= 1300)
end)
]]

test("guests on the kernel backend with netem", { slow = true, timeout = "60m" }, function(t)
	local facts = outer.facts()
	os.execute("test -e '" .. facts.builds .. "/guest/vmlinuz' || '" .. facts.binary .. "' prepare guest")
	local vm = outer.boot(modules)
	vm:mkdir("/mnt/root/run/suite")
	vm:write_file("/mnt/root/run/suite/netem.test.lua", SUITE)
	vm:write_file("/mnt/root/run/suite/provium.toml", vm:read_file("/mnt/root" .. facts.cwd .. "/provium.toml"))
	local r = outer.run(vm, ([[
		cd /run/suite
		export PROVIUM_BUILD_DIR='%s'
		exec '%s' -v --no-build --cpus 8 --timeout 0 netem.test.lua]]):format(facts.builds, facts.binary), "55m")
	t:log(r.stdout .. r.stderr)
	t:assert_contains(r.stdout, "1 passed, 0 failed, 0 skipped")
end)
