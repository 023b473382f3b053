-- Captures of a bridge and of one card: the suite of one backend.

local reach = require("net.reach")

-- What tcpdump says of a capture's bytes, when this host has it.
local function tcpdump(bytes)
	local path = os.tmpname()
	local f = assert(io.open(path, "wb"))
	f:write(bytes)
	f:close()
	local p = io.popen("command -v tcpdump >/dev/null && tcpdump -nr " .. path .. " 2>&1")
	local text = p:read("a")
	p:close()
	os.remove(path)
	return text
end

local function read_all(stream)
	return table.concat(stream:drain(1))
end

return function(backend)
	local lan = provium:bridge("lan", { backend = backend })
	local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
	lan:attach({ a, b })
	provium:boot()
	local ip_a, ip_b = a:nic(lan):ip(), b:nic(lan):ip()

	test("the header comes first, and frames as pcap", function(t)
		local stream = lan:capture()
		t:assert_eq(stream:kind(), "capture")
		a:run("ping -4 -c 3 -i 0.2 b.lan"):assert_ok()
		local bytes = read_all(stream)
		t:assert(#bytes > 24, "nothing was captured")
		local magic = string.unpack("<I4", bytes)
		t:assert(magic == 0xa1b2c3d4 or magic == 0xa1b23c4d, ("magic %08x"):format(magic))
		t:assert_eq(string.unpack("<I4", bytes, 21), 1, "the link type is Ethernet")
		local said = tcpdump(bytes)
		if said ~= "" then
			t:assert_contains(said, ("IP %s > %s: ICMP echo request"):format(ip_a, ip_b))
			t:assert_contains(said, ("IP %s > %s: ICMP echo reply"):format(ip_b, ip_a))
			t:assert_eq(said:find("truncated", 1, true), nil)
		end
		t:assert_eq(stream:dropped(), 0)
		stream:close()
	end)

	test("frames are taken apart", function(t)
		local stream = lan:capture({ filter = "icmp or icmp6" })
		a:run("ping -4 -c 2 -i 0.2 b.lan"):assert_ok()
		a:run("ping -6 -c 2 -i 0.2 b.lan"):assert_ok()
		local requests, replies, six = 0, 0, 0
		for _, f in ipairs(stream:frames(1)) do
			t:assert(f.time > 0 and f.length >= 42 and #f.data <= f.length)
			if f.ip.version == 4 and f.icmp.type == 8 then
				requests = requests + 1
				t:assert_eq(f.src, a:nic(lan):mac())
				t:assert_eq(f.dst, b:nic(lan):mac())
				t:assert_eq(f.ip.src .. ">" .. f.ip.dst, ip_a .. ">" .. ip_b)
				t:assert_eq(#f.payload, 56)
			elseif f.ip.version == 4 and f.icmp.type == 0 then
				replies = replies + 1
			elseif f.ip.version == 6 and f.icmp.type == 128 then
				six = six + 1
				t:assert_eq(f.ip.src, a:nic(lan):ip6())
			end
		end
		t:assert_eq(requests .. " " .. replies .. " " .. six, "2 2 2", "each frame once")
		stream:close()
	end)

	test("TCP and UDP", function(t)
		local stream = lan:capture({ filter = "port 5007 or udp" })
		local flow = reach.flow(a, b, ip_b, 5007)
		flow.say("hello there")
		flow.close()
		local syn, hello
		for _, f in ipairs(stream:frames(1)) do
			syn = syn or f.tcp.flags.syn and f
			hello = hello or f.payload == "hello there\n" and f
		end
		t:assert(syn and hello)
		t:assert_eq(syn.tcp.dst_port, 5007)
		t:assert_eq(syn.ip.protocol, 6)
		t:assert(hello.tcp.flags.ack)
		a:run("traceroute -n -m 1 -q 1 -w 1 -p 6007 " .. ip_b)
		local datagram
		for _, f in ipairs(stream:frames(1)) do
			datagram = datagram or f.udp and f
		end
		t:assert(datagram, "no datagram")
		t:assert_eq(datagram.ip.dst, ip_b)
		t:assert(datagram.udp.dst_port >= 6007)
		stream:close()
	end)

	test("a filter, a length, and one card", function(t)
		local only = lan:capture({ filter = "arp" })
		local short = lan:capture({ filter = "icmp", snaplen = 60 })
		local card = b:nic(lan):capture({ filter = "icmp" })
		a:run("ping -4 -c 2 -i 0.2 -s 500 b.lan"):assert_ok()
		for _, f in ipairs(only:frames(0.5)) do
			t:assert_eq(f.ethertype, 0x0806)
		end
		local frames = short:frames(1)
		t:assert_eq(#frames, 4)
		t:assert_eq(#frames[1].data, 60)
		t:assert_eq(frames[1].length, 542)
		t:assert_eq(#card:frames(1), 4)
		for _, s in ipairs({ only, short, card }) do
			s:close()
		end
	end)

	test("mistakes say what is wrong", function(t)
		local e = t:assert_raises(function() lan:capture({ filter = "tcp port nonsense at all" }) end)
		t:assert_contains(e, "bridge `lan`: capture: ")
		t:assert_contains(e, "tcp port nonsense at all")
		t:assert_contains(t:assert_raises(function() lan:capture({ snap = 1 }) end),
			"bridge:capture: unknown option `snap`, did you mean `snaplen`? (known: filter, snaplen)")
		t:assert_contains(t:assert_raises(function() lan:capture({ snaplen = 0 }) end), "`snaplen` must be an integer")
		t:assert_contains(t:assert_raises(function() a:console():read():frames() end), "not a capture")
	end)

	test("ten thousand frames, all of them", { timeout = "10m" }, function(t)
		local stream = lan:capture({ filter = "icmp[icmptype] == icmp-echo and greater 100" })
		local ping = a:run_async("ping -4 -q -A -c 10000 -s 100 " .. ip_b)
		local frames, seen = {}, {}
		local last = 0
		while #frames < 10000 do
			local more = stream:frames(5)
			for _, f in ipairs(more) do
				frames[#frames + 1] = f
				seen[f.icmp.seq] = true
			end
			if #more == 0 and ping:status() == "exited" then
				break
			end
		end
		local sent = tonumber(ping:wait(300).stdout:match("(%d+) packets transmitted"))
		for _ in pairs(seen) do
			last = last + 1
		end
		t:assert_eq(stream:dropped(), 0)
		t:assert_eq(#frames, sent)
		t:assert_eq(last, sent, "each once")
		stream:close()
	end)

	test("an open capture is in the way of a snapshot", function(t)
		local stream = lan:capture()
		local e = t:assert_raises(function() a:snapshot() end)
		t:assert_contains(e, "vm:snapshot() failed for `a`: 1 stream still open")
		t:assert_contains(e, "captures.lua:")
		stream:close()
		local card = a:nic(lan):capture()
		t:assert_contains(t:assert_raises(function() a:snapshot() end), "nic:capture() created at")
		card:close()
	end)

	test("a capture ends with what it was of", function(t)
		local lost = provium:bridge("lost", { backend = backend })
		lost:attach(a)
		local of_bridge, of_card = lost:capture(), a:nic(lost):capture()
		lost:detach(a)
		of_card:drain(0.2)
		t:assert_eq(of_card:eof(), true)
		t:assert_eq(of_bridge:eof(), false)
		lost:close()
		of_bridge:drain(0.2)
		t:assert_eq(of_bridge:eof(), true)
		t:assert_eq(of_bridge:dropped(), 0)
	end)
end
