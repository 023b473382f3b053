# The host program: everything but main.c is one library, so that unit tests and fuzzers link it.

bin_PROGRAMS += provium
provium_SOURCES = src/main.c
provium_LDADD = $(LIBPROVIUM)

LIBPROVIUM = libprovium.a $(LUA_LIBS) $(EVENT_LIBS) $(MSGPACK_LIBS) $(JANSSON_LIBS) $(ARCHIVE_LIBS) $(NETTLE_LIBS) -lm
AM_CPPFLAGS += $(LUA_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS) $(ARCHIVE_CFLAGS) $(NETTLE_CFLAGS)

noinst_LIBRARIES += libprovium.a
nodist_libprovium_a_SOURCES = src/embed.c
libprovium_a_SOURCES = \
	agent/protocol.h \
	agent/wire.c \
	agent/wire.h \
	src/loop/child.c \
	src/loop/embed.h \
	src/loop/err.c \
	src/loop/framed.c \
	src/loop/helper.c \
	src/loop/log.c \
	src/loop/loop.c \
	src/loop/loop.h \
	src/loop/luacompat.c \
	src/loop/luacompat.h \
	src/loop/outfile.c \
	src/loop/runqueue.h \
	src/loop/scope.c \
	src/loop/state.c \
	src/loop/task.c \
	src/loop/task.h \
	src/loop/wait.c \
	src/ops/args.c \
	src/ops/args.h \
	src/ops/core.c \
	src/ops/host.c \
	src/ops/latch.c \
	src/ops/openers.h \
	src/ops/ops.h \
	src/ops/scope.c \
	src/ops/sleep.c \
	src/ops/task.c \
	src/vmm/agent.c \
	src/vmm/agent.h \
	src/vmm/agentbody.c \
	src/vmm/agentcall.c \
	src/vmm/agentcall.h \
	src/vmm/vmm.h
