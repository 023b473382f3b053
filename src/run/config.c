/*
 * provium.toml: finds the file, runs lua/config.lua on it in a Lua state of its own, and turns the table
 * that comes back into struct profile.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "run/config.h"

/* A config or a cmdline_file larger than this is a mistake. */
#define TEXT_MAX ((size_t)16 << 20)

static const luaL_Reg host_functions[];

/* Owned by the caller of config_load. */
struct config {
	char *path;			/* absolute; NULL: defaults */
	char **roots;
	char *cache_dir;
	uint64_t cache_max_size;
	struct profile *profiles;	/* sorted by name */
	struct build_info *builds;	/* one for each profile; command NULL: none */
	const char **names;		/* the profiles' names, NULL-terminated */
	size_t nprofiles;
	lua_State *L;			/* for config_resolve: [1] the module, [2] the normalized table */
};

/* ---- paths ---- */

static char *current_dir(void)
{
	char *dir = getcwd(NULL, 0);

	return dir ? dir : xstrdup("/");
}

/* Removes empty and `.` components. `..` stays where a symlink could make a difference. */
static void tidy_path(char *path)
{
	char *to = path, *from = path, *end;

	while (*from) {
		end = from + strcspn(from, "/");
		if (end != from && !(end == from + 1 && *from == '.')) {
			*to++ = '/';
			memmove(to, from, end - from);
			to += end - from;
		}
		from = *end ? end + 1 : end;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
}

/* path as seen from dir (NULL: the current directory), absolute. malloc'ed. */
static char *absolute_path(const char *dir, const char *path)
{
	char *base = dir && *dir == '/' ? xstrdup(dir) : current_dir();
	char *result = *path == '/' ? xstrdup(path) : xasprintf("%s/%s", base, path);
	char real[PATH_MAX];

	free(base);
	if (strstr(result, "..") && realpath(result, real)) {
		free(result);
		return xstrdup(real);
	}
	tidy_path(result);
	return result;
}

char *config_cache_home(void)
{
	const char *dir = getenv("XDG_CACHE_HOME");

	if (dir && *dir == '/')
		return xstrdup(dir);
	dir = getenv("HOME");
	if (dir && *dir)
		return xasprintf("%s/.cache", dir);
	return xasprintf("/tmp/provium-cache-%u", (unsigned)getuid());
}

/* The nearest provium.toml from the current directory upwards; NULL when there is none. malloc'ed. */
static char *search_upwards(void)
{
	char *dir = current_dir(), *slash, *path;

	for (;;) {
		path = xasprintf("%s/%s", strcmp(dir, "/") ? dir : "", CONFIG_FILE);
		if (access(path, F_OK) == 0)
			break;
		free(path);
		path = NULL;
		slash = strrchr(dir, '/');
		if (!slash || !slash[1])
			break;
		slash[slash == dir] = '\0';
	}
	free(dir);
	return path;
}

/* ---- what lua/config.lua asks of the host ---- */

static int push_errno(lua_State *L, int code)
{
	lua_pushnil(L);
	lua_pushstring(L, strerror(code));
	return 2;
}

static int host_read(lua_State *L)
{
	int fd = open(luaL_checkstring(L, 1), O_RDONLY | O_CLOEXEC | O_NONBLOCK), code = 0;
	size_t len = 0, size = 1 << 16;
	struct stat st;
	ssize_t n = 1;
	char *buf;

	if (fd < 0)
		return push_errno(L, errno);
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		close(fd);
		return push_errno(L, EISDIR);
	}
	buf = xmalloc(size);
	while (n > 0 && len <= TEXT_MAX) {
		if (len == size)
			buf = xrealloc(buf, size *= 2);
		n = read(fd, buf + len, size - len);
		len += n > 0 ? (size_t)n : 0;
	}
	code = n < 0 ? errno : len > TEXT_MAX ? EFBIG : 0;
	close(fd);
	if (!code)
		lua_pushlstring(L, buf, len);
	free(buf);
	return code ? push_errno(L, code) : 1;
}

static int host_list(lua_State *L)
{
	struct dirent **names;
	int n = scandir(luaL_checkstring(L, 1), &names, NULL, alphasort), count = 0;

	if (n < 0)
		return push_errno(L, errno);
	lua_newtable(L);
	for (int i = 0; i < n; i++) {
		if (strcmp(names[i]->d_name, ".") && strcmp(names[i]->d_name, "..")) {
			lua_pushstring(L, names[i]->d_name);
			lua_rawseti(L, -2, ++count);
		}
		free(names[i]);
	}
	free(names);
	return 1;
}

