-- Directories of the host for the tests of snapshots: made anew, gone at the test's end.

local nested = require("nested")

local places = {}

-- A new directory; t removes it at its end.
function places.dir(t)
	local dir = nested.directory()
	t:defer(function() os.execute("rm -rf " .. dir) end)
	return dir
end

-- What is in a directory, one line.
function places.list(dir)
	return nested.shell("ls -A " .. dir .. " | tr '\\n' ' '")
end

-- A copy of a snapshot that a test may damage.
function places.copy(t, snap)
	local copy = places.dir(t) .. "/copy.snap"
	os.execute(("cp -r --sparse=always '%s' %s"):format(snap:path(), copy))
	return copy
end

function places.sha256(path)
	return (nested.shell("sha256sum < '" .. path .. "'"):match("^%x+"))
end

-- Runs a shell command on the host, which must succeed.
function places.sh(command)
	local ok, how, code = os.execute(command)
	if not ok then
		error(("`%s`: %s %s"):format(command, tostring(how), tostring(code)), 2)
	end
end

return places
