-- Networks without privilege: an ordinary user's guests reach one another by name, and the way out of the user backend
-- leads to a server that stands for the outside, in a network namespace of its own. Nothing is sent anywhere else.

local nested = require("nested")
local outside = require("net.outside")

-- It is named so that its profile's images are made, which the nested runs use.
provium:vm("unused", "guest")

local TOML = [[
[provium]
roots = ["."]

[profiles.guest]
kernel  = "vmlinuz"
initrd  = "initrd.cpio.gz"
modules = "modules"
cmdline = "console=hvc0 quiet"
memory  = "128M"
]]

-- A directory with programs and images that another user can reach, wherever ours are.
local function suite(t, files)
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	nested.write(dir .. "/provium.toml", TOML)
	for name, text in pairs(files) do
		nested.write(dir .. "/" .. name, text)
	end
	local from = nested.binary:match("^(.*)/")
	assert(os.execute(([[
		cd '%s' && chmod 755 . && mkdir tmp bin && cp '%s' bin/provium && cp '%s/provium-agent' bin/ && cp -r '%s'/. . &&
		if [ -d '%s/dist' ]; then cp -r '%s/dist' .; else mkdir share && cp -r '%s/../share/provium' share/; fi]]):format(
		dir, nested.binary, from, nested.images(), from, from, from)))
	return dir
end

local function run(dir, how)
	return nested.shell(("cd %s && env -u PROVIUM_LOG HOME=%s TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun NO_COLOR=1 "
		.. "%s 2>&1; echo status $?"):format(dir, dir, dir, dir, how))
end

test("an ordinary user pings by name", { timeout = "5m" }, function(t)
	local dir = suite(t, { ["x.test.lua"] = [[
		local lan = provium:bridge("lan")
		local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
		a:boot()
		b:boot()
		lan:attach({ a, b })
		test("ping", function() a:run("ping -c 1 b.lan"):assert_ok() end)
	]] })
	local become = ""
	if nested.shell("id -u") == "0" then
		assert(os.execute("chown -R 65534 " .. dir))
		become = "setpriv --reuid=65534 --regid=65534 --clear-groups "
	end
	local out = run(dir, become .. "bin/provium -v --cpus 2")
	t:assert_contains(out, "PASS x.test.lua (1 passed, 0 failed, 0 skipped)")
	t:assert_contains(out, "status 0")
	t:assert_eq(select(2, out:gsub("user%-space", "")) <= 1, true, "the reason is told once: " .. out)
end)

test("the way out", { timeout = "5m" }, function(t)
	if not os.execute("unshare -rnm true 2>/dev/null && command -v perl >/dev/null") then
		t:skip("no user namespaces here, or no perl")
	end
	local dir = suite(t, {
		["outside.pl"] = outside.PROGRAM,
		["resolv.conf"] = "nameserver 203.0.113.1\n",
		["x.test.lua"] = [[
			local lan = provium:bridge("lan", { backend = "user" })
			local a = provium:vm("a", "guest")
			lan:attach(a)
			provium:boot()
			local function page(host)
				return a:run("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc " .. host .. " 80").stdout
			end
			test("closed", function(t) t:assert_eq(page("203.0.113.1"), "") end)
			test("open", function(t)
				lan:enable_uplink()
				t:assert_contains(page("203.0.113.1"), "from the outside")
				t:assert_contains(page("page.example"), "from the outside")
				t:assert(not a:run("nslookup other.example"):ok())
			end)
			test("closed again", function(t)
				lan:disable_uplink()
				t:assert_eq(page("203.0.113.1"), "")
				t:assert_eq(page("page.example"), "")
			end)
		]],
	})
	local out = run(dir, "unshare -rnm sh -c 'mount --bind resolv.conf /etc/resolv.conf && perl outside.pl && "
		.. "bin/provium -v; s=$?; kill $(cat pids); exit $s'")
	t:assert_contains(out, "PASS x.test.lua (3 passed, 0 failed, 0 skipped)")
end)
