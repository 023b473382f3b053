/*
 * Stream: what Lua reads from. The searching and the time limits are in lua/stream.lua, over
 * peek, take, find and more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/stream.h"

static void more_timer_cb(evutil_socket_t fd, short what, void *arg);
static void free_later(void *arg);
static const struct wait_kind more_kind;

#define STREAM_TYPE "provium.Stream"

struct more_wait {
	struct wait wait;
	struct stream *stream;		/* NULL once it is closed under the wait */
	LIST_ENTRY(more_wait) entry;
	bool linked;
	size_t have;
	struct event *timer;
	const char *outcome;
	char what[96];
};

/* Owned by its userdata and its scope: freed when both are done with it. */
struct stream {
	const struct stream_source *src;
	void *arg;
	struct loop *loop;
	struct undo undo;
	struct evbuffer *data;
	size_t owed;			/* bytes received and not yet credited to the sender */
	bool ended, closed;
	uint64_t dropped;		/* by the source, when it was closed */
	unsigned userdata;		/* how many live ones point here */
	struct err err;
	LIST_HEAD(, more_wait) waits;
	unsigned *count;
	LIST_ENTRY(stream) entry;	/* of the file's open ones */
	char *label;			/* how it was made, or NULL */
	char *scope_name;
	char *file;			/* where it was made */
	int line;
};

static void free_if_unused(struct stream *s)
{
	if (s->closed && s->userdata == 0)
		loop_defer(s->loop, free_later, s);
}

static void free_later(void *arg)
{
	struct stream *s = arg;

	INVARIANT(LIST_EMPTY(&s->waits));
	evbuffer_free(s->data);
	err_release(&s->err);
	free(s->label);
	free(s->scope_name);
	free(s->file);
	free(s);
}

static void wake(struct stream *s, const char *outcome)
{
	struct more_wait *w;

	while ((w = LIST_FIRST(&s->waits))) {
		LIST_REMOVE(w, entry);
		w->linked = false;
		w->outcome = outcome;
		wait_finish(&w->wait);
	}
}

/* The common part of closing; tell: the source is not the one who closes. */
static void close_stream(struct stream *s, bool tell)
{
	if (s->closed)
		return;
	s->closed = true;
	if (s->count)
		--*s->count;
	LIST_REMOVE(s, entry);
	scope_remove(&s->undo);
	wake(s, "closed");
	if (tell && s->src->dropped)
		s->dropped = s->src->dropped(s->arg);
	if (tell && s->src->closed)
		s->src->closed(s->arg);
	free_if_unused(s);
}

static void stream_undo(struct undo *u)
{
	struct stream *s = (struct stream *)((char *)u - offsetof(struct stream, undo));

	close_stream(s, true);	/* which takes the undo out: it is done */
}

static void remember_site(lua_State *L, struct stream *s)
{
	const char *where, *colon;

	lua_push_where(L);
	where = lua_tostring(L, -1);
	colon = strrchr(where, ':');	/* "file:line: " */
	if (colon && colon > where) {
		const char *line = colon;

		while (line > where && line[-1] != ':')
			line--;
		if (line > where) {
			s->file = xstrndup(where, (size_t)(line - where) - 1);
			s->line = atoi(line);
		}
	}
	lua_pop(L, 1);
}

struct stream *stream_new(lua_State *L, const struct stream_source *src, void *arg, unsigned *count)
{
	struct scope *scope = ops_scope(L);
	struct stream *s = xcalloc(1, sizeof(*s));

	s->src = src;
	s->arg = arg;
	s->loop = state_loop(state_of(L));
	s->data = evbuffer_new();
	s->count = count;
	if (count)
		++*count;
	LIST_INIT(&s->waits);
	remember_site(L, s);
	s->scope_name = xstrdup(scope_name(scope));
	LIST_INSERT_HEAD(&ops_file(L)->streams, s, entry);
	scope_add(scope, &s->undo, RANK_STREAM, stream_undo);
	return s;
}

void stream_label(struct stream *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	free(s->label);
	s->label = xvasprintf(fmt, ap);
	va_end(ap);
}

unsigned streams_push_list(lua_State *L, const unsigned *count)
{
	struct stream *s;
	unsigned n = 0;
	bool test;

	lua_pushliteral(L, "");
	LIST_FOREACH(s, &ops_file(L)->streams, entry) {
		if (count && s->count != count)
			continue;
		n++;
		test = strncmp(s->scope_name, "test:", 5) == 0;
		lua_pushfstring(L, "\n  - %s created at %s:%d (%s%s%s)", s->label ? s->label : s->src->kind,
			s->file ? s->file : "?", s->line, test ? "test \"" : "", s->scope_name + (test ? 5 : 0),
			test ? "\"" : "");
		lua_insert(L, -2);	/* the list is from the last made to the first */
		lua_concat(L, 2);
	}
	return n;
}

