-- A guest with Debian's full kernel that sees this machine's files, to run in it what this host's kernel lacks.

local outer = {}

-- What of this machine the guest needs to know: the program, where images are, where we are.
function outer.facts()
	local p = io.popen([[
		echo "${PROVIUM_BUILD_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/provium/builds}"
		command -v "${PROVIUM_BIN:-provium}"
		pwd]])
	local f = { builds = p:read("l"), binary = p:read("l"), cwd = p:read("l") }
	p:close()
	assert(f.binary and f.binary:sub(1, 1) == "/", "set PROVIUM_BIN to the binary's full path")
	return f
end

-- Boots it with modules; /mnt/root is this machine, read-only but for /run and /dev/shm.
function outer.boot(modules)
	local vm = provium:vm("host", "host"):boot()
	vm:run("for m in " .. table.concat(modules, " ") .. [[ 9pnet_virtio 9p; do modprobe $m || exit 1; done
		set -e
		mkdir -p /mnt/root
		mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /mnt/root
		mount -t tmpfs tmpfs /mnt/root/run
		for d in proc sys dev; do mount -o bind /$d /mnt/root/$d; done
		mount -t tmpfs tmpfs /mnt/root/dev/shm]]):assert_ok()
	return vm
end

-- Runs a shell script on this machine's files in there.
function outer.run(vm, script, timeout)
	vm:write_file("/mnt/root/run/go", "export TMPDIR=/run HOME=/run PATH=/usr/sbin:/usr/bin:/sbin:/bin\n" .. script)
	return vm:run("chroot", { "/mnt/root", "/bin/sh", "/run/go" }, { timeout = timeout })
end

return outer
