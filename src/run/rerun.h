/*
 * What failed last time, for --rerun-failed.
 */
#ifndef PROVIUM_RERUN_H
#define PROVIUM_RERUN_H

#include "loop/loop.h"

/* Where the state is: $PROVIUM_RERUN_STATE, else ~/.cache/provium/rerun.json, else in /tmp. malloc'ed. */
char *rerun_path(void);
/* The canonical paths of the files that failed, malloc'ed (rerun_free). 1: there is a state; 0: no prior
 * state; negative and *e when it cannot be read or is none. */
int rerun_load(char ***paths, size_t *n, struct err *e);
void rerun_free(char **paths, size_t n);
/* Replaces the state. Without paths it is left alone: a clean run forgets nothing. */
int rerun_save(const char *const *paths, size_t n, struct err *e);

#endif
