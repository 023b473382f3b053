/*
 * The private run directory of this process.
 */
#ifndef PROVIUM_VMM_RUNDIR_H
#define PROVIUM_VMM_RUNDIR_H

#include "loop/loop.h"

struct rundir;

/* Makes BASE/provium-UID-XXXXXX and removes those of the same user whose owner is gone. base NULL: $TMPDIR,
 * else /tmp. NULL and *e on failure. */
struct rundir *rundir_new(const char *base, struct err *e);
const char *rundir_path(const struct rundir *d);
/* Removes the directory with everything in it. */
void rundir_free(struct rundir *d);
/* Removes a file or directory tree; symbolic links are removed, not followed. */
void rundir_remove(const char *path);

#endif
