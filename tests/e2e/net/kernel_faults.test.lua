-- What goes wrong on a bridge, on the kernel backend, as far as this host's kernel has it.

local kernel = require("net.kernel")

kernel.when_usable(function(netem)
	require("net.faults")("kernel", netem)
end)
