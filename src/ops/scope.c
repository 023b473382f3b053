/*
 * Scopes of tests: what a test makes is closed at its end, whatever the outcome.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ops/args.h"
#include "ops/openers.h"

static const struct wait_kind close_kind;

#define SCOPE_TYPE "provium.Scope"

enum phase { OPEN, CLOSING, CLOSED };

struct close_wait;

/*
 * Belongs to the file's scope too, so that a file that ends in the middle of a test closes it.
 * Freed when the userdata is collected; by then it is closed, or the state is being freed.
 */
struct test_scope {
	struct scope *scope;
	struct undo undo;
	enum phase phase;
	struct close_wait *waiter;
	lua_State *L;			/* the state's main thread */
};

struct close_wait {
	struct wait wait;
	struct test_scope *ts;
};

static void closed_cb(void *arg)
{
	struct test_scope *ts = arg;

	ts->phase = CLOSED;
	if (ts->undo.scope && ts->undo.started)
		undo_done(&ts->undo);
	else
		scope_remove(&ts->undo);
	if (ts->waiter)
		wait_finish(&ts->waiter->wait);
	ts->waiter = NULL;
	lua_pushnil(ts->L);
	lua_rawsetp(ts->L, LUA_REGISTRYINDEX, ts);
}

static void start_close(struct test_scope *ts)
{
	if (ts->phase != OPEN)
		return;
	ts->phase = CLOSING;
	scope_close(ts->scope, closed_cb, ts);
}

static void scope_undo(struct undo *u)
{
	start_close((struct test_scope *)((char *)u - offsetof(struct test_scope, undo)));
}

/* scope_new(name) -> scope */
static int core_scope_new(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct test_scope *ts = lua_newuserdata(L, sizeof(*ts));

	*ts = (struct test_scope){ .phase = CLOSED };
	luaL_getmetatable(L, SCOPE_TYPE);
	lua_setmetatable(L, -2);
	ts->scope = scope_new(state_loop(state_of(L)), name);
	ts->phase = OPEN;
	ts->L = state_lua(state_of(L));
	scope_add(ops_file(L)->scope, &ts->undo, RANK_STREAM, scope_undo);
	/* The undo is embedded in the userdata: it may not be collected before. */
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, ts);
	return 1;
}

/* scope_close(scope): yields until everything is undone */
static int op_scope_close(lua_State *L)
{
	struct test_scope *ts = luaL_checkudata(L, 1, SCOPE_TYPE);
	struct close_wait *w = wait_new(L, &close_kind, sizeof(*w));

	w->ts = ts;
	if (ts->phase == CLOSED) {
		wait_finish(&w->wait);
	} else {
		INVARIANT(!ts->waiter);
		ts->waiter = w;
		start_close(ts);
	}
	return wait_yield(L, &w->wait);
}

/* The closing itself goes on. */
static void close_cancel(struct wait *wait)
{
	struct close_wait *w = (struct close_wait *)wait;

	if (w->ts->waiter == w)
		w->ts->waiter = NULL;
}

static void close_describe(struct wait *wait, char *buf, size_t size)
{
	struct close_wait *w = (struct close_wait *)wait;

	snprintf(buf, size, "the clean-up of %s", scope_name(w->ts->scope));
}

static int scope_gc(lua_State *L)
{
	struct test_scope *ts = lua_touserdata(L, 1);

	if (ts->phase == CLOSED)
		scope_free(ts->scope);
	ts->scope = NULL;
	return 0;
}

struct scope *ops_scope(lua_State *L)
{
	struct test_scope *ts;

	ops_push_locals(L);
	lua_getfield(L, -1, "scope");
	ts = lua_isnil(L, -1) ? NULL : luaL_checkudata(L, -1, SCOPE_TYPE);
	lua_pop(L, 2);
	if (!ts)
		return ops_file(L)->scope;
	if (ts->phase != OPEN)
		lua_raise(L, "%s is over: nothing can be made in it any more", scope_name(ts->scope));
	return ts->scope;
}

/* scope_current([scope]) -> scope or nil: the current task's; nil is the file's */
static int core_scope_current(lua_State *L)
{
	ops_push_locals(L);
	if (lua_gettop(L) > 1) {
		lua_pushvalue(L, 1);
		lua_setfield(L, -2, "scope");
	}
	lua_getfield(L, -1, "scope");
	return 1;
}

static const struct wait_kind close_kind = {
	.name = "scope_close",
	.cancel = close_cancel,
	.describe = close_describe,
};

static const luaL_Reg core_functions[] = {
	{ "scope_new", core_scope_new },
	{ "scope_current", core_scope_current },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "scope_close", op_scope_close },
	{ NULL, NULL },
};

void ops_open_scope(lua_State *L)
{
	luaL_newmetatable(L, SCOPE_TYPE);
	lua_pushcfunction(L, scope_gc);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
