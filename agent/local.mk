# The guest agent: static, without sanitizers, and the initramfs overlay that carries it.

pkglibexec_PROGRAMS += provium-agent

provium_agent_SOURCES = \
	agent/protocol.h \
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
