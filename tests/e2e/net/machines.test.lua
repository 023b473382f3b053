-- Network cards on machines other than pc: one whose slots are root ports, and one without a bus.

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

-- Its kernel has no timer interrupts to measure by. Without a PIT it cannot measure its counter either, as on a busy
-- host now and then: it must have been told.
test("microvm takes its cards before it boots", { timeout = "100s" }, function(t)
	local micro = provium:vm("micro", "guest", { machine = "microvm", qemu_args = { "-machine", "pit=off" } })
	lan:attach(micro)
	micro:boot()
	t:assert_eq(micro:nic(lan):guest_name(), "eth0")
	t:assert(reach.can(micro, "pc.lan"))
	t:assert(reach.can(pc, "micro.lan", true))
	local late = provium:bridge("late", { backend = "user" })
	t:assert_contains(t:assert_raises(function() late:attach(micro) end),
		"machine `microvm` takes no network card while it runs: attach it before boot")
end)
