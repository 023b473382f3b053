/*
 * Lua values on their way into JSON and msgpack: the output buffer, what a table is. Private to src/ops/.
 */
#ifndef PROVIUM_VALUE_H
#define PROVIUM_VALUE_H

#include "loop/loop.h"

#define JSON_DEPTH_MAX 512

int json_decode(lua_State *L);	/* json.decode(string [, {null=}]) */

/* Growing output that lives in a Lua userdata at a fixed stack slot, so an error leaks nothing and
 * the state's memory cap counts it. */
struct out {
	lua_State *L;
	int slot;
	char *p;
	size_t len, cap;
};

/* Pushes the userdata: the slot. */
void out_open(struct out *o, lua_State *L);
void out_write(struct out *o, const void *p, size_t len);
static inline void out_char(struct out *o, char c) { out_write(o, &c, 1); }

enum shape {
	SHAPE_ARRAY,	/* keys are 1..size, perhaps with holes */
	SHAPE_OBJECT,	/* every key is a string, or there is none */
	SHAPE_SPARSE,	/* positive integer keys, but more than half would be padding */
	SHAPE_MIXED	/* any other keys */
};

/* What the table at index t is; an array's length goes to *size, the number of keys to *count. */
enum shape value_shape(lua_State *L, int t, size_t *size, size_t *count);

/* json.null and json.array, shared by both modules. */
void value_push_null(lua_State *L);
bool value_is_null(lua_State *L, int index);
/* Marks the table at index t: it is an array even when it is empty. */
void value_mark_array(lua_State *L, int t);

/* Bytes of the valid UTF-8 sequence at p (before end), 0 when there is none. */
size_t utf8_sequence(const unsigned char *p, const unsigned char *end);
/* Offset of the first byte that is no UTF-8, or len. */
size_t utf8_prefix(const char *s, size_t len);

#endif
