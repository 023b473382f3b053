-- Memory, processors, options of the boot: a restored VM has the snapshot's, whatever its own say.

local places = require("snapshot.places")

local vm = provium:vm("a", "guest", {
	memory = "96M", cpus = 2, kernel_cmdline_append = "my.flag=1",
	files = { { path = "/etc/own/file", content = "of the boot\0binary\255" } },
	rng_seed = 7, agent_timeout = "90s",
}):boot()
vm:write_file("/tmp/n", "saved")
local snap = vm:snapshot()

local function total(which)
	return tonumber(which:read_file("/proc/meminfo"):match("MemTotal:%s*(%d+)"))
end

local memory = total(vm)

test("in the same VM and in one that was declared otherwise", function(t)
	local b = provium:vm("b", "guest", { memory = "256M", cpus = 1 })
	vm:kill()
	b:restore(snap)
	t:assert_eq(total(b), memory)
	t:assert_eq(b:run("nproc"):trim(), "2")
	t:assert_contains(b:read_file("/proc/cmdline"), "my.flag=1")
	t:assert_eq(b:read_file("/etc/own/file"), "of the boot\0binary\255")
	t:assert_eq(b:read_file("/tmp/n"), "saved")

	b:reset()
	t:assert_eq(total(b), memory, "a reset boots the same machine")
	t:assert_eq(b:run("nproc"):trim(), "2")
	t:assert_contains(b:read_file("/proc/cmdline"), "my.flag=1")
	t:assert_eq(b:read_file("/etc/own/file"), "of the boot\0binary\255", "with the same files")
	t:assert_eq(b:exists("/tmp/n"), false)

	b:shutdown()
	b:boot()
	t:assert(total(b) > memory, "boot() is told by its own options again")
	t:assert_eq(b:run("nproc"):trim(), "1")
	b:kill()
end)

test("a snapshot of a restored VM has them, too", function(t)
	vm:restore(snap)
	local second = vm:snapshot()
	vm:restore(second)
	t:assert_eq(total(vm), memory)
	vm:reset()
	t:assert_contains(vm:read_file("/proc/cmdline"), "my.flag=1")
	t:assert_eq(vm:read_file("/etc/own/file"), "of the boot\0binary\255")
end)

test("meta.json says what it is", function(t)
	local f = assert(io.open(snap:path() .. "/meta.json"))
	local meta = json.decode(f:read("*a"))
	f:close()
	t:assert_eq(meta.format, 1)
	t:assert_eq(meta.vm, "a")
	t:assert_eq(meta.profile, "guest")
	t:assert_eq(meta.memory, 96 * 1048576)
	t:assert_eq(meta.cpus, 2)
	t:assert_match(meta.qemu, "^%d+%.%d+%.%d+")
	t:assert_eq(#meta.id, 32)
end)

test("a VM that waited for text instead of an agent", function(t)
	vm:kill()
	local k = provium:vm("k", "kernel-only", { expect = "Linux version", kernel_cmdline = "console=hvc0 console=ttyS0" }):boot()
	local text = k:snapshot()
	k:kill()
	k:restore(text)
	t:assert_eq(k:state(), "booted")
	t:assert_contains(k:console():read_log(), "Linux version")
	k:kill()
end)

test("cmdlines, kernels and profiles of the host do not matter to a snapshot, its profile's name does", function(t)
	local nested = require("nested")
	local dir = places.dir(t)
	vm:restore(snap)
	vm:snapshot(dir .. "/it.snap")
	vm:kill()
	local r = nested.run(t, { ["x.test.lua"] = ([[
		test("x", function(t)
			local vm = provium:vm("a", "kernel-only"):restore("%s/it.snap")
			t:assert_eq(vm:profile(), "guest")
			t:assert_eq(vm:read_file("/tmp/n"), "saved")
		end)]]):format(dir) })
	t:assert_eq(r.status, 0, r.out .. r.err)
	places.sh(("sed -i 's/\"profile\": \"guest\"/\"profile\": \"gone\"/' %s/it.snap/meta.json"):format(dir))
	t:assert_contains(t:assert_raises(function() vm:restore(dir .. "/it.snap") end), "profile `gone`, which is not in provium.toml")
end)
