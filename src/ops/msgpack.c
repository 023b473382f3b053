/*
 * The global `msgpack`: encode, decode.
 */
#include <stdio.h>
#include <string.h>

#include <msgpack.h>

#include "ops/openers.h"
#include "ops/value.h"
#include "protocol.h"
#include "wire.h"

static const luaL_Reg msgpack_functions[];

struct encoder {
	struct out out;
	msgpack_packer pk;
	int depth;
	bool whole;		/* whole numbers are integers, also when Lua has them as floats */
};

static void encode_value(struct encoder *e);
static void decode_object(lua_State *L, const msgpack_object *o);

static int write_out(void *data, const char *p, size_t len)
{
	out_write(data, p, len);
	return 0;
}

/* ---- encode ---- */

static void encode_string(struct encoder *e)
{
	size_t len;
	const char *s = lua_tolstring(e->out.L, -1, &len);

	if (utf8_prefix(s, len) == len)
		msgpack_pack_str_with_body(&e->pk, s, len);
	else
		msgpack_pack_bin_with_body(&e->pk, s, len);
}

static bool is_whole(lua_Number n)
{
	return n > -0x1p63 && n < 0x1p63 && n == (lua_Number)(int64_t)n;
}

static void encode_number(struct encoder *e)
{
	lua_State *L = e->out.L;

	if (lua_isinteger(L, -1))
		msgpack_pack_int64(&e->pk, (int64_t)lua_tointeger(L, -1));
	else if (e->whole && is_whole(lua_tonumber(L, -1)))
		msgpack_pack_int64(&e->pk, (int64_t)lua_tonumber(L, -1));
	else
		msgpack_pack_double(&e->pk, lua_tonumber(L, -1));
}

static void encode_array(struct encoder *e, size_t size)
{
	int t = lua_gettop(e->out.L);

	msgpack_pack_array(&e->pk, size);
	for (size_t i = 1; i <= size; i++) {
		lua_rawgeti(e->out.L, t, (int)i);
		encode_value(e);
		lua_pop(e->out.L, 1);
	}
}

static void encode_map(struct encoder *e, size_t count)
{
	lua_State *L = e->out.L;
	int t = lua_gettop(L);

	msgpack_pack_map(&e->pk, count);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
		if (lua_type(L, -2) == LUA_TTABLE)
			lua_raise(L, "msgpack.encode: a table as a key of a map");
		lua_pushvalue(L, -2);
		encode_value(e);
		lua_pop(L, 1);
		encode_value(e);
	}
}

static void encode_table(struct encoder *e)
{
	size_t size, count;

	if (++e->depth >= WIRE_DEPTH_MAX)
		lua_raise(e->out.L, "msgpack.encode: nested deeper than %d levels, or a table that contains itself",
			WIRE_DEPTH_MAX - 1);
	luaL_checkstack(e->out.L, 8, "msgpack.encode");
	if (value_shape(e->out.L, -1, &size, &count) == SHAPE_ARRAY)
		encode_array(e, size);
	else
		encode_map(e, count);
	e->depth--;
}

/* The value on top of the stack. */
static void encode_value(struct encoder *e)
{
	lua_State *L = e->out.L;

	switch (lua_type(L, -1)) {
	case LUA_TNIL:
		msgpack_pack_nil(&e->pk);
		break;
	case LUA_TBOOLEAN:
		if (lua_toboolean(L, -1))
			msgpack_pack_true(&e->pk);
		else
			msgpack_pack_false(&e->pk);
		break;
	case LUA_TNUMBER:
		encode_number(e);
		break;
	case LUA_TSTRING:
		encode_string(e);
		break;
	case LUA_TTABLE:
		encode_table(e);
		break;
	default:
		if (!value_is_null(L, -1))
			lua_raise(L, "msgpack.encode: a %s has no msgpack form", luaL_typename(L, -1));
		msgpack_pack_nil(&e->pk);
	}
}

static int encode(lua_State *L, bool whole)
{
	struct encoder e = { .whole = whole };

	out_open(&e.out, L);
	msgpack_packer_init(&e.pk, &e.out, write_out);
	lua_pushvalue(L, 1);
	encode_value(&e);
	lua_pushlstring(L, e.out.p, e.out.len);
	return 1;
}

