/*
 * The global `json`: encode, null, array, and the opener; decode is in jsondecode.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/openers.h"
#include "ops/value.h"

#define PATH_MAX_SHOWN 200

static const luaL_Reg json_functions[];

/* One table on the way from the value given to the one being encoded. */
struct level {
	const void *table;
	const char *key;	/* NULL: index is what counts */
	size_t len, index;
};

struct encoder {
	struct out out;
	int depth;
	struct level levels[JSON_DEPTH_MAX];
};

static void encode_value(struct encoder *e);

/* ".a[3].b" */
static void describe_path(const struct encoder *e, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (int i = 0; i < e->depth && n < size; i++) {
		const struct level *lv = &e->levels[i];

		if (lv->key)
			n += (size_t)snprintf(buf + n, size - n, ".%.*s", lv->len < 40 ? (int)lv->len : 40, lv->key);
		else if (lv->index)
			n += (size_t)snprintf(buf + n, size - n, "[%zu]", lv->index);
	}
}

static void encode_fail(struct encoder *e, const char *what)
{
	char path[PATH_MAX_SHOWN];

	describe_path(e, path, sizeof(path));
	lua_raise(e->out.L, "json.encode: %s%s%s%s", *path ? "at " : "", path, *path ? ": " : "", what);
}

static void encode_type_error(struct encoder *e)
{
	char what[80];

	snprintf(what, sizeof(what), "a %s has no JSON form", luaL_typename(e->out.L, -1));
	encode_fail(e, what);
}

/* The shortest text that reads back as the same number; a float shows that it is one. */
static void encode_float(struct encoder *e, double n)
{
	char text[40];

	if (!isfinite(n)) {
		out_write(&e->out, "null", 4);
		return;
	}
	for (int precision = 15; precision <= 17; precision++) {
		snprintf(text, sizeof(text), "%.*g", precision, n);
		if (strtod(text, NULL) == n)
			break;
	}
	if (!strpbrk(text, ".e"))
		strcat(text, ".0");
	out_write(&e->out, text, strlen(text));
}

static void encode_number(struct encoder *e)
{
	lua_State *L = e->out.L;
	char text[32];

	if (!lua_isinteger(L, -1)) {
		encode_float(e, lua_tonumber(L, -1));
		return;
	}
	snprintf(text, sizeof(text), "%lld", (long long)lua_tointeger(L, -1));
	out_write(&e->out, text, strlen(text));
}

static void encode_escape(struct out *o, unsigned char c)
{
	static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	const char *at = strchr(named, c);
	char text[8];

	if (at && c)
		snprintf(text, sizeof(text), "\\%c", letters[at - named]);
	else
		snprintf(text, sizeof(text), "\\u%04x", c);
	out_write(o, text, strlen(text));
}

static void encode_string(struct encoder *e, const char *s, size_t len)
{
	size_t plain = 0, valid = utf8_prefix(s, len);
	char what[80];

	if (valid != len) {
		snprintf(what, sizeof(what), "a string that is not UTF-8 (byte %zu is 0x%02x)", valid + 1,
			(unsigned char)s[valid]);
		encode_fail(e, what);
	}
	out_char(&e->out, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		out_write(&e->out, s + plain, i - plain);
		encode_escape(&e->out, c);
		plain = i + 1;
	}
	out_write(&e->out, s + plain, len - plain);
	out_char(&e->out, '"');
}

static void encode_array(struct encoder *e, struct level *lv, size_t size)
{
	lua_State *L = e->out.L;
	int t = lua_gettop(L);

	out_char(&e->out, '[');
	for (size_t i = 1; i <= size; i++) {
		if (i > 1)
			out_char(&e->out, ',');
		lv->index = i;
		lua_rawgeti(L, t, (int)i);
		encode_value(e);
		lua_pop(L, 1);
	}
	out_char(&e->out, ']');
}

struct key {
	const char *s;		/* the table keeps it */
	size_t len;
};

static int key_compare(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int r = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);

	return r ? r : x->len < y->len ? -1 : x->len > y->len;
}

/* Pushes a userdata that holds the keys of the table on top, sorted. */
static struct key *push_sorted_keys(lua_State *L, size_t count)
{
	struct key *keys = lua_newuserdata(L, count * sizeof(*keys) + 1);
	int t = lua_gettop(L) - 1;
	size_t n = 0;

