/*
 * The option table of vm() and boot().
 */
#include <string.h>

#include "ops/args.h"
#include "ops/target.h"

static const char *const vm_keys[], *const file_keys[], *const disk_keys[];

#define OPTIONS_TYPE "provium.vm_options"

static int options_gc(lua_State *L)
{
	vm_options_release(lua_touserdata(L, 1));
	return 0;
}

static char *opt_dup(lua_State *L, int arg, const char *what, const char *key)
{
	const char *s;

	return opt_string(L, arg, what, key, &s, NULL) ? xstrdup(s) : NULL;
}

/* The array at option `key`: leaves it on the stack and returns its length; -1 when it is unset. */
static int push_array(lua_State *L, int arg, const char *what, const char *key)
{
	if (!opt_push(L, arg, key))
		return -1;
	if (!lua_istable(L, -1))
		opt_raise(L, what, key, "an array", -1);
	return (int)lua_rawlen(L, -1);
}

static void push_item(lua_State *L, int i, const char *what, const char *const *keys)
{
	lua_rawgeti(L, -1, i);
	if (!lua_istable(L, -1))
		lua_raise(L, "%s: item %d must be a table, got a %s", what, i, luaL_typename(L, -1));
	opt_check(L, lua_gettop(L), what, keys);
}

static void read_files(lua_State *L, int arg, const char *what, struct vm_options *o)
{
	int n = push_array(L, arg, what, "files");

	if (n < 0)
		return;
	o->files = xcalloc((size_t)n + 1, sizeof(*o->files));
	for (int i = 1; i <= n; i++) {
		struct file_spec *f = &o->files[o->nfiles++];
		const char *content;
		int64_t mode = 0;
		int item;

		push_item(L, i, "boot: files", file_keys);
		item = lua_gettop(L);
		f->path = opt_dup(L, item, "boot: files", "path");
		f->host = opt_dup(L, item, "boot: files", "host");
		if (opt_string(L, item, "boot: files", "content", &content, &f->content_len)) {
			f->content = xmalloc(f->content_len + 1);
			memcpy(f->content, content, f->content_len + 1);
		}
		if (opt_integer(L, item, "boot: files", "mode", 0, 07777, &mode))
			f->mode = (unsigned)mode;
		if (!f->path)
			lua_raise(L, "%s: files: item %d has no `path`", what, i);
		if (!f->host == !f->content)
			lua_raise(L, "%s: files: `%s` needs exactly one of `content` and `host`", what, f->path);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static void read_disks(lua_State *L, int arg, const char *what, struct vm_options *o)
{
	int n = push_array(L, arg, what, "disks");

	if (n < 0)
		return;
	if (n > 0 && vmm_kind(ops_file(L)->env->vmm) == VMM_LOCAL)
		lua_raise(L, "%s: disks: not supported by --vmm local", what);
	o->disks = xcalloc((size_t)n + 1, sizeof(*o->disks));
	for (int i = 1; i <= n; i++) {
		struct disk_spec *d = &o->disks[o->ndisks++];
		int item;

		push_item(L, i, "boot: disks", disk_keys);
		item = lua_gettop(L);
		d->id = opt_dup(L, item, "boot: disks", "id");
		d->path = opt_dup(L, item, "boot: disks", "path");
		d->template = opt_dup(L, item, "boot: disks", "template");
		d->format = opt_dup(L, item, "boot: disks", "format");
		opt_size(L, item, "boot: disks", "scratch", &d->scratch);
		opt_bool(L, item, "boot: disks", "readonly", &d->readonly);
		opt_bool(L, item, "boot: disks", "direct", &d->direct);
		if (!d->id)
			d->id = xasprintf("disk%d", i - 1);
		if (!d->format)
			d->format = xstrdup("raw");
		if (strcmp(d->format, "raw") && strcmp(d->format, "qcow2"))
			lua_raise(L, "%s: disk `%s`: unknown format `%s` (known: raw, qcow2)", what, d->id, d->format);
		if (!!d->path + !!d->template + !!d->scratch != 1)
			lua_raise(L, "%s: disk `%s` needs exactly one of `path`, `scratch` and `template`", what, d->id);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static void read_qemu_args(lua_State *L, int arg, const char *what, struct vm_options *o)
{
	int n = push_array(L, arg, what, "qemu_args");

	if (n < 0)
		return;
	o->qemu_args = xcalloc((size_t)n + 1, sizeof(*o->qemu_args));
	for (int i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		if (lua_type(L, -1) != LUA_TSTRING)
			lua_raise(L, "%s: qemu_args: item %d must be a string, got a %s", what, i, luaL_typename(L, -1));
		o->qemu_args[i - 1] = xstrdup(lua_tostring(L, -1));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static void read_choices(lua_State *L, int arg, const char *what, struct vm_options *o)
{
	static const char *const accels[] = { "auto", "kvm", "tcg", NULL };
	static const char *const machines[] = { "pc", "q35", "microvm", "virt", NULL };
	const char *s;
	int i;

	if (opt_string(L, arg, what, "accel", &s, NULL)) {
		for (i = 0; accels[i] && strcmp(s, accels[i]); i++)
			;
		if (!accels[i])
			lua_raise(L, "%s: unknown accel `%s` (known: auto, kvm, tcg)", what, s);
		o->accel = (enum accel)i;
	}
	if (opt_string(L, arg, what, "machine", &s, NULL)) {
		for (i = 0; machines[i] && strcmp(s, machines[i]); i++)
			;
		if (!machines[i])
			lua_raise(L, "%s: unknown machine `%s` (known: pc, q35, microvm, virt)", what, s);
		o->machine = xstrdup(s);
	}
}

struct vm_options *vmopts_push(lua_State *L, int arg, const char *what)
{
	struct vm_options *o = lua_newuserdata(L, sizeof(*o));
	int64_t n;

	memset(o, 0, sizeof(*o));
	if (luaL_newmetatable(L, OPTIONS_TYPE)) {
		lua_pushcfunction(L, options_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_setmetatable(L, -2);
	if (!opt_check(L, arg, what, vm_keys))
		return o;
	opt_size(L, arg, what, "memory", &o->memory);
	if (opt_integer(L, arg, what, "cpus", 1, 255, &n))
		o->cpus = (unsigned)n;
	o->cmdline = opt_dup(L, arg, what, "kernel_cmdline");
	o->cmdline_append = opt_dup(L, arg, what, "kernel_cmdline_append");
	o->has_rng_seed = opt_integer(L, arg, what, "rng_seed", INT64_MIN, INT64_MAX, &n);
	o->rng_seed = o->has_rng_seed ? (uint64_t)n : 0;
	o->has_initial_time = opt_number(L, arg, what, "initial_time", &o->initial_time);
	opt_duration(L, arg, what, "agent_timeout", &o->agent_timeout);
	o->expect = opt_dup(L, arg, what, "expect");
	opt_bool(L, arg, what, "cold", &o->cold);
	read_choices(L, arg, what, o);
	read_files(L, arg, what, o);
	read_disks(L, arg, what, o);
	read_qemu_args(L, arg, what, o);
	return o;
}

static const char *const vm_keys[] = {
	"memory", "cpus", "kernel_cmdline", "kernel_cmdline_append", "rng_seed", "initial_time", "files", "disks",
	"agent_timeout", "expect", "cold", "accel", "machine", "qemu_args", NULL,
};

static const char *const file_keys[] = { "path", "content", "host", "mode", NULL };

static const char *const disk_keys[] = {
	"id", "path", "scratch", "template", "format", "readonly", "direct", NULL,
};
