/*
 * Small things around msgpack: entries of a map that is being packed, and looking one up.
 */
#ifndef PROVIUM_PACK_H
#define PROVIUM_PACK_H

#include "loop/loop.h"

void pack_text(msgpack_packer *pk, const char *s);
/* One entry of a map each. */
void pack_str(msgpack_packer *pk, const char *key, const char *s);
void pack_bin(msgpack_packer *pk, const char *key, const void *data, size_t len);
void pack_int(msgpack_packer *pk, const char *key, int64_t n);
void pack_bool(msgpack_packer *pk, const char *key, bool b);
/* The key alone; its value is packed next. */
void pack_key(msgpack_packer *pk, const char *key);

/* The value of a key, borrowed; NULL when it is not there, or o is NULL or no map. */
const msgpack_object *map_get(const msgpack_object *o, const char *key);

#endif
