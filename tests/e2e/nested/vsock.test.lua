-- Provium inside a guest whose kernel has vhost_vsock: the one way to test vsock where the host has none.
--
-- The outer guest sees this machine's files read-only over 9p and runs the very same binary. Its own
-- guest is emulated twice, so this takes minutes.

local SUITE = [[
local vm = provium:vm("inner", "guest"):boot({ agent_timeout = "15m" })

test("speaks over vsock", function(t)
	t:assert(vm:cid() and vm:cid() >= 3, "the VM has no CID")
	t:assert_eq(vm:run("echo over vsock"):assert_ok().stdout, "over vsock\n")
	vm:write_file("/tmp/big", ("x"):rep(300000))
	t:assert_eq(#vm:read_file("/tmp/big"), 300000)
	local port = vm:run("cat /sys/class/virtio-ports/*/name").stdout
	t:assert_contains(port, "org.provium.agent.0")
end)
]]

-- Where the profiles' images are, and the binary, as the outer guest sees them.
local function host_facts(t)
	local p = io.popen([[
		echo "${PROVIUM_BUILD_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/provium/builds}"
		command -v "${PROVIUM_BIN:-provium}"
		pwd]])
	local builds, binary, cwd = p:read("l"), p:read("l"), p:read("l")
	p:close()
	t:assert(binary and binary:sub(1, 1) == "/", "set PROVIUM_BIN to the binary's full path")
	return builds, binary, cwd
end

test("a guest is reached over vsock", { slow = true, timeout = "25m" }, function(t)
	local builds, binary, cwd = host_facts(t)
	os.execute("test -e '" .. builds .. "/guest/vmlinuz' || '" .. binary .. "' prepare guest")
	local host = provium:vm("host", "host"):boot()
	host:run([[
		set -e
		modprobe vhost_vsock
		modprobe 9pnet_virtio
		modprobe 9p
		mkdir -p /mnt/root
		mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /mnt/root
		mount -t tmpfs tmpfs /mnt/root/run
		for d in proc sys dev; do mount -o bind /$d /mnt/root/$d; done
		mount -t tmpfs tmpfs /mnt/root/dev/shm]]):assert_ok()
	host:mkdir("/mnt/root/run/suite")
	host:write_file("/mnt/root/run/suite/vsock.test.lua", SUITE)
	host:write_file("/mnt/root/run/suite/provium.toml", host:read_file("/mnt/root" .. cwd .. "/provium.toml"))
	host:write_file("/mnt/root/run/suite/go", ([[
		cd /run/suite
		export TMPDIR=/run HOME=/run PATH=/usr/sbin:/usr/bin:/sbin:/bin PROVIUM_BUILD_DIR='%s'
		exec '%s' -v --no-build --timeout 0 vsock.test.lua]]):format(builds, binary))
	local r = host:run("chroot", { "/mnt/root", "/bin/sh", "/run/suite/go" }, { timeout = "24m" })
	t:log(r.stdout .. r.stderr)
	t:assert_contains(r.stdout, "1 passed, 0 failed, 0 skipped")
end)
