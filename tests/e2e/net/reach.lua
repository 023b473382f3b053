-- What the suites of networks share: who reaches whom, and flows that go on.

local reach = {}

-- Whether `from` gets an answer from `to`, in a few tries.
function reach.can(from, to, six)
	return from:run(("ping %s -c 3 -W 2 -i 0.3 %s"):format(six and "-6" or "-4", to)):ok()
end

-- One that must not be answered: one try, long enough for any answer.
function reach.cannot(from, to, six)
	return not from:run(("ping %s -c 2 -W 2 -i 0.5 %s"):format(six and "-6" or "-4", to)):ok()
end

-- A TCP connection whose other end sends everything back. flow.say(text) waits for it to come back.
function reach.flow(from, to, name, port, six)
	local server = to:run_async(("nc -l -p %d -e cat"):format(port))
	wait_until(function()
		return to:run(("netstat -ltn%s | grep ':%d '"):format(six and "6" or "", port)):ok()
			or to:run(("netstat -ltn | grep ':%d '"):format(port)):ok()
	end, { timeout = 30, desc = "the server to listen" })
	local client = from:run_async("nc", { args = { name, tostring(port) } })
	local out = client:stdout_stream()
	local flow = { client = client, server = server, out = out }

	function flow.send(text)
		client:stdin_write(text .. "\n")
	end

	function flow.hears(text, timeout)
		return out:expect(text .. "\n", timeout or 60)
	end

	function flow.say(text)
		flow.send(text)
		flow.hears(text)
	end

	function flow.silent(seconds)
		return out:next(seconds) == nil
	end

	function flow.close()
		client:kill()
		server:kill()
	end
	return flow
end

return reach
