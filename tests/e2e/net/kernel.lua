-- What this host's kernel has of what the kernel backend needs.

local kernel = {}

-- Runs fn, which makes bridges of the kernel backend; where that cannot be, all tests are skipped with the reason.
function kernel.when_usable(fn)
	local ok, why = pcall(provium.bridge, provium, "probe", { backend = "kernel" })
	if not ok then
		todo(why)
		test("the kernel backend", function() end)
		return
	end
	local netem = pcall(provium.probe.add_latency, provium.probe, 1)
	provium.probe:close()
	fn(netem)
end

return kernel
