-- What goes wrong on a bridge, on the user backend.

require("net.faults")("user", true)
