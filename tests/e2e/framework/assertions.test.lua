-- t's assertions: those that hold, and the failure text of each that does not.

local nested = require("nested")

-- What assert_raises forgives: the message of a failing assertion, without its position.
local function message_of(t, fn)
	return (t:assert_raises(fn):gsub("^[^\n]-%.lua:%d+: ", ""))
end

test("assert", function(t)
	t:assert(1)
	t:assert_eq(t:assert("value"), "value")
	t:assert_eq(message_of(t, function() t:assert(false) end), "assertion failed")
	t:assert_eq(message_of(t, function() t:assert(nil, "no answer") end), "no answer")
end)

test("assert_eq and assert_neq", function(t)
	t:assert_eq(1, 1)
	t:assert_eq("a", "a")
	t:assert_neq({}, {})
	t:assert_eq(message_of(t, function() t:assert_eq(1, 2, "count") end), "count: 1 ~= 2")
	t:assert_eq(message_of(t, function() t:assert_eq("a", "b", "name") end), 'name: "a" ~= "b"')
	t:assert_eq(message_of(t, function() t:assert_eq("1", 1, "id") end), 'id: "1" ~= 1')
	t:assert_eq(message_of(t, function() t:assert_neq("a", "a", "name") end), 'name: "a" == "a"')
	t:assert_contains(message_of(t, function() t:assert_eq({ 1, k = "v" }, nil) end), '{1, k = "v"} ~= nil')
end)

test("long strings are compared as a diff", function(t)
	local text = ("line\n"):rep(30)
	local message = message_of(t, function() t:assert_eq(text .. "old\nend", text .. "new\nend", "file") end)
	t:assert_contains(message, "file: strings differ from line 31 on")
	t:assert_contains(message, "  - old\n  + new\n")
	t:assert(#message < 300, "the diff shows what differs, not all of it")
	message = message_of(t, function() t:assert_eq(("a"):rep(1000000) .. "b", ("a"):rep(1000000) .. "c") end)
	t:assert_contains(message, "strings differ at byte 1000001")
	t:assert(#message < 300)
end)

test("assert_same", function(t)
	t:assert_same({ 1, { a = { true } } }, { 1, { a = { true } } })
	local a, b = { name = "loop" }, { name = "loop" }
	a.self, b.self = a, b
	t:assert_same(a, b)
	t:assert_contains(message_of(t, function() t:assert_same({ x = { 1, 2 } }, { x = { 1, 3 } }, "reply") end),
		"reply: at .x[2]: 2 ~= 3")
	t:assert_contains(message_of(t, function() t:assert_same({}, { k = 1 }) end), "at .k: nil ~= 1")
end)

test("assert_contains, assert_match, assert_near", function(t)
	t:assert_contains("a.b", ".")
	t:assert_eq(message_of(t, function() t:assert_contains("hello", "%w", "greeting") end),
		'greeting: "%w" not found in: hello')
	t:assert_eq(t:assert_match("key=value", "=(%w+)"), "value")
	t:assert_contains(message_of(t, function() t:assert_match("hello", "^x", "greeting") end), "greeting: ")
	t:assert_near(1.0, 1.05, 0.1)
	t:assert_contains(message_of(t, function() t:assert_near(1, 2, 0.5, "clock") end), "clock: ")
	t:assert_raises(function() t:assert_near(0 / 0, 1, 0.5) end)
end)

test("assert_raises", function(t)
	t:assert_eq(t:assert_raises(function() error("boom", 0) end), "boom")
	local value = {}
	t:assert_eq(t:assert_raises(function() error(value) end), value)
	t:assert_eq(message_of(t, function() t:assert_raises(function() end, "boot") end), "boot: expected to raise")
	t:assert_contains(t:assert_raises(function() sleep(0.01) error("after a wait") end), "after a wait")
end)

test("a raise carries the position in the test file", function(t)
	local err = t:assert_raises(function() t:fail("here") end)
	t:assert_match(err, "assertions%.test%.lua:%d+: here$")
	err = t:assert_raises(function() wait_until(3) end)
	t:assert_match(err, "assertions%.test%.lua:%d+: expected wait_until")
end)

test("wrong use of t says what is right", function(t)
	t:assert_contains(t:assert_raises(function() t.assert_eq(1, 2) end), "call it with a colon")
	t:assert_contains(t:assert_raises(function() t:assert_contains({}, "x") end),
		"expected t:assert_contains(string, string[, msg]), got table, string")
end)

test("a failure swallowed by pcall fails the test with its first message", { parallel = true }, function(t)
	nested.fails(t, 'pcall(t.assert_eq, t, 1, 2, "first") pcall(t.fail, t, "second")', "first: 1 ~= 2\n")
end)

test("t:fail and plain errors", { parallel = true }, function(t)
	nested.fails(t, "t:fail()", "explicit failure (t:fail)\n        x.test.lua:2\n")
	nested.fails(t, 'error("plain")', "plain\n        x.test.lua:2\n")
	nested.fails(t, "local v = nil + 1", "attempt to perform arithmetic on a nil value")
end)

test("a swallowed t:skip still skips", { parallel = true }, function(t)
	local r = nested.run_local(t, [[
		test("a", function(t) pcall(t.skip, t, "no hardware") error("not reached by a real skip") end)
		test("b", function(t) t:assert_raises(function() t:skip("inside") end) end)
		test("c", function(t) t:skip() end)]])
	t:assert_eq(r.status, 0)
	t:assert_contains(r.out, "PASS x.test.lua (0 passed, 0 failed, 3 skipped)")
	t:assert_contains(r.out, "SKIP a (no hardware)")
	t:assert_contains(r.out, "SKIP b (inside)")
end)

test("one that assert_raises caught does not count", { parallel = true }, function(t)
	local r = nested.run_local(t, [[test("x", function(t) t:assert_raises(function() t:assert(false) end) end)]])
	t:assert_eq(r.status, 0)
end)
