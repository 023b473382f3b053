-- Snapshots of restored VMs: what they write, how deep they may be, and that each stands for itself.

local places = require("snapshot.places")

local MIB = 1048576

local vm = provium:vm("a", "guest"):boot()
vm:write_file("/tmp/generation", "0")
local first = vm:snapshot()

test("a snapshot of a restored VM writes only what has changed", function(t)
	local whole = first:stats().bytes
	vm:restore(first)
	local second = vm:snapshot()
	t:log({ first = whole, second = second:stats().bytes })
	t:assert(second:stats().bytes < whole / 10, tostring(second:stats().bytes))
	vm:write_file("/tmp/more", ("0123456789abcdef"):rep(MIB // 4))
	local third = vm:snapshot()
	t:assert(third:stats().bytes > 4 * MIB and third:stats().bytes < 4 * MIB + second:stats().bytes + 8 * MIB,
		tostring(third:stats().bytes))
end)

test("one of a booted VM, too, when it was restored since", function(t)
	vm:restore(first)
	vm:snapshot()
	local again = vm:snapshot()
	t:assert(again:stats().bytes < first:stats().bytes / 10, "the VM runs on as the restored one that it was")
end)

test("ten generations deep, each its own, restored in any order", function(t)
	local generations = { [0] = first }
	vm:restore(first)
	for i = 1, 10 do
		vm:write_file("/tmp/generation", tostring(i))
		vm:write_file("/tmp/of" .. i, ("%d "):format(i):rep(30000))
		generations[i] = vm:snapshot()
		vm:restore(generations[i])
	end
	for _, i in ipairs({ 10, 3, 7, 0, 9, 1, 10, 5, 2, 8, 6, 4 }) do
		vm:restore(generations[i])
		local seen = { ("generation %d\n"):format(i) }
		for k = 1, i do
			seen[#seen + 1] = ("of%d has %d times %d\n"):format(k, 30000, k)
		end
		t:assert_eq(vm:run([[
			echo "generation $(cat /tmp/generation)"
			for i in 1 2 3 4 5 6 7 8 9 10; do
				[ -e /tmp/of$i ] && echo "of$i has $(tr -s ' ' '\n' </tmp/of$i | uniq -c | sed 's/^ *//; s/ / times /')"
			done
			true]]).stdout, table.concat(seen))
	end
	for i = 1, 9 do
		generations[i]:delete()
		t:assert_eq(generations[i]:size(), 0)
	end
	vm:restore(generations[10])
	t:assert_eq(vm:read_file("/tmp/generation"), "10", "the others between them are not needed")
end)

test("the base of a chain may be deleted while a VM lives from it, and after", function(t)
	vm:restore(first)
	vm:write_file("/tmp/generation", "base")
	local base = vm:snapshot()
	vm:restore(base)
	base:delete()
	t:assert_eq(vm:read_file("/tmp/generation"), "base", "the VM has what it needs")
	vm:write_file("/tmp/generation", "child")
	local child = vm:snapshot()
	vm:restore(child)
	t:assert_eq(vm:read_file("/tmp/generation"), "child")
	vm:write_file("/tmp/generation", "grandchild")
	local grandchild = vm:snapshot()
	child:delete()
	vm:restore(grandchild)
	t:assert_eq(vm:read_file("/tmp/generation"), "grandchild")
end)

test("pages that became zero are zero again", function(t)
	vm:restore(first)
	local map = vm:syscall(9, 0, 8 * MIB, 3, 0x22, -1, 0).ret
	vm:write_mem(map, ("x"):rep(8 * MIB))
	local full = vm:snapshot()
	vm:restore(full)
	vm:write_mem(map, ("\0"):rep(4 * MIB))
	local half = vm:snapshot()
	vm:restore(half)
	t:assert_eq(vm:read_mem(map, 4 * MIB), ("\0"):rep(4 * MIB))
	t:assert_eq(vm:read_mem(map + 4 * MIB, 4 * MIB), ("x"):rep(4 * MIB))
	vm:restore(full)
	t:assert_eq(vm:read_mem(map, 8 * MIB), ("x"):rep(8 * MIB))
end)

test("so much has changed that it is written anew", function(t)
	vm:kill()
	local own = provium:vm("own", "kernel-only", { memory = "256M" }):boot()
	own:restore(own:snapshot())
	local map = own:syscall(9, 0, 96 * MIB, 3, 0x22, -1, 0).ret
	for i = 0, 23 do
		own:write_mem(map + i * 4 * MIB, string.char(65 + i):rep(4 * MIB))
	end
	local big = own:snapshot()
	t:assert_eq(places.list(big:path()), "console meta.json ram state ")
	own:restore(big)
	for i = 0, 23 do
		t:assert_eq(own:read_mem(map + i * 4 * MIB + 4 * MIB - 4096, 4096), string.char(65 + i):rep(4096))
	end
	own:kill()
end)

test("moved and copied directories restore: mv, cp -r, tar, a chain's end included", function(t)
	local dir = places.dir(t)
	vm:restore(first)
	vm:write_file("/tmp/generation", "travels")
	local one = vm:snapshot(dir .. "/one.snap")
	vm:restore(one)
	vm:write_file("/tmp/generation", "travels far")
	vm:snapshot(dir .. "/two.snap")

	places.sh(("cd %s && mkdir -p deep/down && mv one.snap deep/down/moved.snap && cp -r two.snap copied.snap"):format(dir))
	places.sh(("cd %s && tar cSf two.tar two.snap && rm -r two.snap && mkdir out && tar xf two.tar -C out"):format(dir))
	vm:restore(dir .. "/deep/down/moved.snap")
	t:assert_eq(vm:read_file("/tmp/generation"), "travels")
	vm:restore(dir .. "/copied.snap")
	t:assert_eq(vm:read_file("/tmp/generation"), "travels far")
	places.sh(("rm -r %s/deep %s/copied.snap"):format(dir, dir))
	vm:restore(dir .. "/out/two.snap")
	t:assert_eq(vm:read_file("/tmp/generation"), "travels far")
end)

test("no restored VM writes to its snapshot", function(t)
	local dir = places.dir(t)
	vm:restore(first)
	local snap = vm:snapshot(dir .. "/one.snap")
	local sum = "cd " .. dir .. "/one.snap && sha256sum *"
	local before = require("nested").shell(sum)
	vm:restore(snap)
	vm:write_file("/tmp/f", ("x"):rep(4 * MIB))
	vm:run("sync"):assert_ok()
	vm:snapshot()
	vm:reset()
	vm:restore(snap)
	vm:shutdown()
	t:assert_eq(require("nested").shell(sum), before)
end)
