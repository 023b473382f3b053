-- Snapshots of labs with bridges: a restored guest finds its cards, addresses, names, and what went wrong on the way.

local lan = provium:bridge("lan", { backend = "user", subnet = "10.9.8.0/24" })
local wan = provium:bridge("wan", { backend = "user" })
local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
lan:attach({ a, b })
provium:boot()
wan:attach(b)			-- plugged while it runs

local function reaches(from, name)
	return from:run(("ping -c 1 -W 2 %s >/dev/null 2>&1"):format(name)):ok()
end

-- As a plain table, to compare.
local function look()
	return { lan = lan:members(), wan = wan:members(), lan_on_b = b:nic("lan"):guest_name(), wan_on_b = b:nic("wan"):guest_name(),
		mac = a:nic("lan"):mac(), ip = a:nic("lan"):ip(), impairments = lan:impairments(),
		partitioned = lan:is_partitioned(a, b), isolated = lan:is_isolated(b) }
end

test("what the lab was is put back, on live guests", function(t)
	t:assert(reaches(a, "b.lan"), "before")
	lan:add_latency({ from = a, to = b, ms = 20 })
	local before, snap = look(), provium:snapshot()
	t:assert(reaches(a, "b.lan"), "still")
	lan:reset()
	lan:partition(a, b)
	lan:isolate(b)
	wan:detach(b)
	wan:attach(a)
	provium:restore(snap)
	t:assert_same(look(), before)
	t:assert(reaches(a, "b.lan"), "after the restore")
	t:assert(reaches(b, "a.lan"), "and back")
	t:assert(not reaches(b, "nobody.lan"))
	lan:reset()
end)

test("in an empty lab everything is made", function(t)
	local snap = provium:snapshot()
	local copy = provium:lab("copy")
	provium:bridge("between", { backend = "user" })
	copy:restore(snap)
	t:assert_same(copy:bridge_names(), { "lan", "wan" })
	t:assert_same(copy:bridge("lan"):members(), { "a", "b" })
	t:assert_eq(copy:vm("a"):nic("lan"):ip(), a:nic("lan"):ip())
	t:assert_eq(copy:vm("a"):nic("lan"):ip6(), a:nic("lan"):ip6())
	t:assert(reaches(copy:vm("a"), "b.lan"), "in the copy")
	copy:bridge("lan"):partition("a", "b")
	t:assert(not reaches(copy:vm("a"), "b.lan"), "cut in the copy")
	t:assert(reaches(a, "b.lan"), "not here")
end)

test("a VM alone is restored onto the cards it had", function(t)
	local snap = b:snapshot()
	b:restore(snap)
	t:assert(reaches(b, "a.lan"))
	wan:detach(b)
	local err = t:assert_raises(function() b:restore(snap) end)
	t:assert_contains(err, "was made with 2 network cards")
	t:assert_eq(b:state(), "booted")
	t:assert(reaches(b, "a.lan"))
	wan:attach(b)
	b:restore(snap)
	t:assert(reaches(b, "a.lan"))
end)

test("no snapshot while something is captured", function(t)
	local stream = lan:capture()
	local err = t:assert_raises(function() provium:snapshot() end)
	t:assert_contains(err, "stream still open")
	t:assert_contains(err, "labsnapshot.test.lua:")
	stream:close()
end)

test("a bridge of that name that is another one", function(t)
	local snap = provium:snapshot()
	local other = provium:lab("other")
	other:bridge("lan", { backend = "user" })
	local err = t:assert_raises(function() other:restore(snap) end)
	t:assert_contains(err, "bridge `lan` is in the lab already and is another one")
	t:assert_same(other:vm_names(), {})
end)
