/*
 * Console: what a VM has printed since its first power-on, and its keyboard.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/stream.h"
#include "ops/target.h"

static void expect_grew(struct console_listener *l, struct console *c, size_t from);
static void expect_ended(struct console_listener *l, struct console *c);
static void expect_timer_cb(evutil_socket_t fd, short what, void *arg);
static void feed_grew(struct console_listener *l, struct console *c, size_t from);
static void feed_ended(struct console_listener *l, struct console *c);
static const struct wait_kind expect_kind;
static const struct stream_source console_source;
static const char *const log_keys[], *const read_keys[], *const write_keys[];

#define CONSOLE_TYPE "provium.Console"
#define TAIL_SHOWN 200

/* In the userdata; its VM's is kept alive by the scope that made it. The position of expect is the VM's, not the handle's. */
struct console_ud {
	struct vm *vm;
	size_t *consumed;
	unsigned *streams;
};

struct expect_wait {
	struct wait wait;
	struct console_listener listener;
	struct console_ud *ud;
	struct event *timer;
	char *text;
	size_t len, from, end;
	double seconds;
};

/* A stream of the console's bytes: freed when the stream is closed. */
struct feed {
	struct console_listener listener;
	struct console *console;
	struct stream *stream;
	size_t pos;			/* of the log: what the stream has been fed */
};

/* The console that a method was called on; op is NULL for what needs no machine behind it. */
static struct console_ud *check_console(lua_State *L, const char *op)
{
	struct console_ud *ud = luaL_testudata(L, 1, CONSOLE_TYPE);

	if (!ud)
		args_raise_self(L, 1, "Console");
	if (op)
		vm_require_qemu(L, ud->vm, op);
	return ud;
}

/* ---- expect ---- */

/* Looks at what has come since the last look. */
static bool expect_look(struct expect_wait *w)
{
	struct console *c = vm_console(w->ud->vm);
	size_t n;
	const char *log = console_log(c, &n), *hit;

	hit = n > w->from ? memmem(log + w->from, n - w->from, w->text, w->len) : NULL;
	if (!hit) {
		if (n >= w->len && n - w->len + 1 > w->from)
			w->from = n - w->len + 1;	/* a match may straddle two arrivals */
		return false;
	}
	w->end = (size_t)(hit - log) + w->len;
	*w->ud->consumed = w->end;
	return true;
}

static void expect_fail(struct expect_wait *w, int code, const char *how)
{
	char *tail = console_tail(vm_console(w->ud->vm), TAIL_SHOWN);

	wait_fail(&w->wait, code, "vm `%s`: console:expect %s after %.1fs waiting for `%s`; last output: %s",
		vm_name(w->ud->vm), how, wait_elapsed(&w->wait), w->text, tail ? tail : "");
	free(tail);
}

/* expect(text, [timeout=30]) -> text: in log order, after what an earlier expect has matched */
static int op_expect(lua_State *L)
{
	static const char signature[] = "console:expect(string [, timeout])";
	struct console_ud *ud = check_console(L, "console:expect");
	size_t len;
	const char *text = args_string(L, 2, signature, &len);
	int64_t ns = args_duration(L, 3, "console:expect: timeout", 30 * INT64_C(1000000000));
	struct expect_wait *w;

	args_max(L, 3, signature);
	if (len == 0)
		lua_raise(L, "console:expect: the text is empty");
	w = wait_new(L, &expect_kind, sizeof(*w));
	w->ud = ud;
	w->text = xmalloc(len + 1);
	memcpy(w->text, text, len + 1);
	w->len = len;
	w->from = *ud->consumed;
	w->listener.grew = expect_grew;
	w->listener.ended = expect_ended;
	console_listen(vm_console(ud->vm), &w->listener);
	if (expect_look(w))
		wait_finish(&w->wait);
	else if (vm_state(ud->vm) == VM_SHUTDOWN || vm_state(ud->vm) == VM_DEAD)
		expect_fail(w, EPIPE, "cannot match, the VM is off,");
	else
		timer_start(state_loop(state_of(L)), &w->timer, ns, expect_timer_cb, w);
	return wait_yield(L, &w->wait);
}

