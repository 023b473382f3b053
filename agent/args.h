/*
 * A request's parameters, taken out of its msgpack map with checks.
 *
 * A getter that finds nothing good notes the first problem, naming the field, and returns a harmless value;
 * the handler fetches everything, then asks once whether there was a problem.
 */
#ifndef PROVIUM_AGENT_ARGS_H
#define PROVIUM_AGENT_ARGS_H

#include <msgpack.h>
#include <stdbool.h>

struct args {
	const msgpack_object *map;
	msgpack_zone *zone;		/* strings handed out live here */
	char problem[160];		/* "" while all is well */
};

struct bytes {
	const void *p;			/* NULL: not given */
	size_t n;
};

void args_init(struct args *a, const msgpack_object *map, msgpack_zone *zone);
/* The value, or NULL when absent or nil. */
const msgpack_object *args_find(const struct args *a, const char *name);
void args_refuse(struct args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* NUL-terminated text (str or bin without a NUL). args_text: required; args_opt_text: NULL when absent. */
const char *args_text(struct args *a, const char *name);
const char *args_opt_text(struct args *a, const char *name);
/* The same for any object, what being its name in messages. */
const char *args_as_text(struct args *a, const msgpack_object *o, const char *what);
struct bytes args_bytes(struct args *a, const char *name);
struct bytes args_opt_bytes(struct args *a, const char *name);
int64_t args_int(struct args *a, const char *name, int64_t min, int64_t max);
int64_t args_opt_int(struct args *a, const char *name, int64_t absent, int64_t min, int64_t max);
/* Any integer of 64 bits, signed or not, as the register it goes into. */
uint64_t args_as_word(struct args *a, const msgpack_object *o, const char *what);
uint64_t args_word(struct args *a, const char *name);
bool args_flag(struct args *a, const char *name);
/* One of a NULL-terminated list: its index; absent gives `absent` (-1: required). */
int args_choice(struct args *a, const char *name, const char *const *choices, int absent);
/* NULL when absent. */
const msgpack_object_array *args_opt_array(struct args *a, const char *name);
const msgpack_object_map *args_opt_map(struct args *a, const char *name);

#endif
