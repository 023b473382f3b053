/*
 * Latch: tasks wait until it is opened. Barriers and `require` are built on it.
 */
#include <stdio.h>

#include "ops/args.h"
#include "ops/openers.h"

static void latch_timer_cb(evutil_socket_t fd, short what, void *arg);
static const struct wait_kind latch_kind;

#define LATCH_TYPE "provium.Latch"

struct latch_wait {
	struct wait wait;
	LIST_ENTRY(latch_wait) entry;
	struct event *timer;
	struct latch *latch;
	bool linked;
	unsigned timed_out;		/* how many waited when the time was over, itself included; 0: it is not */
	char what[128];
};

/* In the userdata. A waiting task's stack holds it, so it outlives its waits. */
struct latch {
	LIST_HEAD(, latch_wait) waits;
	unsigned nwaits;
	bool open;
};

/* latch() -> Latch */
static int core_latch(lua_State *L)
{
	struct latch *la = lua_newuserdata(L, sizeof(*la));

	LIST_INIT(&la->waits);
	la->nwaits = 0;
	la->open = false;
	luaL_getmetatable(L, LATCH_TYPE);
	lua_setmetatable(L, -2);
	return 1;
}

/* Neither the latch nor the time ends it any more. */
static void latch_end(struct latch_wait *w)
{
	if (w->linked) {
		LIST_REMOVE(w, entry);
		w->latch->nwaits--;
	}
	w->linked = false;
	timer_stop(&w->timer);
}

/* open(): lets every waiter through, now and later */
static int latch_open(lua_State *L)
{
	struct latch *la = luaL_checkudata(L, 1, LATCH_TYPE);
	struct latch_wait *w;

	la->open = true;
	while ((w = LIST_FIRST(&la->waits))) {
		latch_end(w);
		wait_finish(&w->wait);
	}
	return 0;
}

/* waiting() -> how many tasks wait: those that have been let through, timed out or been cancelled do not */
static int latch_waiting(lua_State *L)
{
	struct latch *la = luaL_checkudata(L, 1, LATCH_TYPE);

	lua_pushinteger(L, (lua_Integer)la->nwaits);
	return 1;
}

/* wait(what, [seconds]) -> true, or after the time false and how many waited then */
static int op_latch_wait(lua_State *L)
{
	struct latch *la = luaL_checkudata(L, 1, LATCH_TYPE);
	const char *what = luaL_checkstring(L, 2);
	int64_t ns = args_duration(L, 3, what, -1);
	struct latch_wait *w = wait_new(L, &latch_kind, sizeof(*w));

	snprintf(w->what, sizeof(w->what), "%s", what);
	if (la->open) {
		wait_finish(&w->wait);
		return wait_yield(L, &w->wait);
	}
	LIST_INSERT_HEAD(&la->waits, w, entry);
	la->nwaits++;
	w->latch = la;
	w->linked = true;
	if (ns >= 0)
		timer_start(state_loop(state_of(L)), &w->timer, ns, latch_timer_cb, w);
	return wait_yield(L, &w->wait);
}

static void latch_timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct latch_wait *w = arg;

	(void)fd, (void)what;
	w->timed_out = w->latch->nwaits;
	latch_end(w);
	wait_finish(&w->wait);
}

static int latch_push(struct wait *wait, lua_State *L)
{
	unsigned n = ((struct latch_wait *)wait)->timed_out;

	lua_pushboolean(L, n == 0);
	lua_pushinteger(L, (lua_Integer)n);
	return 2;
}

static void latch_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "%s", ((struct latch_wait *)wait)->what);
}

static void latch_release(struct wait *wait)
{
	latch_end((struct latch_wait *)wait);
}

static const struct wait_kind latch_kind = {
	.name = "barrier",
	.push = latch_push,
	.describe = latch_describe,
	.release = latch_release,
	.on_others = true,
};

static const luaL_Reg latch_methods[] = {
	{ "open", latch_open },
	{ "waiting", latch_waiting },
	{ NULL, NULL },
};

static const luaL_Reg latch_ops[] = {
	{ "wait", op_latch_wait },
	{ NULL, NULL },
};

void ops_open_latch(lua_State *L)
{
	luaL_newmetatable(L, LATCH_TYPE);
	lua_newtable(L);
	luaL_setfuncs(L, latch_methods, 0);
	lua_set_ops(L, latch_ops);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	lua_pushcfunction(L, core_latch);
	lua_setfield(L, -2, "latch");
}