/* Lua 5.4 tells 1 from 1.0, and so do its users. LuaJIT has floats only, and there whole ones are meant as integers. */
static int op_encode(lua_State *L)
{
	if (lua_gettop(L) != 1)
		lua_raise(L, "expected msgpack.encode(value), got %d arguments", lua_gettop(L));
	return encode(L, LUA_VERSION_NUM < 504);
}

int ops_encode_request(lua_State *L)
{
	return encode(L, true);
}

/* ---- decode ---- */

static void decode_array(lua_State *L, const msgpack_object_array *a)
{
	lua_createtable(L, a->size < 1024 ? (int)a->size : 1024, 0);
	for (uint32_t i = 0; i < a->size; i++) {
		decode_object(L, &a->ptr[i]);
		lua_rawseti(L, -2, (int)i + 1);
	}
	if (a->size == 0)
		value_mark_array(L, -1);
}

static void decode_map(lua_State *L, const msgpack_object_map *m)
{
	lua_newtable(L);
	for (uint32_t i = 0; i < m->size; i++) {
		decode_object(L, &m->ptr[i].key);
		if (lua_isnil(L, -1) || (lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) != lua_tonumber(L, -1)))
			lua_raise(L, "msgpack.decode: a map with the key %s, which Lua tables cannot have",
				lua_isnil(L, -1) ? "nil" : "NaN");
		decode_object(L, &m->ptr[i].val);
		lua_rawset(L, -3);
	}
}

static void push_unsigned(lua_State *L, uint64_t n)
{
#if LUA_VERSION_NUM < 504
	lua_pushnumber(L, (lua_Number)n);
#else
	lua_pushinteger(L, (lua_Integer)n);	/* above 2^63 it wraps, as json.decode does */
#endif
}

static void decode_object(lua_State *L, const msgpack_object *o)
{
	luaL_checkstack(L, 8, "msgpack.decode");
	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		lua_pushnil(L);
		break;
	case MSGPACK_OBJECT_BOOLEAN:
		lua_pushboolean(L, o->via.boolean);
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		push_unsigned(L, o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		lua_pushinteger(L, (lua_Integer)o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		lua_pushnumber(L, o->via.f64);
		break;
	case MSGPACK_OBJECT_STR:
		lua_pushlstring(L, o->via.str.ptr, o->via.str.size);
		break;
	case MSGPACK_OBJECT_BIN:
		lua_pushlstring(L, o->via.bin.ptr, o->via.bin.size);
		break;
	case MSGPACK_OBJECT_ARRAY:
		decode_array(L, &o->via.array);
		break;
	case MSGPACK_OBJECT_MAP:
		decode_map(L, &o->via.map);
		break;
	case MSGPACK_OBJECT_EXT:
		lua_raise(L, "msgpack.decode: extension type %d has no Lua form", o->via.ext.type);
	}
}

/* The zone that holds the decoded objects is released whatever Lua raises in between. */
static int protected_decode(lua_State *L)
{
	decode_object(L, lua_touserdata(L, 1));
	return 1;
}

static int op_decode(lua_State *L)
{
	const char *s, *why = NULL;
	msgpack_unpacked result;
	size_t len, used;
	int r;

	if (lua_type(L, 1) != LUA_TSTRING || lua_gettop(L) != 1)
		lua_raise(L, "expected msgpack.decode(string), got a %s", luaL_typename(L, 1));
	s = lua_tolstring(L, 1, &len);
	used = wire_check((const uint8_t *)s, len, &why);
	if (used == 0)
		lua_raise(L, "msgpack.decode: %s", len ? why : "an empty string");
	if (used < len)
		lua_raise(L, "msgpack.decode: %zu bytes follow the value, which ends at byte %zu", len - used, used);
	lua_pushcfunction(L, protected_decode);
	msgpack_unpacked_init(&result);
	if (msgpack_unpack_next(&result, s, len, NULL) < 0) {
		msgpack_unpacked_destroy(&result);
		lua_raise(L, "msgpack.decode: malformed");
	}
	lua_pushlightuserdata(L, &result.data);
	r = lua_pcall(L, 1, 1, 0);
	msgpack_unpacked_destroy(&result);
	return r == LUA_OK ? 1 : lua_error(L);
}

int ops_open_msgpack(lua_State *L)
{
	lua_newtable(L);
	luaL_setfuncs(L, msgpack_functions, 0);
	return 1;
}

static const luaL_Reg msgpack_functions[] = {
	{ "encode", op_encode },
	{ "decode", op_decode },
	{ NULL, NULL },
};
