/*
 * What lua/ builds files, workers, clocks and batches from: plain requests, and things in the guest
 * that their scope closes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/reply.h"

static void remote_undo(struct undo *u);

#define REMOTE_TYPE "provium.Remote"

/* A handle in the guest, closed by `op {key: value}`. In the userdata; anchored until it is closed. */
struct remote {
	struct target *target;
	struct undo undo;
	const char *op, *key;
	int64_t value;
	unsigned era;			/* of the guest, when it was opened */
	bool open;
	LIST_ENTRY(remote) entry;	/* of its target's, while it is open */
	lua_State *L;
};

struct known_request {
	const char *name;
	bool mux;			/* goes to channel 0 */
	const struct request_undo *undo;
};

static const struct known_request known_requests[];

static int push_raw_reply(lua_State *L, const msgpack_object *o)
{
	msgpack_sbuffer *b = sbuffer_push(L);
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, msgpack_sbuffer_write);
	msgpack_pack_object(&pk, *o);
	lua_pushlstring(L, b->data, b->size);
	return 1;
}

/* request(vm or worker, name, params packed, shown, method) -> reply packed. lua/ knows which requests there are. */
static int op_request(lua_State *L)
{
	const char *name = luaL_checkstring(L, 2), *shown = luaL_optstring(L, 4, "");
	struct target *t = check_target(L, 1, luaL_optstring(L, 5, name));
	const struct known_request *k;
	msgpack_sbuffer params = { 0 };

	for (k = known_requests; k->name && strcmp(k->name, name); k++)
		;
	INVARIANT(k->name);
	params.data = (char *)luaL_checklstring(L, 3, &params.size);
	return request_start_undo(L, k->mux ? target_mux(t) : t, k->name, shown, &params, push_raw_reply, k->undo);
}

static void remote_close(struct remote *r, bool tell)
{
	if (!r->open)
		return;
	r->open = false;
	LIST_REMOVE(r, entry);
	if (tell && !target_gone(r->target, r->era))
		request_forget_int(r->target, r->op, r->key, r->value);
	scope_remove(&r->undo);
	lua_pushnil(r->L);
	lua_rawsetp(r->L, LUA_REGISTRYINDEX, r);
}

static void remote_undo(struct undo *u)
{
	remote_close((struct remote *)((char *)u - offsetof(struct remote, undo)), true);
}

unsigned target_open_files(const struct target *t)
{
	const struct remote *r;
	unsigned n = 0;

	LIST_FOREACH(r, &t->files, entry)
		n += !target_gone(t, r->era);
	return n;
}

/* remote_file(vm or worker, handle) -> Remote: an open file of the current scope */
static int core_remote_file(lua_State *L)
{
	struct target *t = check_target(L, 1, "open_file");
	struct scope *scope = ops_scope(L);
	struct remote *r = lua_newuserdata(L, sizeof(*r));

	*r = (struct remote){ .target = t, .op = "close", .key = "handle", .value = luaL_checkinteger(L, 2), .open = true,
		.era = vm_era(t->vm) };
	r->L = state_lua(state_of(L));
	luaL_getmetatable(L, REMOTE_TYPE);
	lua_setmetatable(L, -2);
	LIST_INSERT_HEAD(&t->files, r, entry);
	scope_add(scope, &r->undo, RANK_FILE, remote_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, r);
	return 1;
}

/* is_open() -> boolean */
static int remote_is_open(lua_State *L)
{
	lua_pushboolean(L, ((struct remote *)luaL_checkudata(L, 1, REMOTE_TYPE))->open);
	return 1;
}

/* require(op): raises when its guest has been reset or cannot be asked */
static int remote_require(lua_State *L)
{
	struct remote *r = luaL_checkudata(L, 1, REMOTE_TYPE);

	target_require(L, r->target, r->era, "file", luaL_checkstring(L, 2));
	return 0;
}

/* close(): idempotent; does not wait for the guest */
static int remote_close_method(lua_State *L)
{
	remote_close(luaL_checkudata(L, 1, REMOTE_TYPE), true);
	return 0;
}

static const struct request_undo undo_open = { "close", "handle", NULL };
static const struct request_undo undo_worker = { "worker_signal", "channel", target_mux };

static const struct known_request known_requests[] = {
	{ "open", false, &undo_open },
	{ "read", false, NULL }, { "write", false, NULL }, { "pread", false, NULL }, { "pwrite", false, NULL },
	{ "seek", false, NULL }, { "truncate", false, NULL }, { "sync", false, NULL },
	{ "syscall", false, NULL }, { "ioctl", false, NULL }, { "read_mem", false, NULL }, { "write_mem", false, NULL },
	{ "clock_get", false, NULL }, { "clock_set", false, NULL }, { "sleep", false, NULL },
	{ "batch", false, NULL }, { "load_module", false, NULL },
	{ "net_configure", false, NULL }, { "net_names", false, NULL },
	{ "worker_spawn", true, &undo_worker }, { "worker_join", true, NULL }, { "worker_signal", true, NULL },
	{ NULL, false, NULL },
};

static const luaL_Reg remote_methods[] = {
	{ "is_open", remote_is_open },
	{ "require", remote_require },
	{ "close", remote_close_method },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "remote_file", core_remote_file },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "request", op_request },
	{ NULL, NULL },
};

void ops_open_remote(lua_State *L)
{
	luaL_newmetatable(L, REMOTE_TYPE);
	lua_newtable(L);
	luaL_setfuncs(L, remote_methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
