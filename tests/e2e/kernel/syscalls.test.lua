-- System calls by number: how arguments and buffers go in, how results come out.

local sys = require("kernel.sys")
local nr, E = sys.nr, sys.E

local vm = provium:vm("calls", "kernel-only"):boot()

test("a plain call returns the kernel's value", function(t)
	local r = vm:syscall(nr.getpid)
	t:assert(r.ret > 1, "a pid, and not init's")
	t:assert_eq(r.result, r.ret)
	t:assert_eq(r.errno, 0)
	t:assert_same(r.out_bufs, {})
	t:assert_eq(vm:syscall(nr.getpid).ret, r.ret, "always the same process")
	t:assert_eq(vm:syscall(nr.gettid).ret, r.ret, "on its main thread")
end)

test("a failure is -1 and a positive errno, not an error", function(t)
	local r = vm:syscall(nr.close, 12345)
	t:assert_eq(r.ret, -1)
	t:assert_eq(r.result, -1)
	t:assert_eq(r.errno, E.BADF)
end)

test("a number that no kernel has is ENOSYS", function(t)
	local r = vm:syscall(99999)
	t:assert_eq(r.ret, -1)
	t:assert_eq(r.errno, E.NOSYS)
	t:assert_eq(vm:syscall(-5).errno, E.NOSYS)
end)

test("a wild pointer is EFAULT and the agent lives on", function(t)
	local pid = vm:syscall(nr.getpid).ret
	local _, w = sys.pipe(vm)
	for _, address in ipairs({ 1, 4095, 0x7fffdeadb000 }) do
		t:assert_eq(vm:syscall(nr.write, w, address, 16).errno, E.FAULT, "write")
		t:assert_eq(vm:syscall(nr.uname, address).errno, E.FAULT, "uname")
	end
	t:assert_eq(vm:syscall(nr.getpid).ret, pid)
end)

test("an address in the kernel's half is EFAULT", { tags = "lua54" }, function(t)
	for _, address in ipairs({ -1, -4096, 0xffff888000000000, 0xdeadbeefdeadbeef }) do
		t:assert_eq(vm:syscall(nr.uname, address).errno, E.FAULT)
		local data, errno = vm:read_mem(address, 8)
		t:assert_eq(data, nil)
		t:assert_eq(errno, E.FAULT)
	end
end)

test("{args=} without buffers is the same as plain arguments", function(t)
	local fd = sys.must(vm, nr.eventfd2, { args = { 7, sys.O_NONBLOCK } })
	t:assert_eq(sys.read(vm, fd, 8), string.pack("<I8", 7))
	t:assert_eq(vm:syscall(nr.close, { args = { fd } }).ret, 0)
	t:assert_eq(vm:syscall(nr.getpid, {}).ret, vm:syscall(nr.getpid, { args = {} }).ret)
end)

test("all buffers come back, in order, whatever the call did with them", function(t)
	local r = vm:syscall(nr.getpid, { bufs = { "one", { len = 4 }, "", "three\0four", { len = 0 } } })
	t:assert_same(r.out_bufs, { "one", "\0\0\0\0", "", "three\0four", "" })
end)

test("an output-only buffer is zero but for what the kernel wrote", function(t)
	local r = vm:syscall(nr.getrandom, { args = { 0, 32, 0 }, bufs = { { len = 64 } }, ptrs = { 0 } })
	t:assert_eq(r.ret, 32)
	t:assert_neq(r.out_bufs[1]:sub(1, 32), ("\0"):rep(32))
	t:assert_eq(r.out_bufs[1]:sub(33), ("\0"):rep(32))
end)

