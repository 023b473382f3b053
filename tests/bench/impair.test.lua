-- How exact impairments are: latency, loss and rate that guests measure beside what was set. $PROVIUM_BENCH_BACKEND
-- chooses the backend (user).

local bench = require("bench")

local backend = os.getenv("PROVIUM_BENCH_BACKEND") or "user"
local lan = provium:bridge("lan", { backend = backend, seed = 1 })
local vms = {}

-- Round trips in milliseconds.
local function round_trips(from, to, n)
	local out = vms[from]:run(("ping -4 -c %d -i 0.05 -W 5 %s"):format(n, vms[to]:nic(lan):ip())):assert_ok().stdout
	local samples = {}
	for ms in out:gmatch("time=([%d.]+) ms") do
		samples[#samples + 1] = tonumber(ms)
	end
	return samples
end

local function latencies()
	local n = bench.count(100, 5)
	local base = bench.median(round_trips("a", "b", n))
	bench.report("impair: round trip without any", ("%.2f ms"):format(base), "p50")
	for _, ms in ipairs({ 10, 50, 200 }) do
		lan:add_latency(ms)
		local whole = round_trips("a", "b", n)
		lan:add_latency(0)
		bench.report(("impair: %d ms each way, round trip"):format(ms), ("%.2f ms"):format(bench.median(whole)),
			("error %+.2f ms (p95 %+.2f) of %d, beside that without any"):format(bench.median(whole) - 2 * ms - base,
				bench.quantile(whole, 0.95) - 2 * ms - base, 2 * ms))
		lan:add_latency({ from = "a", to = "b", ms = ms })
		local pair = bench.median(round_trips("a", "b", n))
		local others = { bench.median(round_trips("a", "c", n)), bench.median(round_trips("b", "c", n)) }
		lan:add_latency({ from = "a", to = "b", ms = 0 })
		bench.report(("impair: %d ms from a to b only, a-b, a-c, b-c"):format(ms),
			("%.2f ms"):format(pair), ("error %+.2f ms; %.2f ms, %.2f ms"):format(pair - ms - base, others[1], others[2]))
	end
end

-- Of what a sends and what gets to b, at their cards: a guest that is too busy to see an answer has lost nothing.
local function losses()
	local n = bench.count(5000, 100)
	local filter = { filter = "icmp[icmptype] == icmp-echo", snaplen = 60 }
	for _, pct in ipairs({ 1, 10, 50 }) do
		lan:drop_rate({ from = "a", to = "b", p = pct })
		local at_a, at_b = vms.a:nic(lan):capture(filter), vms.b:nic(lan):capture(filter)
		vms.a:run(("ping -4 -q -c %d -i 0.004 -W 2 %s"):format(n, vms.b:nic(lan):ip()), { timeout = 600 })
		local sent, got = #at_a:frames(1), #at_b:frames(1)
		at_a:close()
		at_b:close()
		lan:drop_rate({ from = "a", to = "b", p = 0 })
		local lost = 100 * (1 - got / sent)
		local sigma = 100 * math.sqrt(pct / 100 * (1 - pct / 100) / sent)
		bench.report(("impair: loss of %d %%"):format(pct), ("%.2f %%"):format(lost),
			("of %d packets; error %+.2f points, %.1f standard deviations"):format(sent, lost - pct,
				math.abs(lost - pct) / sigma))
	end
end

-- TCP for ten seconds and more: what the receiver gets in a time that starts when some has come.
local function rates()
	local seconds = bench.count(12, 2)
	for _, mbit in ipairs({ 1, 10 }) do
		lan:bandwidth_limit({ from = "a", to = "b", bps = mbit * 1000000 })
		local server = vms.b:run_async("nc -l -p 5002 >/tmp/poured")
		wait_until(function() return vms.b:run("netstat -ltn | grep -q :5002"):ok() end, { timeout = 30 })
		local client = vms.a:run_async("dd if=/dev/zero bs=64k count=4000 2>/dev/null | nc " ..
			vms.b:nic(lan):ip() .. " 5002")
		sleep(2)
		local from, start = vms.b:nic(lan):counters().rx_bytes, now_ns()
		sleep(seconds)
		local got, took = vms.b:nic(lan):counters().rx_bytes - from, (now_ns() - start) / 1e9
		client:kill()
		server:kill()
		lan:bandwidth_limit({ from = "a", to = "b", bps = 0 })
		local measured = got * 8 / took / 1e6
		bench.report(("impair: %d Mbit/s"):format(mbit), ("%.3f Mbit/s"):format(measured),
			("of frames, for %.0f s; error %+.2f %%"):format(took, 100 * (measured / mbit - 1)))
		sleep(2)
	end
end

test("impair", { timeout = "30m" }, function()
	for _, name in ipairs({ "a", "b", "c" }) do
		vms[name] = provium:vm(name, "bench")
	end
	lan:attach({ vms.a, vms.b, vms.c })
	provium:boot()
	for _, pair in ipairs({ { "a", "b" }, { "a", "c" }, { "b", "c" } }) do
		round_trips(pair[1], pair[2], 3)
	end
	latencies()
	losses()
	rates()
end)
