-- Boots that fail: each way has an error of its own with stage, cause and console, at once, and leaves a VM
-- that can be looked at.

local nested = require("nested")

-- A guest whose first process is this script, in the place of the agent.
local function instead_of_agent(script)
	return { { path = "/sbin/provium-agent", content = "#!/bin/sh\nPATH=/bin:/sbin\n" .. script .. "\n", mode = 493 } }
end

-- Boots, expects a failure with each of texts in it, within 2 s after `event` stood on the console.
local function fails(t, vm, options, event, texts)
	local seen
	local watcher = co.spawn(function()
		vm:console():expect(event, 100)
		seen = now()
	end)
	local err = t:assert_raises(function() vm:boot(options) end)
	local over = now()
	watcher:join(1)
	t:assert(over - seen < 2, ("the error came %.2f s after the event"):format(over - seen))
	t:assert_contains(err, ("vm `%s`: boot: failed while "):format(vm:name()))
	for _, text in ipairs(texts) do
		t:assert_contains(err, text)
	end
	local cause = texts[1]:match("^failed while .-: (.*)")
	t:assert_match(err, "\nconsole %(last 16 KiB%):\n.*" .. event:gsub("%p", "%%%0"))
	t:assert_contains(vm:console():read_log(), event)
	t:assert_eq(vm:state(), "dead")
	t:assert_eq(vm:pid(), nil)
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "VM is dead (cannot run): " .. cause)
	t:log(("%.0f ms from event to error"):format((over - seen) * 1000))
	return err
end

test("the guest panics: its first process ends", function(t)
	local vm = provium:vm("a", "guest")
	local options = { files = instead_of_agent("echo last words; exit 3"), kernel_cmdline = "console=hvc0" }
	fails(t, vm, options, "Kernel panic - not syncing", {
		"failed while waiting for the agent: guest panicked: Kernel panic - not syncing: Attempted to kill init! "
			.. "exitcode=0x00000300",
		"Run /sbin/provium-agent as init process\n", "last words\n",
	})
	t:assert_eq(vm:boot({ files = {} }):run("echo well again"):trim(), "well again")
end)

test("the guest panics: a crash in the kernel", function(t)
	local vm = provium:vm("a", "guest", {
		files = instead_of_agent("mount -t proc proc /proc; echo c >/proc/sysrq-trigger; sleep 600"),
	})
	fails(t, vm, nil, "Kernel panic - not syncing", {
		"failed while booting the guest kernel: guest panicked: Kernel panic - not syncing: sysrq triggered crash",
	})
end)

test("the guest powers off", function(t)
	fails(t, provium:vm("a", "guest"), { files = instead_of_agent("poweroff -f") }, "reboot: Power down", {
		"failed while booting the guest kernel: guest powered off",
	})
end)

test("the guest halts", function(t)
	fails(t, provium:vm("a", "guest"), { files = instead_of_agent("halt -f") }, "reboot: System halted", {
		"failed while booting the guest kernel: guest halted",
	})
end)

test("the guest reboots again and again", function(t)
	local vm = provium:vm("a", "guest")
	local err = t:assert_raises(function() vm:boot({ files = instead_of_agent("reboot -f") }) end)
	t:assert_contains(err, "guest rebooted 3 times before its agent answered")
	t:assert_eq(vm:state(), "dead")
end)

test("QEMU exits at once", function(t)
	local vm = provium:vm("a", "guest")
	local began = now()
	local err = t:assert_raises(function() vm:boot({ qemu_args = { "-device", "flux-capacitor" } }) end)
	t:assert(now() - began < 4, ("it took %.1f s"):format(now() - began))
	t:assert_contains(err, "vm `a`: boot: failed while starting QEMU: QEMU exited: exit status 1: ")
	t:assert_contains(err, "'flux-capacitor' is not a valid device model name")
	t:assert_eq(vm:state(), "dead")
	t:assert_eq(vm:console():read_log(), "")
	t:assert_eq(vm:boot({ qemu_args = {} }):run("echo ok"):trim(), "ok")
end)

test("the agent stays silent", function(t)
	local vm = provium:vm("a", "guest")
	local began = now()
	local err = t:assert_raises(function()
		vm:boot({ files = instead_of_agent("echo here I am; exec sleep 600"), agent_timeout = "10s" })
	end)
	t:assert(now() - began < 10 + 2, ("it took %.1f s"):format(now() - began))
	t:assert_contains(err, "failed while waiting for the agent: agent silent for 10 s: it never opened its connection")
	t:assert_contains(err, "console (last 16 KiB):\n")
	t:assert_contains(err, "here I am")
	t:assert_eq(vm:state(), "booted")
	t:assert(nested.alive(vm:pid()), "QEMU runs on")
	t:assert_contains(t:assert_raises(function() vm:run("true") end), "vm `a`: VM has no agent (cannot run)")
	t:assert_eq(vm:qmp("query-status").status, "running")
	vm:kill()
	t:assert_eq(vm:state(), "dead")
end)

