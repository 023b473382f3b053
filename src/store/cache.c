/*
 * The cache: who asks for an entry, who builds it, who waits for whom.
 *
 * Within the process all who want a key wait for one struct cache_build; between processes its lock file
 * decides. A lock that another process holds is waited for by a helper, which inherits the descriptor: the
 * lock belongs to the open file, so when the helper is through, this process has it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/priv.h"

static void tell_cb(evutil_socket_t fd, short what, void *arg);
static void lock_cb(void *arg, const struct err *e);
static void swept_cb(void *arg, const struct err *e);
static void begin(struct cache_build *b);

struct cache {
	struct loop *loop;
	char *dir;
	uint64_t max_size;
	struct holds *holds;
	LIST_HEAD(, cache_build) builds;
	struct helper *sweeper;
	bool swept;
};

/* Freed by its owner. */
struct cache_request {
	TAILQ_ENTRY(cache_request) entry;
	struct cache *cache;
	struct cache_build *build;	/* NULL once it is decided */
	const struct cache_builder *builder;
	void *builder_arg;
	struct cache_hold *hold;	/* the outcome, until it is told */
	bool built;
	struct err err;
	struct event *tell;
	void (*cb)(void *arg, struct cache_hold *h, bool built, const struct err *e);
	void *arg;
};

/* From the first request that found no entry to the entry, or the failure. Frees itself. */
struct cache_build {
	LIST_ENTRY(cache_build) entry;
	struct cache *cache;
	char key[KEY_SIZE];
	TAILQ_HEAD(, cache_request) requests;
	int lock;			/* -1: not open */
	bool locked;
	struct helper *waiter;		/* waits for the lock */
	const struct cache_builder *builder;	/* whoever builds now; NULL while the lock is waited for */
	void *builder_arg;
	char *dir;			/* its own directory; NULL until it is asked for */
};

struct cache *cache_new(struct loop *l, const char *dir, uint64_t max_size)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	c->loop = l;
	c->dir = xstrdup(dir);
	c->max_size = max_size;
	c->holds = holds_new(l, dir);
	LIST_INIT(&c->builds);
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	INVARIANT(LIST_EMPTY(&c->builds));
	helper_cancel(c->sweeper);
	holds_free(c->holds);
	free(c->dir);
	free(c);
}

const char *cache_dir(const struct cache *c)
{
	return c->dir;
}

/* ---- what has no name of its own ---- */

char *temp_path(const char *dir, const char *key)
{
	static unsigned counter;

	return xasprintf("%s/%s" TEMP_MARK "%d-%u", dir, key, (int)getpid(), counter++);
}

/* Removals go on by themselves; cache_drain waits for them. What is killed before its end is swept at the
 * next start. */
static unsigned removals;
static void (*drained)(void *arg);
static void *drained_arg;

static void removed_cb(void *arg, const struct err *e)
{
	void (*done)(void *) = drained;

	(void)arg;
	if (e)
		log_debug("cache", "%s", e->msg);
	if (--removals > 0 || !done)
		return;
	drained = NULL;
	done(drained_arg);
}

void cache_drain(struct cache *c, void (*done)(void *arg), void *arg)
{
	if (removals == 0) {
		loop_defer(c->loop, done, arg);
		return;
	}
	drained = done;
	drained_arg = arg;
}

void remove_later(struct loop *l, const char *const *paths)
{
	const char **argv;
	struct err e = ERR_INIT;
	size_t n;

	for (n = 0; paths[n]; n++)
		;
	argv = xcalloc(n + 2, sizeof(*argv));
	argv[0] = "cache-remove";
	memcpy(argv + 1, paths, n * sizeof(*argv));
	if (helper_start(l, argv, removed_cb, NULL, &e))
		removals++;
	else
		log_debug("cache", "%s", e.msg);
	err_release(&e);
	free(argv);
}

static void sweep_once(struct cache *c)
{
	char max[32];
	const char *argv[] = { "cache-sweep", c->dir, max, NULL };
	struct err e = ERR_INIT;

	if (c->swept)
		return;
	c->swept = true;
	snprintf(max, sizeof(max), "%llu", (unsigned long long)c->max_size);
	c->sweeper = helper_start(c->loop, argv, swept_cb, c, &e);
	err_release(&e);
}

static void swept_cb(void *arg, const struct err *e)
{
	struct cache *c = arg;

	c->sweeper = NULL;
	if (e)
		log_debug("cache", "sweep: %s", e->msg);
}

/* ---- requests ---- */

static void tell_cb(evutil_socket_t fd, short what, void *arg)
{
	struct cache_request *r = arg;
	struct cache_hold *h = r->hold;

	(void)fd, (void)what;
	timer_stop(&r->tell);
	r->hold = NULL;
	r->cb(r->arg, h, r->built, err_is_set(&r->err) ? &r->err : NULL);
}

static void tell(struct cache_request *r)
{
	timer_start(r->cache->loop, &r->tell, 0, tell_cb, r);
}

