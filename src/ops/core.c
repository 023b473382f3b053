/*
 * The table `core` that embedded Lua builds on, and the one list of openers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/network.h"
#include "ops/signals.h"

static void (*const openers[])(lua_State *L);
static const luaL_Reg core_functions[];

static const char locals_key;

struct ops_file *ops_file(lua_State *L)
{
	return state_user(state_of(L));
}

struct ops_env *ops_env(lua_State *L)
{
	return ops_file(L)->env;
}

struct scope *ops_file_scope(struct state *s)
{
	return ((struct ops_file *)state_user(s))->scope;
}

/* Pushes the weak table from coroutine to locals. */
static void push_all_locals(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &locals_key);
	if (lua_istable(L, -1))
		return;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_newtable(L);
	lua_pushliteral(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &locals_key);
}

void ops_push_locals(lua_State *L)
{
	struct task *t = task_current(L);
	lua_State *co = t ? task_lua(t) : state_lua(state_of(L));

	push_all_locals(L);
	lua_pushthread(co);
	lua_xmove(co, L, 1);
	lua_pushvalue(L, -1);
	lua_rawget(L, -3);
	if (lua_isnil(L, -1)) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, -2);
		lua_pushvalue(L, -2);
		lua_rawset(L, -5);
	}
	lua_replace(L, -3);
	lua_pop(L, 1);
}

void ops_inherit_locals(lua_State *L, lua_State *co)
{
	push_all_locals(L);
	lua_pushthread(co);
	lua_xmove(co, L, 1);
	lua_newtable(L);
	ops_push_locals(L);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, -5);
	}
	lua_pop(L, 1);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}

void ops_open(struct state *s, struct ops_env *env)
{
	struct ops_file *f = xcalloc(1, sizeof(*f));
	lua_State *L = state_lua(s);
	struct err e = ERR_INIT;

	f->env = env;
	f->scope = scope_new(state_loop(s), env->path);
	state_set_user(s, f);
	lua_newtable(L);
	luaL_setfuncs(L, core_functions, 0);
	for (size_t i = 0; openers[i]; i++)
		openers[i](L);
	/* api.lua installs the globals and returns the framework. */
	if (state_call_embedded(L, "api", 1, 1, &e) < 0) {
		fprintf(stderr, "provium: %s\n", e.msg);
		abort();
	}
	lua_setfield(L, LUA_REGISTRYINDEX, "provium.framework");
}

void ops_push_framework(lua_State *L, const char *function)
{
	lua_getfield(L, LUA_REGISTRYINDEX, "provium.framework");
	lua_getfield(L, -1, function);
	lua_remove(L, -2);
}

/* Collectors that run in state_free still look at the file's part. */
void ops_close(struct state *s)
{
	struct ops_file *f = state_user(s);

	state_free(s);
	filenet_free(f->net);
	scope_free(f->scope);
	free(f);
}

static bool waits_for_pool_or_others(const struct wait *w)
{
	return vm_wait_is_for_pool(w) || fixture_wait_is_stuck(w) || w->kind->on_others;
}

bool ops_waits_for_pool_only(struct state *s)
{
	return state_every_wait(s, waits_for_pool_or_others);
}

void ops_new_type(lua_State *L, const char *type, const char *name, lua_CFunction gc, lua_CFunction tostring,
	const luaL_Reg *methods, const luaL_Reg *ops)
{
	luaL_newmetatable(L, type);
	lua_pushcfunction(L, gc);
	lua_setfield(L, -2, "__gc");
	lua_pushcfunction(L, tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_set_ops(L, ops);
	lua_pushvalue(L, -1);
	lua_setfield(L, -4, name);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
}

void ops_add_target_ops(lua_State *L, const luaL_Reg *ops)
{
	lua_getfield(L, -1, "VM");
	lua_set_ops(L, ops);
	lua_pop(L, 1);
	lua_getfield(L, -1, "Worker");
	lua_set_ops(L, ops);
	lua_pop(L, 1);
}

static int core_locals(lua_State *L)
{
	ops_push_locals(L);
	return 1;
}

static int core_where(lua_State *L)
{
	lua_push_where(L);
	return 1;
}

static int core_raise(lua_State *L)
{
	return lua_raise(L, "%s", luaL_checkstring(L, 1));
}

/* Copies a traceback without its heading and without the frames of embedded Lua and of C. */
static void push_own_frames(lua_State *L, const char *text)
{
	luaL_Buffer b;
	const char *end;

	luaL_buffinit(L, &b);
	for (; *text; text = *end ? end + 1 : end) {
		end = strchrnul(text, '\n');
		if (strncmp(text, "stack traceback:", 16) == 0 || memmem(text, (size_t)(end - text), "provium:", 8) ||
		    memmem(text, (size_t)(end - text), "[C]:", 4) ||
		    memmem(text, (size_t)(end - text), "(...tail calls...)", 18))
			continue;
		while (*text == '\t' || *text == ' ')
			text++;
		luaL_addlstring(&b, text, (size_t)(end - text));
		luaL_addchar(&b, '\n');
	}
	luaL_pushresult(&b);
}

/* traceback([text or thread]) -> frames of test code, one a line */
static int core_traceback(lua_State *L)
{
	lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;

	if (lua_type(L, 1) == LUA_TSTRING)
		lua_pushvalue(L, 1);
	else
		luaL_traceback(L, co, NULL, 0);
	push_own_frames(L, lua_tostring(L, -1));
	return 1;
}

static int core_parse_duration(lua_State *L)
{
	lua_pushnumber(L, (double)value_duration(L, 1, luaL_checkstring(L, 2)) / 1e9);
	return 1;
}

static int core_select(lua_State *L)
{
	struct ops_env *env = ops_env(L);
	const char *reason;

	lua_settop(L, 2);
	reason = env->select(env->arg, L, luaL_checkstring(L, 1), 2);
	if (!reason)
		return 0;
	lua_pushstring(L, reason);
	return 1;
}

static int core_report(lua_State *L)
{
	struct ops_env *env = ops_env(L);

	luaL_checktype(L, 2, LUA_TTABLE);
	env->report(env->arg, L, luaL_checkstring(L, 1), 2);
	return 0;
}

static int core_print(lua_State *L)
{
	fprintf(stderr, "%s\n", luaL_checkstring(L, 1));
	return 0;
}

static int core_now(lua_State *L)
{
	lua_pushnumber(L, (double)now_ns() / 1e9);
	return 1;
}

static int core_now_ns(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)now_ns());
	return 1;
}

