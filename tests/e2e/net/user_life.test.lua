-- Bridges and cards on the user backend.

require("net.life")("user")
