/*
 * Worker: a separate executor of the guest's agent, with the operations of a VM. Its ends (kill, join,
 * close) are in lua/worker.lua.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ops/args.h"
#include "ops/reply.h"

static void worker_undo(struct undo *u);

#define WORKER_TYPE "provium.Worker"

/* In the userdata; anchored until its scope is over. */
struct worker {
	struct target target;
	struct undo undo;
	struct target *vm;
	pid_t pid;
	bool over;
	lua_State *L;
};

struct target *worker_target(lua_State *L, int arg)
{
	struct worker *w = luaL_testudata(L, arg, WORKER_TYPE);

	return w ? &w->target : NULL;
}

/* Files and processes of a worker point into it, also when it has been joined: it stays until its scope is over. */
static void worker_undo(struct undo *u)
{
	struct worker *w = (struct worker *)((char *)u - offsetof(struct worker, undo));

	if (!w->over && vm_agent(w->target.vm) && !target_gone(&w->target, w->target.era))
		request_forget_int(target_mux(w->vm), "worker_signal", "channel", w->target.channel);
	w->over = true;
	scope_remove(&w->undo);
	lua_pushnil(w->L);
	lua_rawsetp(w->L, LUA_REGISTRYINDEX, w);
}

/* worker_new(vm, channel, pid) -> Worker, of the current scope */
static int core_worker_new(lua_State *L)
{
	struct target *vm = check_target(L, 1, "spawn_worker");
	struct scope *scope = ops_scope(L);
	struct worker *w = lua_newuserdata(L, sizeof(*w));

	*w = (struct worker){ .vm = vm, .pid = (pid_t)luaL_checkinteger(L, 3) };
	w->target.vm = vm->vm;
	w->target.channel = (unsigned)luaL_checkinteger(L, 2);
	w->target.mux = vm->mux;
	w->target.era = vm_era(vm->vm);
	w->L = state_lua(state_of(L));
	luaL_getmetatable(L, WORKER_TYPE);
	lua_setmetatable(L, -2);
	scope_add(scope, &w->undo, RANK_WORKER, worker_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, w);
	return 1;
}

static struct worker *check_worker(lua_State *L)
{
	struct worker *w = luaL_testudata(L, 1, WORKER_TYPE);

	if (!w)
		args_raise_self(L, 1, "Worker");
	return w;
}

static int worker_pid(lua_State *L)
{
	lua_pushinteger(L, check_worker(L)->pid);
	return 1;
}

/* handle() -> integer: its channel */
static int worker_handle(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_worker(L)->target.channel);
	return 1;
}

/* ended(): told by worker.lua when it has been joined */
static int worker_ended(lua_State *L)
{
	check_worker(L)->over = true;
	return 0;
}

static int worker_is_over(lua_State *L)
{
	lua_pushboolean(L, check_worker(L)->over);
	return 1;
}

/* require(method): raises when its VM has been reset or cannot be asked */
static int worker_require(lua_State *L)
{
	struct worker *w = check_worker(L);

	target_require(L, &w->target, w->target.era, "worker", luaL_checkstring(L, 2));
	return 0;
}

/* is_gone() -> whether its VM has been reset or booted again */
static int worker_is_gone(lua_State *L)
{
	struct worker *w = check_worker(L);

	lua_pushboolean(L, target_gone(&w->target, w->target.era));
	return 1;
}

static int worker_gc(lua_State *L)
{
	(void)L;	/* it was anchored until it was over */
	return 0;
}

static int worker_tostring(lua_State *L)
{
	struct worker *w = check_worker(L);

	lua_pushfstring(L, "Worker (%s, pid %d)", vm_name(w->target.vm), (int)w->pid);
	return 1;
}

static const luaL_Reg worker_methods[] = {
	{ "pid", worker_pid },
	{ "handle", worker_handle },
	{ "ended", worker_ended },
	{ "is_over", worker_is_over },
	{ "require", worker_require },
	{ "is_gone", worker_is_gone },
	{ NULL, NULL },
};

static const luaL_Reg worker_ops[] = {
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "worker_new", core_worker_new },
	{ NULL, NULL },
};

void ops_open_worker(lua_State *L)
{
	ops_new_type(L, WORKER_TYPE, "Worker", worker_gc, worker_tostring, worker_methods, worker_ops);
	luaL_setfuncs(L, core_functions, 0);
}
