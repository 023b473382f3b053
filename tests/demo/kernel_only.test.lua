-- A kernel with no userspace at all: the agent brings what is needed.

local vm = provium:vm("bare", "kernel-only"):boot()

test("the kernel talks although there is nothing to run", function(t)
	t:assert_contains(vm:read_file("/proc/version"), "Linux version")
	t:assert(not vm:exists("/bin/sh"))
end)

test("a program that is not there is a clear error", function(t)
	local err = t:assert_raises(function() vm:run("/bin/true", {}) end)
	t:assert_contains(err, "No such file or directory (errno 2)")
end)

test("directories can be listed", function(t)
	local names = {}
	for _, entry in ipairs(vm:listdir("/proc/self")) do
		names[entry.name] = entry.entry_type
	end
	t:assert(names.status, "/proc/self/status is there")
end)
