-- A module that waits while it loads.

sleep(0.05)

return { value = "waited" }
