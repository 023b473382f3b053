-- Networks without privilege: an ordinary user's guests reach one another by name, and the way out of the user backend
-- leads to a server that stands for the outside, in a network namespace of its own. Nothing is sent anywhere else.

local nested = require("nested")

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
	local dir = nested.shell("mktemp -d")
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

-- The outside: 203.0.113.1 on the namespace's loopback serves a page, and knows one name.
local OUTSIDE = [[
use strict; use Socket; use IO::Socket::INET;
my $address = inet_aton("203.0.113.1");
socket(my $s, AF_INET, SOCK_DGRAM, 0) or die;
my $up = pack("a16 s x22", "lo", 0x49);
my $has = pack("a16 S n a4 x16", "lo:1", AF_INET, 0, $address);
ioctl($s, 0x8914, $up) or die "lo: $!";
ioctl($s, 0x8916, $has) or die "address: $!";
my $web = IO::Socket::INET->new(LocalAddr => "203.0.113.1", LocalPort => 80, Listen => 5) or die "web: $!";
my $dns = IO::Socket::INET->new(LocalAddr => "203.0.113.1", LocalPort => 53, Proto => "udp") or die "dns: $!";
my @pids;
push @pids, fork();
if ($pids[0] == 0) {
	alarm(600);
	while (my $c = $web->accept()) {
		my $line = <$c>;
		print $c "HTTP/1.0 200 OK\r\nContent-Length: 16\r\n\r\nfrom the outside";
		close($c);
	}
	exit;
}
push @pids, fork();
if ($pids[1] == 0) {
	alarm(600);
	while ($dns->recv(my $q, 1500)) {
		my ($at, @labels) = (12);
		while (my $n = unpack("C", substr($q, $at, 1))) { push @labels, substr($q, $at + 1, $n); $at += $n + 1; }
		my ($type) = unpack("n", substr($q, $at + 1, 2));
		my $known = join(".", @labels) eq "page.example";
		my $answer = $known && $type == 1;
		$dns->send(substr($q, 0, 2) . pack("nnnnn", $known ? 0x8180 : 0x8183, 1, $answer ? 1 : 0, 0, 0)
			. substr($q, 12, $at + 5 - 12) . ($answer ? pack("nnnNn", 0xc00c, 1, 1, 60, 4) . $address : ""));
	}
	exit;
}
open(my $f, ">", "pids") or die;
print $f "@pids";
]]

test("the way out", { timeout = "5m" }, function(t)
	if not os.execute("unshare -rnm true 2>/dev/null && command -v perl >/dev/null") then
		t:skip("no user namespaces here, or no perl")
	end
	local dir = suite(t, {
		["outside.pl"] = OUTSIDE,
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
