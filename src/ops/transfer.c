/*
 * Whole files between host and guest: read_file, pull_file, write_file, push_file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/args.h"
#include "ops/reply.h"

static void get_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void get_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void pull_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void pull_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void put_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void put_writable_cb(void *arg);
static const char *const read_keys[], *const write_keys[], *const push_keys[];
static const struct wait_kind get_kind, pull_kind, put_kind;
static const struct agent_events get_events, pull_events, put_events;

/* Read ahead of a host file: enough to fill a piece, little enough not to hold the loop up. */
#define HOST_CHUNK ((size_t)256 << 10)

struct get_wait {
	struct wait wait;
	struct target *target;
	struct agent_call *call;
	char *path;
	struct evbuffer *data;
};

struct pull_wait {
	struct wait wait;
	struct target *target;
	struct agent_call *call;
	char *path, *host;
	struct outfile *out;
};

/* The source is a Lua string or a host file. */
struct put_wait {
	struct wait wait;
	struct target *target;
	struct agent_call *call;
	char *path;
	const char *op;
	char *data;			/* the string, or the part of the file that is on its way */
	size_t len, sent;
	int fd;				/* of the host file; -1: none, or at its end */
	bool ended;
};

/* ---- guest to Lua ---- */

/* read_file(path, [{max=}]) -> string */
static int op_read_file(lua_State *L)
{
	static const char signature[] = "vm:read_file(path [, {max=size}])";
	struct target *t = check_target(L, 1, "read_file");
	size_t len;
	const char *path = args_string(L, 2, signature, &len);
	uint64_t max = 0;
	bool bounded = false;
	msgpack_sbuffer *buffer;
	msgpack_packer pk;
	struct get_wait *w;

	args_max(L, 3, signature);
	if (opt_check(L, 3, "vm:read_file", read_keys))
		bounded = opt_size(L, 3, "vm:read_file", "max", &max);
	buffer = sbuffer_push(L);
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1 + bounded);
	pack_key(&pk, "path");
	msgpack_pack_str_with_body(&pk, path, len);
	if (bounded)
		pack_int(&pk, "max", (int64_t)max);

	w = wait_new(L, &get_kind, sizeof(*w));
	w->target = t;
	w->path = xstrdup(path);
	w->data = evbuffer_new();
	w->call = agent_call(vm_agent(t->vm), t->channel, "get_file", buffer, false, &get_events, w);
	return wait_yield(L, &w->wait);
}

static void get_piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct get_wait *w = arg;

	if (!data)
		return;
	evbuffer_add(w->data, data, len);
	agent_call_credit(w->call, stream, len);
}

static void get_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct get_wait *w = arg;

	(void)o;
	if (e)
		target_fail(&w->wait, w->target, "read_file", w->path, e);
	else
		wait_finish(&w->wait);
}

static int get_push(struct wait *wait, lua_State *L)
{
	struct get_wait *w = (struct get_wait *)wait;
	size_t n = evbuffer_get_length(w->data);

	lua_pushlstring(L, n ? (const char *)evbuffer_pullup(w->data, -1) : "", n);
	return 1;
}

static void get_describe(struct wait *wait, char *buf, size_t size)
{
	struct get_wait *w = (struct get_wait *)wait;

	snprintf(buf, size, "vm \"%s\": read_file \"%s\"", vm_name(w->target->vm), w->path);
}

static void get_release(struct wait *wait)
{
	struct get_wait *w = (struct get_wait *)wait;

	agent_call_free(w->call);
	evbuffer_free(w->data);
	free(w->path);
}

/* ---- guest to host file ---- */

/* pull_file(guest, host): the guest file's mode is kept; the host file appears whole or not at all */
static int op_pull_file(lua_State *L)
{
	static const char signature[] = "vm:pull_file(guest path, host path)";
	struct target *t = check_target(L, 1, "pull_file");
	const char *guest = args_string(L, 2, signature, NULL), *host = args_string(L, 3, signature, NULL);
	struct err e = ERR_INIT;
	msgpack_sbuffer *buffer;
	msgpack_packer pk;
	struct pull_wait *w;
	struct stat st;

	args_max(L, 3, signature);
	host = args_push_host_path(L, host);
	if (stat(host, &st) == 0 && !S_ISREG(st.st_mode))
		return lua_raise(L, "vm `%s`: pull_file: host file `%s`: %s", vm_name(t->vm), host,
			S_ISDIR(st.st_mode) ? strerror(EISDIR) : "not a regular file");
	buffer = sbuffer_push(L);
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_str(&pk, "path", guest);

	w = wait_new(L, &pull_kind, sizeof(*w));
	w->target = t;
	w->path = xstrdup(guest);
	w->host = xstrdup(host);
	w->out = outfile_open(host, 0, &e);
	if (w->out)
		w->call = agent_call(vm_agent(t->vm), t->channel, "get_file", buffer, false, &pull_events, w);
	else
		wait_fail(&w->wait, e.code, "vm `%s`: pull_file: %s", vm_name(t->vm), e.msg);
	err_release(&e);
	return wait_yield(L, &w->wait);
}