static struct cache_build *find_build(struct cache *c, const char *key)
{
	struct cache_build *b;

	LIST_FOREACH(b, &c->builds, entry)
		if (strcmp(b->key, key) == 0)
			return b;
	return NULL;
}

static struct cache_build *build_new(struct cache *c, const char *key)
{
	struct cache_build *b = xcalloc(1, sizeof(*b));

	b->cache = c;
	b->lock = -1;
	memcpy(b->key, key, KEY_SIZE);
	TAILQ_INIT(&b->requests);
	LIST_INSERT_HEAD(&c->builds, b, entry);
	return b;
}

struct cache_request *cache_get(struct cache *c, const char *key, const struct cache_builder *builder,
	void *builder_arg, void (*cb)(void *arg, struct cache_hold *h, bool built, const struct err *e),
	void *arg)
{
	struct cache_request *r = xcalloc(1, sizeof(*r));
	struct cache_build *b = find_build(c, key);
	bool first = !b;

	INVARIANT(strlen(key) == KEY_SIZE - 1);
	r->cache = c;
	r->builder = builder;
	r->builder_arg = builder_arg;
	r->cb = cb;
	r->arg = arg;
	if (make_dirs(c->dir, 0755, &r->err) < 0) {
		err_prefix(&r->err, "the cache of fixtures");
		tell(r);
		return r;
	}
	sweep_once(c);
	if (first)
		r->hold = hold_take(c->holds, key);
	if (r->hold) {
		tell(r);
		return r;
	}
	if (first)
		b = build_new(c, key);
	r->build = b;
	TAILQ_INSERT_TAIL(&b->requests, r, entry);
	if (first)
		begin(b);
	else if (b->waiter && builder->waiting)
		builder->waiting(builder_arg);
	return r;
}

bool cache_has(struct cache *c, const char *key)
{
	bool found = false;

	for (int lab = 0; lab <= 1 && !found; lab++) {
		char *path = xasprintf("%s/%s%s", c->dir, key, kind_suffix(lab));

		found = access(path, F_OK) == 0;
		free(path);
	}
	return found;
}

/* ---- builds ---- */

static void remove_dir(struct cache_build *b)
{
	const char *paths[] = { b->dir, NULL };

	if (b->dir)
		remove_later(b->cache->loop, paths);
	free(b->dir);
	b->dir = NULL;
}

static void build_free(struct cache_build *b)
{
	INVARIANT(TAILQ_EMPTY(&b->requests));
	LIST_REMOVE(b, entry);
	helper_cancel(b->waiter);
	remove_dir(b);
	if (b->lock >= 0)
		close(b->lock);
	free(b);
}

/* The outcome for all, in their order. */
static void decide(struct cache_build *b, struct cache_hold *h, bool built, const struct err *e)
{
	struct cache_request *r;

	while ((r = TAILQ_FIRST(&b->requests))) {
		TAILQ_REMOVE(&b->requests, r, entry);
		r->build = NULL;
		r->built = built;
		if (h)
			r->hold = cache_hold_ref(h);
		else
			err_copy(&r->err, e);
		tell(r);
	}
	cache_hold_free(h);
	build_free(b);
}

static void hand_over(struct cache_build *b)
{
	struct cache_request *r = TAILQ_FIRST(&b->requests);

	b->builder = r->builder;
	b->builder_arg = r->builder_arg;
	log_debug("cache", "build %s", b->key);
	b->builder->build(b->builder_arg, b);
}

/* What a killed builder of this key has left: nobody can be at it, we have the lock. */
static void remove_leftovers(struct cache_build *b)
{
	DIR *d = opendir(b->cache->dir);
	const char **paths = xcalloc(1, sizeof(*paths));
	struct dirent *entry;
	size_t n = 0;

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, b->key, KEY_SIZE - 1) == 0 &&
		    strncmp(entry->d_name + KEY_SIZE - 1, TEMP_MARK, strlen(TEMP_MARK)) == 0) {
			paths = xrealloc(paths, (n + 2) * sizeof(*paths));
			paths[n++] = xasprintf("%s/%s", b->cache->dir, entry->d_name);
			paths[n] = NULL;
		}
	if (d)
		closedir(d);
	if (n > 0)
		remove_later(b->cache->loop, paths);
	while (n > 0)
		free((char *)paths[--n]);
	free(paths);
}

