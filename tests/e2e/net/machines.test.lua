-- Network cards on a machine whose slots are root ports.

local reach = require("net.reach")

local lan = provium:bridge("lan", { backend = "user" })
local q35 = provium:vm("q35", "guest", { machine = "q35" })
local pc = provium:vm("pc", "guest")
lan:attach(pc)
provium:boot()

test("a root port takes a card, and lets go of it", { timeout = "100s" }, function(t)
	lan:attach(q35)
	t:assert_eq(q35:nic(lan):guest_name(), "eth0")
	t:assert(reach.can(q35, "pc.lan"))
	t:assert(reach.can(pc, "q35.lan", true))
	lan:detach(q35)
	t:assert_eq(q35:exists("/sys/class/net/eth0"), false)
	lan:attach(q35)
	t:assert(reach.can(q35, "pc.lan"))
end)
