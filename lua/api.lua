-- Installs every global of a test file; returns the framework: run(chunk) runs a loaded file and its tests,
-- cleanup(reason) ends what a cancelled run has left.

local core = ...

core.embedded("compat")
core.set_run_result(core.embedded("result", core))
core.embedded("modules", core)
core.embedded("host", core)
core.embedded("files", core)
core.embedded("stream", core)
core.embedded("process", core)
local remote = core.embedded("remote", core)
core.embedded("power", core, remote)
core.embedded("file", core, remote)
core.embedded("worker", core, remote)
core.embedded("clock", core, remote)
core.embedded("batch", core, remote, core.embedded("syscall", core, remote))
core.embedded("snapshot", core)
core.remote = remote
local network = core.embedded("bridge", core, remote)
core.embedded("netnames", core, remote, network)
core.embedded("impair", core, network)
core.embedded("attach", core, remote, network)
core.embedded("nic", core, remote, network)
core.embedded("pcap", core)
core.embedded("lab", core, network)
core.embedded("labsnapshot", core)
core.embedded("labrestore", core)
core.embedded("labnetworks", core, network)
core.embedded("fixtures", core)
local framework = core.embedded("framework", core)

now, now_ns, sleep = core.now, core.now_ns, core.sleep
json, msgpack = core.json(), core.msgpack()
framework.install(_G)

return framework
