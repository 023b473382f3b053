/*
 * A file that appears whole or not at all.
 *
 * It is written without a name where the file system can do that, so a process killed halfway leaves
 * nothing; elsewhere under a temporary name that contains ".tmp-", which `sweep` recognises.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "loop/loop.h"

#define OWN_FDS "/proc/self/fd"
#define COPY_STEP ((size_t)1 << 30)
#define COPY_BUFFER ((size_t)1 << 20)

struct outfile {
	int fd;
	char *path;
	char *temp;		/* NULL while it has no name */
	uint64_t size;		/* bytes it will need, 0: unknown */
	bool committed;
};

static char *temp_name(const char *path)
{
	static unsigned counter;

	return xasprintf("%s.tmp-%d-%u", path, (int)getpid(), counter++);
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return xstrdup(".");
	return slash == path ? xstrdup("/") : xstrndup(path, slash - path);
}

/* Giving it a name later goes through /proc, which a chroot may not have. */
static int open_nameless(const char *path)
{
	char *dir = parent_of(path);
	int fd = -1;

	if (access(OWN_FDS, X_OK) == 0)
		fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
	free(dir);
	return fd;
}

struct outfile *outfile_open(const char *path, uint64_t size, struct err *e)
{
	struct outfile *o = xcalloc(1, sizeof(*o));

