/*
 * What one Lua source names in literals: modules, fixtures, profiles and files of the host.
 */
#ifndef PROVIUM_RUN_REFS_H
#define PROVIUM_RUN_REFS_H

#include "loop/loop.h"

/* A growing list of texts without duplicates, NULL-terminated once it has any. */
struct names {
	char **v;
	size_t n;
};

void names_add(struct names *l, const char *name);
bool names_have(const struct names *l, const char *name);
void names_release(struct names *l);

/* All as written in the source, except host_files. */
struct refs {
	char *text;			/* the source itself */
	size_t len;
	struct names modules;		/* require */
	struct names files;		/* dofile, loadfile */
	struct names fixtures;		/* vm_fixture, lab_fixture, fixture */
	struct names profiles;		/* vm, create */
	/* push_file unless auto_dep = false is in the call, and depends_on_file: relative ones are below the
	 * source's directory. `host = "..."` and `template = "..."` in tables, as they are. */
	struct names host_files;
	bool unknown;			/* some module, fixture or profile is computed */
};

/* Reads a source; -errno when that fails. Released with refs_release, also after a failure. Blocks for one
 * file. */
int refs_read(struct refs *r, const char *path);
void refs_release(struct refs *r);

/* The file of a module, a fixture or a dofile path, below the first root that has it (an existing dofile path
 * is taken as it is); malloc'ed, NULL when there is none. */
char *refs_find_module(const char *const *roots, const char *name);
char *refs_find_fixture(const char *const *roots, const char *name);
char *refs_find_file(const char *const *roots, const char *path);

#endif
