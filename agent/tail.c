/*
 * What is appended to a file, or comes out of a descriptor: tail.
 *
 * A plain file is read to its end, then inotify says when to go on; pipes, sockets and devices are read when
 * they are ready, until their end. A file that got shorter is read from its beginning again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "ops.h"

static void tail_turn(void *arg);
static void notified(void *arg, uint32_t events);
static void ready(void *arg, uint32_t events);
static void tail_credit(struct call *c, unsigned stream);
static void tail_cancel(struct call *c);
static void tail_unsubscribe(struct call *c);

static const struct call_cbs tail_cbs;

/* Freed with its call. */
struct tail {
	struct call *c;
	struct ev_io io;	/* the descriptor; watched when it is no plain file */
	struct ev_io notify;	/* inotify; fd -1: none */
	struct ev_timer turn;
	off_t pos;		/* of a plain file; -1: no plain file */
	char *path;		/* follow by name; else NULL */
	int file_watch;
	bool rotated;		/* another file has the name now */
};

static void tail_free(struct tail *t)
{
	struct ev *ev = call_ev(t->c);

	ev_timer_clear(&t->turn);
	if (t->notify.fd >= 0) {
		ev_io_set(ev, &t->notify, 0);
		close(t->notify.fd);
	}
	ev_io_set(ev, &t->io, 0);
	close(t->io.fd);
	free(t->path);
	free(t);
}

static void tail_end(struct tail *t)
{
	struct call *c = t->c;

	tail_free(t);
	call_send_end(c, 0);
	call_end(c);
}

static void tail_cancel(struct call *c)
{
	tail_free(c->state);
}

static void tail_unsubscribe(struct call *c)
{
	tail_end(c->state);
}

/* ---- inotify ---- */

static int watch_file(struct tail *t)
{
	char path[64];

	/* By descriptor: the name may stand for another file by now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->io.fd);
	t->file_watch = inotify_add_watch(t->notify.fd, path, IN_MODIFY | IN_ATTRIB);
	if (t->file_watch < 0 && errno == ENOENT && t->path)
		t->file_watch = inotify_add_watch(t->notify.fd, t->path, IN_MODIFY | IN_ATTRIB);
	return t->file_watch < 0 ? -errno : 0;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int watch_name(struct tail *t)
{
	const char *base = base_name(t->path);
	char *dir = xasprintf("%.*s.", (int)(base - t->path), t->path);
	int wd = inotify_add_watch(t->notify.fd, dir, IN_CREATE | IN_MOVED_TO);
	int err = wd < 0 ? -errno : 0;

	free(dir);
	return err;
}

static int start_inotify(struct tail *t)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), err;

	if (fd < 0)
		return -errno;
	ev_io_init(&t->notify, fd, notified, t);
	err = watch_file(t);
	if (!err && t->path)
		err = watch_name(t);
	return err ? err : ev_io_set(call_ev(t->c), &t->notify, EPOLLIN);
}

static void notified(void *arg, uint32_t events)
{
	char text[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	const struct inotify_event *e;
	struct tail *t = arg;
	ssize_t n;

	(void)events;
	while ((n = read(t->notify.fd, text, sizeof(text))) > 0) {
		for (char *p = text; p < text + n; p += sizeof(*e) + e->len) {
			e = (const struct inotify_event *)p;
			if (t->path && e->wd != t->file_watch && e->len &&
			    strcmp(e->name, base_name(t->path)) == 0)
				t->rotated = true;
		}
	}
	ev_timer_set(call_ev(t->c), &t->turn, 0);
}

/* The former file was read to its end. False when the name stands for none just now. */
static bool reopen(struct tail *t)
{
	int fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	t->rotated = false;
	if (fd < 0)
		return false;
	inotify_rm_watch(t->notify.fd, t->file_watch);
	close(t->io.fd);
	t->io.fd = fd;
	t->pos = 0;
	return watch_file(t) == 0;
}

/* ---- reading ---- */

static ssize_t read_piece(struct tail *t, void *p, size_t n)
{
	struct stat st;

	if (t->pos < 0)
		return read(t->io.fd, p, n);
	if (fstat(t->io.fd, &st) == 0 && st.st_size < t->pos)
		t->pos = 0;
	return pread(t->io.fd, p, n, t->pos);
}

/* One piece. */
static void tail_turn(void *arg)
{
	static char scratch[WIRE_PIECE];
	struct tail *t = arg;
	struct ev *ev = call_ev(t->c);
	size_t room = call_room(t->c, 0);
	ssize_t n;

	if (room == 0)
		return;		/* until the host gives credit */
	n = read_piece(t, scratch, room);
	if (n > 0) {
		t->pos += t->pos < 0 ? 0 : n;
		call_send(t->c, 0, scratch, (size_t)n);
	}
	if (n > 0 || (n < 0 && errno == EINTR)) {
		if (t->pos >= 0 || ev_io_set(ev, &t->io, EPOLLIN) < 0)
			ev_timer_set(ev, &t->turn, 0);
		return;
	}
	if (n == 0 && t->pos >= 0) {
		if (t->rotated && reopen(t))
			ev_timer_set(ev, &t->turn, 0);
		return;
	}
	if (n < 0 && errno == EAGAIN && ev_io_set(ev, &t->io, EPOLLIN) == 0)
		return;
	tail_end(t);
}

static void ready(void *arg, uint32_t events)
{
	struct tail *t = arg;

	(void)events;
	ev_io_set(call_ev(t->c), &t->io, 0);
	tail_turn(t);
}

static void tail_credit(struct call *c, unsigned stream)
{
	struct tail *t = c->state;

	(void)stream;
	if (!t->turn.armed && !t->io.events && c->replied)
		ev_timer_set(call_ev(c), &t->turn, 0);
}

/* ---- start ---- */

/* Absent is the end. Negative counts from the end. */
static off_t start_position(struct args *a, int fd)
{
	const msgpack_object *o = args_find(a, "start");
	off_t size = lseek(fd, 0, SEEK_END), off = 0;
	const char *s;

	if (!o)
		return size;
	if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER || o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER) {
		off = (off_t)args_as_word(a, o, "start");
		off = o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? size + off : off;
		return off < 0 ? 0 : off;
	}
	s = args_as_text(a, o, "start");
	if (strcmp(s, "end") == 0)
		return size;
	if (strcmp(s, "start") != 0 && strcmp(s, "beginning") != 0)
		args_refuse(a, "`start` should be \"start\", \"end\" or an offset");
	return 0;
}

