# Lua that is embedded into the binary.

LUA_FILES = \
	lua/address.lua \
	lua/api.lua \
	lua/asserts.lua \
	lua/attach.lua \
	lua/batch.lua \
	lua/bridge.lua \
	lua/clock.lua \
	lua/compat.lua \
	lua/config.lua \
	lua/file.lua \
	lua/files.lua \
	lua/fixtures.lua \
	lua/framework.lua \
	lua/host.lua \
	lua/impair.lua \
	lua/lab.lua \
	lua/labnetworks.lua \
	lua/labrestore.lua \
	lua/labsnapshot.lua \
	lua/modules.lua \
	lua/netnames.lua \
	lua/nic.lua \
	lua/pcap.lua \
	lua/power.lua \
	lua/process.lua \
	lua/registry.lua \
	lua/remote.lua \
	lua/result.lua \
	lua/shim.lua \
	lua/show.lua \
	lua/snapshot.lua \
	lua/stream.lua \
	lua/syscall.lua \
	lua/tasks.lua \
	lua/toml.lua \
	lua/worker.lua

EXTRA_DIST += $(LUA_FILES)
CLEANFILES += src/embed.c

src/embed.c: $(LUA_FILES) build-aux/embed.sh
	$(AM_V_GEN)$(MKDIR_P) src; cd $(srcdir) && sh build-aux/embed.sh $(LUA_FILES) \
		>$(abs_builddir)/$@.tmp && mv -f $(abs_builddir)/$@.tmp $(abs_builddir)/$@
