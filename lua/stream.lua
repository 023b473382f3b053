-- Stream: next, read_until, read_line, expect, match and drain, over what src/ops/stream.c buffers.
--
-- Nothing received is ever lost: bytes stay buffered until a call returns them.

local core = ...

local Stream = core.Stream
local raise = core.raise
local length, peek, take, find = Stream.length, Stream.peek, Stream.take, Stream.find
local more, failure, is_open = Stream.more, Stream.failure, Stream.is_open
core.stream_length, core.stream_take, core.stream_peek, core.stream_more = length, take, peek, more
core.stream_kind, core.stream_is_open = Stream.kind, is_open

-- Not for tests: only what lua.md names stays a method.
for _, name in ipairs({ "length", "peek", "take", "find", "more", "failure", "is_open" }) do
	Stream[name] = nil
end

local DEFAULT_TIMEOUT = 10
local SHOWN_TAIL = 200

local function deadline(timeout, default, what)
	local seconds = timeout == nil and default or core.parse_duration(timeout, what)
	return { seconds = seconds, at = core.now() + seconds }
end

local function left(limit)
	return math.max(0, limit.at - core.now())
end

local function check_text(what, text)
	if type(text) ~= "string" then
		raise(("expected %s(string [, timeout]), got a %s as argument 1"):format(what, type(text)))
	end
end

local function too_long(what, limit, wanted, s)
	local have = length(s)
	local n = math.min(have, SHOWN_TAIL)
	raise(("%s timed out after %gs waiting for `%s`; last %d bytes: %s"):format(what, limit.seconds, wanted, n,
		peek(s, have - n, n)))
end

local function ended(what, wanted, s)
	local why = failure(s)
	if why then
		raise(("%s for `%s`: %s"):format(what, wanted, why))
	end
	raise("stream EOF")
end

-- Waits for more than `have` buffered bytes; raises when there will be none in time.
local function need_more(s, what, have, limit, wanted)
	local outcome = more(s, have, ("%s of `%s` on a stream"):format(what, wanted), left(limit))
	if outcome == "timeout" then
		too_long(what, limit, wanted, s)
	elseif outcome == "eof" then
		ended(what, wanted, s)
	elseif outcome == "closed" then
		raise("stream closed")
	end
end

-- Everything up to and with `text`.
local function read_through(s, what, text, timeout)
	check_text("stream:" .. what, text)
	local limit = deadline(timeout, DEFAULT_TIMEOUT, "stream:" .. what .. ": timeout")
	local from = 0
	while true do
		local pos = find(s, text, from)
		if pos then
			return take(s, pos + #text)
		end
		local have = length(s)
		from = math.max(0, have - #text + 1)	-- a match may straddle chunks
		need_more(s, what, have, limit, text)
	end
end

function Stream.next(s, timeout)
	local limit = deadline(timeout, DEFAULT_TIMEOUT, "stream:next: timeout")
	if length(s) == 0 then
		local outcome = more(s, 0, "the next bytes of a stream", left(limit))
		if outcome == "closed" then
			raise("stream closed")
		elseif outcome ~= "data" then
			local why = outcome == "eof" and failure(s)
			return why and raise(why) or nil
		end
	end
	return take(s, length(s))
end

function Stream.read_until(s, text, timeout)
	return read_through(s, "read_until", text, timeout)
end

function Stream.expect(s, text, timeout)
	return read_through(s, "expect", text, timeout)
end

-- A line without its end; the last one need not have one; nil at EOF.
function Stream.read_line(s, timeout)
	local limit = deadline(timeout, DEFAULT_TIMEOUT, "stream:read_line: timeout")
	local from = 0
	while true do
		local pos = find(s, "\n", from)
		if pos then
			return (take(s, pos + 1):gsub("\r?\n$", ""))
		end
		from = length(s)
		local outcome = more(s, from, "a line of a stream", left(limit))
		if outcome == "timeout" then
			too_long("read_line", limit, "\\n", s)
		elseif outcome == "closed" then
			raise("stream closed")
		elseif outcome == "eof" then
			local why = failure(s)
			if why then
				raise(why)
			end
			return from > 0 and take(s, from) or nil
		end
	end
end

function Stream.match(s, pattern, timeout)
	check_text("stream:match", pattern)
	local limit = deadline(timeout, DEFAULT_TIMEOUT, "stream:match: timeout")
	while true do
		local have = length(s)
		local text = peek(s, 0, have)
		local found = table.pack(text:find(pattern))
		if found[1] then
			take(s, found[2])
			if found.n == 2 then
				return text:sub(found[1], found[2])
			end
			return table.unpack(found, 3, found.n)
		end
		need_more(s, "match", have, limit, pattern)
	end
end

-- What comes until nothing has come for `timeout`, as an array of chunks.
function Stream.drain(s, timeout)
	local quiet = timeout == nil and 0.5 or core.parse_duration(timeout, "stream:drain: timeout")
	local chunks = {}
	while true do
		if length(s) > 0 then
			chunks[#chunks + 1] = take(s, length(s))
		end
		if more(s, 0, "a stream to be drained", quiet) ~= "data" then
			return chunks
		end
	end
end