/* Whether the lock file still has the name it was opened by: `clean` removes them. */
static bool lock_is_named(struct cache_build *b, const char *path)
{
	struct stat ours, named;

	return fstat(b->lock, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino &&
		ours.st_dev == named.st_dev;
}

static void locked(struct cache_build *b)
{
	char *path = xasprintf("%s/%s" LOCK_SUFFIX, b->cache->dir, b->key);
	bool named = lock_is_named(b, path);
	struct cache_hold *h;

	free(path);
	if (!named) {
		close(b->lock);
		b->lock = -1;
		begin(b);
		return;
	}
	b->locked = true;
	h = hold_take(b->cache->holds, b->key);
	if (h) {		/* another process has built it meanwhile */
		decide(b, h, false, NULL);
		return;
	}
	remove_leftovers(b);
	hand_over(b);
}

static void fail(struct cache_build *b, struct err *e)
{
	decide(b, NULL, false, e);
	err_release(e);
}

static void wait_for_lock(struct cache_build *b)
{
	static const char *const argv[] = { "lock", NULL };
	struct child_fd fd = { b->lock, 3 };
	struct cache_request *r;
	struct err e = ERR_INIT;

	log_debug("cache", "wait for the lock of %s", b->key);
	b->waiter = helper_start_fds(b->cache->loop, argv, &fd, 1, lock_cb, b, &e);
	if (!b->waiter) {
		fail(b, &e);
		return;
	}
	TAILQ_FOREACH(r, &b->requests, entry)
		if (r->builder->waiting)
			r->builder->waiting(r->builder_arg);
}

static void lock_cb(void *arg, const struct err *e)
{
	struct cache_build *b = arg;
	struct err failure = ERR_INIT;

	b->waiter = NULL;
	if (!e) {
		locked(b);
		return;
	}
	err_copy(&failure, e);
	fail(b, &failure);
}

static void begin(struct cache_build *b)
{
	char *path = xasprintf("%s/%s" LOCK_SUFFIX, b->cache->dir, b->key);
	struct err e = ERR_INIT;

	b->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (b->lock < 0)
		err_set(&e, errno, "open `%s`: %s", path, strerror(errno));
	free(path);
	if (b->lock < 0)
		fail(b, &e);
	else if (flock(b->lock, LOCK_EX | LOCK_NB) == 0)
		locked(b);
	else
		wait_for_lock(b);
}

void cache_request_free(struct cache_request *r)
{
	struct cache_build *b = r ? r->build : NULL;

	if (!r)
		return;
	if (b) {
		TAILQ_REMOVE(&b->requests, r, entry);
		if (TAILQ_EMPTY(&b->requests) && !b->builder)
			build_free(b);
		else if (TAILQ_EMPTY(&b->requests) && b->builder->unwanted)
			b->builder->unwanted(b->builder_arg, b);
	}
	timer_stop(&r->tell);
	cache_hold_free(r->hold);
	err_release(&r->err);
	free(r);
}

/* ---- what a builder calls ---- */

const char *cache_build_key(const struct cache_build *b)
{
	return b->key;
}

const char *cache_build_dir(struct cache_build *b, struct err *e)
{
	if (b->dir)
		return b->dir;
	b->dir = temp_path(b->cache->dir, b->key);
	if (mkdir(b->dir, 0755) == 0)
		return b->dir;
	err_set(e, errno, "create `%s`: %s", b->dir, strerror(errno));
	free(b->dir);
	return b->dir = NULL;
}

static int write_origin(const char *dir, const char *origin, struct err *e)
{
	char *path = xasprintf("%s/" ORIGIN_FILE, dir);
	struct outfile *o = outfile_open(path, 0, e);
	int r = o ? 0 : e->code;

	if (r == 0)
		r = outfile_write(o, origin, strlen(origin), e);
	if (r == 0)
		r = outfile_commit(o, false, e);
	outfile_free(o);
	free(path);
	return r;
}

/* An entry of the same key is exchanged; the old one keeps its users, and goes with the build's directory. */
static int install(struct cache_build *b, const char *path, bool lab, const char *origin, struct err *e)
{
	char *name = xasprintf("%s/%s%s", b->cache->dir, b->key, kind_suffix(lab));
	int r = write_origin(path, origin, e);

	if (r == 0 && renameat2(AT_FDCWD, path, AT_FDCWD, name, RENAME_NOREPLACE) < 0 &&
	    (errno != EEXIST || renameat2(AT_FDCWD, path, AT_FDCWD, name, RENAME_EXCHANGE) < 0))
		r = err_set(e, errno, "rename `%s` to `%s`: %s", path, name, strerror(errno));
	free(name);
	return r;
}

void cache_build_done(struct cache_build *b, const char *path, bool lab, const char *origin, const struct err *e)
{
	struct cache_hold *h = NULL;
	struct err failure = ERR_INIT;

	log_debug("cache", "built %s: %s", b->key, e ? e->msg : path);
	b->builder = NULL;
	if (e)
		err_copy(&failure, e);
	else if (install(b, path, lab, origin, &failure) == 0 && !(h = hold_take(b->cache->holds, b->key)))
		err_set(&failure, EIO, "the new entry `%s/%s%s` cannot be opened", b->cache->dir, b->key,
			kind_suffix(lab));
	remove_dir(b);
	if (failure.code == -ECANCELED && !TAILQ_EMPTY(&b->requests)) {
		err_release(&failure);
		hand_over(b);
		return;
	}
	decide(b, h, h != NULL, err_is_set(&failure) ? &failure : NULL);
	err_release(&failure);
}
