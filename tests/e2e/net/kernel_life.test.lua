-- Bridges and cards on the kernel backend.

require("net.kernel").when_usable(function()
	require("net.life")("kernel")
end)