test("binary data of every byte survives both ways", function(t)
	local all = {}
	for i = 0, 255 do
		all[#all + 1] = string.char(i)
	end
	all = table.concat(all):rep(16)
	local r, w = sys.pipe(vm)
	t:assert_eq(sys.write(vm, w, all).ret, #all)
	t:assert_eq(sys.read(vm, r, #all), all)
	local fd = sys.must(vm, nr.memfd_create, { args = { 0, 0 }, bufs = { "big\0" }, ptrs = { 0 } })
	local big = all:rep(1024)	-- 4 MiB
	t:assert_eq(vm:syscall(nr.pwrite64, { args = { fd, 0, #big, 0 }, bufs = { big }, ptrs = { 1 } }).ret, #big)
	local back = vm:syscall(nr.pread64, { args = { fd, 0, #big, 0 }, bufs = { { len = #big } }, ptrs = { 1 } })
	t:assert(back.out_bufs[1] == big, "4 MiB came back as they were")
	sys.close(vm, fd)
end)

test("ptrs names any slot for any buffer, and leaves out others", function(t)
	local r, w = sys.pipe(vm)
	-- the third buffer goes to slot 1; the others have no slot
	local out = vm:syscall(nr.write, { args = { w, 99, 5 }, bufs = { "aaaaa", "bbbbb", "ccccc" },
		ptrs = { [3] = 1 } })
	t:assert_eq(out.ret, 5)
	t:assert_eq(sys.read(vm, r, 16), "ccccc")
end)

test("nested puts addresses into buffers", function(t)
	local r, w = sys.pipe(vm)
	local iov = string.pack("<I8I8I8I8", 0, 5, 0, 6)
	local out = vm:syscall(nr.writev, { args = { w, 0, 2 }, bufs = { iov, "hello", " world" }, ptrs = { 1 },
		nested = { { parent = 1, child = 2, offset = 0 }, { parent = 1, child = 3, offset = 16 } } })
	t:assert_eq(out.ret, 11)
	t:assert_eq(sys.read(vm, r, 16), "hello world")
	local a, _, b = string.unpack("<I8I8I8I8", out.out_bufs[1])
	t:assert(a ~= 0 and b ~= 0 and a ~= b, "the patched addresses come back too")
end)

test("align", function(t)
	local function addresses(align)
		local r = vm:syscall(nr.getpid, { bufs = { ("\0"):rep(16), "x", "y" }, align = align,
			nested = { { parent = 1, child = 2 }, { parent = 1, child = 3, offset = 8 } } })
		return string.unpack("<I8I8", r.out_bufs[1])
	end
	for _, align in ipairs({ 1, 64, 4096, 65536 }) do
		local a, b = addresses(align)
		t:assert_eq(a % align, 0, "first, align " .. align)
		t:assert_eq(b % align, 0, "second, align " .. align)
		t:assert(b > a)
	end
	local a, b = addresses()
	t:assert_eq(a % 8 + b % 8, 0, "words fit without asking")
	local err = t:assert_raises(function() addresses(48) end)
	t:assert_contains(err, "align")
end)

test("a thousand buffers in one call", function(t)
	local n = 1000
	local bufs, iov, nested, expected = { "" }, {}, {}, {}
	for i = 1, n do
		local s = ("<%04d>"):format(i)
		bufs[i + 1], expected[i] = s, s
		iov[i] = string.pack("<I8I8", 0, #s)
		nested[i] = { parent = 1, child = i + 1, offset = 16 * (i - 1) }
	end
	bufs[1] = table.concat(iov)
	local r, w = sys.pipe(vm)
	local out = vm:syscall(nr.writev, { args = { w, 0, n }, bufs = bufs, ptrs = { 1 }, nested = nested })
	t:assert_eq(out.ret, 6 * n)
	t:assert_eq(#out.out_bufs, n + 1)
	t:assert_eq(out.out_bufs[501], expected[500])
	for i = 1, n do
		bufs[i + 1] = { len = 6 }
	end
	out = vm:syscall(nr.readv, { args = { r, 0, n }, bufs = bufs, ptrs = { 1 }, nested = nested })
	t:assert_eq(out.ret, 6 * n)
	for i = 1, n do
		t:assert_eq(out.out_bufs[i + 1], expected[i])
	end
end)

test("descriptors and mappings stay across calls", function(t)
	local r, w = sys.pipe(vm)
	for i = 1, 20 do
		t:assert_eq(sys.write(vm, w, "n" .. i).ret, #("n" .. i))
		t:assert_eq(sys.read(vm, r, 8), "n" .. i)
	end
	t:assert_eq(sys.close(vm, r).ret, 0)
	t:assert_eq(sys.close(vm, w).ret, 0)
	t:assert_eq(sys.close(vm, w).errno, E.BADF)
end)

test("a file's fd() is a descriptor of the same process", function(t)
	local file = vm:open_file("/proc/version", { read = true })
	t:assert_contains(sys.read(vm, file:fd(), 64), "Linux version")
	file:close()
	t:assert_eq(file:fd(), 0)
end)

test("misuse is told before anything is sent", function(t)
	local function refused(text, ...)
		local args = { ... }
		local err = t:assert_raises(function() vm:syscall((table.unpack or unpack)(args)) end)
		t:assert_contains(err, text)
		t:assert_match(err, "syscalls%.test%.lua:%d+:")
	end
	refused("number must be an integer, got a string", "getpid")
	refused("number must be an integer, got 1.5", 1.5)
	refused("at most 6", 39, 1, 2, 3, 4, 5, 6, 7)
	refused("argument 2 must be an integer, got a string", 39, 1, "2")
	refused("unknown option `buf`, did you mean `bufs`?", 39, { buf = {} })
	refused("buffer 2 must be a string or {len=N}", 39, { bufs = { "a", 5 } })
	refused("buffer 1 must be a string or {len=N}", 39, { bufs = { { len = -1 } } })
	refused("has a hole at 2", 39, { bufs = { "a", nil, "b" } })
	refused("`ptrs` needs `bufs`", 39, { ptrs = { 0 } })
	refused("`ptrs` names buffer 2, but there are 1", 39, { bufs = { "a" }, ptrs = { 0, 1 } })
	refused("ptrs[1] must be an argument slot, 0 to 5, got 6", 39, { bufs = { "a" }, ptrs = { 6 } })
	refused("nested[1].child must be a buffer, 1 to 1, got 2", 39, { bufs = { "a" },
		nested = { { parent = 1, child = 2 } } })
	refused("no room for an address", 39, { bufs = { "short" }, nested = { { parent = 1, child = 1 } } })
	refused("`align` must be a positive integer", 39, { bufs = { "a" }, align = 0 })
	refused("expected vm:syscall(nr, integers...)", 39, { args = {} }, 1)
end)

test("an asynchronous call has a thread of its own", function(t)
	local r, w = sys.pipe(vm)
	local pending = vm:syscall_async(nr.read, { args = { r, 0, 16 }, bufs = { { len = 16 } }, ptrs = { 1 } })
	t:assert_eq(pending:await(0.05), nil, "nothing to read yet")
	t:assert_contains(vm:read_file("/proc/version"), "Linux", "the executor is free")
	t:assert_eq(sys.write(vm, w, "now").ret, 3)
	local got = pending:await(10)
	t:assert_eq(got.ret, 3)
	t:assert_eq(got.out_bufs[1]:sub(1, 3), "now")
	t:assert_eq(pending:await().ret, 3, "a second await returns the same")
	local pid = vm:syscall(nr.getpid).ret
	t:assert_eq(vm:syscall_async(nr.getpid):await().ret, pid, "the same process")
	t:assert_neq(vm:syscall_async(nr.gettid):await().ret, pid, "another thread")
end)

test("many asynchronous calls at once, released in another order", function(t)
	local pipes, pendings = {}, {}
	for i = 1, 16 do
		local r, w = sys.pipe(vm)
		pipes[i] = w
		pendings[i] = vm:syscall_async(nr.read, { args = { r, 0, 4 }, bufs = { { len = 4 } }, ptrs = { 1 } })
	end
	for i = 16, 1, -1 do
		t:assert_eq(sys.write(vm, pipes[i], ("%04d"):format(i)).ret, 4)
	end
	for i = 1, 16 do
		t:assert_eq(pendings[i]:await(10).out_bufs[1], ("%04d"):format(i))
	end
end)

test("a call with a timeout ends, and the executor is free", function(t)
	local r, w = sys.pipe(vm)
	local err = t:assert_raises(function()
		vm:syscall(nr.read, { args = { r, 0, 16 }, bufs = { { len = 16 } }, ptrs = { 1 }, timeout = "100ms" })
	end)
	t:assert_contains(err, "(errno 110)")
	t:assert(vm:syscall(nr.getpid, { timeout = 5 }).ret > 1)
	sys.write(vm, w, "let the forgotten thread go")
end)

test("a cancelled call leaves nothing behind", function(t)
	local r, w = sys.pipe(vm)
	for i = 1, 20 do
		local task = co.spawn(function()
			vm:syscall(nr.read, { args = { r, 0, 4 }, bufs = { { len = 4 } }, ptrs = { 1 }, timeout = 30 })
		end)
		if i % 2 == 0 then
			sleep(0.001)	-- on its way; the others have not begun
		end
		task:cancel("enough")
		local ok, err = pcall(task.join, task)
		t:assert_eq(ok, false)
		t:assert_contains(err, "enough")
	end
	-- threads that cannot be stopped still read, one piece each at most
	t:assert_eq(sys.write(vm, w, ("next"):rep(21)).ret, 84)
	t:assert_eq(sys.read(vm, r, 4), "next")
	t:assert_eq(vm:syscall(nr.getpid, { timeout = 30 }).errno, 0)
end)

test("calls from several tasks are all answered", function(t)
	local pid = vm:syscall(nr.getpid).ret
	local tasks = {}
	for i = 1, 20 do
		tasks[i] = function()
			for j = 1, 20 do
				local s = ("%d:%d"):format(i, j)
				local r = vm:syscall(nr.getpid, { bufs = { s } })
				t:assert_eq(r.ret, pid)
				t:assert_eq(r.out_bufs[1], s)
			end
		end
	end
	co.all(tasks)
end)

test("in a batch", function(t)
	local r, w = sys.pipe(vm)
	local results = vm:batch(function(b)
		b:syscall(nr.getpid)
		b:syscall(nr.write, { args = { w, 0, 5 }, bufs = { "batch" }, ptrs = { 1 } })
		b:syscall(99999)
		b:syscall(nr.read, { args = { r, 0, 5 }, bufs = { { len = 5 } }, ptrs = { 1 } })
	end)
	t:assert_eq(results[1].ok.ret, vm:syscall(nr.getpid).ret)
	t:assert_eq(results[2].ok.ret, 5)
	t:assert_eq(results[3].ok.ret, -1)
	t:assert_eq(results[3].ok.errno, E.NOSYS)
	t:assert_eq(results[4].ok.out_bufs[1], "batch")
end)

test("a vm is a key of a table, and its methods go through pcall", function(t)
	local seen = { [vm] = "here" }
	t:assert_eq(seen[provium:vm("calls")], "here")
	local ok, version = pcall(vm.read_file, vm, "/proc/version")
	t:assert(ok)
	t:assert_contains(version, "Linux")
	local failed, err = pcall(vm.read_file, vm, "/no/such/file")
	t:assert_eq(failed, false)
	t:assert_contains(err, "(errno 2)")
	local ran, r = pcall(vm.syscall, vm, nr.getpid)
	t:assert(ran and r.ret > 1)
end)
