/*
 * Which files a run is about: PATHs and roots walked for a suffix.
 */
#ifndef PROVIUM_DISCOVER_H
#define PROVIUM_DISCOVER_H

#include "loop/loop.h"

#define TEST_SUFFIX ".test.lua"
#define FIXTURE_SUFFIX ".fixture.lua"

struct found_file {
	char *path;	/* canonical: one file has one, however it was reached */
	char *rel;	/* below its root; below the PATH's directory when no root holds it */
	char *shown;	/* from the current directory when it is below that, else absolute */
};

struct found_files {
	struct found_file *v;
	size_t n;
};

/* Walks the PATHs, or the roots when there are none (both NULL-terminated or NULL), for names that end with
 * suffix; a PATH that is a file is taken whatever its name. Sorted by path, each file once. Hidden names are
 * skipped, symbolic links to directories not followed. What was found is released with found_files_release,
 * also after a failure. Blocks: for the time before the loop runs. */
int discover_files(const char *const *paths, const char *const *roots, const char *suffix,
	struct found_files *out, struct err *e);
void found_files_release(struct found_files *f);

#endif
