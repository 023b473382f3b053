/*
 * Open files with handles: open, read, write, pread, pwrite, seek, truncate, sync, close.
 *
 * Reading a pipe or writing to one may wait for its other end: such calls wait in the loop, on a duplicate of
 * the descriptor, because the file's own flags belong to the guest's system calls.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executor.h"
#include "job.h"
#include "ops.h"
#include "sink.h"

#define READ_MAX (16u << 20)

static void read_ready(void *arg, uint32_t events);
static void read_cancel(struct call *c);
static void written(void *arg, size_t n, int err);
static void write_cancel(struct call *c);
static void open_run(struct job *j);
static void open_done(struct job *j);
static void open_cancel(struct call *c);

static const struct call_cbs read_cbs, write_cbs, open_cbs;
static const char *const whences[4];

struct file {
	LIST_ENTRY(file) entry;
	uint32_t handle;
	int fd;
};

struct files {
	LIST_HEAD(, file) list;
};

/* An open that may block: of a FIFO. */
struct opening {
	struct job job;
	struct call *c;		/* NULL: nobody waits any more */
	char *path;
	int flags, fd;
	mode_t perm;
};

struct reading {
	struct call *c;
	struct ev_io io;
	size_t n;
};

struct files *files_new(void)
{
	struct files *fs = xcalloc(1, sizeof(*fs));

	LIST_INIT(&fs->list);
	return fs;
}

static struct file *find(struct call *c)
{
	uint32_t handle = (uint32_t)args_int(&c->args, "handle", 0, UINT32_MAX);
	struct file *f;

	if (call_refused(c))
		return NULL;
	LIST_FOREACH(f, &executor_files(c->x)->list, entry)
		if (f->handle == handle)
			return f;
	call_fail(c, WIRE_UNKNOWN_HANDLE, "no open file has the handle %u", handle);
	return NULL;
}

int file_fd(struct call *c)
{
	struct file *f = find(c);

	return f ? f->fd : -1;
}

int file_write_all(int fd, const void *p, size_t n)
{
	ssize_t put;

	for (size_t off = 0; off < n; off += (size_t)put) {
		put = write(fd, (const char *)p + off, n - off);
		if (put < 0 && errno != EINTR)
			return -errno;
		if (put < 0)
			put = 0;
	}
	return 0;
}

/* ---- open, close ---- */

static void reply_opened(struct call *c, int fd)
{
	struct file *f = xcalloc(1, sizeof(*f));
	msgpack_packer *pk;

	f->fd = fd;
	f->handle = executor_new_handle(c->x);
	LIST_INSERT_HEAD(&executor_files(c->x)->list, f, entry);
	pk = call_reply(c, 2);
	pack_str(pk, "handle");
	msgpack_pack_uint32(pk, f->handle);
	pack_str(pk, "fd");
	msgpack_pack_int(pk, fd);
	call_reply_end(c);
}

static int open_flags(struct args *a)
{
	bool r = args_flag(a, "read"), append = args_flag(a, "append");
	bool w = args_flag(a, "write") || append;
	int flags = r && w ? O_RDWR : w ? O_WRONLY : O_RDONLY;

	if (!r && !w)
		args_refuse(a, "one of `read`, `write` and `append` should be true");
	flags |= append ? O_APPEND : 0;
	flags |= args_flag(a, "create") ? O_CREAT : 0;
	flags |= args_flag(a, "truncate") ? O_TRUNC : 0;
	flags |= args_flag(a, "exclusive") ? O_EXCL | O_CREAT : 0;
	flags |= args_flag(a, "nonblock") ? O_NONBLOCK : 0;
	return flags | O_CLOEXEC | O_NOCTTY;
}

static void open_on_thread(struct call *c, const char *path, int flags, mode_t perm)
{
	struct opening *o = xcalloc(1, sizeof(*o));
	int err;

	o->job.run = open_run;
	o->job.done = open_done;
	o->c = c;
	o->path = xstrdup(path);
	o->flags = flags;
	o->perm = perm;
	c->state = o;
	err = job_start(executor_jobs(c->x), &o->job);
	if (err) {
		free(o->path);
		free(o);
		call_errno(c, err);
		return;
	}
	c->cbs = &open_cbs;
}

static void open_run(struct job *j)
{
	struct opening *o = (struct opening *)j;

	o->fd = open(o->path, o->flags, o->perm);
	if (o->fd < 0)
		o->fd = -errno;
}

static void open_done(struct job *j)
{
	struct opening *o = (struct opening *)j;

	if (!o->c && o->fd >= 0)
		close(o->fd);
	else if (o->c && o->fd >= 0)
		reply_opened(o->c, o->fd);
	else if (o->c)
		call_errno(o->c, o->fd);
	free(o->path);
	free(o);
}

static void open_cancel(struct call *c)
{
	struct opening *o = c->state;

	o->c = NULL;
	job_abandon(&o->job);
}

void op_open(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	int flags = open_flags(&c->args), fd;
	mode_t perm = (mode_t)args_opt_int(&c->args, "perm", 0644, 0, 07777);
	struct stat st;

	if (call_refused(c))
		return;
	if (!(flags & O_NONBLOCK) && stat(path, &st) == 0 && S_ISFIFO(st.st_mode)) {
		open_on_thread(c, path, flags, perm);
		return;
	}
	fd = open(path, flags, perm);
	if (fd < 0)
		call_errno(c, errno);
	else
		reply_opened(c, fd);
}

void op_close(struct call *c)
{
	struct file *f = find(c);
	int err;

	if (!f)
		return;
	err = close(f->fd) < 0 ? errno : 0;
	LIST_REMOVE(f, entry);
	free(f);
	if (err)
		call_errno(c, err);
	else
		call_reply_empty(c);
}

