-- A login prompt on the serial port, driven by hand. It is the last console= here, so input goes to it.

local vm = provium:vm("a", "guest", { kernel_cmdline = "console=hvc0 console=ttyS0 quiet" }):boot()
local console = vm:console()

vm:run([[
	hash=$(mkpasswd -m sha256 secret)
	sed -i "s|^user:[^:]*:|user:$hash:|" /etc/passwd]]):assert_ok()

-- Logs in at a prompt that is there; returns the getty, which ends with the session.
local function login(t)
	local getty = vm:run_async("setsid", { "getty", "-L", "115200", "ttyS0", "vt100" })
	t:defer(function() getty:kill() end)
	console:expect("login: ")
	console:write("user\n")
	console:expect("Password: ")
	console:write("secret\n")
	console:expect("$ ")
	return getty
end

test("a wrong password, the right one, a shell, and out again", function(t)
	local getty = vm:run_async("setsid", { "getty", "-L", "115200", "ttyS0", "vt100" })
	t:assert_eq(console:expect("login: "), "login: ")
	t:assert_eq(console:write("user\n"), 5)
	console:expect("Password: ")
	console:write("wrong\n")
	console:expect("incorrect", "20s")
	console:expect("login: ")
	console:write("user\n")
	console:expect("Password: ")
	console:write("secret\n")
	console:expect("$ ")
	console:write("echo i am $((40 + 2)) $(id -un) on $(tty)\n")
	t:assert_eq(console:expect("i am 42 user on /dev/ttyS0"), "i am 42 user on /dev/ttyS0")
	console:write("exit\n")
	getty:wait(10)
end)

test("what is expected may come in any number of reads", function(t)
	local getty = login(t)
	-- Longer than the port's FIFO, so it cannot come in one piece; then in halves with a pause between them.
	console:write("seq -s . 1000 1200\n")
	local long = {}
	for i = 1000, 1200 do
		long[#long + 1] = tostring(i)
	end
	long = table.concat(long, ".")
	t:assert_eq(console:expect(long), long)
	local waiter = co.spawn(function() return console:expect("straddle two reads") end)
	console:write("printf 'strad'; sleep 0.3; printf 'dle two'; sleep 0.3; printf ' reads\\n'\n")
	t:assert_eq(waiter:join(20), "straddle two reads")
	local stream = console:read()
	console:write("printf 'in a str'; sleep 0.3; printf 'eam %s\\n' $((6 * 7))\n")
	t:assert_contains(stream:expect("in a stream 42"), "in a stream 42")
	console:write("exit\n")
	getty:wait(10)
end)

test("what was read of a prompt is not read again", function(t)
	local getty = login(t)
	console:write("echo one; echo two; echo one\n")
	console:expect("\none")		-- the typed line has them too, but not after a newline
	console:expect("two")
	console:expect("one")
	console:expect("$ ")
	t:assert_contains(t:assert_raises(function() console:expect("two", "300ms") end), "timed out")
	console:write("exit\n")
	getty:wait(10)
end)

test("hvc0 is in the same log, and hears nothing that is typed", function(t)
	vm:run("echo on the other >/dev/hvc0"):assert_ok()
	console:expect("on the other")
	local other = co.spawn(function() return vm:run("timeout 1 cat </dev/hvc0").stdout end)
	console:write("for the serial port\n")
	t:assert_eq(other:join(20), "")
end)
