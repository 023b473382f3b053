-- provium.toml: checks the parsed file and makes the table that src/run/config.c reads.
--
-- Called with the TOML parser and the file system and units as functions of the host:
--   host.read(path) -> text | nil, message        host.list(dir) -> sorted names | nil, message
--   host.kind(path) -> "file" | "directory" | "other" | nil
--   host.absolute(dir | nil, path) -> path        host.env(name) -> text | nil
--   host.size(value) -> bytes | nil, message      host.duration(value) -> ns | nil, message
--   host.nearest(word, names) -> name | nil       host.arch, host.cache_home: "x86_64", "/home/me/.cache"
-- Returns {load = function(path, dir), resolve = function(profile)}.
--
-- load(path, dir) returns {roots, cache_dir, cache_max_size, profiles}, profiles sorted by name, or
-- nil and a message that can be printed as it is. What a build may still have to make (a kernel looked
-- up in `root`, the text of `cmdline_file`) is left to resolve(profile), which is called when the build
-- is over; profiles without a build are resolved here.

local toml, host = ...

local NAME_PATTERN, NAME_MAX = "^[%w_.-]+$", 64

local FIRST_VOWEL = "^[aeiou]"

-- ---- errors ----

-- Where a value stands: the file, the tables' places, and the names on the way to it.
local Place = {}
Place.__index = Place

local function reject(place, message, ...)
	local where = ""
	if place.line then
		where = ("line %d, column %d: "):format(place.line, place.column)
	end
	error({ message = ("invalid config in `%s`: %s%s"):format(place.file, where, message:format(...)) }, 0)
end

function Place:child(t, key)
	local entry = self.info[t][key]
	local name
	if type(key) == "number" then
		name = ("%s[%d]"):format(self.name, key)
	else
		name = self.name and self.name .. "." .. key or key
	end
	return setmetatable({
		file = self.file, dir = self.dir, info = self.info, name = name, out = self.out,
		line = entry.line, column = entry.column, type = entry.type,
	}, Place)
end

local function with_article(noun)
	return (noun:find(FIRST_VOWEL) and "an " or "a ") .. noun
end

local function expected(place, what)
	reject(place, "`%s` must be %s, not %s", place.name, what, with_article(place.type))
end

