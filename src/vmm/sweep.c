/*
 * What is removed from a directory of cached files: leftovers, and what nobody used for long.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/initramfs.h"

#define SWEEP_COUNT 64
#define SWEEP_BYTES ((uint64_t)4 << 30)
#define SWEEP_UNUSED (7 * 24 * 3600)
#define SWEEP_RECENT 3600

struct cached {
	char *name;
	uint64_t bytes;
	time_t used;	/* its mtime is set at each use */
};

static int oldest_first(const void *a, const void *b)
{
	const struct cached *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

static struct cached *list_cached(int dirfd, DIR *d, size_t *n, uint64_t *total)
{
	struct cached *all = NULL;
	struct dirent *entry;
	struct stat st;

	*n = 0;
	*total = 0;
	while ((entry = readdir(d))) {
		if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		all = xrealloc(all, (*n + 1) * sizeof(*all));
		all[*n].name = xstrdup(entry->d_name);
		all[*n].bytes = (uint64_t)st.st_blocks * 512;
		all[*n].used = st.st_mtime;
		*total += all[(*n)++].bytes;
	}
	if (*n)
		qsort(all, *n, sizeof(*all), oldest_first);
	return all;
}

/* Removes what a killed helper left, what was not used for a week when there is much, and the longest
 * unused when there is too much. What was used within the hour stays: a VM may be about to open it. */
void cache_sweep(const char *dir)
{
	DIR *d = opendir(dir);
	struct cached *all;
	uint64_t total;
	time_t now = time(NULL);
	size_t n, left, i;

	if (!d)
		return;
	all = list_cached(dirfd(d), d, &n, &total);
	for (i = 0, left = n; i < n; i++) {
		time_t age = now - all[i].used;

		if (age > SWEEP_RECENT && (strstr(all[i].name, ".tmp-") || total > SWEEP_BYTES ||
					   (left > SWEEP_COUNT && age > SWEEP_UNUSED)) &&
		    !unlinkat(dirfd(d), all[i].name, 0)) {
			total -= all[i].bytes;
			left--;
		}
		free(all[i].name);
	}
	free(all);
	closedir(d);
}

int cache_sweep_verb(int argc, char **argv, struct err *e)
{
	if (argc != 2)
		return err_set(e, EINVAL, "expected sweep DIR");
	cache_sweep(argv[1]);
	return 0;
}
