/*
 * The cache from outside: what is in it, what goes; the helper verbs that remove.
 *
 * Who takes an entry out of the cache holds the lock of its key, so that nobody builds it, and the exclusive
 * lock of its directory, so that nobody uses it; then a rename makes it disappear at once.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/priv.h"

struct entry {
	struct cache_item item;
	char *path;
};

int lock_now(const char *path, int how)
{
	struct stat ours, named;

	for (;;) {
		int fd = open(path, how, 0644);

		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (fd >= 0)
				close(fd);
			return -1;
		}
		if (fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino)
			return fd;
		close(fd);
	}
}

/* ---- trees ---- */

struct seen {		/* a file with several names is counted once */
	ino_t *v;
	size_t n;
};

static bool seen_before(struct seen *s, const struct stat *st)
{
	if (st->st_nlink < 2)
		return false;
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i] == st->st_ino)
			return true;
	s->v = xrealloc(s->v, (s->n + 1) * sizeof(*s->v));
	s->v[s->n++] = st->st_ino;
	return false;
}

/* Calls fn for everything below path, and then for path. */
static void walk(const char *path, void (*fn)(const char *path, const struct stat *st, void *arg), void *arg)
{
	struct stat st;
	struct dirent *d;
	DIR *dir;

	if (lstat(path, &st) < 0)
		return;
	dir = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
	while (dir && (d = readdir(dir))) {
		char *child;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		child = xasprintf("%s/%s", path, d->d_name);
		walk(child, fn, arg);
		free(child);
	}
	if (dir)
		closedir(dir);
	fn(path, &st, arg);
}

struct sum {
	uint64_t bytes;
	struct seen *seen;
};

static void add_up(const char *path, const struct stat *st, void *arg)
{
	struct sum *s = arg;

	(void)path;
	if (S_ISDIR(st->st_mode) || !seen_before(s->seen, st))
		s->bytes += (uint64_t)st->st_blocks * 512;
}

static void unlink_one(const char *path, const struct stat *st, void *arg)
{
	(void)arg;
	if (S_ISDIR(st->st_mode))
		rmdir(path);
	else
		unlink(path);
}

static void remove_tree(const char *path)
{
	walk(path, unlink_one, NULL);
}

/* ---- entries ---- */

/* KEY of "KEY.snap", "KEY.tmp-1-2", ...: what comes behind it, or NULL. */
static const char *behind_key(const char *name)
{
	bool has_key = strlen(name) >= KEY_SIZE && strspn(name, "0123456789abcdef") == KEY_SIZE - 1;

	return has_key && name[KEY_SIZE - 1] == '.' ? name + KEY_SIZE - 1 : NULL;
}

static char *read_origin(const char *path)
{
	char *file = xasprintf("%s/" ORIGIN_FILE, path), line[512] = "";
	FILE *f = fopen(file, "re");

	if (f && !fgets(line, sizeof(line), f))
		*line = '\0';
	if (f)
		fclose(f);
	free(file);
	line[strcspn(line, "\n")] = '\0';
	return xstrdup(line);
}

/* What entries take together: they may share files. */
static uint64_t entries_bytes(const struct entry *v, size_t n)
{
	struct seen seen = { 0 };
	struct sum sum = { 0, &seen };

	for (size_t i = 0; i < n; i++)
		walk(v[i].path, add_up, &sum);
	free(seen.v);
	return sum.bytes;
}

static bool read_entry(const char *dir, const char *name, struct entry *out)
{
	const char *suffix = behind_key(name);
	struct stat st;

	memset(out, 0, sizeof(*out));
	if (!suffix || (strcmp(suffix, kind_suffix(false)) && strcmp(suffix, kind_suffix(true))))
		return false;
	out->path = xasprintf("%s/%s", dir, name);
	if (stat(out->path, &st) < 0) {
		free(out->path);
		return false;
	}
	memcpy(out->item.key, name, KEY_SIZE - 1);
	out->item.lab = strcmp(suffix, kind_suffix(true)) == 0;
	out->item.used = st.st_mtim.tv_sec;
	out->item.origin = read_origin(out->path);
	out->item.bytes = entries_bytes(out, 1);
	return true;
}

static int read_entries(const char *dir, struct entry **v, size_t *n, struct err *e)
{
	DIR *d = opendir(dir);
	struct dirent *file;
	struct entry entry;

	*v = NULL;
	*n = 0;
	if (!d)
		return errno == ENOENT ? 0 : err_set(e, errno, "read `%s`: %s", dir, strerror(errno));
	while ((file = readdir(d)))
		if (read_entry(dir, file->d_name, &entry)) {
			*v = xrealloc(*v, (*n + 1) * sizeof(**v));
			(*v)[(*n)++] = entry;
		}
	closedir(d);
	return 0;
}

