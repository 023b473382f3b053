-- Sockets without a C library: netlink, and descriptors passed over AF_UNIX.

local sys = require("kernel.sys")
local nr = sys.nr

local vm = provium:vm("sockets", "kernel-only"):boot()

local AF_UNIX, AF_NETLINK, SOCK_STREAM, SOCK_RAW = 1, 16, 1, 3

local function attributes(s, at, stop)
	local found = {}
	while at + 4 <= stop do
		local len, kind = string.unpack("<I2I2", s, at)
		found[kind] = s:sub(at + 4, at + len - 1)
		at = at + math.ceil(len / 4) * 4
	end
	return found
end

-- Names by index, as RTM_GETLINK tells them.
local function links(fd)
	-- RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP
	local request = string.pack("<I4I2I2I4I4", 32, 18, 0x301, 1, 0) .. ("\0"):rep(16)
	local kernel = string.pack("<I2I2I4I4", AF_NETLINK, 0, 0, 0)
	sys.must(vm, nr.sendto, { args = { fd, 0, #request, 0, 0, #kernel }, bufs = { request, kernel },
		ptrs = { 1, 4 } })
	local names = {}
	while true do
		local n, r = sys.must(vm, nr.recvfrom, { args = { fd, 0, 16384 }, bufs = { { len = 16384 } }, ptrs = { 1 } })
		local data, at = r.out_bufs[1]:sub(1, n), 1
		while at < n do
			local len, kind = string.unpack("<I4I2", data, at)
			if kind == 3 then	-- NLMSG_DONE
				return names
			end
			assert(kind == 16, "RTM_NEWLINK")
			local index = string.unpack("<i4", data, at + 20)
			names[index] = attributes(data, at + 32, at + len)[3]:sub(1, -2)	-- IFLA_IFNAME
			at = at + math.ceil(len / 4) * 4
		end
	end
end

test("a raw netlink socket", function(t)
	local fd = sys.must(vm, nr.socket, AF_NETLINK, SOCK_RAW, 0)
	local address = string.pack("<I2I2I4I4", AF_NETLINK, 0, 0, 0)
	sys.must(vm, nr.bind, { args = { fd, 0, #address }, bufs = { address }, ptrs = { 1 } })
	local _, r = sys.must(vm, nr.getsockname, { args = { fd }, bufs = { { len = 12 }, string.pack("<I4", 12) },
		ptrs = { 1, 2 } })
	local family, _, port = string.unpack("<I2I2I4", r.out_bufs[1])
	t:assert_eq(family, AF_NETLINK)
	t:assert_neq(port, 0, "the kernel chose a port")
	t:assert_eq(string.unpack("<I4", r.out_bufs[2]), 12)
	t:assert_eq(links(fd)[1], "lo")
	sys.close(vm, fd)
end)

local function socketpair()
	local _, r = sys.must(vm, nr.socketpair, { args = { AF_UNIX, SOCK_STREAM, 0 }, bufs = { { len = 8 } },
		ptrs = { 3 } })
	return string.unpack("<i4i4", r.out_bufs[1])
end

-- struct msghdr with an iovec of one, and control data; buffers 1 to 4.
local function message(data, data_len, control, control_len)
	return {
		bufs = {
			string.pack("<I8I4I4I8I8I8I8I4I4", 0, 0, 0, 0, 1, 0, control_len, 0, 0),
			string.pack("<I8I8", 0, data_len),
			data,
			control,
		},
		nested = {
			{ parent = 1, child = 2, offset = 16 },
			{ parent = 1, child = 4, offset = 32 },
			{ parent = 2, child = 3, offset = 0 },
		},
		ptrs = { 1 },
	}
end

test("SCM_RIGHTS through nested buffers", function(t)
	local a, b = socketpair()
	local r, w = sys.pipe(vm)
	local rights = string.pack("<I8i4i4i4i4", 20, 1, 1, w, 0)	-- SOL_SOCKET, SCM_RIGHTS
	local send = message("take it", 7, rights, #rights)
	send.args = { a, 0, 0 }
	t:assert_eq(vm:syscall(nr.sendmsg, send).ret, 7)
	sys.close(vm, w)

	local receive = message({ len = 32 }, 32, { len = 64 }, 64)
	receive.args = { b, 0, 0 }
	local got = vm:syscall(nr.recvmsg, receive)
	t:assert_eq(got.ret, 7)
	t:assert_eq(#got.out_bufs, 4)
	t:assert_eq(got.out_bufs[3]:sub(1, 7), "take it")
	t:assert_eq(string.unpack("<I8", got.out_bufs[1], 41), 24, "the kernel's msg_controllen")
	local len, level, kind, fd = string.unpack("<I8i4i4i4", got.out_bufs[4])
	t:assert_eq(len, 20)
	t:assert_eq(level, 1)
	t:assert_eq(kind, 1)
	t:assert_eq(sys.write(vm, fd, "by the passed one").ret, 17)
	t:assert_eq(sys.read(vm, r, 32), "by the passed one")
	for _, each in ipairs({ fd, r, a, b }) do
		t:assert_eq(sys.close(vm, each).ret, 0)
	end
end)

test("a descriptor passed to a worker over an abstract socket", function(t)
	local worker = vm:spawn_worker()
	local name = string.pack("<I2", AF_UNIX) .. "\0provium-e2e"
	local server = sys.must(worker, nr.socket, AF_UNIX, 2, 0)	-- SOCK_DGRAM
	sys.must(worker, nr.bind, { args = { server, 0, #name }, bufs = { name }, ptrs = { 1 } })

	local r, w = sys.pipe(vm)
	local client = sys.must(vm, nr.socket, AF_UNIX, 2, 0)
	local rights = string.pack("<I8i4i4i4i4", 20, 1, 1, w, 0)
	local send = message("x", 1, rights, #rights)
	send.bufs[1] = string.pack("<I8I4I4I8I8I8I8I4I4", 0, #name, 0, 0, 1, 0, #rights, 0, 0)
	send.bufs[5] = name
	send.nested[4] = { parent = 1, child = 5, offset = 0 }
	send.args = { client, 0, 0 }
	t:assert_eq(vm:syscall(nr.sendmsg, send).ret, 1)
	sys.close(vm, w)

	local receive = message({ len = 1 }, 1, { len = 24 }, 24)
	receive.args = { server, 0, 0 }
	local got = worker:syscall(nr.recvmsg, receive)
	t:assert_eq(got.ret, 1)
	local fd = select(4, string.unpack("<I8i4i4i4", got.out_bufs[4]))
	t:assert_eq(sys.write(worker, fd, "from the worker").ret, 15)
	t:assert_eq(sys.read(vm, r, 32), "from the worker")
	worker:close()
	t:assert_eq(sys.read(vm, r, 32), "", "with the worker the last write end is gone")
end)
