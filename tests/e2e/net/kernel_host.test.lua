-- Routes on the kernel backend.

require("net.kernel").when_usable(function()
	require("net.host")("kernel")
end)
