/*
 * Checks of arguments and option tables.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops/args.h"

/* "a string", "an integer"...; "no value" when absent. */
static const char *type_of(lua_State *L, int index, char *buf, size_t size)
{
	const char *name = luaL_typename(L, index);

	if (lua_isnone(L, index))
		return "no value";
	if (lua_isnil(L, index))
		return "nil";
	if (lua_type(L, index) == LUA_TUSERDATA && luaL_getmetafield(L, index, "__name")) {
		if (lua_isstring(L, -1))
			name = lua_tostring(L, -1);	/* anchored in the metatable */
		lua_pop(L, 1);
	}
	snprintf(buf, size, "a %s", name);
	return buf;
}

int args_raise(lua_State *L, const char *signature, int arg)
{
	char type[64];

	return lua_raise(L, "expected %s, got %s as argument %d", signature, type_of(L, arg, type, sizeof(type)),
		arg > 1 ? arg - 1 : arg);
}

int args_raise_self(lua_State *L, int arg, const char *type)
{
	char got[64];

	return lua_raise(L, "expected a %s (call its methods with a colon), got %s", type,
		type_of(L, arg, got, sizeof(got)));
}

const char *args_string(lua_State *L, int arg, const char *signature, size_t *len)
{
	if (lua_type(L, arg) != LUA_TSTRING)
		args_raise(L, signature, arg);
	return lua_tolstring(L, arg, len);
}

int64_t args_integer(lua_State *L, int arg, const char *signature)
{
	if (lua_type(L, arg) != LUA_TNUMBER || lua_tonumber(L, arg) != lua_tonumber(L, arg))
		args_raise(L, signature, arg);
	if (!lua_isinteger(L, arg)) {
		double n = lua_tonumber(L, arg);

		if (n != (double)(int64_t)n)
			lua_raise(L, "expected %s, got %.14g, which is not an integer, as argument %d", signature, n,
				arg - 1);
		return (int64_t)n;
	}
	return lua_tointeger(L, arg);
}

void args_max(lua_State *L, int max, const char *signature)
{
	if (lua_gettop(L) > max)
		lua_raise(L, "expected %s, got %d arguments", signature, lua_gettop(L) - 1);
}

/* Raises what is wrong with a value; releases e. */
static void raise_value(lua_State *L, const char *what, struct err *e)
{
	lua_pushfstring(L, "%s: %s", what, e->msg);
	err_release(e);
	lua_raise(L, "%s", lua_tostring(L, -1));
}

int64_t value_duration(lua_State *L, int index, const char *what)
{
	struct err e = ERR_INIT;
	int64_t ns = 0;
	char type[64];
	int r;

	if (lua_type(L, index) == LUA_TNUMBER)
		r = units_duration_from_seconds(lua_tonumber(L, index), &ns, &e);
	else if (lua_type(L, index) == LUA_TSTRING)
		r = units_parse_duration(lua_tostring(L, index), &ns, &e);
	else
		r = err_set(&e, EINVAL, "must be a duration (seconds, or a string like \"1.5s\"), got %s",
			type_of(L, index, type, sizeof(type)));
	if (r < 0)
		raise_value(L, what, &e);
	return ns;
}

uint64_t value_size(lua_State *L, int index, const char *what)
{
	struct err e = ERR_INIT;
	uint64_t bytes = 0;
	char type[64];
	int r;

	if (lua_type(L, index) == LUA_TNUMBER)
		r = units_size_from_number(lua_tonumber(L, index), &bytes, &e);
	else if (lua_type(L, index) == LUA_TSTRING)
		r = units_parse_size(lua_tostring(L, index), &bytes, &e);
	else
		r = err_set(&e, EINVAL, "must be a size (bytes, or a string like \"512M\"), got %s",
			type_of(L, index, type, sizeof(type)));
	if (r < 0)
		raise_value(L, what, &e);
	return bytes;
}

int64_t args_duration(lua_State *L, int arg, const char *what, int64_t def)
{
	return lua_isnoneornil(L, arg) ? def : value_duration(L, arg, what);
}

static int raise_unknown(lua_State *L, const char *what, const char *const *known, int key)
{
	const char *name = lua_type(L, key) == LUA_TSTRING ? lua_tostring(L, key) : NULL;
	const char *near = name ? nearest_name(name, known) : NULL;
	luaL_Buffer b;

	lua_pushvalue(L, key);
	name = luaL_tolstring(L, -1, NULL);
	luaL_buffinit(L, &b);
	for (; *known; known++) {
		luaL_addstring(&b, *known);
		if (known[1])
			luaL_addstring(&b, ", ");
	}
	luaL_pushresult(&b);
	return lua_raise(L, "%s: unknown option `%s`%s%s%s (known: %s)", what, name, near ? ", did you mean `" : "",
		near ? near : "", near ? "`?" : "", lua_tostring(L, -1));
}