static void expect_grew(struct console_listener *l, struct console *c, size_t from)
{
	struct expect_wait *w = (struct expect_wait *)((char *)l - offsetof(struct expect_wait, listener));

	(void)c, (void)from;
	if (!w->wait.finished && expect_look(w))
		wait_finish(&w->wait);
}

static void expect_ended(struct console_listener *l, struct console *c)
{
	struct expect_wait *w = (struct expect_wait *)((char *)l - offsetof(struct expect_wait, listener));

	(void)c;
	if (!w->wait.finished)
		expect_fail(w, EPIPE, "ended with the VM");
}

static void expect_timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct expect_wait *w = arg;

	(void)fd, (void)what;
	if (!w->wait.finished)
		expect_fail(w, ETIMEDOUT, "timed out");
}

static int expect_push(struct wait *wait, lua_State *L)
{
	struct expect_wait *w = (struct expect_wait *)wait;

	lua_pushlstring(L, w->text, w->len);
	return 1;
}

static void expect_describe(struct wait *wait, char *buf, size_t size)
{
	struct expect_wait *w = (struct expect_wait *)wait;

	snprintf(buf, size, "vm \"%s\": console output \"%.200s\"", vm_name(w->ud->vm), w->text);
}

static void expect_release(struct wait *wait)
{
	struct expect_wait *w = (struct expect_wait *)wait;

	console_unlisten(vm_console(w->ud->vm), &w->listener);
	timer_stop(&w->timer);
	free(w->text);
}

/* ---- streams ---- */

static void feed_grew(struct console_listener *l, struct console *c, size_t from)
{
	struct feed *f = (struct feed *)((char *)l - offsetof(struct feed, listener));
	size_t n;
	const char *log = console_log(c, &n);

	if (from < f->pos)
		from = f->pos;
	f->pos = n;
	if (n > from)
		stream_feed(f->stream, log + from, n - from);
}

static void feed_ended(struct console_listener *l, struct console *c)
{
	struct feed *f = (struct feed *)((char *)l - offsetof(struct feed, listener));

	(void)c;
	stream_end(f->stream, NULL);
}

static void feed_closed(void *arg)
{
	struct feed *f = arg;

	console_unlisten(f->console, &f->listener);
	free(f);
}

/* read([{start="end"|"beginning"}]) -> Stream */
static int console_read(lua_State *L)
{
	struct console_ud *ud = check_console(L, "console:read");
	const char *start = "end", *log;
	struct feed *f;
	size_t n;

	if (opt_check(L, 2, "console:read", read_keys))
		opt_string(L, 2, "console:read", "start", &start, NULL);
	if (strcmp(start, "end") && strcmp(start, "beginning") && strcmp(start, "start"))
		lua_raise(L, "console:read: unknown start `%s` (known: end, beginning)", start);
	ops_scope(L);
	f = xcalloc(1, sizeof(*f));
	f->console = vm_console(ud->vm);
	f->listener.grew = feed_grew;
	f->listener.ended = feed_ended;
	f->stream = stream_new(L, &console_source, f, ud->streams);
	stream_label(f->stream, "console():read()");
	console_listen(f->console, &f->listener);
	log = console_log(f->console, &n);
	f->pos = n;
	if (*start != 'e' && n > 0)
		stream_feed(f->stream, log, n);
	stream_push(L, f->stream);
	return 1;
}

/* ---- the log, the keyboard ---- */

