-- What stands for the outside: 203.0.113.1 on the loopback of a network namespace serves a page, and knows one name.

local outside = {}

-- It goes into the background when it serves, and writes its processes' numbers into the file "pids".
outside.PROGRAM = [[
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

return outside
