/*
 * Which tests of a file run: a pure function of the command line and a test's name and meta table.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "run/filter.h"

/* Owned by the caller of filter_new. */
struct filter {
	const struct args *args;	/* borrowed */
	char *reason;			/* the last one given out */
};

struct filter *filter_new(const struct args *args)
{
	struct filter *f = xcalloc(1, sizeof(*f));

	f->args = args;
	return f;
}

void filter_free(struct filter *f)
{
	if (f)
		free(f->reason);
	free(f);
}

/* Replaces the last reason; takes ownership of text. */
static const char *give(struct filter *f, char *text)
{
	free(f->reason);
	return f->reason = text;
}

/* "filtered: TEXT (a, b)": all words of a flag, or those of one key. */
static const char *give_words(struct filter *f, const char *text, const struct words *w, const char *key,
	size_t keylen)
{
	char *list = xstrdup(""), *longer;

	for (size_t i = 0; i < w->n; i++) {
		if (key && (strncmp(w->v[i], key, keylen) || w->v[i][keylen] != '='))
			continue;
		longer = xasprintf("%s%s%s", list, *list ? ", " : "", w->v[i]);
		free(list);
		list = longer;
	}
	give(f, xasprintf("filtered: %s (%s)", text, list));
	free(list);
	return f->reason;
}

/* ---- values of the meta table ---- */

static bool is_string(lua_State *L, int i, const char *s)
{
	const char *value;
	size_t len;

	if (lua_type(L, i) != LUA_TSTRING)
		return false;
	value = lua_tolstring(L, i, &len);
	return len == strlen(s) && memcmp(value, s, len) == 0;
}

/* Whether the value on top is the string s or an array that holds it. */
static bool holds(lua_State *L, const char *s)
{
	bool found = is_string(L, -1, s);

	for (size_t i = 1; !found && lua_istable(L, -1) && i <= lua_rawlen(L, -1); i++) {
		lua_rawgeti(L, -1, (int)i);
		found = is_string(L, -1, s);
		lua_pop(L, 1);
	}
	return found;
}

/* Pushes meta[key], nil without a meta table. */
static void push_meta(lua_State *L, int meta, const char *key, size_t len)
{
	if (!lua_istable(L, meta)) {
		lua_pushnil(L);
		return;
	}
	lua_pushlstring(L, key, len);
	lua_rawget(L, meta);
}

static bool has_tag(lua_State *L, int meta, const char *tag)
{
	bool found;

	push_meta(L, meta, "tags", strlen("tags"));
	found = holds(L, tag);
	lua_pop(L, 1);
	return found;
}

/* word is "K=V". */
static bool has_value(lua_State *L, int meta, const char *word)
{
	size_t len = strcspn(word, "=");
	bool found;

	push_meta(L, meta, word, len);
	found = holds(L, word + len + 1);
	lua_pop(L, 1);
	return found;
}

/* ---- the steps, each NULL or a reason ---- */

static const char *check_skip(struct filter *f, lua_State *L, int meta)
{
	const char *reason = NULL, *text;

	push_meta(L, meta, "skip", strlen("skip"));
	text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
	if (lua_toboolean(L, -1))
		reason = give(f, xstrdup(*text ? text : "skipped by meta.skip"));
	lua_pop(L, 1);
	return reason;
}

static const char *check_slow(struct filter *f, lua_State *L, int meta)
{
	bool slow;

	push_meta(L, meta, "slow", strlen("slow"));
	slow = lua_toboolean(L, -1);
	lua_pop(L, 1);
	if (!slow || f->args->include_slow)
		return NULL;
	return give(f, xstrdup("filtered: slow (run with --include-slow)"));
}

static const char *check_tags(struct filter *f, lua_State *L, int meta)
{
	const struct args *a = f->args;

	for (size_t i = 0; i < a->no_tags.n; i++)
		if (has_tag(L, meta, a->no_tags.v[i]))
			return give(f, xasprintf("filtered: matched --no-tag (%s)", a->no_tags.v[i]));
	for (size_t i = 0; i < a->tags.n; i++)
		if (has_tag(L, meta, a->tags.v[i]))
			return NULL;
	return a->tags.n == 0 ? NULL : give_words(f, "did not match --tag", &a->tags, NULL, 0);
}

