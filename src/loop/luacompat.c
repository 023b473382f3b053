/*
 * What LuaJIT's C API lacks and is too long for the header.
 */
#include "loop/luacompat.h"

#if LUA_VERSION_NUM < 504

const char *luaL_tolstring(lua_State *L, int i, size_t *len)
{
	if (luaL_callmeta(L, i, "__tostring")) {
		if (!lua_isstring(L, -1))
			luaL_error(L, "'__tostring' must return a string");
		return lua_tolstring(L, -1, len);
	}
	switch (lua_type(L, i)) {
	case LUA_TNUMBER:
	case LUA_TSTRING:
		lua_pushvalue(L, i);
		break;
	case LUA_TBOOLEAN:
		lua_pushstring(L, lua_toboolean(L, i) ? "true" : "false");
		break;
	case LUA_TNIL:
		lua_pushliteral(L, "nil");
		break;
	default:
		lua_pushfstring(L, "%s: %p", luaL_typename(L, i), lua_topointer(L, i));
	}
	return lua_tolstring(L, -1, len);
}

#else

/* ISO C wants something in every translation unit. */
typedef int luacompat_nothing_needed;

#endif
