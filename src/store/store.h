/*
 * Snapshots that are kept on disk: their keys, what the files hold that they were made from, and the cache.
 *
 * The one header of src/store/ that other folders include. What a snapshot is made of is not known here: an
 * entry of the cache is a directory.
 */
#ifndef PROVIUM_STORE_H
#define PROVIUM_STORE_H

#include "loop/loop.h"

/* The helper verbs of this folder, for helper_register (verbs.c). */
extern const struct helper_verb store_helper_verbs[];

/* ---- keys (key.c) ----
 *
 * A SHA-256 over named parts. Each part's name and length go in, so that no two lists of parts run together.
 */
#define KEY_SIZE 65		/* 64 hexadecimal digits and a NUL */

struct key;

struct key *key_new(void);
void key_add(struct key *k, const char *name, const void *data, size_t len);
void key_text(struct key *k, const char *name, const char *text);	/* NULL and "" differ */
void key_number(struct key *k, const char *name, uint64_t n);
/* Frees k. */
void key_end(struct key *k, char hex[KEY_SIZE]);

/* ---- what files hold (contents.c) ----
 *
 * SHA-256 of files, remembered by device, inode, size and mtime in a file of their own, so that nothing is
 * read twice. A file changed in the last two seconds is not remembered: it may change again within its
 * mtime's tick.
 */
struct contents;
struct contents_job;

/* memory: where hashes are kept between runs; NULL: nowhere. */
struct contents *contents_new(struct loop *l, const char *memory);
void contents_free(struct contents *c);
/* Looks at the files; those that are not known are hashed in a helper. cb comes from the loop, once, with
 * what went wrong with the helper itself; the caller frees the job, also in cb. */
struct contents_job *contents_look(struct contents *c, const char *const *paths, size_t n,
	void (*cb)(void *arg, const struct err *e), void *arg);
/* What the job's file number i holds: its hash, or why it has none ("No such file or directory"). */
const char *contents_of(const struct contents_job *j, size_t i);
void contents_job_free(struct contents_job *j);	/* NULL is fine */

/* ---- the cache (cache.c) ----
 *
 * DIR/KEY.snap/ or DIR/KEY.lab/ is an entry, DIR/KEY.lock the lock that who builds it holds, DIR/KEY.tmp-*
 * something half-made or on its way out. An entry in use is held by a shared lock on its directory. All locks
 * are flock(): whoever dies lets go of them.
 */
struct cache;
struct cache_hold;
struct cache_build;
struct cache_request;

/* Nothing is touched before the first request; then, once, what dead processes left is removed and the
 * entries used longest ago go until max_size is kept (in a helper). */
struct cache *cache_new(struct loop *l, const char *dir, uint64_t max_size);
void cache_free(struct cache *c);	/* everything must be given back */
/* Calls done(arg) from the loop once what is being removed is gone. */
void cache_drain(struct cache *c, void (*done)(void *arg), void *arg);
const char *cache_dir(const struct cache *c);

/* Who makes what is not there. */
struct cache_builder {
	/* The lock is held: make it, then cache_build_done. Called from the loop. */
	void (*build)(void *arg, struct cache_build *b);
	/* Nobody wants it any more: end soon, with cache_build_done and -ECANCELED; not from inside this
	 * call. May be NULL: then the build just goes on. */
	void (*unwanted)(void *arg, struct cache_build *b);
	/* Another process is building it. May be NULL. */
	void (*waiting)(void *arg);
};

/* Asks for an entry. cb comes from the loop, once: h is the caller's until cache_hold_free; or e, which goes
 * with the request, says why there is none. built: it was made for this request or while it waited, by this
 * process. Requests for the same key wait for one build; when that fails all get its error, when it is
 * cancelled (-ECANCELED) the next one's builder goes on. */
struct cache_request *cache_get(struct cache *c, const char *key, const struct cache_builder *builder,
	void *builder_arg, void (*cb)(void *arg, struct cache_hold *h, bool built, const struct err *e),
	void *arg);
/* Withdraws, or frees after cb. NULL is fine. */
void cache_request_free(struct cache_request *r);
/* Whether there is an entry, without taking it. */
bool cache_has(struct cache *c, const char *key);

/* A directory of this build's own, made with its first use; removed with what is left in it at the end. */
const char *cache_build_dir(struct cache_build *b, struct err *e);
const char *cache_build_key(const struct cache_build *b);
/* Makes path, a directory in cache_build_dir, the entry, or (e set) says that there will be none. lab: its
 * kind; origin: one line that says what it is, for lists. b is gone after this. */
void cache_build_done(struct cache_build *b, const char *path, bool lab, const char *origin, const struct err *e);

const char *cache_hold_dir(const struct cache_hold *h);
const char *cache_hold_key(const struct cache_hold *h);
bool cache_hold_is_lab(const struct cache_hold *h);
struct cache_hold *cache_hold_ref(struct cache_hold *h);
void cache_hold_free(struct cache_hold *h);	/* NULL is fine */
/* Takes an entry that is of no use out of the cache; who holds it keeps its files. Returns whether this was
 * the first to say so: then it is worth a warning. */
bool cache_evict(struct cache_hold *h);

/* ---- looking at a cache from outside; these block (evict.c) ---- */

struct cache_item {
	char key[KEY_SIZE];
	bool lab;
	char *origin;			/* "" when it does not say */
	uint64_t bytes;			/* allocated, what it shares with others included */
	time_t used;
};

/* Sorted by origin; *total is what they take together. A directory that does not exist is an empty cache. */
int cache_list(const char *dir, struct cache_item **items, size_t *n, uint64_t *total, struct err *e);
void cache_items_free(struct cache_item *items, size_t n);
/* Removes one entry (key) or all (NULL) with what dead builders left, except what is in use; *kept says how
 * many those are. */
int cache_wipe(const char *dir, const char *key, size_t *removed, size_t *kept, struct err *e);

#endif
