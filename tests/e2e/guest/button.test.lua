-- lua.md, "VM": power_button, on guests that listen to it and are gone afterwards. One VM at a time.

-- The directory of the guest's kernel, with its modules, as QEMU's command line names it.
local function kernel_directory(machine)
	local f = assert(io.open(("/proc/%d/cmdline"):format(machine:pid()), "rb"))
	local line = f:read("*a")
	f:close()
	return (line:match("%-kernel%z([^%z]+)/vmlinuz") or line:match("%-kernel\0([^\0]+)/vmlinuz"))
end

-- What an ACPI daemon does: the guest powers off when the button is pressed.
local function listen_to_button(machine)
	local modules = kernel_directory(machine) .. "/modules/kernel/drivers/"
	for _, name in ipairs({ "acpi/button.ko", "input/evdev.ko" }) do
		machine:push_file(modules .. name, "/tmp/m.ko")
		machine:run("insmod /tmp/m.ko"):assert_ok()
	end
	machine:mkdir("/etc/acpi/PWRF", { parents = true })
	machine:write_file("/etc/acpi/PWRF/00000080", "#!/bin/sh\npoweroff -f\n", { mode = tonumber("755", 8) })
	local daemon = machine:run_async("acpid", { "-d" })
	wait_until(function()
		return machine:run("ls -l /proc/$(pidof acpid)/fd | grep -q /dev/input"):ok()
	end, { desc = "acpid to listen" })
	return daemon
end

test("the power button turns a guest off that listens to it", function(t)
	local own = provium:vm("own", "guest"):boot()
	listen_to_button(own)
	own:power_button("60s")
	t:assert_eq(own:state(), "shutdown")
	t:assert_eq(own:pid(), nil)
	t:assert_contains(t:assert_raises(function() own:power_button() end), "(cannot power_button)")
	own:boot()
	listen_to_button(own)
	own:power_button({ wait = false })
	wait_until(function() return own:state() == "shutdown" end, { timeout = 60 })
end)

test("power_button cancelled, and killed, while it waits", function(t)
	local own = provium:vm("own", "guest"):boot()
	local waiter = co.spawn(function() own:power_button(60) end)
	sleep("100ms")
	waiter:cancel()
	t:assert(not pcall(waiter.join, waiter))
	t:assert_eq(own:state(), "booted")
	waiter = co.spawn(function() own:power_button(60) end)
	sleep("100ms")
	own:kill()
	local ok, message = pcall(waiter.join, waiter, 5)
	t:assert(not ok)
	t:assert_contains(message, "power_button: killed")
end)
