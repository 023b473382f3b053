/*
 * VM: the Lua face of a virtual machine's life, from vm() to close().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/guest.h"

static void state_changed_cb(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to);
static void up_cb(struct vm_listener *l, struct vm *vm);
static void killed_cb(void *arg, const struct err *e);

#define VM_TYPE "provium.VM"

struct guest *check_guest(lua_State *L, int arg)
{
	struct guest **g = luaL_testudata(L, arg, VM_TYPE);

	if (!g)
		args_raise_self(L, arg, "VM");
	return *g;
}

struct vm *check_vm(lua_State *L, int arg)
{
	return check_guest(L, arg)->target.vm;
}

struct target *vm_target(lua_State *L, int arg)
{
	struct target *t = &check_guest(L, arg)->target;

	t->era = vm_era(t->vm);
	return t;
}

void vm_console_counters(lua_State *L, int arg, size_t **consumed, unsigned **streams)
{
	struct guest *g = check_guest(L, arg);

	*consumed = console_consumed(vm_console(g->target.vm));
	*streams = &g->mux.open_streams;
}

void guest_drop_lease(struct guest *g)
{
	if (g->lease)
		g->file->env->lease_free(g->lease);
	g->lease = NULL;
}

/* Whatever ended it, a VM that no longer runs gives its share back. */
static void state_changed_cb(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to)
{
	struct guest *g = (struct guest *)((char *)l - offsetof(struct guest, listener));

	(void)from;
	if (to != VM_SHUTDOWN && to != VM_DEAD)
		return;
	guest_drop_lease(g);
	if (g->reported)
		g->file->env->vm_gone(g->file->env->arg, vm);
	g->reported = false;
}

static void up_cb(struct vm_listener *l, struct vm *vm)
{
	struct guest *g = (struct guest *)((char *)l - offsetof(struct guest, listener));

	(void)vm;
	guestnet_up(g->net);
}

struct guestnet *vm_guestnet(lua_State *L, int arg)
{
	return check_guest(L, arg)->net;
}

struct scope *vm_scope(lua_State *L, int arg)
{
	return check_guest(L, arg)->undo.scope;
}

const unsigned *vm_streams(lua_State *L, int arg)
{
	return &check_guest(L, arg)->mux.open_streams;
}

static void unanchor(struct guest *g)
{
	lua_pushnil(g->L);
	lua_rawsetp(g->L, LUA_REGISTRYINDEX, g);
}

static void killed_cb(void *arg, const struct err *e)
{
	struct guest *g = arg;

	(void)e;
	undo_done(&g->undo);
	unanchor(g);
}

static void guest_undo(struct undo *u)
{
	struct guest *g = (struct guest *)((char *)u - offsetof(struct guest, undo));

	guestnet_drop_cards(g->net);
	vm_kill(g->target.vm, killed_cb, g);
}

/* vm_new(name, profile, [options]) -> VM */
static int core_vm_new(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct ops_file *f = ops_file(L);
	struct scope *scope = ops_scope(L);
	struct vm_options *o;
	struct guest **ud, *g;

	lua_settop(L, 3);
	o = vmopts_push(L, 3, "vm");
	ud = lua_newuserdata(L, sizeof(*ud));
	*ud = g = xcalloc(1, sizeof(*g));
	luaL_getmetatable(L, VM_TYPE);
	lua_setmetatable(L, -2);
	g->file = f;
	g->L = state_lua(state_of(L));
	vm_options_merge(&g->options, o);
	g->target.channel = 1;
	g->target.mux = &g->mux;
	g->target.vm = vm_new(f->env->vmm, name, f->env->profile(f->env->arg, luaL_checkstring(L, 2)));
	g->mux.vm = g->target.vm;
	g->net = guestnet_new(&g->target);
	g->listener.changed = state_changed_cb;
	g->listener.up = up_cb;
	vm_listen(g->target.vm, &g->listener);
	scope_add(scope, &g->undo, RANK_VM, guest_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, g);
	return 1;
}

