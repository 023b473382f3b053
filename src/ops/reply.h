/*
 * Small things around requests to the agent: reading a reply's fields, one plain
 * request as a wait. Private to src/ops/.
 */
#ifndef PROVIUM_REPLY_H
#define PROVIUM_REPLY_H

#include "loop/pack.h"
#include "ops/target.h"

/* Pushes a userdata with a buffer that the collector frees: packing and what follows may raise. */
msgpack_sbuffer *sbuffer_push(lua_State *L);

/* The bytes of a str or bin, borrowed; false for anything else. */
bool object_bytes(const msgpack_object *o, const char **data, size_t *len);
int64_t reply_int(const msgpack_object *o, const char *key, int64_t def);
/* Cuts at size. Leaves buf as it is when the key is not there. */
void reply_str(const msgpack_object *o, const char *key, char *buf, size_t size);
bool reply_bytes(const msgpack_object *o, const char *key, const char **data, size_t *len);

/* Sends a request whose answer nobody waits for (closing a handle). No effect when the agent is gone. */
void request_forget(struct target *t, const char *name, const msgpack_sbuffer *params);
/* The same for requests whose only parameter is an integer. */
void request_forget_int(struct target *t, const char *name, const char *key, int64_t n);

/* A request without streams: packs nothing itself. name is "stat", method "vm:stat", arg what messages show (copied).
 * push gets the reply's map and leaves its results; NULL: no results. Returns as an op does. */
int request_start(lua_State *L, struct target *t, const char *name, const char *arg, const msgpack_sbuffer *params,
	int (*push)(lua_State *L, const msgpack_object *reply));

/* The same for replies that are taken apart as they arrive: keep copies what it needs into one piece of memory
 * that free() releases, push gets that. */
int request_start_kept(lua_State *L, struct target *t, const char *name, const char *arg,
	const msgpack_sbuffer *params, void *(*keep)(const msgpack_object *reply), int (*push)(lua_State *L, const void *kept));

/* How to take back what a request has made when its task was cancelled before it could know: a request `name` with
 * the reply's integer `field` as its parameter of the same name. */
struct request_undo {
	const char *name, *field;
	struct target *(*mux)(struct target *t);	/* where it goes; NULL: the same target */
};
int request_start_undo(lua_State *L, struct target *t, const char *name, const char *arg, const msgpack_sbuffer *params,
	int (*push)(lua_State *L, const msgpack_object *reply), const struct request_undo *undo);

#endif
