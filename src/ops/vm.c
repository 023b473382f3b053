/*
 * VM: the Lua face of a virtual machine's life, from vm() to close().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/target.h"

static void state_changed_cb(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to);
static void granted_cb(void *arg, const struct err *e);
static void lease_granted_cb(void *arg, const struct err *e);
static void booted_cb(void *arg, const struct err *e);
static void killed_cb(void *arg, const struct err *e);
static const struct wait_kind boot_kind, lease_kind;

#define VM_TYPE "provium.VM"
#define LEASE_TYPE "provium.Lease"
#define OVERHEAD ((uint64_t)64 << 20)		/* of a QEMU process beside its guest's memory */

/*
 * Belongs to the scope it was made in, and is anchored in the registry until that scope has killed
 * the VM; then the userdata's collector frees it.
 */
struct guest {
	struct target target, mux;
	struct ops_file *file;
	struct vm_options options;	/* of vm() */
	struct vm_options booted_with;	/* merged with boot()'s */
	struct lease *lease;
	struct undo undo;
	struct vm_listener listener;
	lua_State *L;			/* the state's main thread */
	bool reported;			/* vm_spawned was told, vm_gone was not */
	size_t console_consumed;	/* how far console:expect has matched in the log */
};

struct boot_wait {
	struct wait wait;
	struct guest *guest;
	bool in_pool, booting;
};

/* The VMs are in the array that the waiting op holds on its stack. */
struct lease_wait {
	struct wait wait;
	struct ops_file *file;
	struct lease *lease;
	struct guest **guests;		/* owned array of borrowed VMs */
	size_t n;
	bool in_pool;
};

static uint64_t need_memory(struct guest *g)
{
	return vm_memory(g->target.vm, &g->booted_with) + OVERHEAD;
}

static unsigned need_cpus(struct guest *g)
{
	return vm_cpus(g->target.vm, &g->booted_with);
}

static struct guest *check_guest(lua_State *L, int arg)
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

	if (target_gone(t, t->era))
		t->open_files = 0;	/* those of the guest's former life */
	t->era = vm_era(t->vm);
	return t;
}

void vm_console_counters(lua_State *L, int arg, size_t **consumed, unsigned **streams)
{
	struct guest *g = check_guest(L, arg);

	*consumed = &g->console_consumed;
	*streams = &g->target.open_streams;
}

static void lease_drop(struct guest *g)
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
	lease_drop(g);
	if (g->reported)
		g->file->env->vm_gone(g->file->env->arg, vm);
	g->reported = false;
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
	g->listener.changed = state_changed_cb;
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
	lease_drop(g);
	vm_unlisten(g->target.vm, &g->listener);
	vm_free(g->target.vm);
	vm_options_release(&g->options);
	vm_options_release(&g->booted_with);
	free(g);
	return 0;
}

/* ---- waiting for the pool ---- */

static void pool_wait_begin(struct ops_file *f)
{
	if (f->pool_waiting++ > 0)
		return;
	f->pool_waiting_since = now_ns();
	f->env->pool_wait(f->env->arg, true);
}

static void pool_wait_end(struct ops_file *f)
{
	if (--f->pool_waiting > 0)
		return;
	f->pool_waited_ns += now_ns() - f->pool_waiting_since;
	f->env->pool_wait(f->env->arg, false);
}

/* ---- boot ---- */

/* Boots at once when g holds a lease already, else when the pool grants one. */
static int start_boot(lua_State *L, struct guest *g)
{
	struct ops_env *env = g->file->env;
	struct boot_wait *w = wait_new(L, &boot_kind, sizeof(*w));

	w->guest = g;
	if (g->lease) {
		w->booting = true;
		vm_boot(g->target.vm, &g->booted_with, booted_cb, w);
		return wait_yield(L, &w->wait);
	}
	w->in_pool = true;
	pool_wait_begin(g->file);
	g->lease = env->lease_new(env->arg, need_memory(g), need_cpus(g), granted_cb, w);
	return wait_yield(L, &w->wait);
}

