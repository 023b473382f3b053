/*
 * Starting VMs: boot, restore, and the share of the pool that either takes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/guest.h"

static void granted_cb(void *arg, const struct err *e);
static void lease_granted_cb(void *arg, const struct err *e);
static void started_cb(void *arg, const struct err *e);
static void cached_cb(void *arg, const char *how, const struct err *e);
static const struct wait_kind boot_kind, lease_kind;
static const char *const restore_keys[];

#define LEASE_TYPE "provium.Lease"
#define IMAGE_TYPE "provium.Image"
#define OVERHEAD ((uint64_t)64 << 20)		/* of a QEMU process beside its guest's memory */

/* A boot, or a restore when there is an image. */
struct boot_wait {
	struct wait wait;
	struct guest *guest;
	struct vm_image *image;		/* owned; NULL for a boot */
	struct vm_restore_options restore;
	struct vm_start *cached;	/* a boot that may come from the cache; NULL otherwise */
	struct lease *old;		/* of what runs until it is restored, when that needs another share */
	const char *how;		/* for the event vm_spawned */
	bool may_be_stale;		/* a snapshot that does not fit is a result, not an error */
	bool stale;
	char *why;			/* it is */
	bool in_pool, starting;
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

/* ---- waiting for the pool ---- */

void pool_wait_begin(struct ops_file *f)
{
	if (f->pool_waiting++ > 0)
		return;
	f->pool_waiting_since = now_ns();
	f->env->pool_wait(f->env->arg, true);
}

void pool_wait_end(struct ops_file *f)
{
	if (--f->pool_waiting > 0)
		return;
	f->pool_waited_ns += now_ns() - f->pool_waiting_since;
	f->env->pool_wait(f->env->arg, false);
}

/* ---- boot ---- */

static void start_now(struct boot_wait *w)
{
	struct guest *g = w->guest;
	struct ops_env *env = g->file->env;

	w->starting = true;
	if (!w->image && env->boot_start)
		w->cached = env->boot_start(env->arg, g->target.vm, &g->booted_with, cached_cb, w);
	if (w->image)
		vm_restore(g->target.vm, w->image, &w->restore, started_cb, w);
	else if (!w->cached)
		vm_boot(g->target.vm, &g->booted_with, started_cb, w);
}

/* Starts at once when g holds a lease already, else when the pool grants one. */
static int start(lua_State *L, struct boot_wait *w)
{
	struct guest *g = w->guest;
	struct ops_env *env = g->file->env;

	if (g->lease) {
		start_now(w);
		return wait_yield(L, &w->wait);
	}
	w->in_pool = true;
	pool_wait_begin(g->file);
	g->lease = env->lease_new(env->arg, need_memory(g), need_cpus(g), granted_cb, w);
	return wait_yield(L, &w->wait);
}

static int start_boot(lua_State *L, struct guest *g)
{
	struct boot_wait *w = wait_new(L, &boot_kind, sizeof(*w));

	w->guest = g;
	w->how = "boot";
	return start(L, w);
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
		started_cb(w, e);	/* before the lease goes: e is in it */
		guest_drop_lease(g);
		g->lease = w->old;
		w->old = NULL;
		return;
	}
	start_now(w);
}

static void cached_cb(void *arg, const char *how, const struct err *e)
{
	struct boot_wait *w = arg;

	w->how = how;
	started_cb(w, e);
}

static void started_cb(void *arg, const struct err *e)
{
	struct boot_wait *w = arg;
	const char *name = vm_name(w->guest->target.vm);

	if (e && w->may_be_stale && e->code == -ESTALE) {
		w->stale = true;
		w->why = xstrdup(e->msg);
		wait_finish(&w->wait);
	} else if (e) {
		wait_fail(&w->wait, e->code, "vm `%s`: %s: %s", name, w->image ? "restore" : "boot", e->msg);
	} else {
		wait_finish(&w->wait);
	}
}

static void report_spawned(struct boot_wait *w)
{
	struct guest *g = w->guest;
	struct ops_env *env = g->file->env;
	enum vm_state s = vm_state(g->target.vm);

	if (s != VM_BOOTED && s != VM_PAUSED)
		return;
	if (g->reported && w->image)
		env->vm_gone(env->arg, g->target.vm);	/* it was restored while it ran */
	else if (g->reported)
		return;
	g->reported = true;
	env->vm_spawned(env->arg, g->target.vm, vm_memory(g->target.vm, &g->booted_with), w->how,
		now_ns() - w->wait.armed_ns);
}

static int boot_push(struct wait *wait, lua_State *L)
{
	struct boot_wait *w = (struct boot_wait *)wait;

	if (w->stale) {
		lua_pushnil(L);
		lua_pushstring(L, w->why);
		return 2;
	}
	report_spawned(w);
	lua_rawgetp(L, LUA_REGISTRYINDEX, w->guest);
	return 1;
}