static void pull_fail(struct pull_wait *w, const struct err *e)
{
	agent_call_free(w->call);
	w->call = NULL;
	wait_fail(&w->wait, e->code, "vm `%s`: pull_file `%s`: %s", vm_name(w->target->vm), w->path, e->msg);
}

static void pull_piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct pull_wait *w = arg;
	struct err e = ERR_INIT;

	if (!data || w->wait.finished)
		return;
	if (outfile_write(w->out, data, len, &e) < 0)
		pull_fail(w, &e);
	else
		agent_call_credit(w->call, stream, len);
	err_release(&e);
}

static void pull_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct pull_wait *w = arg;
	struct err failed = ERR_INIT;

	if (w->wait.finished)
		return;
	if (e) {
		target_fail(&w->wait, w->target, "pull_file", w->path, e);
		return;
	}
	if (fchmod(outfile_fd(w->out), (mode_t)reply_int(o, "mode", 0644) & 0777) < 0)
		err_set(&failed, errno, "set the mode of host file `%s`: %s", w->host, strerror(errno));
	if (err_is_set(&failed) || outfile_commit(w->out, false, &failed) < 0)
		pull_fail(w, &failed);
	else
		wait_finish(&w->wait);
	err_release(&failed);
}

static void pull_describe(struct wait *wait, char *buf, size_t size)
{
	struct pull_wait *w = (struct pull_wait *)wait;

	snprintf(buf, size, "vm \"%s\": pull_file \"%s\"", vm_name(w->target->vm), w->path);
}

static void pull_release(struct wait *wait)
{
	struct pull_wait *w = (struct pull_wait *)wait;

	agent_call_free(w->call);
	outfile_free(w->out);
	free(w->path);
	free(w->host);
}

/* ---- host to guest ---- */

static struct put_wait *put_new(lua_State *L, struct target *t, const char *op, const char *path)
{
	struct put_wait *w = wait_new(L, &put_kind, sizeof(*w));

	w->target = t;
	w->op = op;
	w->path = xstrdup(path);
	w->fd = -1;
	return w;
}

static void put_fail(struct put_wait *w, const char *what, int code)
{
	agent_call_free(w->call);
	w->call = NULL;
	wait_fail(&w->wait, code, "vm `%s`: %s `%s`: %s: %s", vm_name(w->target->vm), w->op, w->path, what,
		strerror(code));
}

/* The next part of the host file into w->data. Regular files only, so this does not wait for anyone. */
static int put_refill(struct put_wait *w)
{
	ssize_t n;

	if (w->fd < 0)
		return 0;
	n = read(w->fd, w->data, HOST_CHUNK);
	if (n < 0)
		return -errno;
	w->sent = 0;
	w->len = (size_t)n;
	if (n == 0) {
		close(w->fd);
		w->fd = -1;
	}
	return 0;
}

/* Sends until the credit is used up; the agent's next credit calls put_writable_cb. */
static void put_feed(struct put_wait *w)
{
	size_t n;
	int r;

	while (!w->ended) {
		if (w->sent < w->len) {
			n = agent_call_send(w->call, w->data + w->sent, w->len - w->sent);
			if (n == 0)
				return;
			w->sent += n;
		} else if (w->fd >= 0) {
			r = put_refill(w);
			if (r < 0) {
				put_fail(w, "reading the host file", -r);
				return;
			}
		} else {
			w->ended = true;
			agent_call_send(w->call, NULL, 0);
		}
	}
}

static void put_writable_cb(void *arg)
{
	struct put_wait *w = arg;

	if (!w->wait.finished)
		put_feed(w);
}

static void put_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct put_wait *w = arg;

	(void)o;
	if (w->wait.finished)
		return;
	if (e)
		target_fail(&w->wait, w->target, w->op, w->path, e);
	else
		wait_finish(&w->wait);
}