/* A descriptor of our own for path, handle or fd; -1 when the call has failed. */
static int get_fd(struct call *c, const char *path)
{
	int fd = -1;

	if (path) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	} else if (args_find(&c->args, "handle")) {
		fd = file_fd(c);
		if (fd < 0)
			return -1;
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	} else {
		fd = (int)args_int(&c->args, "fd", 0, INT32_MAX);
		if (call_refused(c))
			return -1;
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	if (fd < 0)
		call_errno(c, errno);
	return fd;
}

static void start_failed(struct tail *t, int err)
{
	struct call *c = t->c;

	tail_free(t);
	call_errno(c, err);
}

void op_tail(struct call *c)
{
	static const char *const follows[] = {"name", NULL};
	const char *path = args_opt_text(&c->args, "path");
	bool follow = args_choice(&c->args, "follow", follows, 1) == 0;
	struct stat st = {0};
	struct tail *t;
	int fd, err;

	if (follow && !path)
		args_refuse(&c->args, "`follow` needs `path`");
	if (call_refused(c))
		return;
	fd = get_fd(c, path);
	if (fd < 0)
		return;
	fstat(fd, &st);
	t = xcalloc(1, sizeof(*t));
	t->c = c;
	t->notify.fd = -1;
	t->pos = -1;
	ev_io_init(&t->io, fd, ready, t);
	ev_timer_init(&t->turn, tail_turn, t);
	if (follow)
		t->path = xstrdup(path);
	if (S_ISREG(st.st_mode)) {
		/* An open file's position is shared with its owner: found by another way. */
		off_t here = lseek(fd, 0, SEEK_CUR);

		t->pos = start_position(&c->args, fd);
		lseek(fd, here, SEEK_SET);
		err = start_inotify(t);
		if (err || c->args.problem[0]) {
			if (c->args.problem[0])
				tail_free(t), call_refused(c);
			else
				start_failed(t, err);
			return;
		}
	}
	c->state = t;
	c->cbs = &tail_cbs;
	call_reply(c, 0);
	call_reply_keep(c);
	if (t->pos >= 0 || ev_io_set(call_ev(c), &t->io, EPOLLIN) < 0)
		ev_timer_set(call_ev(c), &t->turn, 0);
}

static const struct call_cbs tail_cbs = {
	.credit = tail_credit,
	.cancel = tail_cancel,
	.unsubscribe = tail_unsubscribe,
};
