/*
 * provium.toml: found, read and checked; the profiles in it as the VM layer wants them.
 */
#ifndef PROVIUM_CONFIG_H
#define PROVIUM_CONFIG_H

#include "loop/loop.h"
#include "vmm/vmm.h"

#define CONFIG_FILE "provium.toml"
#define CONFIG_CACHE_MAX_SIZE ((uint64_t)20 << 30)	/* when cache_max_size is not set */

struct config;

/* How a profile's image is made. */
struct build_info {
	char *command;		/* for /bin/sh -c, {out} expanded */
	char *dir;		/* absolute: where it runs and what its inputs are relative to */
	char *out;		/* absolute: {out} */
	char **inputs;		/* globs, NULL-terminated; NULL: not given, build every time */
};

/*
 * Reads path, or, when path is NULL, the nearest provium.toml from the current directory upwards; without any,
 * the defaults. NULL and *e on failure: "read `PATH`: ...", "parse `PATH`: line L, column C: ..." or
 * "invalid config in `PATH`: ...". Blocks for a few small files: call it before the loop runs.
 */
struct config *config_load(const char *path, struct err *e);
void config_free(struct config *c);

/* All that follows is borrowed from c. Paths are absolute. */
const char *config_path(const struct config *c);	/* NULL when there is no file */
const char *const *config_roots(const struct config *c);	/* NULL-terminated; default: the current directory */
const char *config_cache_dir(const struct config *c);	/* fixtures; $PROVIUM_FIXTURE_CACHE wins */
uint64_t config_cache_max_size(const struct config *c);
const char *const *config_profile_names(const struct config *c);	/* sorted, NULL-terminated */
/* NULL when there is none of that name. */
const struct profile *config_profile(const struct config *c, const char *name);
/* NULL when the profile has no `build`. */
const struct build_info *config_build(const struct config *c, const char *name);

/*
 * Completes a profile whose build is over: looks up the kernel in `root`, reads `cmdline_file`. Profiles
 * without a build are complete from the start. 0 or a failure as above.
 */
int config_resolve(struct config *c, const char *name, struct err *e);

/* $XDG_CACHE_HOME, else ~/.cache, else a directory of this user's in /tmp. malloc'ed. */
char *config_cache_home(void);

#endif
