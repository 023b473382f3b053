-- What is in a capture: stream:frames() takes pcap bytes apart, frame by frame, on the host.

local core = ...

local Stream = core.Stream
local raise = core.raise
local length, take, peek, more = core.stream_length, core.stream_take, core.stream_peek, core.stream_more

local GLOBAL, RECORD = 24, 16		-- bytes of pcap's headers
local MAGIC_US, MAGIC_NS = 0xa1b2c3d4, 0xa1b23c4d

local header = setmetatable({}, { __mode = "k" })	-- of each capture stream: how its numbers are written

local function unsigned(s, at, n)
	local v = 0
	for i = at, at + n - 1 do
		v = v * 256 + (s:byte(i) or 0)
	end
	return v
end

local function mac(s, at)
	return ("%02x:%02x:%02x:%02x:%02x:%02x"):format(s:byte(at, at + 5))
end

local function bits(n, bit)
	return math.floor(n / bit) % 2 == 1
end

local FLAGS = { { 1, "fin" }, { 2, "syn" }, { 4, "rst" }, { 8, "psh" }, { 16, "ack" }, { 32, "urg" } }
local decode_payload = {}

-- TCP
decode_payload[6] = function(f, data, at)
	if #data < at + 19 then
		return
	end
	local flags = {}
	for _, flag in ipairs(FLAGS) do
		flags[flag[2]] = bits(data:byte(at + 13), flag[1]) or nil
	end
	f.tcp = { src_port = unsigned(data, at, 2), dst_port = unsigned(data, at + 2, 2), seq = unsigned(data, at + 4, 4),
		ack = unsigned(data, at + 8, 4), flags = flags }
	f.payload = data:sub(at + math.floor(data:byte(at + 12) / 16) * 4, f.ip_end)
end

-- UDP
decode_payload[17] = function(f, data, at)
	if #data < at + 7 then
		return
	end
	f.udp = { src_port = unsigned(data, at, 2), dst_port = unsigned(data, at + 2, 2) }
	f.payload = data:sub(at + 8, f.ip_end)
end

local function icmp(f, data, at)
	if #data < at + 3 then
		return
	end
	f.icmp = { type = data:byte(at), code = data:byte(at + 1), id = unsigned(data, at + 4, 2),
		seq = unsigned(data, at + 6, 2) }
	f.payload = data:sub(at + 8, f.ip_end)
end

decode_payload[1], decode_payload[58] = icmp, icmp

local decode_type = {}

decode_type[0x0800] = function(f, data, at)
	if #data < at + 19 then
		return
	end
	local words = data:byte(at) % 16
	f.ip = { version = 4, src = core.ip_format(data:sub(at + 12, at + 15)),
		dst = core.ip_format(data:sub(at + 16, at + 19)), protocol = data:byte(at + 9), ttl = data:byte(at + 8) }
	f.ip_end = at + unsigned(data, at + 2, 2) - 1
	local decode = decode_payload[f.ip.protocol]
	if decode and unsigned(data, at + 6, 2) % 8192 == 0 then	-- not a later fragment
		decode(f, data, at + words * 4)
	end
end

decode_type[0x86dd] = function(f, data, at)
	if #data < at + 39 then
		return
	end
	f.ip = { version = 6, src = core.ip_format(data:sub(at + 8, at + 23)),
		dst = core.ip_format(data:sub(at + 24, at + 39)), protocol = data:byte(at + 6), ttl = data:byte(at + 7) }
	f.ip_end = at + 39 + unsigned(data, at + 4, 2)
	local decode = decode_payload[f.ip.protocol]
	if decode then
		decode(f, data, at + 40)
	end
end

decode_type[0x0806] = function(f, data, at)
	if #data < at + 27 then
		return
	end
	f.arp = { op = unsigned(data, at + 6, 2) == 1 and "request" or "reply",
		src = core.ip_format(data:sub(at + 14, at + 17)), dst = core.ip_format(data:sub(at + 24, at + 27)) }
end

local function decode_frame(f)
	local data, at = f.data, 15
	if #data < 14 then
		return f
	end
	f.dst, f.src, f.ethertype = mac(data, 1), mac(data, 7), unsigned(data, 13, 2)
	if f.ethertype == 0x8100 and #data >= 18 then
		f.vlan, f.ethertype, at = unsigned(data, 15, 2) % 4096, unsigned(data, 17, 2), 19
	end
	local decode = decode_type[f.ethertype]
	if decode then
		decode(f, data, at)
		f.ip_end = nil
	end
	return f
end

-- What a number of 4 bytes at `at` is.
local function number(h, s, at)
	return unsigned(h.swapped and s:sub(at, at + 3):reverse() or s:sub(at, at + 3), 1, 4)
end

-- The header of the whole capture, if it has come.
local function read_header(s)
	if header[s] or length(s) < GLOBAL then
		return header[s]
	end
	local text = take(s, GLOBAL)
	local h = { swapped = false }
	local magic = number(h, text, 1)
	if magic ~= MAGIC_US and magic ~= MAGIC_NS then
		h.swapped = true
		magic = number(h, text, 1)
	end
	if magic ~= MAGIC_US and magic ~= MAGIC_NS then
		raise("stream:frames: what comes next is no pcap header: some of the capture was read by other means")
	end
	h.unit = magic == MAGIC_NS and 1e9 or 1e6
	header[s] = h
	return h
end

local function read_frame(s, h)
	if length(s) < RECORD then
		return nil
	end
	local record = peek(s, 0, RECORD)
	local n = number(h, record, 9)
	if length(s) < RECORD + n then
		return nil
	end
	take(s, RECORD)
	return decode_frame({ time = number(h, record, 1) + number(h, record, 5) / h.unit, length = number(h, record, 13),
		data = take(s, n) })
end

-- The frames that come until none has come for `timeout`.
function Stream.frames(s, timeout)
	if core.stream_kind(s) ~= "capture" then
		raise(("stream:frames: this is a stream of a %s, not a capture"):format(core.stream_kind(s)))
	end
	local quiet = timeout == nil and 0.5 or core.parse_duration(timeout, "stream:frames: timeout")
	local list = {}
	while true do
		local h = read_header(s)
		local frame = h and read_frame(s, h)
		if frame then
			list[#list + 1] = frame
		elseif more(s, length(s), "frames of a capture", quiet) ~= "data" then
			return list
		end
	end
end
