/*
 * Task: the Lua face of the runtime's tasks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/openers.h"

static void join_done_cb(struct task *t, void *arg);
static void join_timer_cb(evutil_socket_t fd, short what, void *arg);
static const struct wait_kind join_kind;

#define TASK_TYPE "provium.Task"

/* Lives until the userdata is collected and the task is over. */
struct spawned {
	struct task *task;
	struct undo undo;
	bool collected;
};

struct join_wait {
	struct wait wait;
	struct task *task;	/* a reference */
	struct event *timer;
	bool timed_out;
};

static void free_if_unused(struct spawned *sp)
{
	if (!sp->collected || task_status(sp->task) <= TASK_WAITING)
		return;
	task_unref(sp->task);
	free(sp);
}

static void over_cb(struct task *t, void *arg)
{
	struct spawned *sp = arg;

	(void)t;
	if (sp->undo.scope && sp->undo.started)
		undo_done(&sp->undo);
	else
		scope_remove(&sp->undo);
	free_if_unused(sp);
}

static void task_undo(struct undo *u)
{
	struct spawned *sp = (struct spawned *)((char *)u - offsetof(struct spawned, undo));

	task_cancel(sp->task, "the scope that made this task is over");
}

/* spawn(name, fn, ...) -> Task */
static int core_spawn(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct scope *scope = ops_scope(L);
	struct spawned **ud, *sp;

	luaL_checktype(L, 2, LUA_TFUNCTION);
	ud = lua_newuserdata(L, sizeof(*ud));
	*ud = NULL;
	luaL_getmetatable(L, TASK_TYPE);
	lua_setmetatable(L, -2);
	lua_insert(L, 2);
	sp = xcalloc(1, sizeof(*sp));
	sp->task = task_spawn(L, lua_gettop(L) - 3, name);
	*ud = sp;
	ops_inherit_locals(L, task_lua(sp->task));
	scope_add(scope, &sp->undo, RANK_TASK, task_undo);
	task_add_done(sp->task, over_cb, sp);
	return 1;
}

static struct task *check_task(lua_State *L, int arg)
{
	struct spawned **ud = luaL_testudata(L, arg, TASK_TYPE);

	if (!ud)
		args_raise_self(L, arg, "Task");
	return (*ud)->task;
}

static int task_gc(lua_State *L)
{
	struct spawned **ud = lua_touserdata(L, 1);

	if (*ud) {
		(*ud)->collected = true;
		free_if_unused(*ud);
	}
	return 0;
}

/* task_wait(task[, seconds]) -> "done", results... | "failed", error, traceback | "cancelled", reason | "timeout" */
static int op_task_wait(lua_State *L)
{
	struct task *t = check_task(L, 1);
	int64_t ns = args_duration(L, 2, "Task:join: timeout", -1);
	struct join_wait *w;

	if (t == task_current(L))
		lua_raise(L, "a task cannot wait for itself");
	w = wait_new(L, &join_kind, sizeof(*w));
	w->task = task_ref(t);
	if (task_status(t) > TASK_WAITING) {
		wait_finish(&w->wait);
	} else {
		task_add_done(t, join_done_cb, w);
		if (ns >= 0)
			timer_start(state_loop(state_of(L)), &w->timer, ns, join_timer_cb, w);
	}
	return wait_yield(L, &w->wait);
}

static void join_done_cb(struct task *t, void *arg)
{
	struct join_wait *w = arg;

	(void)t;
	timer_stop(&w->timer);
	wait_finish(&w->wait);
}

static void join_timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct join_wait *w = arg;

	(void)fd, (void)what;
	w->timed_out = true;
	task_remove_done(w->task, join_done_cb, w);
	wait_finish(&w->wait);
}

static void join_cancel(struct wait *wait)
{
	struct join_wait *w = (struct join_wait *)wait;

	task_remove_done(w->task, join_done_cb, w);
}

static int join_push(struct wait *wait, lua_State *L)
{
	struct join_wait *w = (struct join_wait *)wait;
	lua_State *co = task_lua(w->task);
	int n = lua_gettop(co);
	char *tb;

	if (w->timed_out) {
		lua_pushliteral(L, "timeout");
		return 1;
	}
	switch (task_status(w->task)) {
	case TASK_DONE:
		lua_pushliteral(L, "done");
		luaL_checkstack(L, n, "results of a task");
		for (int i = 1; i <= n; i++) {
			lua_pushvalue(co, i);
			lua_xmove(co, L, 1);
		}
		return n + 1;
	case TASK_FAILED:
		lua_pushliteral(L, "failed");
		lua_pushvalue(co, -1);
		lua_xmove(co, L, 1);
		tb = task_traceback(w->task);
		lua_pushstring(L, tb);
		free(tb);
		return 3;
	default:
		lua_pushliteral(L, "cancelled");
		lua_pushvalue(co, -1);
		lua_xmove(co, L, 1);
		return 2;
	}
}

static void join_describe(struct wait *wait, char *buf, size_t size)
{
	struct join_wait *w = (struct join_wait *)wait;
	char inner[160];

	task_waiting_for(w->task, inner, sizeof(inner));
	snprintf(buf, size, "task \"%s\"%s%s%s", task_name(w->task), *inner ? " (which waits for " : "", inner,
		*inner ? ")" : "");
}

static void join_release(struct wait *wait)
{
	struct join_wait *w = (struct join_wait *)wait;

	timer_stop(&w->timer);
	task_unref(w->task);
}

static int task_cancel_method(lua_State *L)
{
	struct task *t = check_task(L, 1);

	task_cancel(t, luaL_optstring(L, 2, "the task was cancelled"));
	return 0;
}

static int task_status_method(lua_State *L)
{
	static const char *const names[] = {
		[TASK_RUNNABLE] = "running", [TASK_RUNNING] = "running", [TASK_WAITING] = "running",
		[TASK_DONE] = "done", [TASK_FAILED] = "failed", [TASK_CANCELLED] = "cancelled",
	};

	lua_pushstring(L, names[task_status(check_task(L, 1))]);
	return 1;
}

/* task_waiting_for(task) -> what it waits for, "" when it does not */
static int core_task_waiting_for(lua_State *L)
{
	char buf[512];

	lua_pushstring(L, task_waiting_for(check_task(L, 1), buf, sizeof(buf)));
	return 1;
}

static int task_tostring(lua_State *L)
{
	lua_pushfstring(L, "Task (%s)", task_name(check_task(L, 1)));
	return 1;
}

static const struct wait_kind join_kind = {
	.name = "Task:join",
	.cancel = join_cancel,
	.push = join_push,
	.describe = join_describe,
	.release = join_release,
	.on_others = true,
};

static const luaL_Reg task_methods[] = {
	{ "cancel", task_cancel_method },
	{ "status", task_status_method },
	{ NULL, NULL },
};

/* Its only one that waits is join. */
static const luaL_Reg task_ops[] = {
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "task_wait", op_task_wait },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "spawn", core_spawn },
	{ "task_waiting_for", core_task_waiting_for },
	{ NULL, NULL },
};

void ops_open_task(lua_State *L)
{
	/* framework's tasks.lua adds Task:join to the methods. */
	ops_new_type(L, TASK_TYPE, "Task", task_gc, task_tostring, task_methods, task_ops);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
