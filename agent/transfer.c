/*
 * Whole files in pieces: get_file and put_file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "executor.h"
#include "file.h"
#include "ops.h"
#include "sink.h"

/*
 * How get_file leaves room while the host asks for other things, too: it pauses after each piece, for longer than
 * that took. The guest's only processor may be an emulated one.
 */
#define OTHERS_NS 20000000		/* since the last request, that there are others */
#define PAUSE_NS(took) ((took) < 150000 ? 3 * (took) : 450000)

static void get_turn(void *arg);
static void get_ready(void *arg, uint32_t events);
static void get_credit(struct call *c, unsigned stream);
static void get_cancel(struct call *c);
static void put_event(struct call *c, const void *p, size_t n);
static void put_cancel(struct call *c);
static void put_written(void *arg, size_t n, int err);

static const struct call_cbs get_cbs, put_cbs;

/* ---- get_file ---- */

/* Freed with its call. */
struct get {
	struct call *c;
	struct ev_io io;	/* the descriptor; watched when it is no plain file */
	struct ev_timer turn;	/* one piece a turn: others are served in between */
	int64_t began_ns;	/* later requests are others */
	uint64_t size, max;
	off_t off;		/* a handle's file is read without moving its position; -1: read() */
	mode_t mode;
};

static void get_release(struct get *g)
{
	ev_timer_clear(&g->turn);
	ev_io_set(call_ev(g->c), &g->io, 0);
	close(g->io.fd);
	free(g);
}

static void get_fail(struct get *g, int err)
{
	struct call *c = g->c;

	get_release(g);
	call_errno(c, err);
}

static void get_finish(struct get *g)
{
	struct call *c = g->c;
	uint64_t size = g->size;
	mode_t mode = g->mode;
	msgpack_packer *pk;

	get_release(g);
	call_send_end(c, 0);
	pk = call_reply(c, 2);
	pack_str(pk, "size");
	msgpack_pack_uint64(pk, size);
	pack_str(pk, "mode");
	msgpack_pack_uint32(pk, mode & 07777);
	call_reply_end(c);
}

static bool others_ask(const struct get *g, int64_t now)
{
	int64_t asked = agent_env.shared->asked_ns;

	return asked > g->began_ns && now - asked < OTHERS_NS;
}

static void get_turn(void *arg)
{
	static char scratch[WIRE_LIGHT];
	struct get *g = arg;
	struct ev *ev = call_ev(g->c);
	size_t room = call_room(g->c, 0);
	int64_t from = agent_now(), now;
	size_t piece = others_ask(g, from) ? WIRE_LIGHTER : WIRE_LIGHT;
	ssize_t n;

	if (room == 0)
		return;		/* until the host gives credit */
	room = room < piece ? room : piece;
	n = g->off < 0 ? read(g->io.fd, scratch, room) : pread(g->io.fd, scratch, room, g->off);
	if (n < 0 && errno == EAGAIN && ev_io_set(ev, &g->io, EPOLLIN) == 0)
		return;
	if (n < 0 && errno != EINTR) {
		get_fail(g, errno);
		return;
	}
	if (n == 0) {
		get_finish(g);
		return;
	}
	if (n > 0) {
		g->size += (uint64_t)n;
		g->off += g->off < 0 ? 0 : n;
		if (g->size > g->max || g->c->overflow) {
			get_fail(g, EFBIG);
			return;
		}
		call_send(g->c, 0, scratch, (size_t)n);
	}
	now = agent_now();
	ev_timer_set(ev, &g->turn, others_ask(g, now) ? PAUSE_NS(now - from) : 0);
}

static void get_ready(void *arg, uint32_t events)
{
	struct get *g = arg;

	(void)events;
	ev_io_set(call_ev(g->c), &g->io, 0);
	get_turn(g);
}

static void get_credit(struct call *c, unsigned stream)
{
	struct get *g = c->state;

	(void)stream;
	if (!g->turn.armed && !g->io.events)
		ev_timer_set(call_ev(c), &g->turn, 0);
}

static void get_cancel(struct call *c)
{
	get_release(c->state);
}

void op_get_file(struct call *c)
{
	const char *path = args_opt_text(&c->args, "path");
	uint64_t max = (uint64_t)args_opt_int(&c->args, "max", INT64_MAX, 0, INT64_MAX);
	struct stat st;
	struct get *g;
	int fd;

	if (!path && !args_find(&c->args, "handle"))
		args_refuse(&c->args, "one of `path` and `handle` is needed");
	if (call_refused(c))
		return;
	if (path) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	} else {
		fd = file_fd(c);
		if (fd < 0)
			return;
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	if (fd < 0 || fstat(fd, &st) < 0) {
		call_errno(c, errno);
		if (fd >= 0)
			close(fd);
		return;
	}
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max) {
		close(fd);
		call_errno(c, EFBIG);
		return;
	}
	g = xcalloc(1, sizeof(*g));
	g->c = c;
	g->max = max;
	g->began_ns = agent_now();
	g->mode = st.st_mode;
	g->off = !path && S_ISREG(st.st_mode) ? 0 : -1;
	ev_io_init(&g->io, fd, get_ready, g);
	ev_timer_init(&g->turn, get_turn, g);
	c->state = g;
	c->cbs = &get_cbs;
	get_turn(g);
}

