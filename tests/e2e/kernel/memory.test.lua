-- Files, mounts, mappings and ioctls of a guest that has a kernel and nothing else.

local sys = require("kernel.sys")
local nr, E = sys.nr, sys.E

local vm = provium:vm("bare", "kernel-only"):boot()

test("mount, openat, newfstatat, umount", function(t)
	vm:mkdir("/mnt/tmp", { parents = true })
	t:assert_eq(sys.mount(vm, "none", "/mnt/tmp", "tmpfs", 0, "size=1m,mode=0711").ret, 0)
	t:assert_contains(vm:read_file("/proc/mounts"), "none /mnt/tmp tmpfs rw")
	local opened = sys.openat(vm, "/mnt/tmp/file", sys.O_RDWR + sys.O_CREAT + sys.O_EXCL, 416)	-- 0640
	t:assert(opened.ret >= 0, "errno " .. opened.errno)
	t:assert_eq(opened.out_bufs[1], "/mnt/tmp/file\0")
	t:assert_eq(sys.write(vm, opened.ret, "twelve bytes").ret, 12)
	local r = vm:syscall(nr.newfstatat, { args = { sys.AT_FDCWD, 0, 0, 0 }, ptrs = { 1, 2 },
		bufs = { "/mnt/tmp/file\0", { len = 144 } } })
	t:assert_eq(r.ret, 0)
	local stat = sys.unpack_stat(r.out_bufs[2])
	t:assert_eq(stat.size, 12)
	t:assert_eq(stat.mode, 33184)	-- a regular file, 0640
	t:assert_eq(stat.nlink, 1)
	t:assert_eq(vm:stat("/mnt/tmp/file").ino, stat.ino)
	t:assert_eq(vm:read_file("/mnt/tmp/file"), "twelve bytes")
	t:assert_eq(sys.openat(vm, "/mnt/tmp/file", sys.O_RDWR + sys.O_CREAT + sys.O_EXCL).errno, 17)	-- EEXIST
	t:assert_eq(sys.openat(vm, "/mnt/tmp/none").errno, E.NOENT)
	local umount = { args = { 0, 0 }, bufs = { "/mnt/tmp\0" }, ptrs = { 0 } }
	t:assert_eq(vm:syscall(nr.umount2, umount).errno, 16, "busy while the descriptor is open")
	sys.close(vm, opened.ret)
	t:assert_eq(vm:syscall(nr.umount2, umount).ret, 0)
	t:assert(not vm:exists("/mnt/tmp/file"))
end)

test("a pipe", function(t)
	local r, w = sys.pipe(vm, sys.O_NONBLOCK)
	local none, errno = sys.read(vm, r, 10)
	t:assert_eq(none, nil)
	t:assert_eq(errno, E.AGAIN)
	t:assert_eq(sys.write(vm, w, "through").ret, 7)
	t:assert_eq(sys.read(vm, r, 100), "through")
	sys.close(vm, w)
	t:assert_eq(sys.read(vm, r, 100), "", "the end")
	sys.close(vm, r)
end)

local function map(length, prot, flags, fd)
	return (sys.must(vm, nr.mmap, 0, length, prot, flags, fd or -1, 0))
end

test("mmap, read_mem and write_mem", function(t)
	local address = map(8192, sys.PROT_READ + sys.PROT_WRITE, sys.MAP_PRIVATE + sys.MAP_ANONYMOUS)
	t:assert_eq(address % 4096, 0)
	t:assert_eq(vm:read_mem(address, 4), "\0\0\0\0")
	t:assert_eq(vm:write_mem(address + 4090, "across two pages"), true)
	t:assert_eq(vm:read_mem(address + 4090, 16), "across two pages")
	t:assert_eq(vm:read_mem(address, 0), "")
	-- the kernel sees the same memory
	local r, w = sys.pipe(vm)
	t:assert_eq(vm:syscall(nr.write, w, address + 4090, 6).ret, 6)
	t:assert_eq(sys.read(vm, r, 10), "across")
	sys.must(vm, nr.munmap, address + 4096, 4096)
	local data, errno = vm:read_mem(address + 4090, 16)
	t:assert_eq(data, nil, "its second half is gone")
	t:assert_eq(errno, E.FAULT)
	sys.must(vm, nr.munmap, address, 4096)
	local ok, why = vm:write_mem(address, "x")
	t:assert_eq(ok, nil)
	t:assert_eq(why, E.FAULT)
end)

test("memory that may not be written", function(t)
	local address = map(4096, sys.PROT_READ, sys.MAP_PRIVATE + sys.MAP_ANONYMOUS)
	t:assert_eq(vm:read_mem(address, 8), ("\0"):rep(8))
	local ok, errno = vm:write_mem(address, "x")
	t:assert_eq(ok, nil)
	t:assert_eq(errno, E.FAULT)
	sys.must(vm, nr.mprotect, address, 4096, sys.PROT_READ + sys.PROT_WRITE)
	t:assert_eq(vm:write_mem(address, "x"), true)
	sys.must(vm, nr.munmap, address, 4096)
end)

