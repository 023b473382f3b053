-- What the benchmarks share: statistics, interleaved runs, and the line format that tests/bench/run prints.

local bench = {}

bench.quick = os.getenv("PROVIUM_BENCH_QUICK") == "1"
bench.tools = os.getenv("PROVIUM_BENCH_TOOLS")

-- How often, or how much: a quick run shows that a benchmark works, not how fast anything is.
function bench.count(full, quick)
	return bench.quick and quick or full
end

function bench.need_tools()
	if not bench.tools then
		error("PROVIUM_BENCH_TOOLS is not set: start benchmarks with tests/bench/run", 0)
	end
end

-- The value below which the share p of the samples lies.
function bench.quantile(samples, p)
	local sorted = {}
	for i, v in ipairs(samples) do
		sorted[i] = v
	end
	table.sort(sorted)
	return sorted[math.max(1, math.ceil(p * #sorted))]
end

function bench.median(samples)
	return bench.quantile(samples, 0.5)
end

-- The median of pairwise ratios: noise that lasts longer than one pair of runs cancels out.
function bench.ratio(a, b)
	local ratios = {}
	for i = 1, math.min(#a, #b) do
		ratios[i] = a[i] / b[i]
	end
	return bench.median(ratios)
end

function bench.milliseconds(ns)
	return ("%.2f ms"):format(ns / 1e6)
end

-- One line of the result: what was measured, its value, what that is compared with.
function bench.report(name, value, note)
	local path = os.getenv("PROVIUM_BENCH_OUT")
	local line = table.concat({ name, tostring(value), note or "" }, "\t") .. "\n"
	if not path then
		io.stderr:write(line)
		return
	end
	local f = assert(io.open(path, "a"))
	f:write(line)
	f:close()
end

-- p50 and p95 of samples in nanoseconds.
function bench.report_latency(name, samples, note)
	bench.report(name .. " p50", bench.milliseconds(bench.median(samples)), note)
	bench.report(name .. " p95", bench.milliseconds(bench.quantile(samples, 0.95)), note)
end

-- Appends the duration of each of n calls of fn to samples.
function bench.time_calls(samples, n, fn)
	for _ = 1, n do
		local start = now_ns()
		fn()
		samples[#samples + 1] = now_ns() - start
	end
end

-- Goes round through the functions, so that a slow minute of the host hits all of them.
function bench.interleave(rounds, ...)
	for round = 1, rounds do
		for i = 1, select("#", ...) do
			(select(i, ...))(round)
		end
	end
end

function bench.read(path)
	local f = io.open(path, "rb")
	local text = f and f:read("a")
	if f then
		f:close()
	end
	return text
end

function bench.write(path, text)
	local f = assert(io.open(path, "wb"))
	f:write(text)
	f:close()
end

-- User and system time of a process so far, in seconds (in ticks of 10 ms).
function bench.cpu_seconds(pid)
	local stat = bench.read("/proc/" .. pid .. "/stat")
	local utime, stime = stat:match("^.*%) %S+" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
	return (tonumber(utime) + tonumber(stime)) / 100
end

-- A process's command line.
function bench.argv(pid)
	local argv = {}
	for word in bench.read("/proc/" .. pid .. "/cmdline"):gmatch("([^%z]*)%z") do
		argv[#argv + 1] = word
	end
	return argv
end

-- A field of /proc/PID/status or smaps_rollup in MiB.
function bench.memory_mib(pid, file, field)
	local text = bench.read("/proc/" .. pid .. "/" .. file) or ""
	return (tonumber(text:match(field .. ":%s*(%d+) kB")) or 0) / 1024
end

return bench