static void check_bootable(lua_State *L, struct guest *g)
{
	enum vm_state s = vm_state(g->target.vm);

	/* A lease that is still held tells of a boot that another task has begun. */
	if (s == VM_BOOTED || s == VM_PAUSED)
		vm_raise_state(L, g->target.vm, "boot");
	if (s == VM_BOOTING || g->lease)
		lua_raise(L, "vm `%s`: another task is booting it (cannot boot)", vm_name(g->target.vm));
}

/* boot([options]) */
static int op_boot(lua_State *L)
{
	struct guest *g = check_guest(L, 1);
	struct vm_options *o;

	args_max(L, 2, "vm:boot([options])");
	lua_settop(L, 2);
	check_bootable(L, g);
	o = vmopts_push(L, 2, "boot");
	vm_options_release(&g->booted_with);
	vm_options_merge(&g->booted_with, &g->options);
	vm_options_merge(&g->booted_with, o);
	lua_settop(L, 1);
	return start_boot(L, g);
}

static void granted_cb(void *arg, const struct err *e)
{
	struct boot_wait *w = arg;
	struct guest *g = w->guest;

	w->in_pool = false;
	pool_wait_end(g->file);
	if (e) {
		booted_cb(w, e);	/* before the lease goes: e is in it */
		lease_drop(g);
		return;
	}
	w->booting = true;
	vm_boot(g->target.vm, &g->booted_with, booted_cb, w);
}

static void booted_cb(void *arg, const struct err *e)
{
	struct boot_wait *w = arg;

	if (e)
		wait_fail(&w->wait, e->code, "vm `%s`: boot: %s", vm_name(w->guest->target.vm), e->msg);
	else
		wait_finish(&w->wait);
}

static int boot_push(struct wait *wait, lua_State *L)
{
	struct boot_wait *w = (struct boot_wait *)wait;
	struct guest *g = w->guest;
	struct ops_env *env = g->file->env;

	if (!g->reported && vm_state(g->target.vm) == VM_BOOTED) {
		g->reported = true;
		env->vm_spawned(env->arg, g->target.vm, vm_memory(g->target.vm, &g->booted_with), "boot",
			now_ns() - wait->armed_ns);
	}
	lua_rawgetp(L, LUA_REGISTRYINDEX, g);
	return 1;
}

/* A boot that nobody waits for any more is stopped: what it started is half a VM. */
static void boot_cancel(struct wait *wait)
{
	struct boot_wait *w = (struct boot_wait *)wait;
	struct guest *g = w->guest;

	if (w->in_pool) {
		pool_wait_end(g->file);
		lease_drop(g);
	}
	if (w->booting) {
		vm_forget(g->target.vm, booted_cb, w);
		vm_kill(g->target.vm, NULL, NULL);
	}
}

static void boot_describe(struct wait *wait, char *buf, size_t size)
{
	struct boot_wait *w = (struct boot_wait *)wait;

	snprintf(buf, size, "vm \"%s\": %s", vm_name(w->guest->target.vm),
		w->in_pool ? "room in the pool to boot" : "boot");
}

/* ---- one pool acquisition for several VMs ---- */

/* vm_lease({vm...}) -> {Lease...}: what each of them needs, acquired together */
static int op_vm_lease(lua_State *L)
{
	struct ops_file *f = ops_file(L);
	size_t n = lua_rawlen(L, 1);
	struct guest **guests = lua_newuserdata(L, (n + 1) * sizeof(*guests));
	struct lease_wait *w;
	uint64_t memory = 0;
	unsigned cpus = 0;

	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, 1, (int)i + 1);
		guests[i] = check_guest(L, -1);
		check_bootable(L, guests[i]);
		vm_options_release(&guests[i]->booted_with);
		vm_options_merge(&guests[i]->booted_with, &guests[i]->options);
		memory += need_memory(guests[i]);
		cpus += need_cpus(guests[i]);
		lua_pop(L, 1);
	}
	w = wait_new(L, &lease_kind, sizeof(*w));
	w->file = f;
	w->n = n;
	w->guests = xcalloc(n + 1, sizeof(*w->guests));
	memcpy(w->guests, guests, n * sizeof(*guests));
	if (n == 0) {
		wait_finish(&w->wait);
		return wait_yield(L, &w->wait);
	}
	w->in_pool = true;
	pool_wait_begin(f);
	w->lease = f->env->lease_new(f->env->arg, memory, cpus, lease_granted_cb, w);
	return wait_yield(L, &w->wait);
}

