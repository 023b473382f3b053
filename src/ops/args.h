/*
 * Checks of what Lua passes to an op. Private to src/ops/.
 *
 * Misuse raises at the caller's line and names the signature or the option; nothing is allocated
 * before all checks are over, so a raise leaks nothing. Strings are borrowed from the Lua stack.
 */
#ifndef PROVIUM_ARGS_H
#define PROVIUM_ARGS_H

#include "loop/loop.h"

/* "expected vm:stat(path [, {follow=}]), got a number as argument 1". Never returns. */
int args_raise(lua_State *L, const char *signature, int arg);

/* "expected a VM (call its methods with a colon), got a string". Never returns. */
int args_raise_self(lua_State *L, int arg, const char *type);

const char *args_string(lua_State *L, int arg, const char *signature, size_t *len);
int64_t args_integer(lua_State *L, int arg, const char *signature);
/* A duration in nanoseconds; absent (none or nil) gives def. */
int64_t args_duration(lua_State *L, int arg, const char *what, int64_t def);
/* Raises when there are more than max arguments. */
void args_max(lua_State *L, int max, const char *signature);

/*
 * Options: `what` is "vm:run". opt_check raises unless the value at arg is nil, none or a table whose keys
 * are all in known (NULL-terminated); returns whether there is a table. The others look at one key and
 * return whether it is set.
 */
bool opt_check(lua_State *L, int arg, const char *what, const char *const *known);
bool opt_string(lua_State *L, int arg, const char *what, const char *key, const char **s, size_t *len);
bool opt_bool(lua_State *L, int arg, const char *what, const char *key, bool *b);
bool opt_integer(lua_State *L, int arg, const char *what, const char *key, int64_t min, int64_t max, int64_t *n);
bool opt_number(lua_State *L, int arg, const char *what, const char *key, double *n);
bool opt_duration(lua_State *L, int arg, const char *what, const char *key, int64_t *ns);
bool opt_size(lua_State *L, int arg, const char *what, const char *key, uint64_t *bytes);
/* Leaves the value on the stack when it is set, nothing otherwise. */
bool opt_push(lua_State *L, int arg, const char *key);
/* "vm:run: option `KEY` must be WANTED, got TYPE". Never returns. */
int opt_raise(lua_State *L, const char *what, const char *key, const char *wanted, int value);

/* A duration or size at a stack index, whatever it came from; what names it in errors. */
int64_t value_duration(lua_State *L, int index, const char *what);
uint64_t value_size(lua_State *L, int index, const char *what);

/* Pushes a host path as test code means it: a relative one is relative to the Lua file that called. */
const char *args_push_host_path(lua_State *L, const char *path);

#endif
