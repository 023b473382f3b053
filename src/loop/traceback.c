/*
 * Tracebacks that cost little, however deep the stack is.
 */
#include "loop/loop.h"
#include "loop/runqueue.h"
#include "loop/task.h"

/*
 * lua_getstack walks from the innermost level, so what luaL_traceback shows of a stack that has overflowed, its
 * other end, takes a tenth of a second to find: nobody else runs meanwhile.
 */
#define DEEP 200
#define SHOWN 20

static void add_level(luaL_Buffer *b, lua_State *L, lua_Debug *ar)
{
	if (*ar->what == 'C')
		lua_pushfstring(L, "\n\t%s: in ", ar->short_src);
	else
		lua_pushfstring(L, "\n\t%s:%d: in ", ar->short_src, ar->currentline);
	luaL_addvalue(b);
	if (*ar->namewhat)
		lua_pushfstring(L, "%s '%s'", *ar->namewhat == 'g' ? "function" : ar->namewhat, ar->name);
	else if (*ar->what == 'm')
		lua_pushliteral(L, "main chunk");
	else if (*ar->what == 'C')
		lua_pushliteral(L, "?");
	else
		lua_pushfstring(L, "function <%s:%d>", ar->short_src, ar->linedefined);
	luaL_addvalue(b);
}

void lua_push_traceback(lua_State *L, lua_State *of, int level)
{
	luaL_Buffer b;
	lua_Debug ar;

	if (!lua_getstack(of, level + DEEP, &ar)) {
		luaL_traceback(L, of, NULL, level);
		return;
	}
	luaL_buffinit(L, &b);
	luaL_addstring(&b, "stack traceback:");
	for (int i = level; i < level + SHOWN && lua_getstack(of, i, &ar); i++) {
		lua_getinfo(of, "Sln", &ar);
		add_level(&b, L, &ar);
	}
	lua_pushfstring(L, "\n\t...\t(over %d levels more)", DEEP - SHOWN);
	luaL_addvalue(&b);
	luaL_pushresult(&b);
}
