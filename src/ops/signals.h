/*
 * Signal numbers from what Lua passes: names with or without SIG, any case, or numbers.
 */
#ifndef PROVIUM_SIGNALS_H
#define PROVIUM_SIGNALS_H

#include "loop/loop.h"

/* The signal at a stack index; def when it is absent. Raises ``unknown signal name `X` ``. what is "proc:kill". */
int signal_check(lua_State *L, int arg, const char *what, int def);

#endif
