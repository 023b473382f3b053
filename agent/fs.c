/*
 * Names in the file system: stat, listdir, mkdir, unlink, rename, chmod.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops.h"

#define DEPTH_MAX 1024	/* of a tree that is removed */

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symlink";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFBLK: return "block";
	case S_IFCHR: return "char";
	}
	return "file";
}

static void reply_done(struct call *c, int failed)
{
	if (failed)
		call_errno(c, errno);
	else
		call_reply_empty(c);
}

static void pack_pair(msgpack_packer *pk, const char *key, int64_t v)
{
	pack_str(pk, key);
	msgpack_pack_int64(pk, v);
}

void op_stat(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	bool follow = !args_find(&c->args, "follow") || args_flag(&c->args, "follow");
	msgpack_packer *pk;
	struct stat st;

	if (call_refused(c))
		return;
	if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0) {
		call_errno(c, errno);
		return;
	}
	pk = call_reply(c, 9);
	pack_pair(pk, "size", st.st_size);
	pack_pair(pk, "mtime", st.st_mtim.tv_sec);
	pack_pair(pk, "mtime_ns", st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec);
	pack_pair(pk, "perm", st.st_mode & 07777);
	pack_pair(pk, "uid", st.st_uid);
	pack_pair(pk, "gid", st.st_gid);
	pack_pair(pk, "nlink", (int64_t)st.st_nlink);
	pack_pair(pk, "ino", (int64_t)st.st_ino);
	pack_str(pk, "entry_type");
	pack_str(pk, type_name(st.st_mode));
	call_reply_end(c);
}

/* ---- listdir ---- */

static bool skip_entry(const struct dirent *d)
{
	return strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
}

static const char *entry_type(int dir, const struct dirent *d)
{
	struct stat st;

	if (d->d_type != DT_UNKNOWN)
		return type_name(DTTOIF(d->d_type));
	return fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? "file" : type_name(st.st_mode);
}

void op_listdir(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	struct buf entries = {0};
	msgpack_packer pk, *reply;
	struct dirent *d;
	size_t n = 0;
	DIR *dir;

	if (call_refused(c))
		return;
	dir = opendir(path);
	if (!dir) {
		call_errno(c, errno);
		return;
	}
	msgpack_packer_init(&pk, &entries, buf_pack);
	while ((errno = 0, d = readdir(dir))) {
		if (skip_entry(d))
			continue;
		n++;
		msgpack_pack_array(&pk, 2);
		pack_str(&pk, d->d_name);
		pack_str(&pk, entry_type(dirfd(dir), d));
	}
	if (errno) {
		call_errno(c, errno);
	} else {
		reply = call_reply(c, 1);
		pack_str(reply, "entries");
		msgpack_pack_array(reply, n);
		reply->callback(reply->data, (char *)entries.p, entries.len);
		call_reply_end(c);
	}
	closedir(dir);
	buf_free(&entries);
}

/* ---- changes ---- */

static int make_parents(char *path, mode_t perm)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(path, perm) < 0 && errno != EEXIST)
			return -1;
		*p = '/';
	}
	return 0;
}

void op_mkdir(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	mode_t perm = (mode_t)args_opt_int(&c->args, "perm", 0755, 0, 07777);
	bool parents = args_flag(&c->args, "parents"), set = args_find(&c->args, "perm") != NULL;
	struct stat st;
	char *copy;
	int failed;

	if (call_refused(c))
		return;
	copy = xstrdup(path);
	failed = parents && *copy && make_parents(copy, 0755) < 0;
	free(copy);
	if (!failed)
		failed = mkdir(path, perm) < 0;
	if (failed && parents && errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		failed = 0;
	else if (!failed && set)
		failed = chmod(path, perm) < 0;
	reply_done(c, failed);
}

/* Everything below name in the directory at, and itself. */
static int remove_tree(int at, const char *name, unsigned depth)
{
	struct dirent *d;
	int fd, err = 0;
	DIR *dir;

	if (unlinkat(at, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return errno == ENOENT ? 0 : -errno;
	if (depth == DEPTH_MAX)
		return -ELOOP;
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err && (d = readdir(dir)))
		if (!skip_entry(d))
			err = remove_tree(dirfd(dir), d->d_name, depth + 1);
	closedir(dir);
	if (!err && unlinkat(at, name, AT_REMOVEDIR) < 0)
		err = -errno;
	return err;
}

/* An empty directory goes with or without `recursive`; one with entries only with it. */
void op_unlink(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	bool recursive = args_flag(&c->args, "recursive");
	struct stat st;
	int err;

	if (call_refused(c))
		return;
	if (lstat(path, &st) < 0) {
		call_errno(c, errno);
	} else if (recursive) {
		err = remove_tree(AT_FDCWD, path, 0);
		if (err)
			call_errno(c, err);
		else
			call_reply_empty(c);
	} else {
		reply_done(c, (S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) < 0);
	}
}

void op_rename(struct call *c)
{
	const char *from = args_text(&c->args, "from"), *to = args_text(&c->args, "to");

	if (!call_refused(c))
		reply_done(c, rename(from, to) < 0);
}

void op_chmod(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	mode_t mode = (mode_t)args_int(&c->args, "mode", 0, 07777);

	if (!call_refused(c))
		reply_done(c, chmod(path, mode) < 0);
}
