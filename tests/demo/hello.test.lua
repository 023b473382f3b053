-- The shortest way through everything: boot, run, read, write.

local vm = provium:vm("hello", "guest"):boot()

test("the guest runs Linux", function(t)
	local r = vm:run("uname -s"):assert_ok()
	t:assert_eq(r:trim(), "Linux")
end)

test("output, status and errors are told apart", function(t)
	local r = vm:run("echo out; echo err >&2; exit 3")
	t:assert_eq(r.stdout, "out\n")
	t:assert_eq(r.stderr, "err\n")
	t:assert_eq(r.exit_code, 3)
	t:assert(not r:ok())
	t:assert_raises(function() r:assert_ok() end)
end)

test("a list of arguments reaches the program as it is", function(t)
	local r = vm:run("echo", { "two  spaces", "$HOME" })
	t:assert_eq(r.stdout, "two  spaces $HOME\n")
end)

test("files go in and come out, byte for byte", function(t)
	local bytes = {}
	for i = 0, 255 do
		bytes[#bytes + 1] = string.char(i)
	end
	local data = table.concat(bytes):rep(1024)

	vm:write_file("/tmp/data", data, { mode = 384 })
	t:assert(vm:read_file("/tmp/data") == data, "what was written is what is read")
	local st = vm:stat("/tmp/data")
	t:assert_eq(st.size, #data)
	t:assert_eq(st.perm, 384)
end)