/* A start that nobody waits for any more is stopped: what it started is half a VM. */
static void boot_cancel(struct wait *wait)
{
	struct boot_wait *w = (struct boot_wait *)wait;
	struct guest *g = w->guest;

	if (w->in_pool) {
		pool_wait_end(g->file);
		guest_drop_lease(g);
		g->lease = w->old;
		w->old = NULL;
	}
	if (w->starting) {
		vm_forget(g->target.vm, started_cb, w);
		if (w->cached)
			g->file->env->boot_free(w->cached);
		w->cached = NULL;
		vm_kill(g->target.vm, NULL, NULL);
	}
}

static void boot_describe(struct wait *wait, char *buf, size_t size)
{
	struct boot_wait *w = (struct boot_wait *)wait;
	const char *verb = w->image ? "restore" : "boot";

	snprintf(buf, size, "vm \"%s\": %s%s", vm_name(w->guest->target.vm), w->in_pool ? "room in the pool to " : "",
		verb);
}

static void boot_release(struct wait *wait)
{
	struct boot_wait *w = (struct boot_wait *)wait;

	if (w->old)
		w->guest->file->env->lease_free(w->old);
	if (w->cached)
		w->guest->file->env->boot_free(w->cached);
	vm_image_free(w->image);
	free(w->why);
}

/* ---- restore ---- */

/* The image is the collector's until a wait takes it: what follows may raise. */
static struct vm_image **image_push(lua_State *L, struct guest *g, const char *dir)
{
	struct vm_image **ud = lua_newuserdata(L, sizeof(*ud));
	struct err e = ERR_INIT;

	*ud = NULL;
	luaL_getmetatable(L, IMAGE_TYPE);
	lua_setmetatable(L, -2);
	*ud = vm_image_open(g->file->env->vmm, dir, &e);
	if (!*ud) {
		lua_pushboolean(L, e.code == -ESTALE);
		lua_pushfstring(L, "vm `%s`: restore: %s", vm_name(g->target.vm), e.msg);
		err_release(&e);
	}
	return ud;
}

static int image_gc(lua_State *L)
{
	struct vm_image **ud = lua_touserdata(L, 1);

	vm_image_free(*ud);
	*ud = NULL;
	return 0;
}

static void check_restorable(lua_State *L, struct guest *g)
{
	enum vm_state s = vm_state(g->target.vm);

	vm_require_qemu(L, g->target.vm, "restore");
	if (s == VM_BOOTING || (g->lease && s != VM_BOOTED && s != VM_PAUSED))
		lua_raise(L, "vm `%s`: another task is booting it (cannot restore)", vm_name(g->target.vm));
}

static const struct profile *find_profile(lua_State *L, struct guest *g, const struct vm_image *i)
{
	struct ops_env *env = g->file->env;
	const struct profile *p = env->profile(env->arg, i->profile);

	if (!p)
		lua_raise(L, "vm `%s`: restore: snapshot `%s` is of profile `%s`, which is not in provium.toml",
			vm_name(g->target.vm), i->dir, i->profile);
	return p;
}

/* vm_check_image(dir) -> true, or nil, why it cannot be restored here, and whether it would only have to be made anew */
static int core_vm_check_image(lua_State *L)
{
	struct ops_env *env = ops_env(L);
	struct err e = ERR_INIT;
	struct vm_image *i = vm_image_open(env->vmm, luaL_checkstring(L, 1), &e);

	if (i && !env->profile(env->arg, i->profile))
		err_set(&e, ENOENT, "snapshot `%s` is of profile `%s`, which is not in provium.toml", i->dir, i->profile);
	vm_image_free(i);
	if (!err_is_set(&e)) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, e.msg);
	lua_pushboolean(L, e.code == -ESTALE);
	err_release(&e);
	return 3;
}

/* vm_is_starting(vm) -> whether a task boots or restores it, or waits for the pool to do so */
static int core_vm_is_starting(lua_State *L)
{
	struct guest *g = check_guest(L, 1);
	enum vm_state s = vm_state(g->target.vm);

	lua_pushboolean(L, s == VM_BOOTING || (g->lease && s != VM_BOOTED && s != VM_PAUSED));
	return 1;
}

/* The share of what runs is kept when it is what the snapshot needs, too. */
static void set_aside_lease(struct boot_wait *w, uint64_t memory, unsigned cpus)
{
	struct guest *g = w->guest;

	if (!g->lease || (need_memory(g) == memory + OVERHEAD && need_cpus(g) == cpus))
		return;
	w->old = g->lease;
	g->lease = NULL;
}

/* vm_restore(vm, dir, {clock=, time=, how=, stale=}[, Lease]) -> vm; with stale, nil and a message for a snapshot that does
 * not fit */
