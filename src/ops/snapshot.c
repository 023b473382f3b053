/*
 * Saving VMs: vm:snapshot's part that is not Lua, and what is asked of a snapshot's directory.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/args.h"
#include "ops/stream.h"
#include "ops/target.h"

static void saved_cb(void *arg, const struct err *e);
static void removed_cb(void *arg, const struct err *e);
static void forgotten_cb(void *arg, const struct err *e);
static void temporary_undo(struct undo *u);
static const struct wait_kind save_kind, remove_kind;

struct save_wait {
	struct wait wait;
	struct vm *vm;
	struct vm_saved saved;		/* bytes is 0 until it is made */
	struct loop *loop;
	char *dir;
	bool saving, handed_over;
};

struct remove_wait {
	struct wait wait;
	struct removal *removal;	/* while it is under way */
};

/* Goes on when nobody waits for it any more. Freed at its end. */
struct removal {
	struct remove_wait *wait;
	char *dir;
};

/* The directory of a snapshot without a name, or of one that is not complete: goes with the scope that made it. Freed by its undo. */
struct temporary {
	struct undo undo;
	struct loop *loop;
	char *dir;
};

/* ---- vm_save ---- */

static void refuse_open_streams(lua_State *L, struct vm *vm)
{
	unsigned n = streams_push_list(L, vm_streams(L, 1));

	if (n > 0)
		lua_raise(L, "vm:snapshot() failed for `%s`: %u stream%s still open%s\nClose streams before snapshotting.",
			vm_name(vm), n, n == 1 ? "" : "s", lua_tostring(L, -1));
	lua_pop(L, 1);
}

/* What nobody waits for (a file is closed) may be answered before or after. */
static void refuse_pending(lua_State *L, struct vm *vm)
{
	size_t n = vm_pending(vm), unheeded = target_mux(vm_target(L, 1))->unheeded;

	n -= unheeded < n ? unheeded : n;

	if (n > 0)
		lua_raise(L, "vm:snapshot() failed for `%s`: %zu operation%s still in flight\nLet %s end before "
			"snapshotting.", vm_name(vm), n, n == 1 ? "" : "s", n == 1 ? "it" : "them");
}

static void remove_at_end(lua_State *L, struct scope *scope, const char *dir)
{
	struct temporary *t = xcalloc(1, sizeof(*t));

	t->loop = state_loop(state_of(L));
	t->dir = xstrdup(dir);
	scope_add(scope, &t->undo, RANK_FINAL, temporary_undo);
}

/* remove_at_end(dir): when the scope is over, if it is still there */
static int core_remove_at_end(lua_State *L)
{
	remove_at_end(L, ops_scope(L), luaL_checkstring(L, 1));
	return 0;
}

/* snapshot_unnamed(suffix) -> where a snapshot without a path goes */
static int core_snapshot_unnamed(lua_State *L)
{
	static unsigned serial;
	const char *suffix = luaL_checkstring(L, 1);
	struct scope *scope = ops_scope(L);
	struct ops_env *env = ops_env(L);
	struct err e = ERR_INIT;
	char *dir = env->snapshot_dir ? env->snapshot_dir(env->arg, &e) : NULL;

	if (err_is_set(&e)) {
		lua_pushstring(L, e.msg);
		err_release(&e);
		return lua_raise(L, "snapshot: %s", lua_tostring(L, -1));
	}
	if (!dir) {
		dir = xasprintf("%s/%u.%s", vmm_run_dir(env->vmm), ++serial, suffix);
		remove_at_end(L, scope, dir);
	}
	lua_pushstring(L, dir);
	free(dir);
	return 1;
}

static void forgotten_cb(void *arg, const struct err *e)
{
	struct temporary *t = arg;

	(void)e;
	undo_done(&t->undo);
	free(t->dir);
	free(t);
}

static void temporary_undo(struct undo *u)
{
	struct temporary *t = (struct temporary *)u;
	struct stat st;

	if (lstat(t->dir, &st) < 0)
		forgotten_cb(t, NULL);
	else
		vm_image_remove(t->loop, t->dir, forgotten_cb, t);
}

/* vm_check_save(vm): raises why it cannot be saved now */
static int core_vm_check_save(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	enum vm_state s = vm_state(vm);

	vm_require_qemu(L, vm, "snapshot");
	if (s != VM_BOOTED && s != VM_PAUSED)
		vm_raise_state(L, vm, "snapshot");
	refuse_open_streams(L, vm);
	refuse_pending(L, vm);
	return 0;
}

/* vm_save(vm, dir) -> dir, bytes, pause in seconds */
static int op_vm_save(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	const char *dir = luaL_checkstring(L, 2);
	struct save_wait *w;

	core_vm_check_save(L);
	w = wait_new(L, &save_kind, sizeof(*w));
	w->vm = vm;
	w->loop = state_loop(state_of(L));
	w->dir = xstrdup(dir);
	w->saving = true;
	vm_save(vm, dir, &w->saved, saved_cb, w);
	return wait_yield(L, &w->wait);
}

