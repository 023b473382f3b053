-- Calls that wait work wherever an author may put them; where Lua cannot yield, the error says so.

local function wait()
	sleep(0.01)
	return "waited"
end

test("across pcall, xpcall and error handlers", function(t)
	local ok, v = pcall(wait)
	t:assert(ok)
	t:assert_eq(v, "waited")
	ok, v = xpcall(function() wait() error("after", 0) end, function(m) return "handled " .. m end)
	t:assert(not ok)
	t:assert_eq(v, "handled after")
	t:assert_eq(select(2, pcall(pcall, wait)), true)
end)

test("across metamethods", function(t)
	local mt = {
		__index = wait, __newindex = function() wait() end, __call = wait, __add = wait, __concat = wait,
		__unm = wait, __eq = function() wait() return true end, __lt = function() wait() return true end,
	}
	local a, b = setmetatable({}, mt), setmetatable({}, mt)
	t:assert_eq(a.anything, "waited")
	a.x = 1
	t:assert_eq(a(), "waited")
	t:assert_eq(a + b, "waited")
	t:assert_eq(a .. b, "waited")
	t:assert_eq(-a, "waited")
	t:assert(a == b)
	t:assert(a < b)
end)

test("in iterators", function(t)
	local n = 0
	for i in function(_, i) wait() return i < 3 and i + 1 or nil end, nil, 0 do
		n = n + i
	end
	t:assert_eq(n, 6)
end)

test("in modules while they load", function(t)
	t:assert_eq(require("framework.waiting_module").value, "waited")
	t:assert_eq(require("framework.waiting_module"), require("framework.waiting_module"))
	t:assert_eq(dofile("framework/waiting_module.lua").value, "waited")
end)

test("a module asked for by two tasks is loaded once", function(t)
	package.loaded["framework.waiting_module"] = nil
	local r = co.all{
		function() return require("framework.waiting_module") end,
		function() return require("framework.waiting_module") end,
	}
	t:assert_eq(r[1], r[2])
end)

test("in user coroutines, which keep their own yields", function(t)
	local co_ = coroutine.create(function(a)
		wait()
		local b = coroutine.yield(a + 1)
		wait()
		return b * 2
	end)
	local ok, v = coroutine.resume(co_, 1)
	t:assert(ok)
	t:assert_eq(v, 2)
	ok, v = coroutine.resume(co_, 21)
	t:assert(ok)
	t:assert_eq(v, 42)
	t:assert_eq(coroutine.status(co_), "dead")
	t:assert_eq(coroutine.resume(co_), false)
end)

test("in coroutine.wrap, nested, as a generator", function(t)
	local function numbers()
		return coroutine.wrap(function()
			for i = 1, 3 do
				wait()
				coroutine.yield(i)
			end
		end)
	end
	local outer = coroutine.wrap(function()
		for i in numbers() do
			wait()
			coroutine.yield(i * 10)
		end
	end)
	local sum = 0
	for v in outer do
		sum = sum + v
	end
	t:assert_eq(sum, 60)
end)

test("an error inside a user coroutine stays there", function(t)
	local ok, err = coroutine.resume(coroutine.create(function() wait() error("inside", 0) end))
	t:assert_eq(ok, false)
	t:assert_eq(err, "inside")
	t:assert_contains(t:assert_raises(coroutine.wrap(function() wait() error("wrapped") end)), "wrapped")
end)

test("in deep recursion", function(t)
	local function down(n)
		if n == 0 then
			return wait()
		end
		local v = down(n - 1)
		return v
	end
	t:assert_eq(down(500), "waited")
end)

test("where Lua cannot yield: a table.sort comparator", function(t)
	local err = t:assert_raises(function()
		table.sort({ 3, 1, 2 }, function(a, b) sleep(0.01) return a < b end)
	end)
	t:assert_match(err, "yields%.test%.lua:%d+: sleep cannot wait here")
	t:assert_contains(err, "sort")
	t:assert_contains(err, "call it before")
end)

test("where Lua cannot yield: a string.gsub callback", function(t)
	local err = t:assert_raises(function()
		return (("abc"):gsub("%w", function() sleep(0.01) end))
	end)
	t:assert_match(err, "yields%.test%.lua:%d+: sleep cannot wait here")
	t:assert_contains(err, "gsub")
	wait()
end)

test("a coroutine resumed where Lua cannot yield", function(t)
	local co_ = coroutine.create(function() sleep(0.01) end)
	local ok, err
	table.sort({ 2, 1 }, function(a, b)
		if ok == nil then
			ok, err = coroutine.resume(co_)
		end
		return a < b
	end)
	t:assert_eq(ok, false)
	t:assert_contains(err, "cannot wait here")
	wait()
end)

test("children of the host: os.execute and io.popen", function(t)
	local ticks = 0
	local ticker = co.spawn(function()
		while true do
			ticks = ticks + 1
			sleep(0.01)
		end
	end)
	t:assert_eq((os.execute("sleep 0.3")), true)
	t:assert(ticks > 5, "the loop went on meanwhile: " .. ticks)
	local p = io.popen("echo out; exit 3")
	t:assert_eq(p:read("a"), "out\n")
	local ok, how, code = p:close()
	t:assert_eq(ok, nil)
	t:assert_eq(how, "exit")
	t:assert_eq(code, 3)
	ticker:cancel()
end)

test("across <close> and goto", { tags = "lua54" }, function(t)
	local order = {}
	local chunk = assert(load([[
		local wait, order = ...
		do
			local guard <close> = setmetatable({}, {__close = function() wait() order[#order + 1] = "closed" end})
			wait()
			order[#order + 1] = "body"
		end
		return 7 // 2]]))
	t:assert_eq(chunk(wait, order), 3)
	t:assert_eq(table.concat(order, " "), "body closed")
end)