/* write_file(path, data, [{mode=, atomic=, append=}]) */
static int op_write_file(lua_State *L)
{
	static const char signature[] = "vm:write_file(path, data [, {mode=, atomic=, append=}])";
	struct target *t = check_target(L, 1, "write_file");
	size_t path_len, len;
	const char *path = args_string(L, 2, signature, &path_len);
	const char *data = args_string(L, 3, signature, &len);
	bool atomic = false, append = false, has_mode = false;
	int64_t mode = 0;
	msgpack_sbuffer *buffer;
	msgpack_packer pk;
	struct put_wait *w;

	args_max(L, 4, signature);
	if (opt_check(L, 4, "vm:write_file", write_keys)) {
		has_mode = opt_integer(L, 4, "vm:write_file", "mode", 0, 07777, &mode);
		opt_bool(L, 4, "vm:write_file", "atomic", &atomic);
		opt_bool(L, 4, "vm:write_file", "append", &append);
	}
	if (atomic && append)
		lua_raise(L, "vm:write_file: `atomic` and `append` exclude each other");
	buffer = sbuffer_push(L);
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 3 + has_mode);
	pack_key(&pk, "path");
	msgpack_pack_str_with_body(&pk, path, path_len);
	pack_bool(&pk, "atomic", atomic);
	pack_bool(&pk, "append", append);
	if (has_mode)
		pack_int(&pk, "mode", mode);

	w = put_new(L, t, "write_file", path);
	w->data = xmalloc(len + 1);
	memcpy(w->data, data, len);
	w->len = len;
	w->call = agent_call(vm_agent(t->vm), t->channel, "put_file", buffer, false, &put_events, w);
	put_feed(w);
	return wait_yield(L, &w->wait);
}

/* push_file(host, guest, [{mode=, auto_dep=}]): the host file's mode is kept unless given */
static int op_push_file(lua_State *L)
{
	static const char signature[] = "vm:push_file(host path, guest path [, {mode=, auto_dep=}])";
	struct target *t = check_target(L, 1, "push_file");
	const char *host = args_string(L, 2, signature, NULL), *guest = args_string(L, 3, signature, NULL);
	bool auto_dep = true;
	int64_t mode = -1;
	struct stat st;
	msgpack_sbuffer *buffer;
	msgpack_packer pk;
	struct put_wait *w;
	int fd;

	args_max(L, 4, signature);
	if (opt_check(L, 4, "vm:push_file", push_keys)) {
		opt_integer(L, 4, "vm:push_file", "mode", 0, 07777, &mode);
		opt_bool(L, 4, "vm:push_file", "auto_dep", &auto_dep);
	}
	host = args_push_host_path(L, host);
	buffer = sbuffer_push(L);
	fd = open(host, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		int code = fd < 0 ? errno : 0;

		if (fd >= 0)
			close(fd);
		return lua_raise(L, "vm `%s`: push_file: host file `%s`: %s", vm_name(t->vm), host,
			code ? strerror(code) : "not a regular file");
	}
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 2);
	pack_str(&pk, "path", guest);
	pack_int(&pk, "mode", mode >= 0 ? mode : (int64_t)(st.st_mode & 07777));

	w = put_new(L, t, "push_file", guest);
	w->fd = fd;
	w->data = xmalloc(HOST_CHUNK);
	w->call = agent_call(vm_agent(t->vm), t->channel, "put_file", buffer, false, &put_events, w);
	put_feed(w);
	return wait_yield(L, &w->wait);
}

static void put_describe(struct wait *wait, char *buf, size_t size)
{
	struct put_wait *w = (struct put_wait *)wait;

	snprintf(buf, size, "vm \"%s\": %s \"%s\"", vm_name(w->target->vm), w->op, w->path);
}

static void put_release(struct wait *wait)
{
	struct put_wait *w = (struct put_wait *)wait;

	agent_call_free(w->call);
	if (w->fd >= 0)
		close(w->fd);
	free(w->data);
	free(w->path);
}

static const char *const read_keys[] = { "max", NULL };
static const char *const write_keys[] = { "mode", "atomic", "append", NULL };
static const char *const push_keys[] = { "mode", "auto_dep", NULL };

static const struct agent_events get_events = {
	.reply = get_reply_cb,
	.piece = get_piece_cb,
};

static const struct agent_events pull_events = {
	.reply = pull_reply_cb,
	.piece = pull_piece_cb,
};

static const struct agent_events put_events = {
	.reply = put_reply_cb,
	.writable = put_writable_cb,
};

static const struct wait_kind get_kind = {
	.name = "vm:read_file",
	.push = get_push,
	.describe = get_describe,
	.release = get_release,
};

static const struct wait_kind pull_kind = {
	.name = "vm:pull_file",
	.describe = pull_describe,
	.release = pull_release,
};

static const struct wait_kind put_kind = {
	.name = "vm:write_file",
	.describe = put_describe,
	.release = put_release,
};

static const luaL_Reg transfer_ops[] = {
	{ "read_file", op_read_file },
	{ "write_file", op_write_file },
	{ "pull_file", op_pull_file },
	{ "push_file", op_push_file },
	{ NULL, NULL },
};

void ops_open_transfer(lua_State *L)
{
	ops_add_target_ops(L, transfer_ops);
}
