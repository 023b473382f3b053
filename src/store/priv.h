/*
 * What the files of src/store share.
 */
#ifndef PROVIUM_STORE_PRIV_H
#define PROVIUM_STORE_PRIV_H

#include "store/store.h"

/* ---- verbs of the helper ---- */

int verb_contents(int argc, char **argv, struct err *e);	/* contents PATH..., answers on descriptor 3 */
int verb_lock(int argc, char **argv, struct err *e);		/* lock: waits for flock of descriptor 3 */
int verb_sweep(int argc, char **argv, struct err *e);		/* cache-sweep DIR MAX */
int verb_remove(int argc, char **argv, struct err *e);		/* cache-remove PATH... */
int verb_copy_tree(int argc, char **argv, struct err *e);	/* cache-copy SRC DST */

/* ---- names in the cache's directory ---- */

#define LOCK_SUFFIX ".lock"
#define TEMP_MARK ".tmp-"
#define ORIGIN_FILE "origin"

static inline const char *kind_suffix(bool lab)
{
	return lab ? ".lab" : ".snap";
}

/* A path for something of KEY that nobody else has; malloc'ed. */
char *temp_path(const char *dir, const char *key);
/* Removes trees in the background. */
void remove_later(struct loop *l, const char *const *paths);
/* Takes a lock without waiting: the open descriptor, or -1 when another has it or it cannot be had. A lock
 * whose file was removed meanwhile is taken anew. */
int lock_now(const char *path, int how);

/* ---- entries in use (hold.c) ---- */

struct holds;		/* of one cache: TAILQ head in hold.c */

struct holds *holds_new(struct loop *l, const char *dir);
void holds_free(struct holds *h);
/* The entry of that key, marked as used now; NULL when there is none, or it is on its way out. */
struct cache_hold *hold_take(struct holds *h, const char *key);

#endif