/* ---- read ---- */

static void reply_data(struct call *c, const void *p, size_t n)
{
	msgpack_packer *pk = call_reply(c, 1);

	pack_str(pk, "data");
	pack_bin(pk, p, n);
	call_reply_end(c);
}

static void read_now(struct call *c, int fd, size_t n, off_t off)
{
	void *p = malloc(n ? n : 1);
	ssize_t got;

	if (!p) {
		call_errno(c, ENOMEM);
		return;
	}
	do {
		got = off < 0 ? read(fd, p, n) : pread(fd, p, n, off);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		call_errno(c, errno);
	else
		reply_data(c, p, (size_t)got);
	free(p);
}

static void read_release(struct reading *r)
{
	ev_io_set(call_ev(r->c), &r->io, 0);
	close(r->io.fd);
	free(r);
}

static void read_ready(void *arg, uint32_t events)
{
	struct reading *r = arg;
	struct call *c = r->c;
	int fd = fcntl(r->io.fd, F_DUPFD_CLOEXEC, 3);
	size_t n = r->n;

	(void)events;
	read_release(r);
	read_now(c, fd, n, -1);
	close(fd);
}

static void read_cancel(struct call *c)
{
	read_release(c->state);
}

static void read_later(struct call *c, int fd, size_t n)
{
	struct reading *r = xcalloc(1, sizeof(*r));

	r->c = c;
	r->n = n;
	ev_io_init(&r->io, fcntl(fd, F_DUPFD_CLOEXEC, 3), read_ready, r);
	if (r->io.fd < 0 || ev_io_set(call_ev(c), &r->io, EPOLLIN) < 0) {
		if (r->io.fd >= 0)
			close(r->io.fd);
		free(r);
		read_now(c, fd, n, -1);
		return;
	}
	c->state = r;
	c->cbs = &read_cbs;
}

void op_read(struct call *c)
{
	size_t n = (size_t)args_int(&c->args, "n", 0, INT64_MAX);
	int fd = file_fd(c);
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return;
	n = n < READ_MAX ? n : READ_MAX;
	if ((fcntl(fd, F_GETFL) & O_NONBLOCK) || poll(&pfd, 1, 0) != 0)
		read_now(c, fd, n, -1);
	else
		read_later(c, fd, n);
}

void op_pread(struct call *c)
{
	size_t n = (size_t)args_int(&c->args, "n", 0, INT64_MAX);
	off_t off = args_int(&c->args, "off", 0, INT64_MAX);
	int fd = file_fd(c);

	if (fd >= 0)
		read_now(c, fd, n < READ_MAX ? n : READ_MAX, off);
}

/* ---- write ---- */

static void reply_written(struct call *c, size_t n)
{
	msgpack_packer *pk = call_reply(c, 1);

	pack_str(pk, "written");
	msgpack_pack_uint64(pk, n);
	call_reply_end(c);
}

static void written(void *arg, size_t n, int err)
{
	struct call *c = arg;
	struct sink *s = c->state;

	sink_free(s);
	if (err)
		call_errno(c, err);
	else
		reply_written(c, n);
}

static void write_cancel(struct call *c)
{
	sink_forget(c->state, c);
	sink_free(c->state);
}

void op_write(struct call *c)
{
	struct bytes data = args_bytes(&c->args, "data");
	int fd = file_fd(c), err, copy;
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode)) {
		err = file_write_all(fd, data.p, data.n);
		if (err)
			call_errno(c, err);
		else
			reply_written(c, data.n);
		return;
	}
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0) {
		call_errno(c, errno);
		return;
	}
	c->state = sink_new(call_ev(c), copy, true);
	c->cbs = &write_cbs;
	sink_write(c->state, data.p, data.n, written, c);
}

void op_pwrite(struct call *c)
{
	struct bytes data = args_bytes(&c->args, "data");
	off_t off = args_int(&c->args, "off", 0, INT64_MAX);
	int fd = file_fd(c);
	ssize_t put;

	if (fd < 0)
		return;
	for (size_t done = 0; done < data.n; done += (size_t)put) {
		put = pwrite(fd, (const char *)data.p + done, data.n - done, off + (off_t)done);
		if (put < 0) {
			call_errno(c, errno);
			return;
		}
	}
	reply_written(c, data.n);
}

/* ---- the rest ---- */

void op_seek(struct call *c)
{
	static const int values[] = {SEEK_SET, SEEK_CUR, SEEK_END};
	off_t off = args_int(&c->args, "off", INT64_MIN, INT64_MAX);
	int whence = values[args_choice(&c->args, "whence", whences, 0)];
	int fd = file_fd(c);
	msgpack_packer *pk;

	if (fd < 0)
		return;
	off = lseek(fd, off, whence);
	if (off < 0) {
		call_errno(c, errno);
		return;
	}
	pk = call_reply(c, 1);
	pack_str(pk, "off");
	msgpack_pack_int64(pk, off);
	call_reply_end(c);
}

void op_truncate(struct call *c)
{
	off_t size = args_int(&c->args, "size", 0, INT64_MAX);
	int fd = file_fd(c);

	if (fd < 0)
		return;
	if (ftruncate(fd, size) < 0)
		call_errno(c, errno);
	else
		call_reply_empty(c);
}

void op_sync(struct call *c)
{
	int fd = file_fd(c);

	if (fd < 0)
		return;
	if (fsync(fd) < 0)
		call_errno(c, errno);
	else
		call_reply_empty(c);
}

static const struct call_cbs read_cbs = {.cancel = read_cancel};
static const struct call_cbs write_cbs = {.cancel = write_cancel};
static const struct call_cbs open_cbs = {.cancel = open_cancel};
static const char *const whences[4] = {"set", "cur", "end", NULL};