/* vm_renew(vm): one that is off becomes as if it had never been booted */
static int core_vm_renew(lua_State *L)
{
	vm_renew(check_vm(L, 1));
	return 0;
}

static void saved_cb(void *arg, const struct err *e)
{
	struct save_wait *w = arg;

	w->saving = false;
	if (e)
		wait_fail(&w->wait, e->code, "vm `%s`: snapshot: %s", vm_name(w->vm), e->msg);
	else
		wait_finish(&w->wait);
}

static int save_push(struct wait *wait, lua_State *L)
{
	struct save_wait *w = (struct save_wait *)wait;

	w->handed_over = true;
	lua_pushstring(L, w->dir);
	lua_pushinteger(L, (lua_Integer)w->saved.bytes);
	lua_pushnumber(L, (double)w->saved.pause_ns / 1e9);
	return 3;
}

/* The guest runs on, and nothing is left of the snapshot. */
static void save_cancel(struct wait *wait)
{
	struct save_wait *w = (struct save_wait *)wait;

	if (w->saving)
		vm_forget(w->vm, saved_cb, w);
}

static void save_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "vm \"%s\": snapshot", vm_name(((struct save_wait *)wait)->vm));
}

/* A snapshot that was made in the last moment before its task was cancelled is nobody's. */
static void save_release(struct wait *wait)
{
	struct save_wait *w = (struct save_wait *)wait;

	if (w->saved.bytes && !w->handed_over)
		vm_image_remove(w->loop, w->dir, NULL, NULL);
	free(w->dir);
}

/* ---- directories ---- */

/* snapshot_remove(dir): fine when it is gone */
static int op_snapshot_remove(lua_State *L)
{
	const char *dir = luaL_checkstring(L, 1);
	struct remove_wait *w = wait_new(L, &remove_kind, sizeof(*w));
	struct removal *r;
	struct stat st;

	if (lstat(dir, &st) < 0) {
		wait_finish(&w->wait);
		return wait_yield(L, &w->wait);
	}
	w->removal = r = xcalloc(1, sizeof(*r));
	r->wait = w;
	r->dir = xstrdup(dir);
	vm_image_remove(state_loop(state_of(L)), dir, removed_cb, r);
	return wait_yield(L, &w->wait);
}

static void removed_cb(void *arg, const struct err *e)
{
	struct removal *r = arg;
	struct remove_wait *w = r->wait;

	if (w)
		w->removal = NULL;
	if (w && e)
		wait_fail(&w->wait, e->code, "delete snapshot `%s`: %s", r->dir, e->msg);
	else if (w)
		wait_finish(&w->wait);
	free(r->dir);
	free(r);
}

static void remove_cancel(struct wait *wait)
{
	struct remove_wait *w = (struct remove_wait *)wait;

	if (w->removal)
		w->removal->wait = NULL;
}

/* host_path(path) -> what test code means by it, from the root, so that it means the same in another file */
static int core_host_path(lua_State *L)
{
	const char *path = args_push_host_path(L, luaL_checkstring(L, 1));
	char cwd[PATH_MAX];

	if (*path != '/' && getcwd(cwd, sizeof(cwd)))
		lua_pushfstring(L, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd, path);
	return 1;
}

/* make_dirs(path): with parents */
static int core_make_dirs(lua_State *L)
{
	struct err e = ERR_INIT;

	if (make_dirs(luaL_checkstring(L, 1), 0777, &e) < 0) {
		lua_pushstring(L, e.msg);
		err_release(&e);
		return lua_raise(L, "%s", lua_tostring(L, -1));
	}
	return 0;
}

/* file_streams() -> a line for each open stream of the file, "" when there is none */
static int core_file_streams(lua_State *L)
{
	streams_push_list(L, NULL);
	return 1;
}

/* new_id() -> 32 hexadecimal digits that nobody else has */
static int core_new_id(lua_State *L)
{
	char *id = units_new_id();

	lua_pushstring(L, id);
	free(id);
	return 1;
}

/* snapshot_size(dir) -> bytes on disk, 0 when it is gone */
static int core_snapshot_size(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)vm_image_size(luaL_checkstring(L, 1)));
	return 1;
}

static const struct wait_kind save_kind = {
	.name = "vm:snapshot",
	.cancel = save_cancel,
	.push = save_push,
	.describe = save_describe,
	.release = save_release,
};

static const struct wait_kind remove_kind = { .name = "snapshot:delete", .cancel = remove_cancel };

static const luaL_Reg core_functions[] = {
	{ "file_streams", core_file_streams },
	{ "host_path", core_host_path },
	{ "make_dirs", core_make_dirs },
	{ "new_id", core_new_id },
	{ "remove_at_end", core_remove_at_end },
	{ "snapshot_size", core_snapshot_size },
	{ "snapshot_unnamed", core_snapshot_unnamed },
	{ "vm_check_save", core_vm_check_save },
	{ "vm_renew", core_vm_renew },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "vm_save", op_vm_save },
	{ "snapshot_remove", op_snapshot_remove },
	{ NULL, NULL },
};

void ops_open_snapshot(lua_State *L)
{
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