static int guest_gc(lua_State *L)
{
	struct guest **ud = lua_touserdata(L, 1), *g = *ud;

	if (!g || !g->target.vm)
		return 0;
	*ud = NULL;
	scope_remove(&g->undo);
	guest_drop_lease(g);
	vm_unlisten(g->target.vm, &g->listener);
	guestnet_free(g->net);
	vm_free(g->target.vm);
	vm_options_release(&g->options);
	vm_options_release(&g->booted_with);
	free(g);
	return 0;
}

/* ---- what can be asked without waiting ---- */

static int vm_name_method(lua_State *L)
{
	lua_pushstring(L, vm_name(check_vm(L, 1)));
	return 1;
}

static int vm_profile_method(lua_State *L)
{
	lua_pushstring(L, vm_profile(check_vm(L, 1))->name);
	return 1;
}

static int vm_state_method(lua_State *L)
{
	lua_pushstring(L, vm_state_name(vm_state(check_vm(L, 1))));
	return 1;
}

/* cid() -> integer, nil without vsock */
static int vm_cid_method(lua_State *L)
{
	uint32_t cid = vm_cid(check_vm(L, 1));

	if (!cid)
		return 0;
	lua_pushinteger(L, (lua_Integer)cid);
	return 1;
}

/* pid() -> integer, nil when nothing runs */
static int vm_pid_method(lua_State *L)
{
	pid_t pid = vm_pid(check_vm(L, 1));

	if (!pid)
		return 0;
	lua_pushinteger(L, pid);
	return 1;
}

/* uptime() -> seconds since it was booted, 0 when it does not run */
static int vm_uptime_method(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	bool runs = vm_state(vm) == VM_BOOTED || vm_state(vm) == VM_PAUSED;

	lua_pushnumber(L, runs ? (double)(now_ns() - vm_booted_ns(vm)) / 1e9 : 0);
	return 1;
}

/* open_file_count() -> integer */
static int vm_open_file_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)target_open_files(vm_target(L, 1)));
	return 1;
}

/* open_stream_count() -> integer */
static int vm_open_stream_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_guest(L, 1)->mux.open_streams);
	return 1;
}

/* is_quiescent() -> whether no stream is open and no operation is in flight */
static int vm_is_quiescent(lua_State *L)
{
	struct guest *g = check_guest(L, 1);

	lua_pushboolean(L, g->mux.open_streams == 0 && vm_pending(g->target.vm) <= g->mux.unheeded);
	return 1;
}

static int vm_tostring(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	lua_pushfstring(L, "VM (%s, %s)", vm_name(vm), vm_state_name(vm_state(vm)));
	return 1;
}

/* is_vm(value) -> boolean */
static int core_is_vm(lua_State *L)
{
	lua_pushboolean(L, luaL_testudata(L, 1, VM_TYPE) != NULL);
	return 1;
}

/* vm_console_tail(vm, bytes) -> string */
static int core_vm_console_tail(lua_State *L)
{
	char *tail = console_tail(vm_console(check_vm(L, 1)), (size_t)luaL_checkinteger(L, 2));

	lua_pushstring(L, tail ? tail : "");
	free(tail);
	return 1;
}

static const luaL_Reg vm_methods[] = {
	{ "name", vm_name_method },
	{ "profile", vm_profile_method },
	{ "state", vm_state_method },
	{ "cid", vm_cid_method },
	{ "pid", vm_pid_method },
	{ "uptime", vm_uptime_method },
	{ "open_file_count", vm_open_file_count },
	{ "open_stream_count", vm_open_stream_count },
	{ "is_quiescent", vm_is_quiescent },
	{ NULL, NULL },
};

static const luaL_Reg vm_ops[] = { { NULL, NULL } };

static const luaL_Reg core_functions[] = {
	{ "vm_new", core_vm_new },
	{ "is_vm", core_is_vm },
	{ "vm_console_tail", core_vm_console_tail },
	{ NULL, NULL },
};

/* Leaves the methods in core.VM, where the other files add theirs. */
void ops_open_vm(lua_State *L)
{
	ops_new_type(L, VM_TYPE, "VM", guest_gc, vm_tostring, vm_methods, vm_ops);
	luaL_setfuncs(L, core_functions, 0);
}
