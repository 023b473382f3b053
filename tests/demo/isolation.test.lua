-- Every test can have guests of its own; what it made is gone when it ends.

for _, word in ipairs({ "first", "second" }) do
	test("the " .. word .. " test finds an untouched guest", function(t)
		local vm = provium:vm("guest", "guest"):boot()
		t:assert(not vm:exists("/tmp/mark"))
		vm:write_file("/tmp/mark", word)
		t:assert_eq(vm:read_file("/tmp/mark"), word)
	end)
end

test("two guests at once do not see each other", function(t)
	local a, b = provium:vm("a", "guest"), provium:vm("b", "guest")
	provium:boot()
	a:write_file("/tmp/who", "a")
	b:write_file("/tmp/who", "b")
	t:assert_eq(a:read_file("/tmp/who"), "a")
	t:assert_eq(b:read_file("/tmp/who"), "b")
end)