/* pool_waited() -> seconds in which this file waited for the pool */
static int core_pool_waited(lua_State *L)
{
	struct ops_file *f = ops_file(L);
	int64_t ns = f->pool_waited_ns;

	if (f->pool_waiting)
		ns += now_ns() - f->pool_waiting_since;
	lua_pushnumber(L, (double)ns / 1e9);
	return 1;
}

static int push_names(lua_State *L, const char *const *names)
{
	lua_newtable(L);
	for (int i = 1; names && *names; names++, i++) {
		lua_pushstring(L, *names);
		lua_rawseti(L, -2, i);
	}
	return 1;
}

static int core_roots(lua_State *L)
{
	return push_names(L, ops_env(L)->roots);
}

static int core_profile_names(lua_State *L)
{
	struct ops_env *env = ops_env(L);

	return push_names(L, env->profile_names(env->arg));
}

/* nearest(word, names) -> name or nil */
static int core_nearest(lua_State *L)
{
	size_t n = lua_rawlen(L, 2);
	const char **names = lua_newuserdata(L, (n + 1) * sizeof(*names));

	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, 2, (int)i + 1);
		names[i] = lua_tostring(L, -1);	/* the array keeps it */
		lua_pop(L, 1);
	}
	names[n] = NULL;
	lua_pushstring(L, nearest_name(luaL_checkstring(L, 1), names));
	return 1;
}

/* object(metatable) -> userdata: what lua/ builds its own userdata from */
static int core_object(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_newuserdata(L, 1);
	lua_pushvalue(L, 1);
	lua_setmetatable(L, -2);
	return 1;
}

/* embedded(name, ...) -> what the embedded chunk returns */
static int core_embedded(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct err e = ERR_INIT;

	if (state_call_embedded(L, name, lua_gettop(L) - 1, 1, &e) < 0) {
		lua_pushstring(L, e.msg);
		err_release(&e);
		return lua_error(L);
	}
	return 1;
}

/* set_run_result(metatable): what results of commands get */
static int core_set_run_result(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_setfield(L, LUA_REGISTRYINDEX, "provium.RunResult");
	return 0;
}

/* signal_number(name or number or nil, what, default) -> integer */
static int core_signal_number(lua_State *L)
{
	lua_pushinteger(L, signal_check(L, 1, luaL_checkstring(L, 2), (int)luaL_checkinteger(L, 3)));
	return 1;
}

static const luaL_Reg core_functions[] = {
	{ "signal_number", core_signal_number },
	{ "set_run_result", core_set_run_result },
	{ "locals", core_locals },
	{ "where", core_where },
	{ "raise", core_raise },
	{ "traceback", core_traceback },
	{ "parse_duration", core_parse_duration },
	{ "select", core_select },
	{ "report", core_report },
	{ "print", core_print },
	{ "now", core_now },
	{ "now_ns", core_now_ns },
	{ "pool_waited", core_pool_waited },
	{ "roots", core_roots },
	{ "profile_names", core_profile_names },
	{ "nearest", core_nearest },
	{ "object", core_object },
	{ "embedded", core_embedded },
	{ "json", ops_open_json },
	{ "msgpack", ops_open_msgpack },
	{ "encode_request", ops_encode_request },
	{ NULL, NULL },
};

static void (*const openers[])(lua_State *L) = {
	ops_open_bridge,
	ops_open_nic,
	ops_open_guestnet,
	ops_open_capture,
	ops_open_sleep,
	ops_open_task,
	ops_open_scope,
	ops_open_fixture,
	ops_open_latch,
	ops_open_host,
	ops_open_vm,
	ops_open_boot,
	ops_open_snapshot,
	ops_open_power,
	ops_open_worker,
	ops_open_remote,
	ops_open_syscall,
	ops_open_command,
	ops_open_files,
	ops_open_transfer,
	ops_open_stream,
	ops_open_process,
	ops_open_tail,
	ops_open_console,
	NULL,
};