void stream_push(lua_State *L, struct stream *s)
{
	struct stream **ud;

	lua_rawgetp(L, LUA_REGISTRYINDEX, STREAM_TYPE);	/* the weak table of all userdata */
	lua_rawgetp(L, -1, s);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		ud = lua_newuserdata(L, sizeof(*ud));
		*ud = s;
		s->userdata++;
		luaL_getmetatable(L, STREAM_TYPE);
		lua_setmetatable(L, -2);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, -3, s);
	}
	lua_remove(L, -2);
}

/* A sender goes on as long as there is room for its whole window. */
static void give_credit(struct stream *s)
{
	size_t n = s->owed;

	if (!n || s->closed || !s->src->consumed || evbuffer_get_length(s->data) >= STREAM_MAX)
		return;
	s->owed = 0;
	s->src->consumed(s->arg, n);
}

void stream_feed(struct stream *s, const void *data, size_t len)
{
	if (s->closed || s->ended)
		return;
	evbuffer_add(s->data, data, len);
	s->owed += len;
	give_credit(s);
	wake(s, "data");
}

void stream_adopt(struct stream *s, struct evbuffer *data, size_t owed)
{
	evbuffer_add_buffer(s->data, data);
	s->owed += owed;
	give_credit(s);
	wake(s, "data");
}

void stream_end(struct stream *s, const struct err *e)
{
	if (s->ended || s->closed)
		return;
	s->ended = true;
	if (e)
		err_copy(&s->err, e);
	wake(s, "eof");
}

void stream_close(struct stream *s)
{
	close_stream(s, false);
}

/* ---- the Lua face ---- */

static struct stream *check_stream(lua_State *L, int arg)
{
	struct stream **ud = luaL_testudata(L, arg, STREAM_TYPE);

	if (!ud)
		args_raise_self(L, arg, "Stream");
	return *ud;
}

static struct stream *check_open(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	if (s->closed)
		lua_raise(L, "stream closed");
	return s;
}

/* more(have, what, [seconds]) -> "data" (more than have bytes are buffered), "eof", "closed" or "timeout" */
static int op_more(lua_State *L)
{
	struct stream *s = check_open(L);
	size_t have = (size_t)luaL_checkinteger(L, 2);
	const char *what = luaL_checkstring(L, 3);
	int64_t ns = args_duration(L, 4, what, -1);
	struct more_wait *w = wait_new(L, &more_kind, sizeof(*w));

	w->have = have;
	snprintf(w->what, sizeof(w->what), "%s", what);
	if (evbuffer_get_length(s->data) > have || s->ended) {
		w->outcome = evbuffer_get_length(s->data) > have ? "data" : "eof";
		wait_finish(&w->wait);
		return wait_yield(L, &w->wait);
	}
	w->stream = s;
	w->linked = true;
	LIST_INSERT_HEAD(&s->waits, w, entry);
	if (ns >= 0)
		timer_start(s->loop, &w->timer, ns, more_timer_cb, w);
	return wait_yield(L, &w->wait);
}

static void more_timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct more_wait *w = arg;

	(void)fd, (void)what;
	LIST_REMOVE(w, entry);
	w->linked = false;
	w->outcome = "timeout";
	wait_finish(&w->wait);
}

static int more_push(struct wait *wait, lua_State *L)
{
	lua_pushstring(L, ((struct more_wait *)wait)->outcome);
	return 1;
}

static void more_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "%s", ((struct more_wait *)wait)->what);
}

static void more_release(struct wait *wait)
{
	struct more_wait *w = (struct more_wait *)wait;

	if (w->linked)
		LIST_REMOVE(w, entry);
	timer_stop(&w->timer);
}

/* length() -> bytes buffered */
static int stream_length(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)evbuffer_get_length(check_open(L)->data));
	return 1;
}

/* peek(from, n) -> up to n buffered bytes from an offset, left where they are */
static int stream_peek(lua_State *L)
{
	struct stream *s = check_open(L);
	size_t from = (size_t)luaL_checkinteger(L, 2), n = (size_t)luaL_checkinteger(L, 3);
	size_t have = evbuffer_get_length(s->data);
	struct evbuffer_ptr pos;
	luaL_Buffer b;
	char chunk[4096];

	luaL_buffinit(L, &b);
	while (n > 0 && from < have) {
		size_t part = n < sizeof(chunk) ? n : sizeof(chunk);
		ev_ssize_t got;

		evbuffer_ptr_set(s->data, &pos, from, EVBUFFER_PTR_SET);
		got = evbuffer_copyout_from(s->data, &pos, chunk, part);
		if (got <= 0)
			break;
		luaL_addlstring(&b, chunk, (size_t)got);
		from += (size_t)got;
		n -= (size_t)got;
	}
	luaL_pushresult(&b);
	return 1;
}

