-- A SIGKILL of Provium with everything of the kernel backend in use. It runs in a namespace that stands for the host, so
-- that what is left there is ours: see tests/unit/outside.c.

local nested = require("nested")

-- It is named so that its profile's images are made, which the nested runs use.
provium:vm("unused", "guest")

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
	local out = nested.shell(("cd %s && env -u PROVIUM_LOG TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun '%s' sh ./watch")
		:format(dir, dir, dir, program))
	-- The host's end of the uplink lives as long as the namespace, and that as long as anything in it is held.
	t:assert_eq(out, "before: 1\nafter: 0")
end)
