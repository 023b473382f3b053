/*
 * What the store's helpers do besides hashing and removing: waiting for a lock, copying a snapshot.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/priv.h"

#define LOCK_FD 3

int verb_lock(int argc, char **argv, struct err *e)
{
	int r;

	(void)argc, (void)argv;
	do {
		r = flock(LOCK_FD, LOCK_EX);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? err_set(e, errno, "lock: %s", strerror(errno)) : 0;
}

static int copy_file(const char *src, const char *dst, struct err *e)
{
	int fd = open(src, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;
	struct outfile *o = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		r = err_set(e, errno, "read `%s`: %s", src, strerror(errno));
	else if (!(o = outfile_open(dst, (uint64_t)st.st_blocks * 512, e)))
		r = e->code;
	else if ((r = outfile_append(o, fd, src, e)) == 0)
		r = outfile_commit(o, false, e);
	outfile_free(o);
	if (fd >= 0)
		close(fd);
	return r;
}

static int copy_tree(const char *src, const char *dst, struct err *e)
{
	DIR *dir = opendir(src);
	struct dirent *d;
	int r = 0;

	if (!dir)
		return errno == ENOTDIR ? copy_file(src, dst, e) : err_set(e, errno, "read `%s`: %s", src, strerror(errno));
	if (mkdir(dst, 0755) < 0)
		r = err_set(e, errno, "create `%s`: %s", dst, strerror(errno));
	while (r == 0 && (d = readdir(dir))) {
		char *from, *to;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		from = xasprintf("%s/%s", src, d->d_name);
		to = xasprintf("%s/%s", dst, d->d_name);
		r = copy_tree(from, to, e);
		free(from);
		free(to);
	}
	closedir(dir);
	return r;
}

int verb_copy_tree(int argc, char **argv, struct err *e)
{
	if (argc != 3)
		return err_set(e, EINVAL, "expected cache-copy SRC DST");
	return copy_tree(argv[1], argv[2], e);
}

const struct helper_verb store_helper_verbs[] = {
	{ "contents", verb_contents },
	{ "lock", verb_lock },
	{ "cache-sweep", verb_sweep },
	{ "cache-remove", verb_remove },
	{ "cache-copy", verb_copy_tree },
	{ NULL, NULL },
};
