-- Snapshots that are damaged, foreign or not there at all: refused with what is wrong, and a VM that runs goes on.

local nested = require("nested")
local places = require("snapshot.places")

local vm = provium:vm("a", "kernel-only"):boot()
vm:write_file("/tmp/n", "alive")
local base = vm:snapshot()
vm:restore(base)
local snap = vm:snapshot()		-- one with changes

-- The error of restoring dir; the VM that runs is the same as before.
local function refused(t, dir, expected)
	local pid = vm:pid()
	local message = t:assert_raises(function() vm:restore(dir) end, expected)
	t:assert_contains(message, "vm `a`: restore: snapshot `" .. dir .. "`")
	t:assert_contains(message, expected)
	t:assert_eq(vm:pid(), pid)
	t:assert_eq(vm:state(), "booted")
	t:assert_eq(vm:read_file("/tmp/n"), "alive")
end

local function edit(dir, from, to)
	local text = nested.read(dir .. "/meta.json")
	local at, stop = text:find(from)
	nested.write(dir .. "/meta.json", text:sub(1, at - 1) .. to .. text:sub(stop + 1))
end

test("none, or something else", function(t)
	local dir = places.dir(t)
	refused(t, dir .. "/nothing.snap", "No such file or directory")
	refused(t, dir, "No such file or directory")
	nested.write(dir .. "/file", "text")
	refused(t, dir .. "/file", "Not a directory")
	places.sh("mkdir -p " .. dir .. "/x.snap/meta.json")
	refused(t, dir .. "/x.snap", "it is no file that was written here")
end)

test("files that are missing, too short or too long", function(t)
	for _, name in ipairs({ "ram", "changes", "state", "console" }) do
		local copy = places.copy(t, snap)
		local size = tonumber(nested.shell("stat -c %s " .. copy .. "/" .. name))
		if size > 0 then
			places.sh(("truncate -s -1 %s/%s"):format(copy, name))
			refused(t, copy, ("its file `%s` has %d bytes and should have %d"):format(name, size - 1, size))
		end
		places.sh(("truncate -s %d %s/%s"):format(size + 1, copy, name))
		refused(t, copy, ("its file `%s` has %d bytes and should have %d"):format(name, size + 1, size))
		places.sh(("rm %s/%s"):format(copy, name))
		refused(t, copy, name == "changes" and "its file `changes` has 0 bytes" or ("its file `%s`: No such file"):format(name))
	end
end)

test("meta.json: damaged, incomplete, of a newer Provium", function(t)
	local copy = places.copy(t, snap)
	local text = nested.read(copy .. "/meta.json")
	nested.write(copy .. "/meta.json", text:sub(1, #text // 2))
	refused(t, copy, "its meta.json is damaged: line ")
	nested.write(copy .. "/meta.json", "")
	refused(t, copy, "its meta.json is damaged: line ")
	nested.write(copy .. "/meta.json", "[]")
	refused(t, copy, "its meta.json has no format")
	for _, key in ipairs({ "id", "profile", "qemu", "machine", "accel", "arch" }) do
		nested.write(copy .. "/meta.json", text)
		edit(copy, '"' .. key .. '": "', '"not-' .. key .. '": "')
		refused(t, copy, "its meta.json has no string `" .. key .. "`")
	end
	for _, key in ipairs({ "memory", "cpus", "ram", "changes", "state", "console" }) do
		nested.write(copy .. "/meta.json", text)
		edit(copy, '"' .. key .. '": %d+', '"' .. key .. '": -5')
		refused(t, copy, "its meta.json has no number `" .. key .. "`")
	end
	nested.write(copy .. "/meta.json", text)
	edit(copy, '"format": 1', '"format": 99')
	refused(t, copy, "it has format 99, made by a newer Provium; this one reads format 1")
	nested.write(copy .. "/meta.json", text)
	edit(copy, '"options": %b{}', '"options": {"files": [{}]}')
	refused(t, copy, "a file of its boot options is damaged")
	nested.write(copy .. "/meta.json", text)
	places.sh("chmod 000 " .. copy .. "/meta.json")
	if not os.execute("test -r " .. copy .. "/meta.json") then
		refused(t, copy, "Permission denied")
	end
end)

local serial = 0

-- What only shows when QEMU has it: the VM that ran is gone then, and a restore of a good one works. Under its old id
-- the copy would count as the snapshot that it was, for which a QEMU may be waiting already.
local function fails(t, copy, expected)
	serial = serial + 1
	edit(copy, '"id": "%x+"', ('"id": "%032x"'):format(serial))
	local message = t:assert_raises(function() vm:restore(copy) end, expected)
	t:assert_contains(message, "vm `a`: restore: ")
	t:assert_contains(message, expected)
	t:assert_eq(vm:state(), "dead")
	vm:restore(snap)
	t:assert_eq(vm:read_file("/tmp/n"), "alive")
end

test("made by another QEMU", function(t)
	local copy = places.copy(t, snap)
	edit(copy, '"qemu": "[^"]*"', '"qemu": "99.1.0 (of the future)"')
	fails(t, copy, "it was made by QEMU 99.1.0 (of the future), this is ")
end)

test("device state that is damaged", function(t)
	local copy = places.copy(t, snap)
	places.sh(("printf XXXX | dd of=%s/state conv=notrunc bs=1 2>/dev/null"):format(copy))
	fails(t, copy, "QEMU")
	copy = places.copy(t, snap)
	places.sh(("tr '\\000-\\377' '\\100-\\377\\000-\\077' <%s/state >%s/state.new && mv %s/state.new %s/state"):format(copy, copy,
		copy, copy))
	fails(t, copy, "QEMU")
end)

test("changed pages that are damaged", function(t)
	local copy = places.copy(t, snap)
	places.sh(("printf XXXX | dd of=%s/changes conv=notrunc bs=1 2>/dev/null"):format(copy))
	fails(t, copy, "the changed pages are damaged or of another host")
	copy = places.copy(t, snap)
	places.sh(("printf '\\377\\377\\377\\377\\377\\377' | dd of=%s/changes conv=notrunc bs=1 seek=32 2>/dev/null"):format(copy))
	fails(t, copy, "the changed pages are damaged")
end)