static int host_kind(lua_State *L)
{
	struct stat st;

	if (stat(luaL_checkstring(L, 1), &st) < 0)
		return 0;
	lua_pushstring(L, S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "directory" : "other");
	return 1;
}

static int host_absolute(lua_State *L)
{
	char *path = absolute_path(luaL_optstring(L, 1, NULL), luaL_checkstring(L, 2));

	lua_pushstring(L, path);
	free(path);
	return 1;
}

static int host_env(lua_State *L)
{
	lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
	return 1;
}

/* nil, message; releases e. */
static int push_err(lua_State *L, struct err *e)
{
	lua_pushnil(L);
	lua_pushstring(L, e->msg);
	err_release(e);
	return 2;
}

static int host_size(lua_State *L)
{
	struct err e = ERR_INIT;
	uint64_t bytes;
	int r;

	if (lua_type(L, 1) == LUA_TNUMBER)
		r = units_size_from_number(lua_tonumber(L, 1), &bytes, &e);
	else
		r = units_parse_size(luaL_checkstring(L, 1), &bytes, &e);
	if (r == 0 && bytes > INT64_MAX)
		r = err_set(&e, ERANGE, "the size `%s` is too large", lua_tostring(L, 1));
	if (r < 0)
		return push_err(L, &e);
	lua_pushinteger(L, (lua_Integer)bytes);
	return 1;
}

static int host_duration(lua_State *L)
{
	struct err e = ERR_INIT;
	int64_t ns;
	int r;

	if (lua_type(L, 1) == LUA_TNUMBER)
		r = units_duration_from_seconds(lua_tonumber(L, 1), &ns, &e);
	else
		r = units_parse_duration(luaL_checkstring(L, 1), &ns, &e);
	if (r < 0)
		return push_err(L, &e);
	lua_pushinteger(L, (lua_Integer)ns);
	return 1;
}

static int host_nearest(lua_State *L)
{
	size_t n = lua_rawlen(L, 2);
	const char **names = lua_newuserdata(L, (n + 1) * sizeof(*names));
	const char *word = luaL_checkstring(L, 1);

	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, 2, (int)i + 1);
		names[i] = lua_tostring(L, -1);		/* the table keeps it */
		lua_pop(L, 1);
	}
	names[n] = NULL;
	lua_pushstring(L, nearest_name(word, names));
	return 1;
}

static void push_host(lua_State *L)
{
	char *cache = config_cache_home();
	struct utsname u;

	lua_newtable(L);
	for (const luaL_Reg *f = host_functions; f->name; f++) {
		lua_pushcfunction(L, f->func);
		lua_setfield(L, -2, f->name);
	}
	lua_pushstring(L, uname(&u) == 0 ? u.machine : "unknown");
	lua_setfield(L, -2, "arch");
	lua_pushstring(L, cache);
	lua_setfield(L, -2, "cache_home");
	free(cache);
}

/* ---- from the normalized table to C; the table is on top of the stack ---- */

static char *field_string(lua_State *L, const char *key)
{
	char *s;

	lua_getfield(L, -1, key);
	s = xstrdup(lua_tostring(L, -1));
	lua_pop(L, 1);
	return s;
}

static double field_number(lua_State *L, const char *key)
{
	double n;

	lua_getfield(L, -1, key);
	n = lua_tonumber(L, -1);
	lua_pop(L, 1);
	return n;
}

static uint64_t field_integer(lua_State *L, const char *key)
{
	uint64_t n;

	lua_getfield(L, -1, key);
	n = (uint64_t)lua_tointeger(L, -1);
	lua_pop(L, 1);
	return n;
}

static bool field_bool(lua_State *L, const char *key)
{
	bool b;

	lua_getfield(L, -1, key);
	b = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return b;
}

/* NULL when the field is absent. */
static char **field_strings(lua_State *L, const char *key)
{
	char **list = NULL;
	size_t n;

	lua_getfield(L, -1, key);
	if (lua_istable(L, -1)) {
		n = lua_rawlen(L, -1);
		list = xcalloc(n + 1, sizeof(*list));
		for (size_t i = 0; i < n; i++) {
			lua_rawgeti(L, -1, (int)i + 1);
			list[i] = xstrdup(lua_tostring(L, -1));
			lua_pop(L, 1);
		}
	}
	lua_pop(L, 1);
	return list;
}

