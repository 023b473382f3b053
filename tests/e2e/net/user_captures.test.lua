-- Captures on the user backend.

require("net.captures")("user")
