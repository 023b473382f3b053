-- Computes without a pause when neighbour.test.lua says so; see there.

local bench = require("bench")

local function phase()
	return bench.read(bench.tools .. "/phase")
end

test("spin", { timeout = "10m" }, function()
	bench.need_tools()
	while phase() ~= "end" do
		if phase() ~= "spin" then
			sleep(0.05)
		end
		local stop = now() + 0.05
		while phase() == "spin" and now() < stop do
			for _ = 1, 1000000 do end
		end
	end
end)
