/*
 * A request's parameters, taken out of its msgpack map with checks.
 */
#include "args.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"

static const char *const type_names[16];

void args_init(struct args *a, const msgpack_object *map, msgpack_zone *zone)
{
	a->map = map;
	a->zone = zone;
	a->problem[0] = '\0';
	/* To Lua, an empty map and an empty array are the same. */
	if (map->type == MSGPACK_OBJECT_ARRAY && map->via.array.size == 0)
		return;
	if (map->type != MSGPACK_OBJECT_MAP)
		args_refuse(a, "the parameters are no map");
}

void args_refuse(struct args *a, const char *fmt, ...)
{
	va_list ap;

	if (a->problem[0])
		return;
	va_start(ap, fmt);
	vsnprintf(a->problem, sizeof(a->problem), fmt, ap);
	va_end(ap);
}

static const char *type_name(const msgpack_object *o)
{
	if (o->type == MSGPACK_OBJECT_FLOAT64)
		return type_names[MSGPACK_OBJECT_FLOAT32];
	return (unsigned)o->type < 16 && type_names[o->type] ? type_names[o->type] : "something else";
}

const msgpack_object *args_find(const struct args *a, const char *name)
{
	size_t n = strlen(name);

	if (a->map->type != MSGPACK_OBJECT_MAP)
		return NULL;
	for (uint32_t i = 0; i < a->map->via.map.size; i++) {
		const msgpack_object_kv *kv = &a->map->via.map.ptr[i];

		if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == n &&
		    memcmp(kv->key.via.str.ptr, name, n) == 0)
			return kv->val.type == MSGPACK_OBJECT_NIL ? NULL : &kv->val;
	}
	return NULL;
}

static const msgpack_object *need(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	if (!o)
		args_refuse(a, "`%s` is missing", name);
	return o;
}

static struct bytes as_bytes(struct args *a, const msgpack_object *o, const char *what)
{
	if (o->type == MSGPACK_OBJECT_BIN)
		return (struct bytes){o->via.bin.size ? o->via.bin.ptr : "", o->via.bin.size};
	if (o->type == MSGPACK_OBJECT_STR)
		return (struct bytes){o->via.str.size ? o->via.str.ptr : "", o->via.str.size};
	args_refuse(a, "`%s` should be bytes, it is %s", what, type_name(o));
	return (struct bytes){"", 0};
}

const char *args_as_text(struct args *a, const msgpack_object *o, const char *what)
{
	struct bytes b = as_bytes(a, o, what);
	char *s;

	if (memchr(b.p, '\0', b.n)) {
		args_refuse(a, "`%s` has a zero byte in it", what);
		return "";
	}
	s = msgpack_zone_malloc(a->zone, b.n + 1);
	if (!s)
		agent_die("out of memory");
	memcpy(s, b.p, b.n);
	s[b.n] = '\0';
	return s;
}

const char *args_text(struct args *a, const char *name)
{
	const msgpack_object *o = need(a, name);

	return o ? args_as_text(a, o, name) : "";
}

const char *args_opt_text(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	return o ? args_as_text(a, o, name) : NULL;
}

struct bytes args_bytes(struct args *a, const char *name)
{
	const msgpack_object *o = need(a, name);

	return o ? as_bytes(a, o, name) : (struct bytes){"", 0};
}

struct bytes args_opt_bytes(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	return o ? as_bytes(a, o, name) : (struct bytes){NULL, 0};
}

uint64_t args_as_word(struct args *a, const msgpack_object *o, const char *what)
{
	if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		return o->via.u64;
	if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
		return (uint64_t)o->via.i64;
	args_refuse(a, "`%s` should be an integer, it is %s", what, type_name(o));
	return 0;
}

uint64_t args_word(struct args *a, const char *name)
{
	const msgpack_object *o = need(a, name);

	return o ? args_as_word(a, o, name) : 0;
}

static int64_t as_int(struct args *a, const msgpack_object *o, const char *name, int64_t min, int64_t max)
{
	uint64_t v = args_as_word(a, o, name);
	bool huge = o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && v > INT64_MAX;

	if (huge || (int64_t)v < min || (int64_t)v > max) {
		args_refuse(a, "`%s` should be between %" PRId64 " and %" PRId64, name, min, max);
		return min;
	}
	return (int64_t)v;
}

int64_t args_int(struct args *a, const char *name, int64_t min, int64_t max)
{
	const msgpack_object *o = need(a, name);

	return o ? as_int(a, o, name, min, max) : min;
}

int64_t args_opt_int(struct args *a, const char *name, int64_t absent, int64_t min, int64_t max)
{
	const msgpack_object *o = args_find(a, name);

	return o ? as_int(a, o, name, min, max) : absent;
}

bool args_flag(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	if (o && o->type != MSGPACK_OBJECT_BOOLEAN)
		args_refuse(a, "`%s` should be true or false, it is %s", name, type_name(o));
	return o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
}

int args_choice(struct args *a, const char *name, const char *const *choices, int absent)
{
	const char *s = absent < 0 ? args_text(a, name) : args_opt_text(a, name);
	char known[96] = "";
	size_t len = 0;

	if (!s)
		return absent;
	for (int i = 0; choices[i]; i++) {
		if (strcmp(s, choices[i]) == 0)
			return i;
		if (len < sizeof(known))
			len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "",
				choices[i]);
	}
	args_refuse(a, "`%s` should be one of: %s", name, known);
	return 0;
}

const msgpack_object_array *args_opt_array(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	if (o && o->type != MSGPACK_OBJECT_ARRAY)
		args_refuse(a, "`%s` should be an array, it is %s", name, type_name(o));
	return o && o->type == MSGPACK_OBJECT_ARRAY ? &o->via.array : NULL;
}

const msgpack_object_map *args_opt_map(struct args *a, const char *name)
{
	const msgpack_object *o = args_find(a, name);

	if (o && o->type != MSGPACK_OBJECT_MAP)
		args_refuse(a, "`%s` should be a map, it is %s", name, type_name(o));
	return o && o->type == MSGPACK_OBJECT_MAP ? &o->via.map : NULL;
}

static const char *const type_names[16] = {
	[MSGPACK_OBJECT_NIL] = "nil",
	[MSGPACK_OBJECT_BOOLEAN] = "a boolean",
	[MSGPACK_OBJECT_POSITIVE_INTEGER] = "an integer",
	[MSGPACK_OBJECT_NEGATIVE_INTEGER] = "an integer",
	[MSGPACK_OBJECT_FLOAT32] = "a float",
	[MSGPACK_OBJECT_STR] = "text",
	[MSGPACK_OBJECT_ARRAY] = "an array",
	[MSGPACK_OBJECT_MAP] = "a map",
	[MSGPACK_OBJECT_BIN] = "bytes",
	[MSGPACK_OBJECT_EXT] = "an extension",
};