	o->path = xstrdup(path);
	o->size = size;
	o->fd = open_nameless(path);
	if (o->fd < 0) {
		o->temp = temp_name(path);
		o->fd = open(o->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
	}
	if (o->fd < 0) {
		err_set(e, errno, "create `%s`: %s", path, strerror(errno));
		free(o->temp);
		o->temp = NULL;
		outfile_free(o);
		return NULL;
	}
	return o;
}

int outfile_fd(const struct outfile *o)
{
	return o->fd;
}

int outfile_failed(const struct outfile *o, int code, struct err *e)
{
	char need[32], avail[32];
	struct statvfs vfs;
	uint64_t left;
	struct stat st;

	err_set(e, code, "write `%s`: %s", o->path, strerror(code));
	if (code != ENOSPC && code != EDQUOT)
		return -code;
	if (o->size)
		err_append(e, ": it needs %llu bytes (%s)", (unsigned long long)o->size,
			units_format_size(o->size, need, sizeof(need)));
	/* What it has taken itself comes back when it is removed. */
	if (!fstatvfs(o->fd, &vfs) && !fstat(o->fd, &st)) {
		left = (uint64_t)vfs.f_bavail * vfs.f_frsize + (uint64_t)st.st_blocks * 512;
		err_append(e, ", %s are free", units_format_size(left, avail, sizeof(avail)));
	}
	err_append(e, "; make room there or point it elsewhere");
	return -code;
}

int outfile_write(struct outfile *o, const void *data, size_t len, struct err *e)
{
	const char *p = data;
	ssize_t n;

	while (len > 0) {
		n = write(o->fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return outfile_failed(o, errno, e);
		p += n;
		len -= n;
	}
	return 0;
}

static size_t at_most(off_t n, size_t max)
{
	return (uint64_t)n < max ? (size_t)n : max;
}

/* One stretch of data by plain reads and writes, where the kernel cannot copy between the two files. */
static int copy_by_hand(struct outfile *o, int fd, const char *name, off_t from, off_t to, off_t base,
	struct err *e)
{
	char *buf = xmalloc(COPY_BUFFER);
	ssize_t n = 0, done, w;
	int rc = 0;

	for (; from < to && !rc; from += n) {
		n = pread(fd, buf, at_most(to - from, COPY_BUFFER), from);
		if (n < 0 && errno == EINTR) {
			n = 0;
			continue;
		}
		if (n < 0)
			rc = err_set(e, errno, "read `%s`: %s", name, strerror(errno));
		else if (n == 0)
			rc = err_set(e, EIO, "read `%s`: it became shorter while it was copied", name);
		for (done = 0; !rc && done < n; done += w) {
			w = pwrite(o->fd, buf + done, n - done, base + from + done);
			if (w < 0 && errno == EINTR)
				w = 0;
			else if (w < 0)
				rc = outfile_failed(o, errno, e);
		}
	}
	free(buf);
	return rc;
}

static int copy_data(struct outfile *o, int fd, const char *name, off_t from, off_t to, off_t base,
	struct err *e)
{
	loff_t in = from, out = base + from;
	ssize_t n;

	while (in < to) {
		n = copy_file_range(fd, &in, o->fd, &out, at_most(to - in, COPY_STEP), 0);
		if (n > 0 || (n < 0 && errno == EINTR))
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
			return outfile_failed(o, errno, e);
		/* Another file system, an old kernel, or a file that only looks regular: do it ourselves. */
		return copy_by_hand(o, fd, name, in, to, base, e);
	}
	return 0;
}

int outfile_append(struct outfile *o, int fd, const char *name, struct err *e)
{
	off_t base = lseek(o->fd, 0, SEEK_CUR), data, hole = 0;
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return err_set(e, errno, "read `%s`: %s", name, strerror(errno));
	if (base == 0 && !ioctl(o->fd, FICLONE, fd)) {
		lseek(o->fd, 0, SEEK_END);
		return 0;
	}
	for (;;) {
		data = lseek(fd, hole, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			data = hole;	/* it cannot tell data from holes */
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0 || hole > st.st_size)
			hole = st.st_size;
		if (data >= hole)
			break;
		rc = copy_data(o, fd, name, data, hole, base, e);
		if (rc)
			return rc;
	}
	if (ftruncate(o->fd, base + st.st_size))
		return outfile_failed(o, errno, e);
	lseek(o->fd, base + st.st_size, SEEK_SET);
	return 0;
}

/* A nameless file gets its name at once if that is free, else through a temporary one. */
static int give_name(struct outfile *o)
{
	char self[64];
	int tries;

	snprintf(self, sizeof(self), OWN_FDS "/%d", o->fd);
	if (!linkat(AT_FDCWD, self, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW))
		return 0;
	for (tries = 0; errno == EEXIST && !o->temp && tries < 100; tries++) {
		char *temp = temp_name(o->path);

		if (!linkat(AT_FDCWD, self, AT_FDCWD, temp, AT_SYMLINK_FOLLOW))
			o->temp = temp;
		else
			free(temp);
	}
	return o->temp ? rename(o->temp, o->path) : -1;
}

int outfile_commit(struct outfile *o, bool sync, struct err *e)
{
	int rc;

	if (sync && fdatasync(o->fd))
		return outfile_failed(o, errno, e);
	rc = o->temp ? rename(o->temp, o->path) : give_name(o);
	if (rc)
		return err_set(e, errno, "create `%s`: %s", o->path, strerror(errno));
	o->committed = true;
	return 0;
}

void outfile_free(struct outfile *o)
{
	if (!o)
		return;
	if (o->temp && !o->committed)
		unlink(o->temp);
	if (o->fd >= 0)
		close(o->fd);
	free(o->temp);
	free(o->path);
	free(o);
}

int make_dirs(const char *path, mode_t mode, struct err *e)
{
	char *copy = xstrdup(path), *p;
	struct stat st;
	int code = 0;

	for (p = copy + 1; *copy && !code; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) && errno != EEXIST)
			code = stat(copy, &st) ? errno : 0;	/* EROFS and the like come before EEXIST */
		*p = c;
		if (c == '\0')
			break;
	}
	free(copy);
	if (code)
		return err_set(e, code, "create directory `%s`: %s", path, strerror(code));
	if (stat(path, &st) || !S_ISDIR(st.st_mode))
		return err_set(e, ENOTDIR, "create directory `%s`: something else has that name", path);
	return 0;
}
