/*
 * Files in the guest by path: what takes one request and one reply.
 */
#include <string.h>

#include "ops/args.h"
#include "ops/reply.h"

static const char *const stat_keys[], *const mkdir_keys[], *const unlink_keys[];

/* Requests are packed into a userdata, so that a raise leaks nothing. */
#define BEGIN(n) \
	msgpack_sbuffer *buffer = sbuffer_push(L); \
	msgpack_packer pk; \
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write); \
	msgpack_pack_map(&pk, (n))

static void pack_path(msgpack_packer *pk, lua_State *L, const char *key, int arg)
{
	size_t n;
	const char *s = lua_tolstring(L, arg, &n);

	pack_key(pk, key);
	msgpack_pack_str_with_body(pk, s, n);
}

static int push_stat(lua_State *L, const msgpack_object *o)
{
	static const char *const numbers[] = { "size", "mtime", "mtime_ns", "perm", "uid", "gid", "nlink", "ino", NULL };
	char type[16] = "";

	lua_createtable(L, 0, 9);
	for (const char *const *k = numbers; *k; k++) {
		lua_pushinteger(L, (lua_Integer)reply_int(o, *k, 0));
		lua_setfield(L, -2, *k);
	}
	reply_str(o, "entry_type", type, sizeof(type));
	lua_pushstring(L, type);
	lua_setfield(L, -2, "entry_type");
	return 1;
}

/* stat(path, [{follow=true}]) -> {size, mtime, mtime_ns, perm, uid, gid, nlink, ino, entry_type} */
static int op_stat(lua_State *L)
{
	static const char signature[] = "vm:stat(path [, {follow=boolean}])";
	struct target *t = check_target(L, 1, "stat");
	const char *path = args_string(L, 2, signature, NULL);
	bool follow = true;

	args_max(L, 3, signature);
	if (opt_check(L, 3, "vm:stat", stat_keys))
		opt_bool(L, 3, "vm:stat", "follow", &follow);
	BEGIN(2);
	pack_path(&pk, L, "path", 2);
	pack_bool(&pk, "follow", follow);
	return request_start(L, t, "stat", path, buffer, push_stat);
}

/* What is no pair of names is left out: the guest is not trusted. */
static int push_entries(lua_State *L, const msgpack_object *o)
{
	const msgpack_object *list = map_get(o, "entries");
	const char *name, *type;
	size_t name_len, type_len;
	int n = 0;

	lua_newtable(L);
	if (!list || list->type != MSGPACK_OBJECT_ARRAY)
		return 1;
	for (uint32_t i = 0; i < list->via.array.size; i++) {
		const msgpack_object *entry = &list->via.array.ptr[i];

		if (entry->type != MSGPACK_OBJECT_ARRAY || entry->via.array.size != 2 ||
		    !object_bytes(&entry->via.array.ptr[0], &name, &name_len) ||
		    !object_bytes(&entry->via.array.ptr[1], &type, &type_len))
			continue;
		lua_createtable(L, 0, 2);
		lua_pushlstring(L, name, name_len);
		lua_setfield(L, -2, "name");
		lua_pushlstring(L, type, type_len);
		lua_setfield(L, -2, "entry_type");
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* listdir(path) -> {{name=, entry_type=}...}; files.lua sorts it */
static int op_listdir(lua_State *L)
{
	static const char signature[] = "vm:listdir(path)";
	struct target *t = check_target(L, 1, "listdir");
	const char *path = args_string(L, 2, signature, NULL);

	args_max(L, 2, signature);
	BEGIN(1);
	pack_path(&pk, L, "path", 2);
	return request_start(L, t, "listdir", path, buffer, push_entries);
}

/* mkdir(path, [{parents=, perm=}]) */
static int op_mkdir(lua_State *L)
{
	static const char signature[] = "vm:mkdir(path [, {parents=boolean, perm=integer}])";
	struct target *t = check_target(L, 1, "mkdir");
	const char *path = args_string(L, 2, signature, NULL);
	bool parents = false;
	int64_t perm = 0755;

	args_max(L, 3, signature);
	if (opt_check(L, 3, "vm:mkdir", mkdir_keys)) {
		opt_bool(L, 3, "vm:mkdir", "parents", &parents);
		opt_integer(L, 3, "vm:mkdir", "perm", 0, 07777, &perm);
	}
	BEGIN(3);
	pack_path(&pk, L, "path", 2);
	pack_bool(&pk, "parents", parents);
	pack_int(&pk, "perm", perm);
	return request_start(L, t, "mkdir", path, buffer, NULL);
}

/* unlink(path, [{recursive=}]) */
static int op_unlink(lua_State *L)
{
	static const char signature[] = "vm:unlink(path [, {recursive=boolean}])";
	struct target *t = check_target(L, 1, "unlink");
	const char *path = args_string(L, 2, signature, NULL);
	bool recursive = false;

	args_max(L, 3, signature);
	if (opt_check(L, 3, "vm:unlink", unlink_keys))
		opt_bool(L, 3, "vm:unlink", "recursive", &recursive);
	BEGIN(2);
	pack_path(&pk, L, "path", 2);
	pack_bool(&pk, "recursive", recursive);
	return request_start(L, t, "unlink", path, buffer, NULL);
}

/* rename(from, to) */
static int op_rename(lua_State *L)
{
	static const char signature[] = "vm:rename(from, to)";
	struct target *t = check_target(L, 1, "rename");
	const char *path = args_string(L, 2, signature, NULL);

	args_string(L, 3, signature, NULL);
	args_max(L, 3, signature);
	BEGIN(2);
	pack_path(&pk, L, "from", 2);
	pack_path(&pk, L, "to", 3);
	return request_start(L, t, "rename", path, buffer, NULL);
}

/* chmod(path, mode) */
static int op_chmod(lua_State *L)
{
	static const char signature[] = "vm:chmod(path, mode)";
	struct target *t = check_target(L, 1, "chmod");
	const char *path = args_string(L, 2, signature, NULL);
	int64_t mode = args_integer(L, 3, signature);

	args_max(L, 3, signature);
	if (mode < 0 || mode > 07777)
		lua_raise(L, "vm:chmod: the mode must be between 0 and 4095 (07777), got %lld", (long long)mode);
	BEGIN(2);
	pack_path(&pk, L, "path", 2);
	pack_int(&pk, "mode", mode);
	return request_start(L, t, "chmod", path, buffer, NULL);
}

static const char *const stat_keys[] = { "follow", NULL };
static const char *const mkdir_keys[] = { "parents", "perm", NULL };
static const char *const unlink_keys[] = { "recursive", NULL };

static const luaL_Reg file_ops[] = {
	{ "stat", op_stat },
	{ "listdir", op_listdir },
	{ "mkdir", op_mkdir },
	{ "unlink", op_unlink },
	{ "rename", op_rename },
	{ "chmod", op_chmod },
	{ NULL, NULL },
};

void ops_open_files(lua_State *L)
{
	ops_add_target_ops(L, file_ops);
}
