/*
 * What Lua 5.4 has and LuaJIT lacks.
 */
#include "luacases.h"

int main(void)
{
	return luacases_run("compat_cases.lua");
}
