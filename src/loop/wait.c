/*
 * Waits: one suspended operation of a task, and the results it hands to Lua.
 */
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "loop/runqueue.h"
#include "loop/task.h"

/* The C function on the stack that Lua cannot yield across ("sort", "gsub"), or NULL. */
static const char *blocking_function(lua_State *L, lua_Debug *ar)
{
	for (int level = 1; lua_getstack(L, level, ar); level++) {
		lua_getinfo(L, "nS", ar);
		if (*ar->what == 'C' && ar->name && strcmp(ar->name, "pcall") && strcmp(ar->name, "xpcall"))
			return ar->name;
	}
	return NULL;
}

static int raise_cannot_wait(lua_State *L, const char *op)
{
	lua_Debug ar;
	const char *in = blocking_function(L, &ar);

	return lua_raise(L, "%s cannot wait here: Lua cannot yield inside %s%s%s; "
		"call it before, keep its result in a local, and use that here", op,
		in ? "a function called by `" : "a C function's callback (table.sort, string.gsub, ...)",
		in ? in : "", in ? "`" : "");
}

void *wait_new(lua_State *L, const struct wait_kind *kind, size_t size)
{
	struct state *s = state_of(L);
	struct task *t = s->current;
	struct wait *w;

	if (!t)
		lua_raise(L, "%s: called outside of a task", kind->name);
	if (t->cancel_reason)
		lua_raise(L, "%s", t->cancel_reason);
	if (!lua_isyieldable(L) || s->blocked)
		raise_cannot_wait(L, kind->name);
	INVARIANT(!t->wait);
	w = xcalloc(1, size);
	w->kind = kind;
	w->task = t;
	w->armed_ns = now_ns();
	t->wait = w;
	log_debug("wait", "arm %s in %s", kind->name, t->name);
	return w;
}

static void wait_free(struct wait *w)
{
	if (w->kind->release)
		w->kind->release(w);
	err_release(&w->err);
	free(w);
}

/* (true, results...) or (false, message). May raise when the memory cap is reached. */
static int push_results(lua_State *L, struct wait *w)
{
	luaL_checkstack(L, LUA_MINSTACK, "results of a wait");
	lua_pushboolean(L, w->err.code == 0);
	if (w->err.code == 0)
		return 1 + (w->kind->push ? w->kind->push(w, L) : 0);
	lua_pushstring(L, w->err.msg);
	return 2;
}

static int protected_push(lua_State *L)
{
	return push_results(L, lua_touserdata(L, 1));
}

/* Whatever happens w is freed: a result too large for the memory cap becomes (false, message). */
static int push_and_free(lua_State *L, struct wait *w)
{
	int base = lua_gettop(L);

	lua_pushcfunction(L, protected_push);
	lua_pushlightuserdata(L, w);
	if (lua_pcall(L, 1, LUA_MULTRET, 0) != LUA_OK) {
		lua_pushboolean(L, 0);
		lua_insert(L, -2);
	}
	wait_free(w);
	return lua_gettop(L) - base;
}

/* A suspended coroutine can make no protected call, so results are made on the main thread and moved over. */
int wait_push_and_free(struct wait *w, lua_State *co)
{
	lua_State *L = w->task->state->L;
	int n = push_and_free(L, w);

	if (!lua_checkstack(co, n + LUA_MINSTACK)) {
		lua_pop(L, n);
		n = 0;
	}
	lua_xmove(L, co, n);
	return n;
}

void wait_cancel_and_free(struct wait *w)
{
	log_debug("wait", "cancel %s", w->kind->name);
	if (!w->finished && w->kind->cancel)
		w->kind->cancel(w);
	wait_free(w);
}

int wait_yield(lua_State *L, struct wait *w)
{
	struct state *s = state_of(L);
	struct task *t = w->task;
	int n;

	INVARIANT(t == s->current && t->wait == w);
	if (w->finished) {
		t->wait = NULL;
		s->current = NULL;	/* what the runtime itself needs may go beyond the cap */
		n = push_and_free(L, w);
		s->current = t;
		return n;
	}
	s->yielding = true;
	return lua_yield(L, 0);
}

int wait_abandon(lua_State *L, struct wait *w, const struct err *e)
{
	INVARIANT(err_is_set(e));
	err_copy(&w->err, e);
	w->finished = true;
	return wait_yield(L, w);
}

void wait_finish(struct wait *w)
{
	struct task *t = w->task;

	INVARIANT(!w->finished);
	log_debug("wait", "finish %s in %s%s%s", w->kind->name, t->name, w->err.code ? ": " : "",
		w->err.code ? w->err.msg : "");
	w->finished = true;
	if (t->status == TASK_WAITING) {
		t->status = TASK_RUNNABLE;
		runqueue_add(loop_runqueue(t->state->loop), t);
	}
}

void wait_fail(struct wait *w, int code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	char *msg;

	va_start(ap, fmt);
	msg = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&e, code, "%s", msg);
	free(msg);
	wait_fail_err(w, &e);
	err_release(&e);
}

void wait_fail_err(struct wait *w, const struct err *e)
{
	err_copy(&w->err, e);
	wait_finish(w);
}

double wait_elapsed(const struct wait *w)
{
	return (double)(now_ns() - w->armed_ns) / 1e9;
}

int op_return(lua_State *L, int nresults)
{
	lua_pushboolean(L, 1);
	lua_insert(L, -nresults - 1);
	return nresults + 1;
}

int op_return_error(lua_State *L, const struct err *e)
{
	lua_pushboolean(L, 0);
	lua_pushstring(L, e->msg);
	return 2;
}
