/*
 * The private run directory: disks and other files of a run, removed with it or by the next start.
 *
 * A lock file in it stays flock'ed for the life of the process, so a directory whose lock can be taken has no
 * owner. It is made and locked under a hidden name first: nobody sees a directory that is not locked yet.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/rundir.h"

#define UNFINISHED_AGE 60	/* seconds until a hidden directory counts as abandoned */

/* Owned by struct vmm. */
struct rundir {
	char *path;
	int lock;
};

static void remove_at(int dir, const char *name)
{
	struct dirent *d;
	DIR *list;
	int fd;

	if (unlinkat(dir, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
		return;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((d = readdir(list)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			remove_at(fd, d->d_name);
	closedir(list);
	unlinkat(dir, name, AT_REMOVEDIR);
}

void rundir_remove(const char *path)
{
	remove_at(AT_FDCWD, path);
}

/* A descriptor that holds the lock of the directory, -1 when somebody else does or there is none. */
static int lock_dir(const char *path, int flags)
{
	char *file = xasprintf("%s/lock", path);
	int fd = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);

	free(file);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void sweep_one(const char *path, bool finished)
{
	struct stat st;
	int lock;

	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return;
	lock = lock_dir(path, 0);
	if (lock < 0 && !(errno == ENOENT && (finished || time(NULL) - st.st_mtime > UNFINISHED_AGE)))
		return;
	if (!finished && time(NULL) - st.st_mtime <= UNFINISHED_AGE) {
		close(lock);
		return;
	}
	log_debug("rundir", "sweep %s", path);
	rundir_remove(path);
	if (lock >= 0)
		close(lock);
}

static void sweep(const char *base)
{
	char prefix[64];
	DIR *list = opendir(base);
	struct dirent *d;
	size_t n;

	if (!list)
		return;
	n = (size_t)snprintf(prefix, sizeof(prefix), ".provium-%u-", (unsigned)geteuid());
	while ((d = readdir(list))) {
		bool hidden = strncmp(d->d_name, prefix, n) == 0;

		if (hidden || strncmp(d->d_name, prefix + 1, n - 1) == 0) {
			char *path = xasprintf("%s/%s", base, d->d_name);

			sweep_one(path, !hidden);
			free(path);
		}
	}
	closedir(list);
}

struct rundir *rundir_new(const char *base, struct err *e)
{
	struct rundir *d = NULL;
	char *hidden, *path;
	int lock = -1;

	if (!base)
		base = getenv("TMPDIR");
	if (!base || !*base)
		base = "/tmp";
	sweep(base);
	hidden = xasprintf("%s/.provium-%u-XXXXXX", base, (unsigned)geteuid());
	path = NULL;
	if (!mkdtemp(hidden)) {
		err_set(e, errno,
			"cannot make a run directory in `%s`: %s (set TMPDIR to a writable directory)",
			base, strerror(errno));
		goto out;
	}
	lock = lock_dir(hidden, O_CREAT | O_EXCL);
	path = xasprintf("%s/%s", base, strrchr(hidden, '/') + 2);
	if (lock < 0 || rename(hidden, path) < 0) {
		err_set(e, errno, "cannot lock the run directory `%s`: %s", hidden, strerror(errno));
		rundir_remove(hidden);
		if (lock >= 0)
			close(lock);
		goto out;
	}
	d = xcalloc(1, sizeof(*d));
	d->path = xstrdup(path);
	d->lock = lock;
out:
	free(hidden);
	free(path);
	return d;
}

const char *rundir_path(const struct rundir *d)
{
	return d->path;
}

void rundir_free(struct rundir *d)
{
	if (!d)
		return;
	rundir_remove(d->path);
	close(d->lock);
	free(d->path);
	free(d);
}
