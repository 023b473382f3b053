-- The way out of the kernel backend, from a guest through the host to a server that stands for the outside, and back.
-- The whole of it, Provium included, runs in a namespace that leads nowhere else: see tests/unit/outside.c.

local nested = require("nested")

-- It is named so that its profile's images are made, which the nested runs use.
provium:vm("unused", "guest")

local SUITE = [==[
local lan = provium:bridge("lan", { backend = "kernel" })
local a = provium:vm("a", "guest")
lan:attach(a)
provium:boot()

local function page(host)
	local out = a:run("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc " .. host .. " 80").stdout
	return out:match("\r\n\r\n(.*)$") or out
end

test("closed", function(t) t:assert_eq(page("203.0.113.2"), "") end)
test("open", function(t)
	lan:enable_uplink()
	t:assert_eq(page("203.0.113.2"), "from the outside to 203.0.113.1\n")
	t:assert_eq(page("page.example"), "from the outside to 203.0.113.1\n")
	t:assert_eq(a:run("nslookup other.example"):ok(), false)
end)
test("closed again", function(t)
	lan:disable_uplink()
	t:assert_eq(page("203.0.113.2"), "")
	t:assert_eq(page("page.example"), "")
end)
]==]

-- The program that makes the namespace was built beside ours by `make check`.
local function outside(t)
	local path = nested.binary:gsub("/[^/]*$", "/tests/unit/outside")
	if not nested.exists(path) then
		t:skip("there is no " .. path .. ": run make check")
	end
	if not os.execute(path .. " true 2>/dev/null") then
		t:skip("it takes root to make network namespaces")
	end
	return path
end

test("a guest fetches a page and resolves names", { timeout = "5m" }, function(t)
	local program = outside(t)
	local r = nested.start(nested.suite(t, SUITE), "-v", program):join()
	t:assert_contains(r.out, "PASS x.test.lua (3 passed, 0 failed, 0 skipped)")
	t:assert_eq(r.status, 0, r.err)
end)

test("a SIGKILL leaves neither link nor rule nor namespace on the host", { timeout = "5m" }, function(t)
	local program = outside(t)
	local dir = nested.suite(t, { ["x.test.lua"] = nested.prelude .. [[
		local lan = provium:bridge("lan", { backend = "kernel" })
		local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
		lan:attach({ a, b })
		provium:boot()
		lan:enable_uplink()
		lan:bandwidth_limit(1000000)
		lan:duplicate(10)
		lan:partition(a, b)
		write("pids", a:pid() .. " " .. b:pid())
		test("wait", function() sleep(600) end)
	]], ["watch"] = ([[
		# In the namespace, beside Provium: starts it, kills it, and lists what is there before and after.
		links() { cut -d: -f1 /proc/net/dev | grep -c provium; }
		'%s' -v --timeout 0 >/dev/null 2>&1 &
		while ! [ -e pids ]; do sleep 0.1; done
		echo "before: $(links)"
		kill -9 $!
		n=0
		while [ "$(links)" != 0 ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done
		echo "after: $(links)"
		for pid in $(cat pids); do [ -e /proc/$pid/exe ] && echo "$pid lives"; done
		exit 0]]):format(nested.binary) })
	local out = nested.shell(("cd %s && env -u PROVIUM_LOG TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun '%s' sh ./watch"):format(
		dir, dir, dir, program))
	-- The host's end of the uplink lives as long as the namespace, and that as long as anything in it is held.
	t:assert_eq(out, "before: 1\nafter: 0")
end)
