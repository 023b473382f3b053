/*
 * Entries in use: a shared lock on the entry's directory, one for all users in this process.
 *
 * The lock is of the directory itself, not of its name: an entry that is exchanged or evicted meanwhile stays
 * whole for who holds it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/priv.h"

/* Freed with the last reference. */
struct cache_hold {
	LIST_ENTRY(cache_hold) entry;
	struct loop *loop;
	char *root, *dir;
	char key[KEY_SIZE];
	bool lab;
	bool bad;		/* evicted: whoever asks again gets another */
	int fd;
	struct stat st;
	unsigned refs;
};

struct holds {
	struct loop *loop;
	char *dir;
	LIST_HEAD(, cache_hold) list;
};

struct holds *holds_new(struct loop *l, const char *dir)
{
	struct holds *h = xcalloc(1, sizeof(*h));

	h->loop = l;
	h->dir = xstrdup(dir);
	LIST_INIT(&h->list);
	return h;
}

void holds_free(struct holds *h)
{
	INVARIANT(LIST_EMPTY(&h->list));
	free(h->dir);
	free(h);
}

/* Whether path still is what was opened. */
static bool still_named(const char *path, const struct stat *st)
{
	struct stat now;

	return stat(path, &now) == 0 && now.st_ino == st->st_ino && now.st_dev == st->st_dev;
}

static struct cache_hold *find(struct holds *h, const char *key)
{
	struct cache_hold *e;

	LIST_FOREACH(e, &h->list, entry)
		if (!e->bad && strcmp(e->key, key) == 0 && still_named(e->dir, &e->st))
			return cache_hold_ref(e);
	return NULL;
}

static struct cache_hold *take(struct holds *h, const char *key, bool lab)
{
	char *path = xasprintf("%s/%s%s", h->dir, key, kind_suffix(lab));
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cache_hold *e;
	struct stat st;

	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 || fstat(fd, &st) < 0 || !still_named(path, &st)) {
		if (fd >= 0)
			close(fd);
		free(path);
		return NULL;
	}
	e = xcalloc(1, sizeof(*e));
	e->loop = h->loop;
	e->root = xstrdup(h->dir);
	e->dir = path;
	memcpy(e->key, key, KEY_SIZE);
	e->lab = lab;
	e->fd = fd;
	e->st = st;
	e->refs = 1;
	LIST_INSERT_HEAD(&h->list, e, entry);
	return e;
}

struct cache_hold *hold_take(struct holds *h, const char *key)
{
	struct cache_hold *e = find(h, key);

	if (!e)
		e = take(h, key, false);
	if (!e)
		e = take(h, key, true);
	if (e)
		futimens(e->fd, NULL);	/* used now: those used longest ago are evicted first */
	return e;
}

struct cache_hold *cache_hold_ref(struct cache_hold *h)
{
	h->refs++;
	return h;
}

void cache_hold_free(struct cache_hold *h)
{
	if (!h || --h->refs > 0)
		return;
	LIST_REMOVE(h, entry);
	close(h->fd);
	free(h->root);
	free(h->dir);
	free(h);
}

const char *cache_hold_dir(const struct cache_hold *h)
{
	return h->dir;
}

const char *cache_hold_key(const struct cache_hold *h)
{
	return h->key;
}

bool cache_hold_is_lab(const struct cache_hold *h)
{
	return h->lab;
}

bool cache_evict(struct cache_hold *h)
{
	char *temp;
	const char *paths[] = { NULL, NULL };

	if (h->bad)
		return false;
	h->bad = true;
	if (!still_named(h->dir, &h->st))
		return false;		/* another process was faster */
	temp = temp_path(h->root, h->key);
	if (rename(h->dir, temp) == 0) {
		paths[0] = temp;
		remove_later(h->loop, paths);
	}
	free(temp);
	return true;
}