/* take(n) -> the first n buffered bytes, consumed */
static int stream_take(lua_State *L)
{
	struct stream *s = check_open(L);
	size_t n = (size_t)luaL_checkinteger(L, 2), have = evbuffer_get_length(s->data);

	if (n > have)
		n = have;
	lua_pushlstring(L, n ? (const char *)evbuffer_pullup(s->data, (ev_ssize_t)n) : "", n);
	evbuffer_drain(s->data, n);
	give_credit(s);
	return 1;
}

/* find(text, from) -> offset of text in what is buffered, or nil */
static int stream_find(lua_State *L)
{
	struct stream *s = check_open(L);
	size_t len, from = (size_t)luaL_checkinteger(L, 3);
	const char *text = luaL_checklstring(L, 2, &len);
	struct evbuffer_ptr start;

	if (from > evbuffer_get_length(s->data))
		return 0;
	if (len == 0) {
		lua_pushinteger(L, (lua_Integer)from);
		return 1;
	}
	evbuffer_ptr_set(s->data, &start, from, EVBUFFER_PTR_SET);
	start = evbuffer_search(s->data, text, len, &start);
	if (start.pos < 0)
		return 0;
	lua_pushinteger(L, (lua_Integer)start.pos);
	return 1;
}

/* eof() -> whether all has come and has been read; false for a stream closed before */
static int stream_eof(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	lua_pushboolean(L, s->ended && evbuffer_get_length(s->data) == 0);
	return 1;
}

/* failure() -> why the stream broke, or nil */
static int stream_failure(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	if (!s->err.code)
		return 0;
	lua_pushstring(L, s->err.msg);
	return 1;
}

static int stream_close_method(lua_State *L)
{
	close_stream(check_stream(L, 1), true);
	return 0;
}

static int stream_creation_site(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	lua_createtable(L, 0, 2);
	lua_pushstring(L, s->file ? s->file : "");
	lua_setfield(L, -2, "file");
	lua_pushinteger(L, s->line);
	lua_setfield(L, -2, "line");
	return 1;
}

static int stream_kind(lua_State *L)
{
	lua_pushstring(L, check_stream(L, 1)->src->kind);
	return 1;
}

static int stream_is_open(lua_State *L)
{
	lua_pushboolean(L, !check_stream(L, 1)->closed);
	return 1;
}

/* dropped() -> what the source could not keep because nobody read: frames of a capture, else 0 */
static int stream_dropped(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	lua_pushinteger(L, (lua_Integer)(s->closed || !s->src->dropped ? s->dropped : s->src->dropped(s->arg)));
	return 1;
}

static int stream_tostring(lua_State *L)
{
	struct stream *s = check_stream(L, 1);

	lua_pushfstring(L, "Stream (%s%s)", s->src->kind, s->closed ? ", closed" : "");
	return 1;
}

static int stream_gc(lua_State *L)
{
	struct stream **ud = lua_touserdata(L, 1);

	(*ud)->userdata--;
	free_if_unused(*ud);
	return 0;
}

static const struct wait_kind more_kind = {
	.name = "stream",
	.push = more_push,
	.describe = more_describe,
	.release = more_release,
};

/* Those whose names do not stand in lua.md are for lua/stream.lua. */
static const luaL_Reg stream_methods[] = {
	{ "length", stream_length },
	{ "peek", stream_peek },
	{ "take", stream_take },
	{ "find", stream_find },
	{ "failure", stream_failure },
	{ "is_open", stream_is_open },
	{ "dropped", stream_dropped },
	{ "eof", stream_eof },
	{ "close", stream_close_method },
	{ "creation_site", stream_creation_site },
	{ "kind", stream_kind },
	{ NULL, NULL },
};

static const luaL_Reg stream_ops[] = {
	{ "more", op_more },
	{ NULL, NULL },
};

void ops_open_stream(lua_State *L)
{
	lua_newtable(L);
	lua_newtable(L);
	lua_pushliteral(L, "v");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, STREAM_TYPE);

	ops_new_type(L, STREAM_TYPE, "Stream", stream_gc, stream_tostring, stream_methods, stream_ops);
}
