/*
 * Lua values on their way into JSON and msgpack: the output buffer, what a table is.
 */
#include <string.h>

#include "ops/value.h"

#define OUT_FIRST 256
#define PADDED_MAX 1024		/* an array up to here may be mostly holes */

static const char null_key, array_key;

void out_open(struct out *o, lua_State *L)
{
	o->L = L;
	o->len = 0;
	o->cap = OUT_FIRST;
	o->p = lua_newuserdata(L, o->cap);
	o->slot = lua_gettop(L);
}

static void out_grow(struct out *o, size_t len)
{
	size_t cap = o->cap;
	char *p;

	while (cap - o->len < len)
		cap *= 2;
	luaL_checkstack(o->L, 1, NULL);
	p = lua_newuserdata(o->L, cap);
	memcpy(p, o->p, o->len);
	lua_replace(o->L, o->slot);
	o->p = p;
	o->cap = cap;
}

void out_write(struct out *o, const void *p, size_t len)
{
	if (o->cap - o->len < len)
		out_grow(o, len);
	memcpy(o->p + o->len, p, len);
	o->len += len;
}

static bool is_marked(lua_State *L, int t)
{
	bool marked;

	if (!lua_getmetatable(L, t))
		return false;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key);
	marked = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return marked;
}

enum shape value_shape(lua_State *L, int t, size_t *size, size_t *count)
{
	size_t strings = 0, positive = 0, n = 0;
	lua_Number largest = 0;

	t = lua_absindex(L, t);
	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1), n++) {
		if (lua_type(L, -2) == LUA_TSTRING) {
			strings++;
		} else if (lua_isinteger(L, -2) && lua_tonumber(L, -2) >= 1) {
			positive++;
			if (lua_tonumber(L, -2) > largest)
				largest = lua_tonumber(L, -2);
		}
	}
	*count = n;
	*size = 0;
	if (n == 0)
		return is_marked(L, t) ? SHAPE_ARRAY : SHAPE_OBJECT;
	if (strings == n)
		return is_marked(L, t) ? SHAPE_MIXED : SHAPE_OBJECT;
	if (positive != n)
		return SHAPE_MIXED;
	if (largest > PADDED_MAX && largest > 2 * (lua_Number)n)
		return SHAPE_SPARSE;
	*size = (size_t)largest;
	return SHAPE_ARRAY;
}

static int null_tostring(lua_State *L)
{
	lua_pushliteral(L, "null");
	return 1;
}

void value_push_null(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &null_key) == LUA_TUSERDATA)
		return;
	lua_pop(L, 1);
	lua_newuserdata(L, 1);
	lua_newtable(L);
	lua_pushcfunction(L, null_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushliteral(L, "json.null");
	lua_setfield(L, -2, "__name");
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &null_key);
}

bool value_is_null(lua_State *L, int index)
{
	bool is;

	index = lua_absindex(L, index);
	if (lua_type(L, index) != LUA_TUSERDATA)
		return false;
	value_push_null(L);
	is = lua_rawequal(L, index, -1);
	lua_pop(L, 1);
	return is;
}

void value_mark_array(lua_State *L, int t)
{
	t = lua_absindex(L, t);
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushliteral(L, "json.array");
		lua_setfield(L, -2, "__name");
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &array_key);
	}
	lua_setmetatable(L, t);
}

size_t utf8_sequence(const unsigned char *p, const unsigned char *end)
{
	size_t n;

	if (p >= end)
		return 0;
	if (*p < 0x80)
		return 1;
	n = *p >= 0xc2 && *p <= 0xdf ? 2 : *p >= 0xe0 && *p <= 0xef ? 3 : *p >= 0xf0 && *p <= 0xf4 ? 4 : 0;
	if (n == 0 || (size_t)(end - p) < n)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Overlong forms, surrogates, and what is beyond U+10FFFF. */
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

size_t utf8_prefix(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s, *end = p + len;
	size_t n;

	while (p < end && (n = utf8_sequence(p, end)))
		p += n;
	return (size_t)(p - (const unsigned char *)s);
}