test("what a profile can have wrong", function(t)
	local kernel = nested.images() .. "/vmlinuz"
	local r = nested.run(t, [[
		local function boot(profile, options)
			test(profile, function() provium:vm(profile, profile, options):boot() end)
		end
		boot("missing-kernel")
		boot("directory")
		boot("no-kernel")
		boot("text")
		boot("missing-initrd")
		boot("missing-overlay")
		boot("no-init")
		boot("no-agent", { agent_timeout = "6s" })
		boot("rdinit")
		boot("missing-modules")]], "-v", ([[
[profiles.missing-kernel]
kernel = "no/such/vmlinuz"
cmdline = "quiet"

[profiles.directory]
kernel = "tmp"
cmdline = "quiet"

[profiles.no-kernel]
cmdline = "quiet"

[profiles.text]
kernel = "provium.toml"
cmdline = "quiet"

[profiles.missing-initrd]
kernel = "KERNEL"
initrd = "no/such/initrd"
cmdline = "quiet"

[profiles.missing-overlay]
kernel = "KERNEL"
agent_overlay_path = "no/such/overlay"
cmdline = "quiet"

[profiles.no-init]
kernel = "KERNEL"
memory = "128M"
inject_agent = false
cmdline = "quiet"

[profiles.no-agent]
kernel = "KERNEL"
initrd = "IMAGES/initrd.cpio.gz"
memory = "128M"
inject_agent = false
cmdline = "quiet"

[profiles.rdinit]
kernel = "KERNEL"
cmdline = "rdinit=/bin/sh"

[profiles.missing-modules]
kernel = "KERNEL"
modules = "no/such/modules"
cmdline = "quiet"
]]):gsub("KERNEL", kernel):gsub("IMAGES", nested.images()))
	t:assert_eq(r.status, 1, r.err)
	t:assert_contains(r.out, "FAIL x.test.lua (0 passed, 10 failed, 0 skipped)")
	local function says(name, ...)
		for _, text in ipairs({ ... }) do
			t:assert_contains(r.out, ("vm `%s`: boot: %s"):format(name, text))
		end
	end
	local dir = r.dir
	says("missing-kernel", "failed while looking for the kernel: profile `missing-kernel`: cannot read the kernel `"
		.. dir .. "/no/such/vmlinuz`: No such file or directory")
	says("directory", "failed while looking for the kernel: profile `directory`: the kernel `" .. dir
		.. "/tmp` is not a regular file")
	says("no-kernel", "failed while looking for the kernel: profile `no-kernel` has no kernel")
	says("text", "failed while starting QEMU: QEMU exited: exit status 1: ")
	says("missing-initrd", "failed while preparing the initramfs: initrd: `" .. dir .. "/no/such/initrd`: No such file")
	says("missing-overlay", "failed while preparing the initramfs: agent_overlay_path: `" .. dir
		.. "/no/such/overlay`: No such file")
	says("no-init", "failed while booting the guest kernel: guest panicked: Kernel panic - not syncing: "
		.. "VFS: Unable to mount root fs")
	says("no-agent", "failed while waiting for the agent: agent silent for 6 s")
	says("rdinit", "failed while starting QEMU: profile `rdinit`: the kernel command line has `rdinit=/bin/sh`")
	says("missing-modules", "failed while preparing the initramfs: modules: `" .. dir
		.. "/no/such/modules`: No such file")
end)

test("an image's own init runs without an agent, told by its console", function(t)
	local r = nested.run(t, [[
		test("expect", function(t)
			local vm = provium:vm("a", "quiet"):boot({ expect = "guest: init is up" })
			t:assert_eq(vm:state(), "booted")
			t:assert_contains(vm:console():read_log(), "guest: init is up")
			local err = t:assert_raises(function()
				provium:vm("b", "quiet"):boot({ expect = "never printed", agent_timeout = "3s" })
			end)
			t:assert_contains(err, "waiting for text on the console: `never printed` not seen for 3 s")
		end)]], "-v", ([[
[profiles.quiet]
kernel = "%s/vmlinuz"
initrd = "%s/initrd.cpio.gz"
memory = "128M"
inject_agent = false
cmdline = "quiet"
]]):format(nested.images(), nested.images()))
	t:assert_eq(r.status, 0, r.out .. r.err)
end)

-- While it runs already.

local function ends_running(t, command, cause, event)
	local vm = provium:vm("a", "guest"):boot()
	local seen
	local watcher = co.spawn(function()
		vm:console():expect(event, 60)
		seen = now()
	end)
	local other = co.spawn(function() return pcall(vm.run, vm, "sleep 600") end)
	local err = t:assert_raises(function() vm:run(command .. "; sleep 600") end)
	watcher:join(1)
	t:assert(now() - seen < 2, ("the error came %.2f s after the event"):format(now() - seen))
	t:assert_contains(err, cause)
	t:assert_contains(err, event)
	local ok, message = other:join(2)
	t:assert_eq(ok, false)
	t:assert_contains(message, cause, "the other pending command")
	return vm
end

test("a running guest panics", function(t)
	local vm = ends_running(t, "echo c >/proc/sysrq-trigger", "guest panicked: Kernel panic - not syncing: sysrq",
		"Kernel panic - not syncing")
	t:assert_eq(vm:state(), "dead")
end)

test("a running guest powers off", function(t)
	t:assert_eq(ends_running(t, "poweroff -f", "guest powered off", "reboot: Power down"):state(), "shutdown")
end)

test("a running guest halts", function(t)
	t:assert_eq(ends_running(t, "halt -f", "guest halted", "reboot: System halted"):state(), "shutdown")
end)
