/*
 * Fixtures: waiting for a snapshot from the cache, and holding it while a VM is made of it.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/openers.h"

static void got_cb(void *arg, struct cache_hold *h, const struct err *e);
static const struct wait_kind fixture_kind;

#define ENTRY_TYPE "provium.FixtureEntry"

struct fixture_wait {
	struct wait wait;
	struct ops_file *file;
	struct fixture_wish *wish;
	struct cache_hold *hold;	/* until Lua takes it */
	char *name;
	bool counted;			/* as waiting for the pool: it is not the test's time */
};

/* fixture_get(name) -> entry, in use until it is collected */
static int op_fixture_get(lua_State *L)
{
	struct ops_file *f = ops_file(L);
	const char *name = luaL_checkstring(L, 1);
	struct fixture_wait *w;

	if (vmm_kind(f->env->vmm) == VMM_LOCAL)
		return lua_raise(L, "fixture `%s`: not supported by --vmm local: there is no machine to restore",
			name);
	w = wait_new(L, &fixture_kind, sizeof(*w));
	w->file = f;
	w->name = xstrdup(name);
	w->wish = f->env->fixture_get(f->env->arg, name, got_cb, w);
	w->counted = true;
	pool_wait_begin(f);
	return wait_yield(L, &w->wait);
}

static void stop_counting(struct fixture_wait *w)
{
	if (w->counted)
		pool_wait_end(w->file);
	w->counted = false;
}

static void got_cb(void *arg, struct cache_hold *h, const struct err *e)
{
	struct fixture_wait *w = arg;

	stop_counting(w);
	w->hold = h;
	if (e)
		wait_fail_err(&w->wait, e);
	else
		wait_finish(&w->wait);
}

static int fixture_push(struct wait *wait, lua_State *L)
{
	struct fixture_wait *w = (struct fixture_wait *)wait;
	struct cache_hold **ud = lua_newuserdata(L, sizeof(*ud));

	*ud = NULL;
	luaL_getmetatable(L, ENTRY_TYPE);
	lua_setmetatable(L, -2);
	*ud = w->hold;
	w->hold = NULL;
	return 1;
}

static void fixture_cancel(struct wait *wait)
{
	stop_counting((struct fixture_wait *)wait);
}

static void fixture_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "fixture \"%s\"", ((struct fixture_wait *)wait)->name);
}

static void fixture_release(struct wait *wait)
{
	struct fixture_wait *w = (struct fixture_wait *)wait;

	if (w->wish)
		w->file->env->fixture_free(w->wish);
	cache_hold_free(w->hold);
	free(w->name);
}

bool fixture_wait_is_stuck(const struct wait *w)
{
	const struct fixture_wait *f = (const struct fixture_wait *)w;

	return w->kind == &fixture_kind && f->wish && f->file->env->fixture_stuck(f->wish);
}

/* ---- an entry ---- */

static struct cache_hold *check_entry(lua_State *L, int arg)
{
	return *(struct cache_hold **)luaL_checkudata(L, arg, ENTRY_TYPE);
}

/* fixture_entry(entry) -> directory, whether it is a lab's */
static int core_fixture_entry(lua_State *L)
{
	struct cache_hold *h = check_entry(L, 1);

	lua_pushstring(L, cache_hold_dir(h));
	lua_pushboolean(L, cache_hold_is_lab(h));
	return 2;
}

/* image_info(dir) -> name of the VM, profile; nil, message when the snapshot is damaged or does not fit */
static int core_image_info(lua_State *L)
{
	struct err e = ERR_INIT;
	struct vm_image *i = vm_image_open(ops_env(L)->vmm, luaL_checkstring(L, 1), &e);

	if (!i) {
		lua_pushnil(L);
		lua_pushstring(L, e.msg);
		err_release(&e);
		return 2;
	}
	lua_pushstring(L, i->vm_name);
	lua_pushstring(L, i->profile);
	vm_image_free(i);
	return 2;
}

/* What is wrong with the first bad snapshot of a VM below dir: 0, or -errno and *e. */
static int check_images(struct vmm *v, const char *dir, struct err *e)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	int r = 0;

	while (d && r == 0 && (entry = readdir(d))) {
		size_t len = strlen(entry->d_name);
		char *path;

		if (*entry->d_name == '.')
			continue;
		path = xasprintf("%s/%s", dir, entry->d_name);
		if (len > 5 && strcmp(entry->d_name + len - 5, ".snap") == 0) {
			struct vm_image *i = vm_image_open(v, path, e);

			r = i ? 0 : e->code;
			vm_image_free(i);
		} else {
			r = check_images(v, path, e);
		}
		free(path);
	}
	if (d)
		closedir(d);
	return r;
}

/* images_check(dir) -> true; nil, message when a snapshot of a VM below it is damaged or does not fit */
static int core_images_check(lua_State *L)
{
	struct err e = ERR_INIT;

	if (check_images(ops_env(L)->vmm, luaL_checkstring(L, 1), &e) == 0) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, e.msg);
	err_release(&e);
	return 2;
}

/* fixture_bad(entry, name, why): it could not be restored; the next one who asks has it built */
static int core_fixture_bad(lua_State *L)
{
	struct ops_env *env = ops_env(L);

	env->fixture_bad(env->arg, luaL_checkstring(L, 2), check_entry(L, 1), luaL_checkstring(L, 3));
	return 0;
}

static int entry_gc(lua_State *L)
{
	struct cache_hold **ud = lua_touserdata(L, 1);

	cache_hold_free(*ud);
	*ud = NULL;
	return 0;
}

static const struct wait_kind fixture_kind = {
	.name = "fixture",
	.cancel = fixture_cancel,
	.push = fixture_push,
	.describe = fixture_describe,
	.release = fixture_release,
};

static const luaL_Reg core_functions[] = {
	{ "fixture_entry", core_fixture_entry },
	{ "image_info", core_image_info },
	{ "images_check", core_images_check },
	{ "fixture_bad", core_fixture_bad },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "fixture_get", op_fixture_get },
	{ NULL, NULL },
};

void ops_open_fixture(lua_State *L)
{
	luaL_newmetatable(L, ENTRY_TYPE);
	lua_pushcfunction(L, entry_gc);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
