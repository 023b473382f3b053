/*
 * Signal names.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "ops/args.h"
#include "ops/signals.h"

/* A guest's numbers are those of its architecture; x86-64 and arm64 agree with each other and with the host. */
static int signal_by_name(const char *name)
{
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	for (int sig = 1; sig < NSIG; sig++) {
		const char *abbrev = sigabbrev_np(sig);

		if (abbrev && strcasecmp(abbrev, name) == 0)
			return sig;
	}
	if (strcasecmp(name, "CLD") == 0)
		return SIGCHLD;
	if (strcasecmp(name, "POLL") == 0)
		return SIGIO;
	return -1;
}

int signal_check(lua_State *L, int arg, const char *what, int def)
{
	int64_t n;

	if (lua_isnoneornil(L, arg))
		return def;
	if (lua_type(L, arg) == LUA_TSTRING) {
		int sig = signal_by_name(lua_tostring(L, arg));

		if (sig < 0)
			lua_raise(L, "%s: unknown signal name `%s`", what, lua_tostring(L, arg));
		return sig;
	}
	if (lua_type(L, arg) != LUA_TNUMBER)
		lua_raise(L, "%s: the signal must be a name or a number, got a %s", what, luaL_typename(L, arg));
	n = args_integer(L, arg, what);
	if (n < 0 || n > 64)
		lua_raise(L, "%s: signal numbers are 0 to 64, got %lld", what, (long long)n);
	return (int)n;
}