test("a shared mapping of a file, and what is beyond its end", function(t)
	local fd = sys.must(vm, nr.memfd_create, { args = { 0, 0 }, bufs = { "mapped\0" }, ptrs = { 0 } })
	local address = map(8192, sys.PROT_READ + sys.PROT_WRITE, sys.MAP_SHARED, fd)
	local pid = vm:syscall(nr.getpid).ret
	local data, errno = vm:read_mem(address, 8)
	t:assert_eq(data, nil, "the file is empty: a load there would be SIGBUS")
	t:assert_eq(errno, E.FAULT)
	sys.must(vm, nr.ftruncate, fd, 4096)
	t:assert_eq(vm:write_mem(address, "in the file"), true)
	local r = vm:syscall(nr.pread64, { args = { fd, 0, 11, 0 }, bufs = { { len = 11 } }, ptrs = { 1 } })
	t:assert_eq(r.out_bufs[1], "in the file")
	data, errno = vm:read_mem(address + 4090, 12)
	t:assert_eq(data, nil)
	t:assert_eq(errno, E.FAULT)
	t:assert_eq(vm:syscall(nr.getpid).ret, pid)
	sys.must(vm, nr.munmap, address, 8192)
	sys.close(vm, fd)
end)

test("a mebibyte of memory both ways", function(t)
	local size = 1048576
	local address = map(size, sys.PROT_READ + sys.PROT_WRITE, sys.MAP_PRIVATE + sys.MAP_ANONYMOUS)
	local data = ("\1\0\255provium\n"):rep(100000):sub(1, size)
	t:assert_eq(vm:write_mem(address, data), true)
	t:assert(vm:read_mem(address, size) == data, "the same bytes")
	sys.must(vm, nr.munmap, address, size)
end)

test("misuse of memory calls", function(t)
	t:assert_contains(t:assert_raises(function() vm:read_mem("0", 1) end), "the address must be an integer")
	t:assert_contains(t:assert_raises(function() vm:read_mem(0, -1) end), "`n`")
	t:assert_contains(t:assert_raises(function() vm:write_mem(0) end), "expected vm:write_mem(address, string)")
end)

test("ioctl fills a buffer", function(t)
	local r, w = sys.pipe(vm)
	sys.write(vm, w, "seven..")
	local out = vm:ioctl(r, 0x541b, ("\0"):rep(4))	-- FIONREAD
	t:assert_eq(out.ret, 0)
	t:assert_eq(out.errno, 0)
	t:assert_eq(out.result, 0)
	t:assert_eq(string.unpack("<i4", out.out_data), 7)
	t:assert_same(out.out_bufs, {})
end)

test("ioctl without data, and its failures", function(t)
	local r = sys.pipe(vm)
	t:assert_eq(vm:ioctl(r, 0x5451).ret, 0)	-- FIOCLEX
	t:assert_eq(vm:ioctl(r, 0x5401).errno, 25)	-- TCGETS: not a terminal
	t:assert_eq(vm:ioctl(9999, 0x5451).errno, E.BADF)
	t:assert_eq(vm:ioctl(r, 0x541b, 1).errno, E.FAULT)
end)

test("ioctl by value: the peer of a pseudo-terminal", function(t)
	vm:mkdir("/mnt/pts", { parents = true })
	t:assert_eq(sys.mount(vm, "none", "/mnt/pts", "devpts", 0, "newinstance,ptmxmode=0666").ret, 0)
	local master = sys.openat(vm, "/mnt/pts/ptmx", sys.O_RDWR + 256).ret	-- O_NOCTTY
	t:assert(master >= 0)
	t:assert_eq(vm:ioctl(master, 0x40045431, string.pack("<i4", 0)).ret, 0)	-- TIOCSPTLCK
	local peer = vm:ioctl(master, 0x5441, sys.O_RDWR + 256)	-- TIOCGPTPEER: flags by value
	t:assert(peer.ret >= 0, "errno " .. peer.errno)
	t:assert_eq(peer.out_data, nil)
	t:assert_eq(sys.write(vm, peer.ret, "typed\n").ret, 6)
	t:assert_eq(sys.read(vm, master, 100), "typed\r\n")
	sys.close(vm, peer.ret)
	sys.close(vm, master)
end)

test("ioctl with an address inside its data", function(t)
	local fd = sys.must(vm, nr.socket, 2, 2, 0)	-- AF_INET, SOCK_DGRAM
	local up = vm:ioctl(fd, 0x8914, string.pack("<c16i2", "lo", 0x49) .. ("\0"):rep(22))	-- SIOCSIFFLAGS
	t:assert_eq(up.ret, 0)
	local conf = string.pack("<i4i4I8", 400, 0, 0)	-- struct ifconf
	local out = vm:ioctl(fd, 0x8912, conf, { bufs = { { len = 400 } }, ptr_offsets = { 8 } })	-- SIOCGIFCONF
	t:assert_eq(out.ret, 0)
	t:assert_eq(string.unpack("<i4", out.out_data), 40, "one interface")
	t:assert_eq(#out.out_bufs, 1)
	t:assert_eq(#out.out_bufs[1], 400)
	t:assert_eq(out.out_bufs[1]:sub(1, 3), "lo\0")
	t:assert_eq(out.out_bufs[1]:sub(21, 24), "\127\0\0\1")
	sys.close(vm, fd)
end)

test("misuse of ioctl", function(t)
	t:assert_contains(t:assert_raises(function() vm:ioctl("0", 1) end), "the descriptor must be an integer")
	t:assert_contains(t:assert_raises(function() vm:ioctl(0, {}) end), "the command must be an integer")
	t:assert_contains(t:assert_raises(function() vm:ioctl(0, 1, true) end), "data must be a string or an integer")
	t:assert_contains(t:assert_raises(function() vm:ioctl(0, 1, "x", { buf = {} }) end), "unknown option `buf`")
	t:assert_contains(t:assert_raises(function()
		vm:ioctl(0, 1, "12345678", { bufs = { "x" }, ptr_offsets = { 4 } })
	end), "no room for an address")
end)
