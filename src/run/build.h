/*
 * Making the profiles' images: build commands, run under a lock, skipped when nothing they use has changed.
 */
#ifndef PROVIUM_RUN_BUILD_H
#define PROVIUM_RUN_BUILD_H

#include "run/config.h"

struct build;

enum build_flags {
	BUILD_SKIP = 1,		/* --no-build: run nothing, only complete the profiles */
	BUILD_QUIET = 2,	/* no "building profile ..." on stderr */
	BUILD_VERBOSE = 4,	/* the commands' output goes to stderr as it comes */
};

/*
 * Builds the named profiles (NULL-terminated; NULL: all), one after another, and completes them with
 * config_resolve. cb comes from the loop, once, with NULL or what went wrong (a failing build's output
 * included: exit 2); the struct is freed by then. c is borrowed until then, names is not. Needs
 * run_helper_verbs registered.
 */
struct build *build_start(struct loop *l, struct config *c, const char *const *names, unsigned flags,
	void (*cb)(void *arg, const struct err *e), void *arg);
/* Kills what runs; no callback. NULL is fine. */
void build_cancel(struct build *b);

/* For helper_register: `build-inputs`. */
extern const struct helper_verb run_helper_verbs[];

#endif
