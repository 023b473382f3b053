/*
 * System calls: what suites make by the hundred thousand goes from Lua's arguments to the wire, and from the
 * reply to the result, without tables in between.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/reply.h"

#define SLOTS 6
#define WORDS_SIZE 128		/* a packed request of plain words takes 80 bytes at most */

/* A reply, as it waits for its task: lengths, then the bytes of all buffers. malloc'ed in one piece. */
struct kept {
	int64_t ret, errno_;
	uint32_t nbufs;
	size_t len[];
};

/* The 64 bits that a Lua number stands for: -1 and 2^64 - 1 are the same word. */
static bool to_word(lua_State *L, int i, uint64_t *word)
{
	lua_Number n;

	if (lua_type(L, i) != LUA_TNUMBER)
		return false;
	if (lua_isinteger(L, i)) {
		*word = (uint64_t)lua_tointeger(L, i);
		return true;
	}
	n = lua_tonumber(L, i);
	if (n != floor(n) || n < -0x1p63 || n >= 0x1p64)	/* NaN is not equal to itself */
		return false;
	*word = n < 0 ? (uint64_t)(int64_t)n : (uint64_t)n;
	return true;
}

/* word(v) -> v as an integer, or nil when it is none of 64 bits */
static int core_word(lua_State *L)
{
	uint64_t word;

	if (!to_word(L, 1, &word)) {
		lua_pushnil(L);
		return 1;
	}
	if (sizeof(lua_Integer) == 8 && LUA_VERSION_NUM >= 503)
		lua_pushinteger(L, (lua_Integer)word);
	else
		lua_pushvalue(L, 1);	/* a double that holds it */
	return 1;
}

static void pack_word(msgpack_packer *pk, uint64_t word)
{
	msgpack_pack_int64(pk, (int64_t)word);
}

/* ---- the reply ---- */

static uint32_t count_bufs(const msgpack_object *bufs, size_t *total)
{
	uint32_t n = bufs && bufs->type == MSGPACK_OBJECT_ARRAY ? bufs->via.array.size : 0;

	*total = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (bufs->via.array.ptr[i].type != MSGPACK_OBJECT_BIN)
			return i;
		*total += bufs->via.array.ptr[i].via.bin.size;
	}
	return n;
}

static void *keep_reply(const msgpack_object *reply)
{
	const msgpack_object *bufs = map_get(reply, "bufs");
	size_t total;
	uint32_t n = count_bufs(bufs, &total);
	struct kept *k = xmalloc(sizeof(*k) + n * sizeof(k->len[0]) + total);
	char *p = (char *)&k->len[n];

	k->ret = reply_int(reply, "ret", -1);
	k->errno_ = reply_int(reply, "errno", 0);
	k->nbufs = n;
	for (uint32_t i = 0; i < n; i++) {
		const msgpack_object_bin *b = &bufs->via.array.ptr[i].via.bin;

		k->len[i] = b->size;
		if (b->size)
			memcpy(p, b->ptr, b->size);
		p += b->size;
	}
	return k;
}

static int push_reply(lua_State *L, const void *kept)
{
	const struct kept *k = kept;
	const char *p = (const char *)&k->len[k->nbufs];

	lua_createtable(L, 0, 4);
	lua_pushinteger(L, (lua_Integer)k->ret);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "result");
	lua_setfield(L, -2, "ret");
	lua_pushinteger(L, (lua_Integer)k->errno_);
	lua_setfield(L, -2, "errno");
	lua_createtable(L, (int)k->nbufs, 0);
	for (uint32_t i = 0; i < k->nbufs; i++) {
		lua_pushlstring(L, p, k->len[i]);
		lua_rawseti(L, -2, (int)i + 1);
		p += k->len[i];
	}
	lua_setfield(L, -2, "out_bufs");
	return 1;
}

/* ---- plain words ---- */

struct words {
	char p[WORDS_SIZE];
	size_t len;
};

static int words_write(void *data, const char *p, size_t len)
{
	struct words *w = data;

	INVARIANT(len <= sizeof(w->p) - w->len);
	memcpy(w->p + w->len, p, len);
	w->len += len;
	return 0;
}

