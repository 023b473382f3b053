-- The user backend's chance can be repeated: the same seed loses the same packets.

local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
provium:boot()

-- Which of forty pings from a to b get there, on a new bridge.
local function pattern(name, seed)
	local lan = provium:bridge(name, { backend = "user", seed = seed })
	lan:attach({ a, b })
	local ip = b:nic(lan):ip()
	a:run("ping -c 1 -W 5 " .. ip):assert_ok()
	lan:drop_rate({ from = a, to = b, p = 50 })
	local stream = b:nic(lan):capture({ filter = "icmp[icmptype] == icmp-echo" })
	a:run("ping -q -c 40 -i 0.05 -W 1 " .. ip)
	local seen = {}
	for _, f in ipairs(stream:frames(1)) do
		seen[#seen + 1] = f.icmp.seq
	end
	stream:close()
	lan:close()
	return table.concat(seen, " "), #seen
end

test("the same seed loses the same packets", function(t)
	local first, n = pattern("one", 7)
	t:assert(n > 5 and n < 35, n .. " of 40 got there")
	t:assert_eq(pattern("two", 7), first)
	t:assert(pattern("three", 8) ~= first, "another seed, another pattern")
end)