	for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1), n++)
		keys[n].s = lua_tolstring(L, -2, &keys[n].len);
	qsort(keys, n, sizeof(*keys), key_compare);
	return keys;
}

static void encode_object(struct encoder *e, struct level *lv, size_t count)
{
	lua_State *L = e->out.L;
	int t = lua_gettop(L);
	struct key *keys = push_sorted_keys(L, count);

	out_char(&e->out, '{');
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			out_char(&e->out, ',');
		lv->key = keys[i].s;
		lv->len = keys[i].len;
		encode_string(e, keys[i].s, keys[i].len);
		out_char(&e->out, ':');
		lua_pushlstring(L, keys[i].s, keys[i].len);
		lua_rawget(L, t);
		encode_value(e);
		lua_pop(L, 1);
	}
	out_char(&e->out, '}');
	lua_pop(L, 1);
}

/* Only what is above it on the way can make a table part of itself. */
static struct level *enter_table(struct encoder *e)
{
	const void *table = lua_topointer(e->out.L, -1);
	struct level *lv;

	for (int i = 0; i < e->depth; i++) {
		if (e->levels[i].table == table)
			encode_fail(e, "a table that contains itself");
	}
	if (e->depth == JSON_DEPTH_MAX)
		lua_raise(e->out.L, "json.encode: nested deeper than %d levels", JSON_DEPTH_MAX);
	lv = &e->levels[e->depth++];
	*lv = (struct level){ .table = table };
	return lv;
}

static void encode_table(struct encoder *e)
{
	lua_State *L = e->out.L;
	size_t size, count;
	char what[160];
	struct level *lv;

	luaL_checkstack(L, 8, "json.encode");
	lv = enter_table(e);
	switch (value_shape(L, -1, &size, &count)) {
	case SHAPE_ARRAY:
		encode_array(e, lv, size);
		break;
	case SHAPE_OBJECT:
		encode_object(e, lv, count);
		break;
	case SHAPE_SPARSE:
		snprintf(what, sizeof(what), "an array with %zu elements set is mostly holes; "
			"make its keys strings, or fill it", count);
		encode_fail(e, what);
		break;
	case SHAPE_MIXED:
		encode_fail(e, "a table's keys must be all strings (an object) or all positive integers (an array)");
	}
	e->depth--;
}

/* The value on top of the stack. */
static void encode_value(struct encoder *e)
{
	lua_State *L = e->out.L;
	const char *s;
	size_t len;

	switch (lua_type(L, -1)) {
	case LUA_TNIL:
		out_write(&e->out, "null", 4);
		break;
	case LUA_TBOOLEAN:
		s = lua_toboolean(L, -1) ? "true" : "false";
		out_write(&e->out, s, strlen(s));
		break;
	case LUA_TNUMBER:
		encode_number(e);
		break;
	case LUA_TSTRING:
		s = lua_tolstring(L, -1, &len);
		encode_string(e, s, len);
		break;
	case LUA_TTABLE:
		encode_table(e);
		break;
	default:
		if (!value_is_null(L, -1))
			encode_type_error(e);
		out_write(&e->out, "null", 4);
	}
}

static int json_encode(lua_State *L)
{
	struct encoder e;

	if (lua_gettop(L) != 1)
		lua_raise(L, "expected json.encode(value), got %d arguments", lua_gettop(L));
	out_open(&e.out, L);
	e.depth = 0;
	lua_pushvalue(L, 1);
	encode_value(&e);
	lua_pushlstring(L, e.out.p, e.out.len);
	return 1;
}

static int json_array(lua_State *L)
{
	if (lua_type(L, 1) != LUA_TTABLE)
		lua_raise(L, "expected json.array(table), got a %s", luaL_typename(L, 1));
	lua_settop(L, 1);
	if (lua_getmetatable(L, 1))
		lua_raise(L, "json.array: the table has a metatable already");
	value_mark_array(L, 1);
	return 1;
}

int ops_open_json(lua_State *L)
{
	lua_newtable(L);
	luaL_setfuncs(L, json_functions, 0);
	value_push_null(L);
	lua_setfield(L, -2, "null");
	return 1;
}

static const luaL_Reg json_functions[] = {
	{ "encode", json_encode },
	{ "decode", json_decode },
	{ "array", json_array },
	{ NULL, NULL },
};