static int raise_no_word(lua_State *L, int arg, const char *name)
{
	if (lua_type(L, arg) == LUA_TNUMBER)
		lua_pushvalue(L, arg);
	else
		lua_pushfstring(L, "a %s", luaL_typename(L, arg));
	return lua_raise(L, "vm:syscall: %s must be an integer, got %s", name, luaL_tolstring(L, -1, NULL));
}

static uint64_t check_word(lua_State *L, int arg, const char *name)
{
	uint64_t word;

	if (!to_word(L, arg, &word))
		raise_no_word(L, arg, name);
	return word;
}

/* syscall_words(vm or worker, nr, integers...) -> result */
static int op_syscall_words(lua_State *L)
{
	struct target *t = check_target(L, 1, "syscall");
	uint64_t nr = check_word(L, 2, "the system call's number"), word;
	int n = lua_gettop(L) - 2;
	struct words w = { .len = 0 };
	msgpack_sbuffer params = { 0 };
	msgpack_packer pk;
	char name[24];

	if (n > SLOTS)
		lua_raise(L, "vm:syscall: a system call has at most %d arguments, got %d", SLOTS, n);
	msgpack_packer_init(&pk, &w, words_write);
	msgpack_pack_map(&pk, 2);
	pack_key(&pk, "nr");
	pack_word(&pk, nr);
	pack_key(&pk, "args");
	msgpack_pack_array(&pk, (size_t)n);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "argument %d", i + 1);
		word = lua_isnil(L, i + 3) ? 0 : check_word(L, i + 3, name);
		pack_word(&pk, word);
	}
	params.data = w.p;
	params.size = w.len;
	snprintf(name, sizeof(name), "%lld", (long long)nr);
	return request_start_kept(L, t, "syscall", name, &params, keep_reply, push_reply);
}

/* ---- with buffers ---- */

/* The value on top of the stack: a word, a buffer's bytes, or a list of these (a nested's triple). */
static void pack_value(lua_State *L, msgpack_packer *pk)
{
	size_t len;
	const char *s;
	uint64_t word = 0;

	switch (lua_type(L, -1)) {
	case LUA_TSTRING:
		s = lua_tolstring(L, -1, &len);
		msgpack_pack_bin_with_body(pk, s, len);
		break;
	case LUA_TBOOLEAN:
		if (lua_toboolean(L, -1))
			msgpack_pack_true(pk);
		else
			msgpack_pack_false(pk);
		break;
	case LUA_TTABLE:
		len = lua_rawlen(L, -1);
		msgpack_pack_array(pk, len);
		for (size_t i = 1; i <= len; i++) {
			lua_rawgeti(L, -1, (int)i);
			pack_value(L, pk);
			lua_pop(L, 1);
		}
		break;
	default:
		INVARIANT(to_word(L, -1, &word));
		pack_word(pk, word);
	}
}

/* syscall_table(vm or worker, params checked by syscall.lua, method, shown) -> result */
static int op_syscall_table(lua_State *L)
{
	static const char *const keys[] = {
		"nr", "args", "bufs", "ptrs", "nested", "align", "async", "timeout",
	};
	struct target *t = check_target(L, 1, luaL_checkstring(L, 3));
	const char *shown = luaL_checkstring(L, 4);
	msgpack_sbuffer *b = sbuffer_push(L);
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, sizeof(keys) / sizeof(keys[0]));
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		pack_key(&pk, keys[i]);
		lua_getfield(L, 2, keys[i]);
		if (lua_isnil(L, -1))
			msgpack_pack_nil(&pk);
		else
			pack_value(L, &pk);
		lua_pop(L, 1);
	}
	return request_start_kept(L, t, "syscall", shown, b, keep_reply, push_reply);
}

static const luaL_Reg core_functions[] = {
	{ "word", core_word },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "syscall_words", op_syscall_words },
	{ "syscall_table", op_syscall_table },
	{ NULL, NULL },
};

void ops_open_syscall(lua_State *L)
{
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
