-- The example of the introduction, word for word, with a profile of the name that it has there.

local nested = require("nested")

-- It is named so that its profile's images are made, which the nested run uses.
provium:vm("unused", "guest")

local EXAMPLE = [[
test("guest can ping its bridge peer", function(t)
local lan = provium:bridge("lan")
local a = provium:vm("a", "peios"):boot()
local b = provium:vm("b", "peios"):boot()
lan:attach({a, b})
local r = a:run("ping -c 1 -W 1 b.lan")
r:assert_ok()
end)
]]

test("it runs as it is written", { timeout = "200s" }, function(t)
	local images = nested.images()
	local r = nested.start(nested.suite(t, EXAMPLE, ([[
		[profiles.peios]
		kernel  = "%s/vmlinuz"
		initrd  = "%s/initrd.cpio.gz"
		modules = "%s/modules"
		cmdline = "console=hvc0 quiet"
		memory  = "128M"
	]]):format(images, images, images)), "-v --cpus 2"):join(180)
	t:log(r.out .. r.err)
	t:assert_contains(r.out, "PASS x.test.lua (1 passed, 0 failed, 0 skipped)")
end)
