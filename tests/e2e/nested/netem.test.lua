-- The kernel backend on a kernel that has everything, sch_netem among it: its unit tests in a guest with Debian's full
-- kernel. They need no guests of their own, so they take seconds.

local outer = require("nested.outer")

-- The guest's kernel loads none by itself: it has no modprobe where the kernel looks for it.
local MODULES = { "crc32c_generic", "tun", "bridge", "veth", "ifb", "sch_htb", "sch_tbf", "sch_netem", "sch_ingress", "cls_u32", "act_mirred",
	"nf_tables", "nft_numgen", "nft_objref", "nft_dup_netdev", "nft_meta_bridge", "nft_ct", "nft_chain_nat", "nft_masq" }

-- Where the unit tests were built: beside the program.
local function unit_tests(t)
	local dir = outer.facts().binary:gsub("/[^/]*$", "/tests/unit")
	local f = io.open(dir .. "/netem_test", "rb")
	if not f then
		t:skip("there is no " .. dir .. "/netem_test: run make check")
	end
	f:close()
	return dir
end

test("the kernel backend with netem", { slow = true, timeout = "15m" }, function(t)
	local dir = unit_tests(t)
	local vm = outer.boot(MODULES)
	for _, name in ipairs({ "netem_test", "netkernel_test", "nethost_test", "netlink_test" }) do
		local r = outer.run(vm, ("exec '%s/%s'"):format(dir, name), "5m")
		t:log(r.stdout .. r.stderr)
		t:assert_eq(r.exit_code, 0, name)
	end
end)
