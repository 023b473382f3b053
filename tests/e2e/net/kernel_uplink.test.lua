-- The way out of the kernel backend: in a network namespace that stands for the host, whose default route leads to another
-- one that stands for the outside. Nothing is sent anywhere else.

local nested = require("nested")
local outside = require("net.outside")

-- It is named so that its profile's images are made, which the nested run uses.
provium:vm("unused", "guest")

local SUITE = [[
local lan = provium:bridge("lan", { backend = "kernel" })
local a = provium:vm("a", "guest")
lan:attach(a)
provium:boot()

local function page(host)
	return a:run("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc " .. host .. " 80").stdout
end

test("closed", function(t)
	t:assert_eq(page("203.0.113.1"), "")
end)

test("open", function(t)
	lan:enable_uplink()
	t:assert_contains(page("203.0.113.1"), "from the outside")
	t:assert_contains(page("page.example"), "from the outside")
	t:assert(not a:run("nslookup other.example"):ok())
	a:reset()
	t:assert_contains(page("page.example"), "from the outside")
end)

test("closed again", function(t)
	lan:disable_uplink()
	t:assert_eq(page("203.0.113.1"), "")
	t:assert_eq(a:exists("/etc/resolv.conf") and a:read_file("/etc/resolv.conf") or "", "")
end)
]]

local HOST = [[
set -e
mount --bind resolv.conf /etc/resolv.conf
ip link set lo up
unshare -n sleep 600 &
there=$!
trap 'kill $there $(cat pids)' EXIT
while [ "$(readlink /proc/$there/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add out type veth peer name in netns $there
ip addr add 192.0.2.1/24 dev out
ip link set out up
ip route add default via 192.0.2.2
nsenter -t $there -n ip addr add 192.0.2.2/24 dev in
nsenter -t $there -n ip link set in up
nsenter -t $there -n perl outside.pl
ip -o link >links.before
"$1" -v || status=$?
ip -o link >links.after
cat /proc/sys/net/ipv4/conf/out/forwarding >forwarding
exit ${status:-0}
]]

test("the way out, and nothing left of it", { timeout = "5m" }, function(t)
	local ok, why = pcall(provium.bridge, provium, "probe", { backend = "kernel" })
	if not ok then
		t:skip(why)
	elseif not os.execute("command -v ip perl nsenter >/dev/null && unshare -nm true") then
		t:skip("no right to make network namespaces here, or no ip, perl or nsenter")
	end
	local dir = nested.suite(t, { ["x.test.lua"] = SUITE, ["outside.pl"] = outside.PROGRAM, ["host.sh"] = HOST,
		["resolv.conf"] = "nameserver 203.0.113.1\n" })
	local out = nested.shell(("cd %s && env -u PROVIUM_LOG TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun NO_COLOR=1 "
		.. "unshare -nm sh host.sh '%s' 2>&1"):format(dir, dir, dir, nested.binary))
	t:log(out)
	t:assert_contains(out, "PASS x.test.lua (3 passed, 0 failed, 0 skipped)")
	t:assert_eq(nested.read(dir .. "/links.after"), nested.read(dir .. "/links.before"))
	t:assert_eq(nested.read(dir .. "/forwarding"), "0\n")
end)