static void free_entries(struct entry *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(v[i].path);
		free(v[i].item.origin);
	}
	free(v);
}

/* Removes an entry unless somebody builds or uses it. */
static bool evict_entry(const char *dir, const struct entry *entry)
{
	char *lock_path = xasprintf("%s/%s" LOCK_SUFFIX, dir, entry->item.key), *temp = NULL;
	int lock = lock_now(lock_path, O_RDWR | O_CREAT | O_CLOEXEC), own = -1;
	bool gone = false;

	if (lock >= 0)
		own = lock_now(entry->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (own >= 0) {
		temp = temp_path(dir, entry->item.key);
		gone = rename(entry->path, temp) == 0;
	}
	if (own >= 0)
		close(own);
	if (gone)
		remove_tree(temp);
	if (lock >= 0 && gone)
		unlink(lock_path);
	if (lock >= 0)
		close(lock);
	free(temp);
	free(lock_path);
	return gone;
}

/* Half-made things and lock files whose lock nobody holds belong to the dead. */
static void sweep_dead(const char *dir, const char *name)
{
	const char *suffix = behind_key(name);
	char *path, *lock_path;
	int lock;

	if (!suffix || (strncmp(suffix, TEMP_MARK, strlen(TEMP_MARK)) && strcmp(suffix, LOCK_SUFFIX)))
		return;
	path = xasprintf("%s/%s", dir, name);
	lock_path = xasprintf("%s/%.*s" LOCK_SUFFIX, dir, KEY_SIZE - 1, name);
	lock = lock_now(lock_path, O_RDWR | O_CREAT | O_CLOEXEC);
	if (lock >= 0) {
		if (strcmp(path, lock_path))
			remove_tree(path);
		unlink(lock_path);
		close(lock);
	}
	free(path);
	free(lock_path);
}

static void sweep_all_dead(const char *dir)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, NULL);

	for (int i = 0; i < n; i++) {
		sweep_dead(dir, names[i]->d_name);
		free(names[i]);
	}
	free(names);
}

/* ---- for commands ---- */

static int by_origin(const void *a, const void *b)
{
	const struct cache_item *x = a, *y = b;
	int r = strcmp(x->origin, y->origin);

	return r ? r : strcmp(x->key, y->key);
}

int cache_list(const char *dir, struct cache_item **items, size_t *n, uint64_t *total, struct err *e)
{
	struct entry *v;
	int r = read_entries(dir, &v, n, e);

	*total = entries_bytes(v, *n);
	*items = xcalloc(*n + 1, sizeof(**items));
	for (size_t i = 0; i < *n; i++) {
		(*items)[i] = v[i].item;
		v[i].item.origin = NULL;
	}
	free_entries(v, *n);
	if (*n > 0)
		qsort(*items, *n, sizeof(**items), by_origin);
	return r;
}

void cache_items_free(struct cache_item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(items[i].origin);
	free(items);
}

int cache_wipe(const char *dir, const char *key, size_t *removed, size_t *kept, struct err *e)
{
	struct entry *v;
	size_t n;
	int r = read_entries(dir, &v, &n, e);

	*removed = *kept = 0;
	for (size_t i = 0; i < n; i++) {
		if (key && strcmp(v[i].item.key, key))
			continue;
		if (evict_entry(dir, &v[i]))
			++*removed;
		else
			++*kept;
	}
	free_entries(v, n);
	if (!key)
		sweep_all_dead(dir);
	return r;
}

/* ---- for helpers ---- */

static int by_use(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return (x->item.used > y->item.used) - (x->item.used < y->item.used);
}

int verb_sweep(int argc, char **argv, struct err *e)
{
	struct entry *v;
	uint64_t max;
	size_t n;
	int r;

	if (argc != 3)
		return err_set(e, EINVAL, "expected cache-sweep DIR MAX");
	max = strtoull(argv[2], NULL, 10);
	sweep_all_dead(argv[1]);
	r = read_entries(argv[1], &v, &n, e);
	if (n > 0)
		qsort(v, n, sizeof(*v), by_use);
	/* Added up again each time: an entry's files may be another's, too. What could not be removed counts
	 * on. */
	for (size_t i = 0; i < n && entries_bytes(v, n) > max; i++)
		evict_entry(argv[1], &v[i]);
	free_entries(v, n);
	return r;
}

int verb_remove(int argc, char **argv, struct err *e)
{
	(void)e;
	for (int i = 1; i < argc; i++)
		remove_tree(argv[i]);
	return 0;
}
