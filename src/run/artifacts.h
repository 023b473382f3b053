/*
 * What failed tests leave on disk.
 */
#ifndef PROVIUM_RUN_ARTIFACTS_H
#define PROVIUM_RUN_ARTIFACTS_H

#include "run/args.h"
#include "run/result.h"

#define ARTIFACTS_DIR "provium-artifacts"

/* Where a run keeps them, and which names it has given; nothing is made before the first failure. */
struct artifacts;

struct artifacts *artifacts_new(const struct args *a);	/* args is borrowed */
void artifacts_free(struct artifacts *s);
/* Saves what each failed test of f has left in a directory of its own, and notes that in its artifacts_dir.
 * path is the file's, absolute. All are tried; *e is the first failure. */
int artifacts_save(struct artifacts *s, const char *path, struct file_result *f, struct err *e);

#endif
