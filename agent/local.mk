# The guest agent: static, without sanitizers, and the initramfs overlay that carries it.

pkglibexec_PROGRAMS += provium-agent

provium_agent_SOURCES = \
	agent/agent.c \
	agent/agent.h \
	agent/arena.c \
	agent/arena.h \
	agent/args.c \
	agent/args.h \
	agent/batch.c \
	agent/buf.c \
	agent/buf.h \
	agent/call.c \
	agent/call.h \
	agent/clock.c \
	agent/conn.c \
	agent/conn.h \
	agent/ev.c \
	agent/ev.h \
	agent/exec.c \
	agent/executor.c \
	agent/executor.h \
	agent/file.c \
	agent/file.h \
	agent/frame.c \
	agent/frame.h \
	agent/fs.c \
	agent/hosts.c \
	agent/hosts.h \
	agent/init.c \
	agent/job.c \
	agent/job.h \
	agent/launch.c \
	agent/launch.h \
	agent/local.c \
	agent/main.c \
	agent/memory.c \
	agent/module.c \
	agent/module.h \
	agent/mux.c \
	agent/mux.h \
	agent/muxops.c \
	agent/netconf.c \
	agent/ops.c \
	agent/ops.h \
	agent/peer.c \
	agent/process.c \
	agent/process.h \
	agent/protocol.h \
	agent/rawcall.c \
	agent/rawcall.h \
	agent/rtnl.c \
	agent/rtnl.h \
	agent/sink.c \
	agent/sink.h \
	agent/syscall.c \
	agent/tail.c \
	agent/transfer.c \
	agent/transport.c \
	agent/user.c \
	agent/user.h \
	agent/wire.c \
	agent/wire.h
provium_agent_CFLAGS = -std=gnu11 $(PROVIUM_WARN)
provium_agent_LDFLAGS = -static
provium_agent_LDADD = $(MSGPACK_LIBS)

# Reproducible: fixed owner, times, inode numbers and member order; no name or time in the gzip header.
OVERLAY = dist/agent-overlay.cpio.gz
pkgdata_DATA = $(OVERLAY)
CLEANFILES += $(OVERLAY)

$(OVERLAY): provium-agent$(EXEEXT)
	$(AM_V_GEN)rm -rf dist/overlay && $(MKDIR_P) dist/overlay/sbin && \
	cp provium-agent$(EXEEXT) dist/overlay/sbin/provium-agent && \
	$(STRIP) dist/overlay/sbin/provium-agent && chmod 0755 dist/overlay/sbin dist/overlay/sbin/provium-agent && \
	(cd dist/overlay && touch -h -d @0 sbin/provium-agent sbin && \
	 printf 'sbin\nsbin/provium-agent\n' | $(CPIO) --quiet --reproducible -o -H newc -R 0:0) \
		| $(GZIP_PROG) -9 -n >$@.tmp && mv -f $@.tmp $@ && rm -rf dist/overlay