/* Drops CR and escape sequences (CSI, OSC, two-character ones). */
static size_t clean(char *out, const char *in, size_t n)
{
	size_t o = 0;

	for (size_t i = 0; i < n; i++) {
		if (in[i] == '\r')
			continue;
		if (in[i] != '\033') {
			out[o++] = in[i];
			continue;
		}
		if (++i >= n)
			break;
		if (in[i] == '[') {
			for (i++; i < n && !(in[i] >= 0x40 && in[i] <= 0x7e); i++)
				;
		} else if (in[i] == ']') {
			for (i++; i < n && in[i] != '\a' && !(in[i] == '\033' && i + 1 < n && in[i + 1] == '\\'); i++)
				;
			if (i < n && in[i] == '\033')
				i++;
		}
	}
	return o;
}

/* read_log([{clean=}]) -> everything since the first power-on */
static int console_read_log(lua_State *L)
{
	struct console_ud *ud = check_console(L, "console:read_log");
	bool cleaned = false;
	size_t n;
	const char *log;
	char *copy;

	if (opt_check(L, 2, "console:read_log", log_keys))
		opt_bool(L, 2, "console:read_log", "clean", &cleaned);
	log = console_log(vm_console(ud->vm), &n);
	if (!cleaned) {
		lua_pushlstring(L, n ? log : "", n);
		return 1;
	}
	copy = lua_newuserdata(L, n + 1);
	lua_pushlstring(L, copy, clean(copy, log, n));
	return 1;
}

/* write(data, [{timeout=}]) -> bytes: queued for the guest, which takes them as fast as its driver does */
static int console_write_method(lua_State *L)
{
	static const char signature[] = "console:write(string [, {timeout=}])";
	struct console_ud *ud = check_console(L, "console:write");
	size_t len;
	const char *data = args_string(L, 2, signature, &len);
	int64_t ns;
	int r;

	if (opt_push(L, 3, "timeout_ms"))
		lua_raise(L, "console:write: unknown option `timeout_ms`; use `timeout`, a duration");
	if (opt_check(L, 3, "console:write", write_keys))
		opt_duration(L, 3, "console:write", "timeout", &ns);
	r = console_write(vm_console(ud->vm), data, len);
	if (r < 0)
		lua_raise(L, "vm `%s`: VM not booted (cannot write to its console): %s", vm_name(ud->vm), strerror(-r));
	lua_pushinteger(L, (lua_Integer)len);
	return 1;
}

/* close(): the handle has nothing of its own to give back */
static int console_close(lua_State *L)
{
	check_console(L, NULL);
	return 0;
}

/* console_new(vm) -> Console */
static int core_console_new(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	struct console_ud *ud = lua_newuserdata(L, sizeof(*ud));

	*ud = (struct console_ud){ .vm = vm };
	vm_console_counters(L, 1, &ud->consumed, &ud->streams);
	luaL_getmetatable(L, CONSOLE_TYPE);
	lua_setmetatable(L, -2);
	return 1;
}

static int console_gc(lua_State *L)
{
	(void)L;
	return 0;
}

static int console_tostring(lua_State *L)
{
	lua_pushfstring(L, "Console (%s)", vm_name(check_console(L, NULL)->vm));
	return 1;
}

static const struct stream_source console_source = {
	.kind = "console",
	.closed = feed_closed,
};

static const struct wait_kind expect_kind = {
	.name = "console:expect",
	.push = expect_push,
	.describe = expect_describe,
	.release = expect_release,
};

static const char *const log_keys[] = { "clean", NULL };
static const char *const read_keys[] = { "start", NULL };
static const char *const write_keys[] = { "timeout", NULL };

static const luaL_Reg console_methods[] = {
	{ "read", console_read },
	{ "read_log", console_read_log },
	{ "write", console_write_method },
	{ "close", console_close },
	{ NULL, NULL },
};

static const luaL_Reg console_ops[] = {
	{ "expect", op_expect },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "console_new", core_console_new },
	{ NULL, NULL },
};

void ops_open_console(lua_State *L)
{
	ops_new_type(L, CONSOLE_TYPE, "Console", console_gc, console_tostring, console_methods, console_ops);
	luaL_setfuncs(L, core_functions, 0);
}
