/*
 * Commands on the host: what os.execute and io.popen are made of.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/bufferevent.h>

#include "ops/args.h"
#include "ops/openers.h"

static void shell_done_cb(void *arg, const struct child_result *r);
static const struct wait_kind shell_kind;

struct shell_wait {
	struct wait wait;
	struct child *child;
	struct bufferevent *input;
	char line[128];
	bool signalled;
	int code;
	char *out;
	size_t out_len;
};

/* Gives the child a socket as stdin and feeds it text; returns the child's end, or 0 for none. */
static int feed_input(struct shell_wait *w, struct loop *l, const char *text, size_t len)
{
	int sv[2];

	if (!text || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return 0;
	evutil_make_socket_nonblocking(sv[0]);
	w->input = bufferevent_socket_new(loop_base(l), sv[0], BEV_OPT_CLOSE_ON_FREE);
	bufferevent_write(w->input, text, len);
	return sv[1];
}

static void input_written_cb(struct bufferevent *bev, void *arg)
{
	(void)arg;
	shutdown(bufferevent_getfd(bev), SHUT_WR);
}

/* shell(line, capture, [input]) -> "exit" or "signal", code, [output] */
static int op_shell(lua_State *L)
{
	size_t len = 0;
	const char *line = luaL_checkstring(L, 1);
	const char *input = luaL_optlstring(L, 3, NULL, &len);
	const char *argv[] = { "/bin/sh", "-c", line, NULL };
	struct loop *l = state_loop(state_of(L));
	struct err e = ERR_INIT;
	struct child_spec spec = {
		.argv = argv, .own_group = true, .capture_out = lua_toboolean(L, 2),
		.capture_max = STATE_MEMORY_CAP, .done = shell_done_cb,
	};
	struct shell_wait *w = wait_new(L, &shell_kind, sizeof(*w));
	int theirs = feed_input(w, l, input, len), r;

	snprintf(w->line, sizeof(w->line), "%s", line);
	spec.arg = w;
	spec.stdin_fd = theirs;
	w->child = child_spawn(l, &spec, &e);
	if (theirs)
		close(theirs);
	if (!w->child) {
		r = wait_abandon(L, &w->wait, &e);
		err_release(&e);
		return r;
	}
	if (w->input) {
		bufferevent_setcb(w->input, NULL, input_written_cb, NULL, NULL);
		bufferevent_enable(w->input, EV_WRITE);
	}
	return wait_yield(L, &w->wait);
}

static void shell_done_cb(void *arg, const struct child_result *r)
{
	struct shell_wait *w = arg;

	w->signalled = r->signalled;
	w->code = r->code;
	if (r->out) {
		w->out_len = evbuffer_get_length(r->out);
		w->out = xmalloc(w->out_len + 1);
		evbuffer_remove(r->out, w->out, w->out_len);
	}
	wait_finish(&w->wait);
}

static int shell_push(struct wait *wait, lua_State *L)
{
	struct shell_wait *w = (struct shell_wait *)wait;

	lua_pushstring(L, w->signalled ? "signal" : "exit");
	lua_pushinteger(L, w->code);
	if (!w->out)
		return 2;
	lua_pushlstring(L, w->out, w->out_len);
	return 3;
}

static void shell_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "host command \"%s\"", ((struct shell_wait *)wait)->line);
}

/* Freeing a child that still runs kills it and its group. */
static void shell_release(struct wait *wait)
{
	struct shell_wait *w = (struct shell_wait *)wait;

	child_free(w->child);
	if (w->input)
		bufferevent_free(w->input);
	free(w->out);
}

static const struct wait_kind shell_kind = {
	.name = "os.execute",
	.push = shell_push,
	.describe = shell_describe,
	.release = shell_release,
};

static const luaL_Reg host_ops[] = {
	{ "shell", op_shell },
	{ NULL, NULL },
};

void ops_open_host(lua_State *L)
{
	lua_set_ops(L, host_ops);
}
