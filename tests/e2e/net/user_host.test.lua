-- Routes on the user backend.

require("net.host")("user")