static void lease_granted_cb(void *arg, const struct err *e)
{
	struct lease_wait *w = arg;

	w->in_pool = false;
	pool_wait_end(w->file);
	if (e)
		wait_fail_err(&w->wait, e);
	else
		wait_finish(&w->wait);
}

static int lease_push(struct wait *wait, lua_State *L)
{
	struct lease_wait *w = (struct lease_wait *)wait;

	lua_newtable(L);
	for (size_t i = 0; i < w->n; i++) {
		struct lease **ud = lua_newuserdata(L, sizeof(*ud));

		*ud = NULL;
		luaL_getmetatable(L, LEASE_TYPE);
		lua_setmetatable(L, -2);
		lua_rawseti(L, -2, (int)i + 1);
		*ud = w->file->env->lease_split(w->lease, need_memory(w->guests[i]), need_cpus(w->guests[i]));
	}
	return 1;
}

static void lease_cancel(struct wait *wait)
{
	struct lease_wait *w = (struct lease_wait *)wait;

	if (w->in_pool)
		pool_wait_end(w->file);
}

static void lease_describe(struct wait *wait, char *buf, size_t size)
{
	(void)wait;
	snprintf(buf, size, "room in the pool for a lab");
}

static void lease_release(struct wait *wait)
{
	struct lease_wait *w = (struct lease_wait *)wait;

	if (w->lease)
		w->file->env->lease_free(w->lease);
	free(w->guests);
}

static int lease_gc(lua_State *L)
{
	struct lease **ud = lua_touserdata(L, 1);

	if (*ud)
		ops_env(L)->lease_free(*ud);
	*ud = NULL;
	return 0;
}

/* vm_boot_with(vm, lease): boots with a share that is acquired already */
static int op_vm_boot_with(lua_State *L)
{
	struct guest *g = check_guest(L, 1);
	struct lease **ud = luaL_checkudata(L, 2, LEASE_TYPE), *lease = *ud;

	check_bootable(L, g);
	*ud = NULL;
	g->lease = lease;
	return start_boot(L, g);
}

bool vm_wait_is_for_pool(const struct wait *w)
{
	if (w->kind == &boot_kind)
		return ((const struct boot_wait *)w)->in_pool;
	return w->kind == &lease_kind && ((const struct lease_wait *)w)->in_pool;
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
	struct target *t = vm_target(L, 1);

	lua_pushinteger(L, (lua_Integer)t->open_files);
	return 1;
}

/* open_stream_count() -> integer */
static int vm_open_stream_count(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_guest(L, 1)->target.open_streams);
	return 1;
}

/* is_quiescent() -> whether no stream is open and no operation is in flight */
static int vm_is_quiescent(lua_State *L)
{
	struct guest *g = check_guest(L, 1);

	lua_pushboolean(L, g->target.open_streams == 0 && g->target.in_flight == 0);
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

static const struct wait_kind boot_kind = {
	.name = "vm:boot",
	.cancel = boot_cancel,
	.push = boot_push,
	.describe = boot_describe,
};

static const struct wait_kind lease_kind = {
	.name = "lab:boot",
	.cancel = lease_cancel,
	.push = lease_push,
	.describe = lease_describe,
	.release = lease_release,
};

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

static const luaL_Reg vm_ops[] = {
	{ "boot", op_boot },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "vm_new", core_vm_new },
	{ "is_vm", core_is_vm },
	{ "vm_console_tail", core_vm_console_tail },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "vm_lease", op_vm_lease },
	{ "vm_boot_with", op_vm_boot_with },
	{ NULL, NULL },
};

/* Leaves the methods in core.VM, where the other files add theirs. */
void ops_open_vm(lua_State *L)
{
	luaL_newmetatable(L, LEASE_TYPE);
	lua_pushcfunction(L, lease_gc);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);

	ops_new_type(L, VM_TYPE, "VM", guest_gc, vm_tostring, vm_methods, vm_ops);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