bool opt_check(lua_State *L, int arg, const char *what, const char *const *known)
{
	char type[64];

	if (lua_isnoneornil(L, arg))
		return false;
	if (!lua_istable(L, arg))
		lua_raise(L, "%s: options must be a table, got %s", what, type_of(L, arg, type, sizeof(type)));
	lua_pushnil(L);
	while (lua_next(L, arg)) {
		const char *const *k = known;

		lua_pop(L, 1);
		while (lua_type(L, -1) == LUA_TSTRING && *k && strcmp(*k, lua_tostring(L, -1)))
			k++;
		if (lua_type(L, -1) != LUA_TSTRING || !*k)
			raise_unknown(L, what, known, lua_gettop(L));
	}
	return true;
}

int opt_raise(lua_State *L, const char *what, const char *key, const char *wanted, int value)
{
	char type[64];

	return lua_raise(L, "%s: option `%s` must be %s, got %s", what, key, wanted,
		type_of(L, value, type, sizeof(type)));
}

bool opt_push(lua_State *L, int arg, const char *key)
{
	if (!lua_istable(L, arg))
		return false;
	lua_getfield(L, arg, key);
	if (!lua_isnil(L, -1))
		return true;
	lua_pop(L, 1);
	return false;
}

/* The table keeps the string alive after the pop. */
bool opt_string(lua_State *L, int arg, const char *what, const char *key, const char **s, size_t *len)
{
	if (!opt_push(L, arg, key))
		return false;
	if (lua_type(L, -1) != LUA_TSTRING)
		opt_raise(L, what, key, "a string", -1);
	*s = lua_tolstring(L, -1, len);
	lua_pop(L, 1);
	return true;
}

bool opt_bool(lua_State *L, int arg, const char *what, const char *key, bool *b)
{
	if (!opt_push(L, arg, key))
		return false;
	if (!lua_isboolean(L, -1))
		opt_raise(L, what, key, "a boolean", -1);
	*b = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return true;
}

bool opt_integer(lua_State *L, int arg, const char *what, const char *key, int64_t min, int64_t max, int64_t *n)
{
	double d;

	if (!opt_push(L, arg, key))
		return false;
	if (lua_type(L, -1) != LUA_TNUMBER)
		opt_raise(L, what, key, "an integer", -1);
	d = lua_tonumber(L, -1);
	if (!(d >= -9.3e18 && d <= 9.3e18) || (!lua_isinteger(L, -1) && d != (double)(int64_t)d))
		lua_raise(L, "%s: option `%s` must be an integer, got %.14g", what, key, d);
	*n = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : (int64_t)d;
	if (*n < min || *n > max)
		lua_raise(L, "%s: option `%s` must be between %lld and %lld, got %lld", what, key, (long long)min,
			(long long)max, (long long)*n);
	lua_pop(L, 1);
	return true;
}

bool opt_number(lua_State *L, int arg, const char *what, const char *key, double *n)
{
	if (!opt_push(L, arg, key))
		return false;
	if (lua_type(L, -1) != LUA_TNUMBER)
		opt_raise(L, what, key, "a number", -1);
	*n = lua_tonumber(L, -1);
	if (*n != *n || *n - *n != 0)
		lua_raise(L, "%s: option `%s` must be a finite number (got NaN/inf)", what, key);
	lua_pop(L, 1);
	return true;
}

bool opt_duration(lua_State *L, int arg, const char *what, const char *key, int64_t *ns)
{
	char name[128];

	if (!opt_push(L, arg, key))
		return false;
	snprintf(name, sizeof(name), "%s: option `%s`", what, key);
	*ns = value_duration(L, -1, name);
	lua_pop(L, 1);
	return true;
}

bool opt_size(lua_State *L, int arg, const char *what, const char *key, uint64_t *bytes)
{
	char name[128];

	if (!opt_push(L, arg, key))
		return false;
	snprintf(name, sizeof(name), "%s: option `%s`", what, key);
	*bytes = value_size(L, -1, name);
	lua_pop(L, 1);
	return true;
}

const char *args_push_host_path(lua_State *L, const char *path)
{
	lua_Debug ar;

	for (int level = 0; *path != '/' && lua_getstack(L, level, &ar); level++) {
		const char *slash;

		lua_getinfo(L, "S", &ar);
		if (*ar.source != '@')
			continue;
		slash = strrchr(ar.source, '/');
		if (!slash)
			break;
		lua_pushlstring(L, ar.source + 1, (size_t)(slash - ar.source));
		lua_pushstring(L, path);
		lua_concat(L, 2);
		return lua_tostring(L, -1);
	}
	lua_pushstring(L, path);
	return lua_tostring(L, -1);
}
