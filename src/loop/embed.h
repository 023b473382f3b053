/*
 * The Lua sources of lua/, as the build turns them into C arrays (build-aux/embed.sh writes src/embed.c).
 */
#ifndef PROVIUM_EMBED_H
#define PROVIUM_EMBED_H

#include <stddef.h>

struct embedded {
	const char *name;	/* "framework" for lua/framework.lua */
	const char *data;	/* followed by a NUL that len does not count */
	size_t len;
};

/* In the order of lua/local.mk; ends with a NULL name. */
extern const struct embedded embedded_lua[];

#endif
