-- What the suites of this directory share: x86-64's call numbers, constants, and the layout of a few structs.

local sys = {
	nr = {
		read = 0, write = 1, close = 3, fstat = 5, lseek = 8, mmap = 9, mprotect = 10, munmap = 11, ioctl = 16,
		pread64 = 17, pwrite64 = 18, readv = 19, writev = 20, dup = 32, nanosleep = 35, getpid = 39, socket = 41,
		sendto = 44, recvfrom = 45, sendmsg = 46, recvmsg = 47, bind = 49, getsockname = 51, socketpair = 53,
		getsockopt = 55, kill = 62, uname = 63, ftruncate = 77, chdir = 80, mkdir = 83, readlink = 89, getuid = 102,
		getgid = 104, setresuid = 117, getresuid = 118, setresgid = 119, mount = 165, umount2 = 166,
		sethostname = 170, gettid = 186, exit_group = 231, openat = 257, newfstatat = 262, unshare = 272,
		eventfd2 = 290, pipe2 = 293, getrandom = 318, memfd_create = 319, pidfd_open = 434, pidfd_getfd = 438,
	},
	E = { PERM = 1, NOENT = 2, BADF = 9, AGAIN = 11, ACCES = 13, FAULT = 14, INVAL = 22, NOSYS = 38,
		TIMEDOUT = 110 },
	AT_FDCWD = -100,
	O_RDWR = 2, O_CREAT = 64, O_EXCL = 128, O_NONBLOCK = 2048, O_DIRECTORY = 65536,
	PROT_READ = 1, PROT_WRITE = 2, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 32,
}

local nr = sys.nr

-- Calls and requires success: the value.
function sys.must(target, number, ...)
	local r = target:syscall(number, ...)
	if r.ret < 0 then
		error(("system call %d: errno %d"):format(number, r.errno), 2)
	end
	return r.ret, r
end

-- The read end and the write end.
function sys.pipe(target, flags)
	local _, r = sys.must(target, nr.pipe2, { args = { 0, flags or 0 }, bufs = { { len = 8 } }, ptrs = { 0 } })
	return string.unpack("<i4i4", r.out_bufs[1])
end

function sys.write(target, fd, data)
	return target:syscall(nr.write, { args = { fd, 0, #data }, bufs = { data }, ptrs = { 1 } })
end

-- The bytes, or nil and the errno.
function sys.read(target, fd, size)
	local r = target:syscall(nr.read, { args = { fd, 0, size }, bufs = { { len = size } }, ptrs = { 1 } })
	if r.ret < 0 then
		return nil, r.errno
	end
	return r.out_bufs[1]:sub(1, r.ret)
end

function sys.close(target, fd)
	return target:syscall(nr.close, fd)
end

-- openat(2) with a path; the whole result.
function sys.openat(target, path, flags, mode)
	return target:syscall(nr.openat, { args = { sys.AT_FDCWD, 0, flags or 0, mode or 0 }, bufs = { path .. "\0" },
		ptrs = { 1 } })
end

function sys.mount(target, source, where, kind, flags, data)
	return target:syscall(nr.mount, { args = { 0, 0, 0, flags or 0, 0 }, ptrs = { 0, 1, 2, data and 4 or nil },
		bufs = { source .. "\0", where .. "\0", kind .. "\0", data and data .. "\0" or nil } })
end

-- The fields that the suites look at, of a struct stat.
function sys.unpack_stat(s)
	local dev, ino, nlink, mode, uid, gid = string.unpack("<I8I8I8I4I4I4", s)
	return { dev = dev, ino = ino, nlink = nlink, mode = mode, uid = uid, gid = gid,
		size = (string.unpack("<i8", s, 49)) }
end

function sys.readlink(target, path)
	local n, r = sys.must(target, nr.readlink, { args = { 0, 0, 256 }, bufs = { path .. "\0", { len = 256 } },
		ptrs = { 0, 1 } })
	return r.out_bufs[2]:sub(1, n)
end

-- A copy, in target, of descriptor fd of the process pid.
function sys.get_fd(target, pid, fd)
	local pidfd = sys.must(target, nr.pidfd_open, pid, 0)
	local copy = sys.must(target, nr.pidfd_getfd, pidfd, fd, 0)
	sys.close(target, pidfd)
	return copy
end

-- Waits until the process pid of vm waits in system call `number`.
function sys.wait_blocked(vm, pid, number)
	wait_until(function()
		return vm:read_file(("/proc/%d/syscall"):format(pid)):match("^" .. number .. " ")
	end, { desc = "process " .. pid .. " in system call " .. number, interval = 0.02 })
end

return sys
