/*
 * Runs a table of Lua cases (tests/unit/lua/NAME.lua returns {{name=, fn=}, ...}) as cmocka tests, in a
 * plain Lua state with json and msgpack.
 */
#ifndef PROVIUM_LUACASES_H
#define PROVIUM_LUACASES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "loop/loop.h"
#include "ops/openers.h"

static lua_State *luacases_state;

static int luacases_traceback(lua_State *L)
{
	luaL_tolstring(L, 1, NULL);
	luaL_traceback(L, L, lua_tostring(L, -1), 1);
	return 1;
}

/* The case whose function is at index (intptr_t)*state of the table at stack index 2. */
static void luacases_one(void **state)
{
	lua_State *L = luacases_state;
	int top = lua_gettop(L);

	lua_rawgeti(L, 2, (int)(intptr_t)*state);
	lua_getfield(L, -1, "fn");
	if (lua_pcall(L, 0, 0, 1) != LUA_OK) {
		char *message = xstrdup(lua_tostring(L, -1));

		lua_settop(L, top);
		print_error("%s\n", message);
		free(message);
		fail();
	}
	lua_settop(L, top);
}

static void luacases_load(lua_State *L, const char *name)
{
	const char *srcdir = getenv("PROVIUM_SRCDIR");
	char path[4096];

	luaL_openlibs(L);
	srcdir = srcdir ? srcdir : ".";
	lua_pushstring(L, srcdir);
	lua_setglobal(L, "srcdir");
	ops_open_json(L);
	lua_setglobal(L, "json");
	ops_open_msgpack(L);
	lua_setglobal(L, "msgpack");
	lua_pushcfunction(L, luacases_traceback);
	snprintf(path, sizeof(path), "%s/lua/compat.lua", srcdir);
	if (luaL_dofile(L, path)) {
		fprintf(stderr, "%s\n", lua_tostring(L, -1));
		exit(1);
	}
	snprintf(path, sizeof(path), "%s/tests/unit/lua/%s", srcdir, name);
	if (luaL_loadfile(L, path) || lua_pcall(L, 0, 1, 1)) {
		fprintf(stderr, "%s\n", lua_tostring(L, -1));
		exit(1);
	}
}

static int luacases_run(const char *name)
{
	lua_State *L = luacases_state = luaL_newstate();
	struct CMUnitTest *tests;
	int n, failed;

	luacases_load(L, name);
	n = (int)lua_rawlen(L, 2);
	tests = xcalloc((size_t)n, sizeof(*tests));
	for (int i = 0; i < n; i++) {
		lua_rawgeti(L, 2, i + 1);
		lua_getfield(L, -1, "name");
		tests[i].name = xstrdup(lua_tostring(L, -1));
		tests[i].test_func = luacases_one;
		tests[i].initial_state = (void *)(intptr_t)(i + 1);
		lua_pop(L, 2);
	}
	failed = _cmocka_run_group_tests(name, tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free((char *)tests[i].name);
	free(tests);
	lua_close(L);
	return failed != 0;
}

#endif
