-- Captures on the kernel backend.

require("net.kernel").when_usable(function()
	require("net.captures")("kernel")
end)