/* ---- put_file ---- */

/* Freed with its call. */
struct put {
	int fd;
	struct sink *sink;	/* a target that may block; else NULL */
	char *path, *temp;	/* temp: what is renamed to path at the end; NULL: not atomic */
	uint64_t size;
	int err;
	bool ended;
};

static void put_release(struct put *w, bool keep)
{
	if (w->sink)
		sink_free(w->sink);
	else if (w->fd >= 0)
		close(w->fd);
	if (w->temp && !keep)
		unlink(w->temp);
	free(w->path);
	free(w->temp);
	free(w);
}

static void put_fail(struct call *c, int err)
{
	put_release(c->state, false);
	call_errno(c, err);
}

static void put_finish(struct call *c)
{
	struct put *w = c->state;
	msgpack_packer *pk;

	/* A file system may tell only now that there was no room. */
	if (!w->sink && close(w->fd) < 0)
		w->err = errno;
	w->fd = -1;
	if (!w->err && w->temp && rename(w->temp, w->path) < 0)
		w->err = errno;
	if (w->err) {
		put_fail(c, w->err);
		return;
	}
	pk = call_reply(c, 1);
	pack_str(pk, "size");
	msgpack_pack_uint64(pk, w->size);
	put_release(w, true);
	call_reply_end(c);
}

static void put_written(void *arg, size_t n, int err)
{
	struct call *c = arg;
	struct put *w = c->state;

	if (err) {
		sink_forget(w->sink, c);
		put_fail(c, err);
		return;
	}
	w->size += n;
	call_consumed(c, n);
	if (w->ended && n == 0)
		put_finish(c);
}

static void put_event(struct call *c, const void *p, size_t n)
{
	struct put *w = c->state;
	int err;

	if (w->ended)
		return;
	w->ended = !p;
	if (w->sink) {
		if (!p || n)
			sink_write(w->sink, p ? p : "", n, put_written, c);
		return;
	}
	if (!p) {
		put_finish(c);
		return;
	}
	err = file_write_all(w->fd, p, n);
	if (err) {
		put_fail(c, err);
		return;
	}
	w->size += n;
	call_consumed(c, n);
}

static void put_cancel(struct call *c)
{
	struct put *w = c->state;

	if (w->sink)
		sink_forget(w->sink, c);
	put_release(w, false);
}

/* Beside the file itself, so that renaming works. A symbolic link's target is what is replaced. */
static int open_temp(struct put *w, mode_t mode)
{
	char *target = realpath(w->path, NULL), *slash;

	if (target) {
		free(w->path);
		w->path = target;
	}
	slash = strrchr(w->path, '/');
	w->temp = slash ? xasprintf("%.*s/.%s.XXXXXX", (int)(slash - w->path), w->path, slash + 1) :
		xasprintf(".%s.XXXXXX", w->path);
	w->fd = mkostemp(w->temp, O_CLOEXEC);
	if (w->fd < 0 || fchmod(w->fd, mode) < 0)
		return -errno;
	return 0;
}

static int put_open(struct put *w, bool atomic, bool append, const int64_t *mode)
{
	struct stat st = {0};
	bool exists = stat(w->path, &st) == 0;

	if (exists && S_ISDIR(st.st_mode))
		return -EISDIR;
	if (exists && !S_ISREG(st.st_mode)) {
		w->fd = open(w->path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		return w->fd < 0 ? -errno : 1;
	}
	if (atomic)
		return open_temp(w, mode ? (mode_t)*mode : exists ? st.st_mode & 07777 : 0644);
	w->fd = open(w->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : O_TRUNC),
		mode ? (mode_t)*mode : 0644);
	if (w->fd < 0 || (mode && fchmod(w->fd, (mode_t)*mode) < 0))
		return -errno;
	return 0;
}

void op_put_file(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	int64_t mode = args_opt_int(&c->args, "mode", -1, 0, 07777);
	bool atomic = args_flag(&c->args, "atomic"), append = args_flag(&c->args, "append");
	struct put *w;
	int err;

	if (atomic && append)
		args_refuse(&c->args, "`atomic` and `append` exclude each other");
	if (call_refused(c))
		return;
	w = xcalloc(1, sizeof(*w));
	w->fd = -1;
	w->path = xstrdup(path);
	c->state = w;
	err = put_open(w, atomic, append, mode < 0 ? NULL : &mode);
	if (err < 0) {
		put_fail(c, err);
		return;
	}
	if (err > 0)
		w->sink = sink_new(call_ev(c), w->fd, false);
	c->cbs = &put_cbs;
}

static const struct call_cbs get_cbs = {
	.credit = get_credit,
	.cancel = get_cancel,
};

static const struct call_cbs put_cbs = {
	.event = put_event,
	.cancel = put_cancel,
};
