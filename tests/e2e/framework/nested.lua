-- Runs a small suite with a provium of its own, in a directory of its own.

local nested = {}

local binary = os.getenv("PROVIUM_BIN") or "provium"

local function shell(command)
	local p = io.popen(command)
	local text = p:read("a")
	p:close()
	return text
end

local function read(path)
	local f = assert(io.open(path, "rb"))
	local text = f:read("*a")
	f:close()
	return text
end

local function write(path, text)
	local f = assert(io.open(path, "wb"))
	f:write(text)
	f:close()
end

-- files: one suite's text, or name -> text. Returns {status, out, err}; status is the exit code.
function nested.run(t, files, flags)
	local dir = shell("mktemp -d"):gsub("\n$", "")
	t:defer(function() os.execute("rm -rf " .. dir) end)
	write(dir .. "/provium.toml", '[provium]\nroots = ["."]\n')
	for name, text in pairs(type(files) == "string" and { ["x.test.lua"] = files } or files) do
		write(dir .. "/" .. name, text)
	end
	local environment = ("HOME=%s XDG_CACHE_HOME=%s/cache PROVIUM_RERUN_STATE=%s/rerun.json NO_COLOR=1"):format(dir, dir, dir)
	local _, _, status = os.execute(("cd %s && %s '%s' --vmm local %s >out 2>err </dev/null"):format(dir, environment,
		binary, flags or "-v"))
	return { status = status, out = read(dir .. "/out"), err = read(dir .. "/err") }
end

-- The same for one test whose body is text; asserts that it fails with this reason.
function nested.fails(t, body, reason)
	local r = nested.run(t, 'test("x", function(t)\n' .. body .. "\nend)")
	t:assert_eq(r.status, 1, "status")
	t:assert_contains(r.out, "FAIL x.test.lua (0 passed, 1 failed, 0 skipped)")
	t:assert_contains(r.out, "FAIL x\n")
	t:assert_contains(r.out, reason)
	return r
end

return nested