static bool same_key(const char *a, const char *b)
{
	size_t len = strcspn(a, "=");

	return strcspn(b, "=") == len && memcmp(a, b, len) == 0;
}

/* Every key that a flag names must hold one of the values named for it. */
static const char *check_meta(struct filter *f, lua_State *L, int meta)
{
	const struct args *a = f->args;
	const char *word;
	bool found;

	for (size_t i = 0; i < a->no_tag_meta.n; i++)
		if (has_value(L, meta, a->no_tag_meta.v[i]))
			return give(f, xasprintf("filtered: matched --no-tag-meta (%s)", a->no_tag_meta.v[i]));
	for (size_t i = 0; i < a->tag_meta.n; i++) {
		word = a->tag_meta.v[i];
		found = false;
		for (size_t j = 0; !found && j < a->tag_meta.n; j++)
			found = same_key(word, a->tag_meta.v[j]) && has_value(L, meta, a->tag_meta.v[j]);
		if (!found)
			return give_words(f, "did not match --tag-meta", &a->tag_meta, word,
				strcspn(word, "="));
	}
	return NULL;
}

static const char *check_name(struct filter *f, const char *name)
{
	const struct words *tests = &f->args->tests;

	for (size_t i = 0; i < tests->n; i++)
		if (strcmp(tests->v[i], name) == 0)
			return NULL;
	return tests->n == 0 ? NULL : give_words(f, "did not match --test", tests, NULL, 0);
}

const char *filter_reason(struct filter *f, lua_State *L, const char *name, int meta)
{
	const char *reason;

	meta = lua_absindex(L, meta);
	reason = check_skip(f, L, meta);
	if (!reason)
		reason = check_slow(f, L, meta);
	if (!reason)
		reason = check_tags(f, L, meta);
	if (!reason)
		reason = check_meta(f, L, meta);
	return reason ? reason : check_name(f, name);
}

/* ---- for child tools ---- */

/* Words are bytes, JSON strings are UTF-8: what is not becomes `?`. */
static json_t *json_word(const char *word, size_t len)
{
	json_t *s = json_stringn(word, len);
	char *copy;

	if (s)
		return s;
	copy = xstrndup(word, len);
	for (char *p = copy; *p; p++)
		if (*p & 0x80)
			*p = '?';
	s = json_string(copy);
	free(copy);
	return s;
}

static json_t *json_words(const struct words *w)
{
	json_t *list = json_array();

	for (size_t i = 0; i < w->n; i++)
		json_array_append_new(list, json_word(w->v[i], strlen(w->v[i])));
	return list;
}

/* {"K": ["V", ...]} */
static json_t *json_key_values(const struct words *w)
{
	json_t *object = json_object(), *key, *list;
	size_t len;

	for (size_t i = 0; i < w->n; i++) {
		len = strcspn(w->v[i], "=");
		key = json_word(w->v[i], len);
		list = json_object_get(object, json_string_value(key));
		if (!list) {
			list = json_array();
			json_object_set_new(object, json_string_value(key), list);
		}
		json_array_append_new(list, json_word(w->v[i] + len + 1, strlen(w->v[i] + len + 1)));
		json_decref(key);
	}
	return object;
}

void filter_export(const struct args *a)
{
	json_t *object = json_pack("{s:b, s:o, s:o, s:o, s:o, s:o}", "include_slow", (int)a->include_slow,
		"tags", json_words(&a->tags), "no_tags", json_words(&a->no_tags),
		"tag_meta", json_key_values(&a->tag_meta), "no_tag_meta", json_key_values(&a->no_tag_meta),
		"tests", json_words(&a->tests));
	char *text;

	INVARIANT(object);
	text = json_dumps(object, JSON_COMPACT);
	INVARIANT(text);
	setenv("PROVIUM_TEST_FILTER", text, 1);
	free(text);
	json_decref(object);
}
