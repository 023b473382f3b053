/*
 * The parts of the Lua 5.4 C API that LuaJIT 2.1 spells differently or lacks.
 */
#ifndef PROVIUM_LUACOMPAT_H
#define PROVIUM_LUACOMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#if LUA_VERSION_NUM < 504

#define LUA_OK 0
#define lua_rawlen(L, i) lua_objlen((L), (i))
#define lua_pushglobaltable(L) lua_pushvalue((L), LUA_GLOBALSINDEX)

static inline int lua_absindex(lua_State *L, int i)
{
	return i > 0 || i <= LUA_REGISTRYINDEX ? i : lua_gettop(L) + i + 1;
}

static inline int lua_rawgetp(lua_State *L, int i, const void *p)
{
	i = lua_absindex(L, i);
	lua_pushlightuserdata(L, (void *)p);
	lua_rawget(L, i);
	return lua_type(L, -1);
}

static inline void lua_rawsetp(lua_State *L, int i, const void *p)
{
	i = lua_absindex(L, i);
	lua_pushlightuserdata(L, (void *)p);
	lua_insert(L, -2);
	lua_rawset(L, i);
}

static inline int luaL_getsubtable(lua_State *L, int i, const char *name)
{
	i = lua_absindex(L, i);
	lua_getfield(L, i, name);
	if (lua_istable(L, -1))
		return 1;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, i, name);
	return 0;
}

/* An integer here is a number without a fraction: LuaJIT has doubles only. */
static inline int lua_isinteger(lua_State *L, int i)
{
	lua_Number n;

	if (lua_type(L, i) != LUA_TNUMBER)
		return 0;
	n = lua_tonumber(L, i);
	return n >= -9007199254740992.0 && n <= 9007199254740992.0 && n == (lua_Number)(long long)n;
}

/* lua_tolstring with __tostring; pushes the string. */
const char *luaL_tolstring(lua_State *L, int i, size_t *len);

/* lua_resume of 5.4: how many values the coroutine left is told. */
static inline int lua_resume_compat(lua_State *co, lua_State *from, int nargs, int *nres)
{
	int r;

	(void)from;
	r = lua_resume(co, nargs);
	*nres = lua_gettop(co);
	return r;
}

#define lua_getuservalue1(L, i) (lua_getfenv((L), (i)))
#define lua_setuservalue1(L, i) (lua_setfenv((L), (i)))

#else

#define lua_resume_compat lua_resume
#define lua_getuservalue1(L, i) (lua_getiuservalue((L), (i), 1))
#define lua_setuservalue1(L, i) (lua_setiuservalue((L), (i), 1))

#endif
#endif
