-- lua.md, "Batch": many operations, one round trip, no short-circuit.

local vm = provium:vm("a", "guest"):boot()

test("each operation, in order", function(t)
	local r = vm:batch(function(b)
		b:mkdir("/tmp/b/c", { parents = true })
		b:write_file("/tmp/b/f", "hello", { mode = tonumber("640", 8) })
		b:read_file("/tmp/b/f")
		b:stat("/tmp/b/f")
		b:listdir("/tmp/b")
		b:rename("/tmp/b/f", "/tmp/b/g")
		b:run("cat /tmp/b/g; echo err >&2; exit 3")
		b:run("echo", { "a b", "c" })
		b:syscall(39)
		b:unlink("/tmp/b", { recursive = true })
		b:stat("/tmp/b")
	end)
	t:assert_eq(#r, 11)
	t:assert_eq(r[3].ok, "hello")
	t:assert_eq(r[4].ok.size, 5)
	t:assert_eq(r[4].ok.perm % 512, tonumber("640", 8))
	t:assert_eq(r[5].ok[1].name, "c")
	t:assert_eq(r[5].ok[2].entry_type, "file")
	t:assert_eq(r[7].ok.exit_code, 3)
	t:assert_eq(r[7].ok.stdout, "hello")
	t:assert_eq(r[7].ok.stderr, "err\n")
	t:assert(not r[7].ok:ok())
	t:assert_eq(r[8].ok:assert_ok().stdout, "a b c\n")
	t:assert(r[9].ok.ret > 0)
	t:assert_contains(r[11].err, "os: No such file or directory (errno 2)")
	t:assert_eq(r[11].ok, nil)
end)

test("a failure stops nothing", function(t)
	local r = vm:batch(function(b)
		b:read_file("/none")
		b:run("/none/none", {})
		b:run("echo still")
	end)
	t:assert_contains(r[1].err, "errno 2")
	t:assert_contains(r[2].err, "errno 2")
	t:assert_eq(r[3].ok.stdout, "still\n")
end)

test("system calls with buffers", function(t)
	local r = vm:batch(function(b)
		b:syscall(63, { bufs = { { len = 390 } }, ptrs = { 0 } })	-- uname(2)
		b:syscall(99999)
	end)
	t:assert_contains(r[1].ok.out_bufs[1], "Linux")
	t:assert_eq(r[2].ok.ret, -1)
	t:assert_eq(r[2].ok.errno, 38)
end)

test("none, and a thousand", function(t)
	t:assert_eq(#vm:batch(function() end), 0)
	local r = vm:batch(function(b)
		for i = 1, 1000 do
			b:write_file("/tmp/n", tostring(i))
		end
	end)
	t:assert_eq(#r, 1000)
	t:assert_eq(vm:read_file("/tmp/n"), "1000")
end)

test("misuse", function(t)
	t:assert_contains(t:assert_raises(function() vm:batch("x") end), "got a string as argument 1")
	t:assert_contains(t:assert_raises(function()
		vm:batch(function(b) b:stat("/", { folow = true }) end)
	end), "unknown option `folow`, did you mean `follow`?")
	t:assert_contains(t:assert_raises(function() vm:batch(function(b) b.stat("/") end) end), "a colon")
	t:assert_contains(t:assert_raises(function() vm:batch(function() error("mine") end) end), "mine")
	for _, misuse in ipairs({
		function(b) b:run("sleep 60", { timeout = 1 }) end,
		function(b) b:run({ "sleep", "60", timeout = 1 }) end,
		function(b) b:run("sleep", { "60" }, { args = { "1" } }) end,
		function(b) b:run("true", {}, {}, {}) end,
		function(b) b:run({}) end,
		function(b) b:stat("/", { follow = "no" }) end,
		function(b) b:read_file("/etc/passwd", { max = 4 }) end,
	}) do
		t:assert_raises(function() vm:batch(misuse) end)
	end
end)

test("run takes its options", function(t)
	local r = vm:batch(function(b)
		b:run("pwd; echo $X", { cwd = "/tmp", env = { X = "y" } })
		b:run("cat", {}, { stdin = "given" })
		b:run({ "env" }, { env_clear = true, env = { ONLY = "1" } })
		b:run("echo", { args = { "a b" } })
		b:run("id -u", { user = "1000" })
	end)
	local out = {}
	for i, one in ipairs(r) do
		out[i] = t:assert(one.ok, one.err).stdout
	end
	t:assert_same(out, { "/tmp\ny\n", "given", "ONLY=1\n", "a b\n", "1000\n" })
end)

test("a batch is cancelled while it runs", function(t)
	local task = co.spawn(function()
		vm:batch(function(b) b:run("sleep 60") b:write_file("/tmp/never", "") end)
	end)
	wait_until(function() return vm:run("pidof sleep"):ok() end, { desc = "the batch to run" })
	task:cancel()
	wait_until(function() return not vm:run("pidof sleep"):ok() end, { desc = "its command to be killed" })
	t:assert(not vm:exists("/tmp/never"))
end)