static int op_vm_restore(lua_State *L)
{
	struct guest *g = check_guest(L, 1);
	const char *dir = luaL_checkstring(L, 2), *how = "restore", *clock = NULL;
	struct lease **lease = lua_isnoneornil(L, 4) ? NULL : luaL_checkudata(L, 4, LEASE_TYPE);
	struct vm_restore_options o = { 0 };
	struct vm_image **ud;
	struct boot_wait *w;
	bool stale = false;
	double time = 0;

	opt_check(L, 3, "vm:restore", restore_keys);
	if (opt_string(L, 3, "vm:restore", "clock", &clock, NULL) && strcmp(clock, "keep") != 0)
		lua_raise(L, "vm:restore: clock is \"keep\" or not given, got `%s`", clock);
	opt_string(L, 3, "vm:restore", "how", &how, NULL);
	o.keep_clock = clock != NULL;
	o.has_time = opt_number(L, 3, "vm:restore", "time", &time);
	o.time = time;
	opt_bool(L, 3, "vm:restore", "stale", &stale);
	check_restorable(L, g);
	ud = image_push(L, g, dir);
	if (!*ud && stale && lua_toboolean(L, -2)) {
		lua_pushnil(L);
		lua_insert(L, -2);
		return op_return(L, 2);
	}
	if (!*ud)
		return lua_raise(L, "%s", lua_tostring(L, -1));
	o.profile = find_profile(L, g, *ud);
	w = wait_new(L, &boot_kind, sizeof(*w));
	w->guest = g;
	w->image = *ud;
	*ud = NULL;
	w->restore = o;
	w->may_be_stale = stale;
	w->how = strcmp(how, "boot_cache") == 0 ? "boot_cache" : "restore";
	if (lease && *lease && !g->lease) {	/* another task may have booted it meanwhile */
		g->lease = *lease;
		*lease = NULL;
	}
	set_aside_lease(w, w->image->memory, w->image->cpus);
	vm_options_release(&g->booted_with);
	vm_options_merge(&g->booted_with, &(struct vm_options){ .memory = w->image->memory, .cpus = w->image->cpus });
	return start(L, w);
}

/* ---- one pool acquisition for several VMs ---- */

/* What g will run with: what its options say, or what the snapshot at the index does. Leaves the stack as it was. */
static void choose_needs(lua_State *L, struct guest *g, int dirs, int i)
{
	struct vm_image **ud;

	vm_options_release(&g->booted_with);
	if (!lua_istable(L, dirs)) {
		vm_options_merge(&g->booted_with, &g->options);
		return;
	}
	lua_rawgeti(L, dirs, i);
	ud = image_push(L, g, luaL_checkstring(L, -1));
	if (!*ud)
		lua_raise(L, "%s", lua_tostring(L, -1));
	vm_options_merge(&g->booted_with, &(struct vm_options){ .memory = (*ud)->memory, .cpus = (*ud)->cpus });
	lua_pop(L, 2);
}

/* vm_lease({vm...}[, {dir...}]) -> {Lease...}: what each of them needs to boot, or to be restored, acquired together */
static int op_vm_lease(lua_State *L)
{
	struct ops_file *f = ops_file(L);
	size_t n = lua_rawlen(L, 1);
	struct guest **guests;
	struct lease_wait *w;
	uint64_t memory = 0;
	unsigned cpus = 0;

	lua_settop(L, 2);
	guests = lua_newuserdata(L, (n + 1) * sizeof(*guests));

	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, 1, (int)i + 1);
		guests[i] = check_guest(L, -1);
		check_bootable(L, guests[i]);
		choose_needs(L, guests[i], 2, (int)i + 1);
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

/* lease_drop(lease): gives a share back that nobody has taken; fine when somebody has */
static int core_lease_drop(lua_State *L)
{
	luaL_checkudata(L, 1, LEASE_TYPE);
	return lease_gc(L);
}

bool vm_wait_is_for_pool(const struct wait *w)
{
	if (w->kind == &boot_kind)
		return ((const struct boot_wait *)w)->in_pool;
	return w->kind == &lease_kind && ((const struct lease_wait *)w)->in_pool;
}

static const struct wait_kind boot_kind = {
	.name = "vm:boot",
	.cancel = boot_cancel,
	.push = boot_push,
	.describe = boot_describe,
	.release = boot_release,
};

static const struct wait_kind lease_kind = {
	.name = "lab:boot",
	.cancel = lease_cancel,
	.push = lease_push,
	.describe = lease_describe,
	.release = lease_release,
};

static const char *const restore_keys[] = { "clock", "how", "stale", "time", NULL };

static const luaL_Reg vm_ops[] = {
	{ "boot", op_boot },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "lease_drop", core_lease_drop },
	{ "vm_check_image", core_vm_check_image },
	{ "vm_is_starting", core_vm_is_starting },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "vm_lease", op_vm_lease },
	{ "vm_boot_with", op_vm_boot_with },
	{ "vm_restore", op_vm_restore },
	{ NULL, NULL },
};

static void new_collected(lua_State *L, const char *type, lua_CFunction gc)
{
	luaL_newmetatable(L, type);
	lua_pushcfunction(L, gc);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
}

void ops_open_boot(lua_State *L)
{
	new_collected(L, LEASE_TYPE, lease_gc);
	new_collected(L, IMAGE_TYPE, image_gc);
	lua_getfield(L, -1, "VM");
	lua_set_ops(L, vm_ops);
	lua_pop(L, 1);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
