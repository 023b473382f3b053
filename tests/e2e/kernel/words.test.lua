-- Arguments and results are words of 64 bits, whichever way Lua writes them.

local sys = require("kernel.sys")
local nr = sys.nr

local vm = provium:vm("words", "kernel-only"):boot()

-- The six words that the kernel got for a call that waits: read(fd, buffer, n) leaves three free.
local function words_of(args)
	local worker = vm:spawn_worker()
	local r, w = sys.pipe(worker)
	local task = co.spawn(function()
		return worker:syscall(nr.read, { args = { r, 0, 8, args[1], args[2], args[3] },
			bufs = { { len = 8 } }, ptrs = { 1 } })
	end)
	sys.wait_blocked(vm, worker:pid(), nr.read)
	local line = vm:read_file(("/proc/%d/syscall"):format(worker:pid()))
	local release = sys.get_fd(vm, worker:pid(), w)
	sys.write(vm, release, "go")
	sys.close(vm, release)
	task:join(10)
	worker:close()
	local words = {}
	for word in line:gmatch("0x%x+") do
		words[#words + 1] = word
	end
	return words
end

test("six words, small and negative ones", function(t)
	local words = words_of({ 6, -1, -2 })
	t:assert_eq(words[3], "0x8")
	t:assert_eq(words[4], "0x6")
	t:assert_eq(words[5], "0xffffffffffffffff")
	t:assert_eq(words[6], "0xfffffffffffffffe")
end)

test("words that doubles can hold, up to the last power of two", function(t)
	local words = words_of({ 2 ^ 53, -2 ^ 63, 2 ^ 63 })
	t:assert_eq(words[4], "0x20000000000000")
	t:assert_eq(words[5], "0x8000000000000000")
	t:assert_eq(words[6], "0x8000000000000000")
end)

test("words beyond 2^53", { tags = "lua54" }, function(t)
	local words = words_of({ 0xfedcba9876543210, math.mininteger + 1, math.maxinteger })
	t:assert_eq(words[4], "0xfedcba9876543210")
	t:assert_eq(words[5], "0x8000000000000001")
	t:assert_eq(words[6], "0x7fffffffffffffff")
end)

test("a float with a whole value is an integer", function(t)
	local words = words_of({ 3.0, 1e15, -7.0 })
	t:assert_eq(words[4], "0x3")
	t:assert_eq(words[5], "0x38d7ea4c68000")
	t:assert_eq(words[6], "0xfffffffffffffff9")
	t:assert(vm:syscall(39.0).ret > 1)
end)

test("a number that is no word is refused", function(t)
	for _, bad in ipairs({ 2 ^ 64, -2 ^ 64, 1e300, 0.5, 0 / 0, 1 / 0 }) do
		local err = t:assert_raises(function() vm:syscall(nr.close, bad) end)
		t:assert_contains(err, "argument 1 must be")
	end
end)

test("a result beyond 2^31", function(t)
	local fd = sys.must(vm, nr.memfd_create, { args = { 0, 0 }, bufs = { "far\0" }, ptrs = { 0 } })
	t:assert_eq(vm:syscall(nr.lseek, fd, 2 ^ 52, 0).ret, 2 ^ 52)
	sys.close(vm, fd)
end)

test("a result at the end of the range", { tags = "lua54" }, function(t)
	local fd = sys.must(vm, nr.memfd_create, { args = { 0, 0 }, bufs = { "far\0" }, ptrs = { 0 } })
	local r = vm:syscall(nr.lseek, fd, math.maxinteger, 0)
	t:assert_eq(r.ret, math.maxinteger)
	t:assert_eq(math.type(r.ret), "integer")
	sys.close(vm, fd)
end)

test("an ioctl's command and data are words too", function(t)
	local fd = sys.must(vm, nr.eventfd2, 0, 0)
	t:assert_eq(vm:ioctl(fd, 0xffffffff, -1).errno, 25)	-- ENOTTY
	t:assert_eq(vm:ioctl(fd, 0x80045430, 2 ^ 40).errno, 25)
	sys.close(vm, fd)
end)
