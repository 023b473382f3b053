-- Runs a suite of its own with a provium of its own, in a directory and a $TMPDIR of its own: on real VMs with
-- the profiles and the guest images of this tree, or with --vmm local and nothing of the outer world.

local nested = {}
local Run = {}
Run.__index = Run

local function shell(command)
	local p = io.popen(command)
	local text = p:read("*a"):gsub("\n$", "")
	p:close()
	return text
end

nested.shell = shell

-- A new directory. Never "", which would be the root.
function nested.directory()
	local dir = shell("mktemp -d")
	assert(dir:sub(1, 1) == "/", "mktemp -d has made no directory")
	return dir
end

-- The program that runs this test, unless the environment names another.
local binary = os.getenv("PROVIUM_BIN") or shell("readlink /proc/$PPID/exe")
nested.binary = binary
local here = debug.getinfo(1, "S").source:match("^@(.*)/tests/e2e/nested%.lua$")
local tree = shell(("cd '%s' && pwd"):format(here))

function nested.read(path)
	local f = io.open(path, "rb")
	local text = f and f:read("*a")
	if f then
		f:close()
	end
	return text
end

function nested.write(path, text)
	local f = assert(io.open(path, "wb"))
	f:write(text)
	f:close()
end

function nested.exists(path)
	local f = io.open(path, "rb")
	if f then
		f:close()
	end
	return f ~= nil
end

-- Whether a process lives; one that was killed and is not reaped yet does not.
function nested.alive(pid)
	local stat = nested.read(("/proc/%d/stat"):format(pid))
	local state = stat and stat:match(".*%) (%a)")
	return state ~= nil and state ~= "Z" and state ~= "X"
end

function nested.wait_dead(pids, timeout)
	wait_until(function()
		for _, pid in ipairs(pids) do
			if nested.alive(pid) then
				return false
			end
		end
		return true
	end, { timeout = timeout, interval = 0.02, desc = "the end of processes " .. table.concat(pids, " ") })
end

local function make(t, files, toml)
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	os.execute(("mkdir %s/tmp"):format(dir))
	nested.write(dir .. "/provium.toml", toml)
	for name, text in pairs(type(files) == "string" and { ["x.test.lua"] = files } or files) do
		nested.write(dir .. "/" .. name, text)
	end
	return dir
end

-- Makes a suite: files is one file's text or name -> text; profiles is more text for provium.toml. Its paths
-- are the tree's own, so the images that are built already are used. Returns the directory.
function nested.suite(t, files, profiles)
	local toml = nested.read(tree .. "/provium.toml"):gsub("roots = %b[]", 'roots = ["."]')
	local dir = make(t, files, toml .. "\n" .. (profiles or ""))
	os.execute(("ln -s '%s/fixtures' %s/fixtures"):format(tree, dir))
	return dir
end

-- Starts provium in a suite's directory. t's end kills it if it still runs. environment: more of it, "A=1 B=2".
function nested.start(dir, flags, environment)
	local run = setmetatable({ dir = dir }, Run)
	os.remove(dir .. "/pid")
	run.task = co.spawn(function()
		local _, how, code = os.execute(("cd %s && echo $$ >pid.new && mv pid.new pid && "
			.. "exec env -u PROVIUM_LOG TMPDIR=%s/tmp PROVIUM_RERUN_STATE=%s/rerun.json NO_COLOR=1 "
			.. "%s '%s' %s >out 2>err </dev/null"):format(dir, dir, dir, environment or "", binary, flags or "-v"))
		run.ended = now()
		return { dir = dir, how = how, status = code, out = nested.read(dir .. "/out"), err = nested.read(dir .. "/err") }
	end)
	return run
end

-- Waits for its end: {how = "exit" or "signal", status, out, err}.
function Run:join(timeout)
	return self.task:join(timeout)
end

function Run:pid()
	self.number = self.number or tonumber(wait_until(function() return nested.read(self.dir .. "/pid") end,
		{ desc = "the start of the nested provium" }))
	return self.number
end

function Run:signal(name)
	os.execute(("kill -%s %d"):format(name, self:pid()))
end

-- Waits for a file that the nested suite writes into its directory, and returns its text.
function Run:wait_file(name, timeout)
	return wait_until(function()
		if self.task:status() ~= "running" then
			local r = self:join()
			error(("the nested run ended before it wrote %s: status %s\n%s%s"):format(name, r.status, r.out, r.err), 0)
		end
		return nested.read(self.dir .. "/" .. name)
	end, { timeout = timeout or 60, desc = name .. " of the nested suite" })
end

-- suite, start and join in one.
function nested.run(t, files, flags, profiles)
	return nested.start(nested.suite(t, files, profiles), flags):join()
end

-- Where the images of the profile `guest` are; a file that uses this names that profile, so they are built.
function nested.images()
	local builds = os.getenv("PROVIUM_BUILD_DIR")
		or (os.getenv("XDG_CACHE_HOME") or os.getenv("HOME") .. "/.cache") .. "/provium/builds"
	return builds .. "/guest"
end

-- The same for a suite that needs no VM, with a home of its own. profiles is all that its provium.toml has.
function nested.run_local(t, files, flags, profiles)
	local dir = make(t, files, '[provium]\nroots = ["."]\n' .. (profiles or ""))
	return nested.start(dir, "--vmm local " .. (flags or "-v"), ("HOME=%s XDG_CACHE_HOME=%s/cache"):format(dir, dir)):join()
end

-- The same for one test whose body is text; asserts that it fails with this reason.
function nested.fails(t, body, reason)
	local r = nested.run_local(t, 'test("x", function(t)\n' .. body .. "\nend)")
	t:assert_eq(r.status, 1, "status")
	t:assert_contains(r.out, "FAIL x.test.lua (0 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "FAIL x\n")
	t:assert_contains(r.out, reason)
	return r
end

-- Text that a nested suite starts with: write(name, text), exists(name) in its directory.
nested.prelude = [[
local function write(name, text)
	local f = assert(io.open(name .. ".new", "wb")) f:write(text) f:close() assert(os.rename(name .. ".new", name))
end
local function exists(name) local f = io.open(name, "rb") if f then f:close() end return f ~= nil end
]]

-- The process ids that a nested suite wrote into one file, a line each.
function nested.pids(text)
	local list = {}
	for word in text:gmatch("%d+") do
		list[#list + 1] = tonumber(word)
	end
	return list
end

return nested