static void free_strings(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static void read_disks(lua_State *L, struct profile *p)
{
	lua_getfield(L, -1, "disks");
	p->ndisks = lua_rawlen(L, -1);
	p->disks = xcalloc(p->ndisks + 1, sizeof(*p->disks));
	for (size_t i = 0; i < p->ndisks; i++) {
		struct disk_spec *d = &p->disks[i];

		lua_rawgeti(L, -1, (int)i + 1);
		d->id = field_string(L, "id");
		d->path = field_string(L, "path");
		d->scratch = field_integer(L, "scratch");
		d->template = field_string(L, "template");
		d->format = field_string(L, "format");
		d->readonly = field_bool(L, "readonly");
		d->direct = field_bool(L, "direct");
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

static enum accel read_accel(lua_State *L)
{
	char *name = field_string(L, "accel");
	enum accel accel = ACCEL_AUTO;

	if (name && strcmp(name, "kvm") == 0)
		accel = ACCEL_KVM;
	else if (name && strcmp(name, "tcg") == 0)
		accel = ACCEL_TCG;
	free(name);
	return accel;
}

static void read_profile(lua_State *L, struct profile *p)
{
	p->name = field_string(L, "name");
	p->kernel = field_string(L, "kernel");
	p->initrd = field_string(L, "initrd");
	p->modules = field_string(L, "modules");
	p->cmdline = field_string(L, "full_cmdline");
	p->arch = field_string(L, "arch");
	p->machine = field_string(L, "machine");
	p->accel = read_accel(L);
	p->memory = field_integer(L, "memory");
	p->cpus = (unsigned)field_integer(L, "cpus");
	p->inject_agent = field_bool(L, "inject_agent");
	p->agent_overlay_path = field_string(L, "agent_overlay_path");
	p->agent_boot_timeout = (int64_t)field_number(L, "agent_boot_timeout");
	p->boot_cache = field_bool(L, "boot_cache");
	p->qemu_args = field_strings(L, "qemu_args");
	read_disks(L, p);
}

static void read_build(lua_State *L, struct build_info *b)
{
	b->command = field_string(L, "build");
	b->dir = field_string(L, "dir");
	b->out = field_string(L, "build_out");
	b->inputs = field_strings(L, "build_inputs");
}

static void read_profiles(struct config *c)
{
	lua_State *L = c->L;

	lua_getfield(L, -1, "profiles");
	c->nprofiles = lua_rawlen(L, -1);
	c->profiles = xcalloc(c->nprofiles + 1, sizeof(*c->profiles));
	c->builds = xcalloc(c->nprofiles + 1, sizeof(*c->builds));
	c->names = xcalloc(c->nprofiles + 1, sizeof(*c->names));
	for (size_t i = 0; i < c->nprofiles; i++) {
		lua_rawgeti(L, -1, (int)i + 1);
		read_profile(L, &c->profiles[i]);
		read_build(L, &c->builds[i]);
		c->names[i] = c->profiles[i].name;
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* ---- the file ---- */

/* Calls a function of the module with what stands above it; leaves its result, or fills *e. */
static int call_module(lua_State *L, const char *function, int nargs, struct err *e)
{
	lua_getfield(L, 1, function);
	lua_insert(L, -nargs - 1);
	if (lua_pcall(L, nargs, 2, 0) != LUA_OK)
		return err_set(e, EINVAL, "%s", lua_tostring(L, -1));
	if (lua_isnil(L, -2))
		return err_set(e, EINVAL, "%s", lua_tostring(L, -1));
	lua_pop(L, 1);
	return 0;
}

/* Runs lua/config.lua; leaves the normalized table on the stack. shown is the path in messages. */
static int load_file(struct config *c, const char *shown, struct err *e)
{
	char *dir = xstrndup(c->path, strrchr(c->path, '/') - c->path);
	lua_State *L = luaL_newstate();
	int r;

	INVARIANT(L);
	c->L = L;
	luaL_openlibs(L);
	r = state_call_embedded(L, "toml", 0, 1, e);
	if (r == 0) {
		push_host(L);
		r = state_call_embedded(L, "config", 2, 1, e);
	}
	if (r == 0) {
		lua_pushstring(L, shown);
		lua_pushstring(L, *dir ? dir : "/");
		r = call_module(L, "load", 2, e);
	}
	free(dir);
	return r;
}

static void set_defaults(struct config *c)
{
	const char *env = getenv("PROVIUM_FIXTURE_CACHE");
	char *home;

	if (!c->roots) {
		c->roots = xcalloc(2, sizeof(*c->roots));
		c->roots[0] = absolute_path(NULL, ".");
	}
	if (env && *env) {
		free(c->cache_dir);
		c->cache_dir = absolute_path(NULL, env);
	} else if (!c->cache_dir) {
		home = config_cache_home();
		c->cache_dir = xasprintf("%s/provium/fixtures", home);
		free(home);
	}
	if (!c->names)
		c->names = xcalloc(1, sizeof(*c->names));
}

struct config *config_load(const char *path, struct err *e)
{
	struct config *c = xcalloc(1, sizeof(*c));

	c->cache_max_size = CONFIG_CACHE_MAX_SIZE;
	c->path = path ? absolute_path(NULL, path) : search_upwards();
	if (!path && access(CONFIG_FILE, F_OK) == 0)
		path = CONFIG_FILE;
	if (c->path) {
		if (load_file(c, path ? path : c->path, e) < 0) {
			config_free(c);
			return NULL;
		}
		c->roots = field_strings(c->L, "roots");
		c->cache_dir = field_string(c->L, "cache_dir");
		lua_getfield(c->L, -1, "cache_max_size");
		if (!lua_isnil(c->L, -1))
			c->cache_max_size = (uint64_t)lua_tointeger(c->L, -1);
		lua_pop(c->L, 1);
		read_profiles(c);
	}
	set_defaults(c);
	return c;
}

static void release_profile(struct profile *p)
{
	for (size_t i = 0; i < p->ndisks; i++) {
		free(p->disks[i].id);
		free(p->disks[i].path);
		free(p->disks[i].template);
		free(p->disks[i].format);
	}
	free(p->disks);
	free(p->name);
	free(p->kernel);
	free(p->initrd);
	free(p->modules);
	free(p->cmdline);
	free(p->arch);
	free(p->machine);
	free(p->agent_overlay_path);
	free_strings(p->qemu_args);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->nprofiles; i++) {
		release_profile(&c->profiles[i]);
		free(c->builds[i].command);
		free(c->builds[i].dir);
		free(c->builds[i].out);
		free_strings(c->builds[i].inputs);
	}
	free(c->profiles);
	free(c->builds);
	free(c->names);
	free_strings(c->roots);
	free(c->cache_dir);
	free(c->path);
	if (c->L)
		lua_close(c->L);
	free(c);
}

/* ---- what others ask ---- */

static size_t find_profile(const struct config *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->nprofiles && strcmp(c->names[i], name); i++)
		;
	return i;
}

const char *config_path(const struct config *c)
{
	return c->path;
}

const char *const *config_roots(const struct config *c)
{
	return (const char *const *)c->roots;
}

const char *config_cache_dir(const struct config *c)
{
	return c->cache_dir;
}

uint64_t config_cache_max_size(const struct config *c)
{
	return c->cache_max_size;
}

const char *const *config_profile_names(const struct config *c)
{
	return c->names;
}

const struct profile *config_profile(const struct config *c, const char *name)
{
	size_t i = find_profile(c, name);

	return i < c->nprofiles ? &c->profiles[i] : NULL;
}

const struct build_info *config_build(const struct config *c, const char *name)
{
	size_t i = find_profile(c, name);

	return i < c->nprofiles && c->builds[i].command ? &c->builds[i] : NULL;
}

int config_resolve(struct config *c, const char *name, struct err *e)
{
	size_t i = find_profile(c, name);
	int top, r;

	INVARIANT(i < c->nprofiles);
	if (!c->builds[i].command)
		return 0;
	top = lua_gettop(c->L);
	lua_getfield(c->L, 2, "profiles");
	lua_rawgeti(c->L, -1, (int)i + 1);
	lua_pushvalue(c->L, -1);
	r = call_module(c->L, "resolve", 1, e);
	if (r == 0) {
		lua_pop(c->L, 1);
		free(c->profiles[i].kernel);
		free(c->profiles[i].cmdline);
		c->profiles[i].kernel = field_string(c->L, "kernel");
		c->profiles[i].cmdline = field_string(c->L, "full_cmdline");
	}
	lua_settop(c->L, top);
	return r;
}

static const luaL_Reg host_functions[] = {
	{ "read", host_read },
	{ "list", host_list },
	{ "kind", host_kind },
	{ "absolute", host_absolute },
	{ "env", host_env },
	{ "size", host_size },
	{ "duration", host_duration },
	{ "nearest", host_nearest },
	{ NULL, NULL },
};