local function sorted_keys(t)
	local keys = {}
	for key in pairs(t) do
		keys[#keys + 1] = key
	end
	table.sort(keys)
	return keys
end

local function suggestion(word, names)
	local near = host.nearest(word, names)
	return near and ("did you mean `%s`?"):format(near)
		or ("the known ones are %s"):format(table.concat(names, ", "))
end

-- ---- checks of one value: each takes (value, place) and returns what is kept ----

local check = {}

function check.string(value, place)
	if place.type ~= "string" then
		expected(place, "a string")
	elseif value:find("%z") then
		reject(place, "`%s` must not hold a NUL character", place.name)
	end
	return value
end

function check.text(value, place)
	if check.string(value, place) == "" then
		reject(place, "`%s` must not be empty", place.name)
	end
	return value
end

function check.boolean(value, place)
	if place.type ~= "boolean" then
		expected(place, "true or false")
	end
	return value
end

function check.size(value, place)
	if place.type ~= "string" and place.type ~= "integer" then
		expected(place, "a size such as \"512M\" or a number of bytes")
	end
	local bytes, message = host.size(value)
	if not bytes then
		reject(place, "`%s`: %s", place.name, message)
	end
	return bytes
end

function check.memory(value, place)
	local bytes = check.size(value, place)
	if bytes < 1048576 then
		reject(place, "`%s` is %s bytes, a guest needs at least 1M: write a size such as \"512M\"",
			place.name, tostring(value))
	end
	return bytes
end

function check.scratch(value, place)
	local bytes = check.size(value, place)
	if bytes < 512 then
		reject(place, "`%s` must be at least one sector, 512 bytes", place.name)
	end
	return bytes
end

function check.duration(value, place)
	if place.type ~= "string" and place.type ~= "integer" and place.type ~= "float" then
		expected(place, "a duration such as \"30s\" or a number of seconds")
	end
	local ns, message = host.duration(value)
	if not ns then
		reject(place, "`%s`: %s", place.name, message)
	elseif ns == 0 then
		reject(place, "`%s` must be longer than 0", place.name)
	end
	return ns
end

function check.cpus(value, place)
	if place.type ~= "integer" then
		expected(place, "an integer")
	elseif value < 1 or value > 1024 then
		reject(place, "`%s` must be between 1 and 1024, not %d", place.name, value)
	end
	return value
end

function check.path(value, place)
	value = check.text(value, place)
	if place.out then
		value = value:gsub("{out}", (place.out:gsub("%%", "%%%%")))
	end
	return host.absolute(place.dir, value)
end

local function list_of(element, what)
	return function(value, place)
		if place.type ~= "array" then
			expected(place, "an array of " .. what)
		end
		local list = {}
		for i = 1, #value do
			list[i] = element(value[i], place:child(value, i))
		end
		return list
	end
end

local function one_of(names)
	return function(value, place)
		check.string(value, place)
		for _, name in ipairs(names) do
			if value == name then
				return value
			end
		end
		reject(place, "`%s`: `%s` is not known; %s", place.name, value, suggestion(value, names))
	end
end

local function any(value)
	return value
end

-- Checks a table against {key = check}: unknown keys and wrong types are refused.
local function check_table(t, place, keys)
	if place.type ~= "table" then
		expected(place, "a table")
	end
	local kept = {}
	local found = sorted_keys(t)
	table.sort(found, function(a, b)
		local x, y = place.info[t][a], place.info[t][b]
		return x.line < y.line or (x.line == y.line and x.column < y.column)
	end)
	for _, key in ipairs(found) do
		local child = place:child(t, key)
		if not keys[key] then
			local where = place.name and (" in `%s`"):format(place.name) or ""
			reject(child, "unknown key `%s`%s; %s", key, where, suggestion(key, sorted_keys(keys)))
		end
		kept[key] = keys[key](t[key], child)
	end
	return kept
end

local function check_name(name, place, what)
	if not name:find(NAME_PATTERN) or #name > NAME_MAX or name:find("^%.") then
		reject(place, "the %s name `%s` is refused: use up to %d letters, digits, `_`, `-` and `.`, "
			.. "and no `.` in front", what, name, NAME_MAX)
	end
end

-- ---- disks ----

local DISK_KEYS = {
	id = check.text, path = check.path, scratch = check.scratch, template = check.path,
	format = one_of({ "raw", "qcow2" }), readonly = check.boolean, direct = check.boolean,
}

local function check_disk(value, place)
	local disk = check_table(value, place, DISK_KEYS)
	local sources = (disk.path and 1 or 0) + (disk.scratch and 1 or 0) + (disk.template and 1 or 0)
	if sources ~= 1 then
		reject(place, "`%s` must have exactly one of `path`, `scratch` and `template`, it has %s",
			place.name, sources == 0 and "none" or tostring(sources))
	end
	if disk.id then
		check_name(disk.id, place, "disk")
		if #disk.id > 20 then
			reject(place, "the disk id `%s` is too long for a virtio serial: use up to 20 characters",
				disk.id)
		end
	end
	return disk
end

local function check_disks(value, place)
	local disks = list_of(check_disk, "tables")(value, place)
	local used = {}
	for i, disk in ipairs(disks) do
		disk.id = disk.id or ("disk%d"):format(i - 1)
		disk.format = disk.format or "raw"
		if used[disk.id] then
			reject(place:child(value, i), "the disk id `%s` is used twice", disk.id)
		end
		used[disk.id] = true
	end
	return disks
end

-- ---- profiles ----

local PROFILE_KEYS = {
	kernel = check.path, root = check.path, initrd = check.path, modules = check.path,
	cmdline = check.string, cmdline_file = check.path,
	guest_os = one_of({ "linux", "peios" }),
	arch = one_of({ "x86_64", "aarch64" }),
	machine = one_of({ "pc", "q35", "microvm", "virt" }),
	accel = one_of({ "auto", "kvm", "tcg" }),
	memory = check.memory, cpus = check.cpus,
	inject_agent = check.boolean, agent_overlay_path = check.path,
	agent_boot_timeout = check.duration,
	disks = check_disks, boot_cache = check.boolean,
	build = check.text, build_inputs = list_of(check.text, "strings"), build_out = check.text,
	qemu_args = list_of(check.string, "strings"),
}

local MACHINES = {
	x86_64 = { pc = true, q35 = true, microvm = true },
	aarch64 = { virt = true },
}

-- The directory a build writes to: {out}.
local function build_directory(t, place, name)
	local base
	if place.info[t].build_out and place.info[t].build_out.type == "string" and t.build_out ~= "" then
		base = host.absolute(place.dir, t.build_out)
	elseif (host.env("PROVIUM_BUILD_DIR") or "") ~= "" then
		base = host.absolute(nil, host.env("PROVIUM_BUILD_DIR"))
	else
		base = host.cache_home .. "/provium/builds"
	end
	return base .. "/" .. name
end

local function check_machine(profile, place)
	profile.arch = profile.arch or host.arch
	local fitting = MACHINES[profile.arch]
	if not fitting then
		reject(place, "this host's architecture is %s, which no profile can have: "
			.. "set `arch` to x86_64 or aarch64", profile.arch)
	end
	profile.machine = profile.machine or (fitting.pc and "pc" or "virt")
	if not fitting[profile.machine] then
		reject(place, "%s: the machine `%s` does not exist for %s; use %s", place.title, profile.machine,
			profile.arch, table.concat(sorted_keys(fitting), ", "))
	end
end

local function check_profile(t, place, name)
	if place.type ~= "table" then
		expected(place, "a table")
	end
	check_name(name, place, "profile")
	place.title = ("the profile `%s`"):format(name)
	place.out = build_directory(t, place, name)
	local profile = check_table(t, place, PROFILE_KEYS)
	if profile.kernel and profile.root then
		reject(place, "%s has both `kernel` and `root`: keep one", place.title)
	elseif not profile.cmdline and not profile.cmdline_file then
		reject(place, "%s needs `cmdline` or `cmdline_file`: write, for instance, cmdline = \"quiet\"",
			place.title)
	elseif (profile.build_inputs or profile.build_out) and not profile.build then
		reject(place, "%s has `%s` without `build`, the command that uses it", place.title,
			profile.build_inputs and "build_inputs" or "build_out")
	end
	check_machine(profile, place)
	if profile.build then
		profile.build = profile.build:gsub("{out}", (place.out:gsub("%%", "%%%%")))
	end
	profile.name, profile.dir, profile.build_out = name, place.dir, place.out
	profile.source, profile.place = t, place
	profile.accel = profile.accel or "auto"
	profile.guest_os = profile.guest_os or "linux"
	profile.memory = profile.memory or 512 * 1048576
	profile.cpus = profile.cpus or 1
	profile.disks = profile.disks or {}
	if profile.inject_agent == nil then
		profile.inject_agent = true
	end
	return profile
end

-- ---- what may have to wait for the build ----

-- The kernels below a directory tree, as distributions place them, sorted by version. One that lies in both
-- places counts once.
local function kernels_in(root)
	local found, known = {}, {}
	local function add(version, path)
		if host.kind(path) == "file" and not known[version] then
			known[version] = true
			found[#found + 1] = path
		end
	end
	for _, version in ipairs(host.list(root .. "/usr/lib/modules") or {}) do
		local dir = root .. "/usr/lib/modules/" .. version
		for _, file in ipairs(host.list(dir) or {}) do
			if file:find("^vmlinuz") then
				add(version .. file:sub(#"vmlinuz" + 1), dir .. "/" .. file)
			end
		end
	end
	for _, file in ipairs(host.list(root .. "/boot") or {}) do
		local version = file:match("^vmlinuz%-(.+)")
		if version then
			add(version, root .. "/boot/" .. file)
		end
	end
	return found
end

local function find_kernel(profile)
	local root, place = profile.root, profile.place:child(profile.source, "root")
	if host.kind(root) ~= "directory" then
		reject(place, "`%s`: `%s` is not a directory", place.name, root)
	end
	local found = kernels_in(root)
	if #found == 0 then
		reject(place, "`%s`: no kernel in `%s`: there is neither usr/lib/modules/*/vmlinuz* nor "
			.. "boot/vmlinuz-*; set `kernel` instead", place.name, root)
	elseif #found > 1 then
		reject(place, "`%s`: %d kernels in `%s`, set `kernel` to one of: %s", place.name, #found, root,
			table.concat(found, ", "))
	end
	return found[1]
end

-- Joins the file's text and the inline text; adds the serial console that the host captures.
local function join_cmdline(profile)
	local parts = {}
	if profile.cmdline_file then
		local place = profile.place:child(profile.source, "cmdline_file")
		local text, message = host.read(profile.cmdline_file)
		if not text then
			reject(place, "`%s`: read `%s`: %s", place.name, profile.cmdline_file, message)
		elseif text:find("%z") then
			reject(place, "`%s`: `%s` is not a text file", place.name, profile.cmdline_file)
		end
		text = text:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")
		parts[#parts + 1] = text ~= "" and text or nil
	end
	if profile.cmdline and profile.cmdline ~= "" then
		parts[#parts + 1] = profile.cmdline
	end
	local line = table.concat(parts, " ")
	if not (" " .. line .. " "):find("%sconsole=ttyS0[%s,]") then
		line = line == "" and "console=ttyS0" or line .. " console=ttyS0"
	end
	return line
end

local function resolve(profile)
	if profile.root then
		profile.kernel = find_kernel(profile)
	end
	profile.full_cmdline = join_cmdline(profile)
end

-- ---- the file ----

local function open_file(path, dir)
	local text, message = host.read(path)
	if not text then
		error({ message = ("read `%s`: %s"):format(path, message) }, 0)
	end
	local t, info = toml.parse(text)
	if not t then
		error({ message = ("parse `%s`: line %d, column %d: %s"):format(path, info.line, info.column,
			info.message) }, 0)
	end
	return t, setmetatable({ file = path, dir = dir, info = info, type = "table" }, Place)
end

-- Adds one profile to those known so far.
local function add_profile(profiles, profile)
	local other = profiles[profile.name]
	if other then
		reject(profile.place, "the profile `%s` is already defined in `%s`%s", profile.name,
			other.place.file, other.place.line and (", line %d"):format(other.place.line) or "")
	end
	profiles[profile.name] = profile
end

-- Every subdirectory of from_dir that holds a profile.provium.toml is a profile.
local function add_directory(profiles, value, place)
	local dir = check.path(value, place)
	local names, message = host.list(dir)
	if not names then
		reject(place, "`%s`: read `%s`: %s", place.name, dir, message)
	end
	for _, name in ipairs(names) do
		local own = dir .. "/" .. name
		local path = own .. "/profile.provium.toml"
		if not name:find("^%.") and host.kind(path) then
			local t, root = open_file(path, own)
			add_profile(profiles, check_profile(t, root, name))
		end
	end
end

local function add_profiles(profiles, t, place)
	if place.type ~= "table" then
		expected(place, "a table")
	end
	for _, name in ipairs(sorted_keys(t)) do
		local child = place:child(t, name)
		if name == "from_dir" and child.type ~= "table" then
			add_directory(profiles, t[name], child)
		else
			add_profile(profiles, check_profile(t[name], child, name))
		end
	end
end

local PROVIUM_KEYS = {
	roots = list_of(check.path, "strings"), cache_dir = check.path, cache_max_size = check.size,
}

local TOP_KEYS = { provium = any, profile = any, profiles = any }

local function load(path, dir)
	local t, place = open_file(path, dir)
	check_table(t, place, TOP_KEYS)
	local config = {}
	if t.provium ~= nil then
		config = check_table(t.provium, place:child(t, "provium"), PROVIUM_KEYS)
		if config.roots and #config.roots == 0 then
			reject(place:child(t.provium, "roots"),
				"`provium.roots` is empty: name a directory or leave it out")
		end
	end
	local profiles = {}
	for _, key in ipairs({ "profile", "profiles" }) do
		if t[key] ~= nil then
			add_profiles(profiles, t[key], place:child(t, key))
		end
	end
	config.profiles = {}
	for i, name in ipairs(sorted_keys(profiles)) do
		local profile = profiles[name]
		config.profiles[i] = profile
		if not profile.build then
			resolve(profile)
		else
			profile.full_cmdline = join_cmdline({ cmdline = profile.cmdline })
		end
	end
	return config
end

-- Failures raised above are tables; anything else is a mistake of this file and goes on.
local function guarded(fn)
	return function(...)
		local ok, result = pcall(fn, ...)
		if ok then
			return result or true
		elseif type(result) == "table" then
			return nil, result.message
		end
		error(result, 0)
	end
end

return { load = guarded(load), resolve = guarded(resolve) }
