/*
 * Which profiles test files name: literals in vm() and create() calls, followed through modules and fixtures.
 *
 * Naming too many profiles costs a build that was not needed; naming too few boots something stale. So whatever
 * is not plainly a literal counts as "cannot be told".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/scan.h"

#define SOURCE_MAX ((size_t)16 << 20)

/* One source's tokens, with the strings' values. */
struct source {
	char *text;
	size_t len;
	struct scan_token *v;	/* owns the strings */
	size_t n;
};

struct search {
	const char *const *roots, *const *known;
	bool *named;		/* one for each of known */
	char **files;		/* met so far, and how many of them are read */
	size_t nfiles, nread;
	bool unknown;
};

/* ---- sources ---- */

static bool source_read(struct source *s, const char *path)
{
	FILE *f = fopen(path, "re");
	size_t n;

	memset(s, 0, sizeof(*s));
	if (!f)
		return false;
	do {
		s->text = xrealloc(s->text, s->len + (1 << 16));
		n = fread(s->text + s->len, 1, 1 << 16, f);
		s->len += n;
	} while (n > 0 && s->len < SOURCE_MAX);
	n = ferror(f) || s->len >= SOURCE_MAX;
	fclose(f);
	return n == 0;
}

static void source_scan(struct source *s)
{
	struct scan *scan = scan_new(s->text, s->len);
	size_t size = 0;

	do {
		if (s->n == size)
			s->v = xrealloc(s->v, (size = size ? 2 * size : 256) * sizeof(*s->v));
		s->v[s->n] = *scan_next(scan);
		if (s->v[s->n].string)
			s->v[s->n].string = xstrndup(s->v[s->n].string, s->v[s->n].string_len);
	} while (s->v[s->n++].kind != SCAN_END);
	scan_free(scan);
}

static void source_release(struct source *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i].string);
	free(s->v);
	free(s->text);
}

/* The token at i; the end for every index outside. */
static const struct scan_token *token(const struct source *s, size_t i)
{
	return &s->v[i < s->n ? i : s->n - 1];
}

static bool is(const struct source *s, size_t i, const char *text)
{
	const struct scan_token *t = token(s, i);

	return t->kind != SCAN_STRING && t->kind != SCAN_END && t->len == strlen(text) &&
		memcmp(t->text, text, t->len) == 0;
}

/* A field or method name: something with a dot or colon in front of it. */
static bool is_member(const struct source *s, size_t i)
{
	return (i > 0 && is(s, i - 1, ":")) || (i > 0 && is(s, i - 1, ".") && !(i > 1 && is(s, i - 2, ".")));
}

/* ---- what was found ---- */

static void add_name(struct search *q, const char *name)
{
	for (size_t i = 0; q->known[i]; i++)
		if (strcmp(q->known[i], name) == 0)
			q->named[i] = true;
}

static void add_file(struct search *q, const char *path)
{
	for (size_t i = 0; i < q->nfiles; i++)
		if (strcmp(q->files[i], path) == 0)
			return;
	q->files = xrealloc(q->files, (q->nfiles + 1) * sizeof(*q->files));
	q->files[q->nfiles++] = xstrdup(path);
}

/* Adds ROOT/name SUFFIX of the first root that has it. */
static bool add_below_roots(struct search *q, const char *name, const char *suffix)
{
	bool found = false;

	for (size_t i = 0; q->roots[i] && !found; i++) {
		char *path = xasprintf("%s/%s%s", q->roots[i], name, suffix);

		found = access(path, F_OK) == 0;
		if (found)
			add_file(q, path);
		free(path);
	}
	return found;
}

static void add_module(struct search *q, const char *name)
{
	char *path = xstrdup(name);

	for (char *p = path; *p; p++)
		if (*p == '.')
			*p = '/';
	/* Neither: a library outside the roots, or nothing at all; require will say so. */
	if (!add_below_roots(q, path, ".lua"))
		add_below_roots(q, path, "/init.lua");
	free(path);
}

static void add_fixture(struct search *q, const char *name)
{
	if (add_below_roots(q, name, ".fixture.lua"))
		return;
	char *path = xasprintf("fixtures/%s", name);

	add_below_roots(q, path, ".lua");
	free(path);
}

/* A path as dofile takes it: as it is, or below a root. */
static void add_path(struct search *q, const char *path)
{
	if (access(path, F_OK) == 0)
		add_file(q, path);
	else if (!add_below_roots(q, path, ""))
		q->unknown = true;
}

/* ---- calls ---- */

/* The index of the call's first argument, 0 when the name at i is not called. */
static size_t first_argument(const struct source *s, size_t i)
{
	if (is(s, i + 1, "("))
		return i + 2;
	return token(s, i + 1)->kind == SCAN_STRING || is(s, i + 1, "{") ? i + 1 : 0;
}

/* The literal that is the whole argument starting at i; NULL when it is computed. */
static const char *literal_argument(const struct source *s, size_t i, bool parenthesised)
{
	const struct scan_token *t = token(s, i);

	if (t->kind != SCAN_STRING || (parenthesised && !is(s, i + 1, ",") && !is(s, i + 1, ")")))
		return NULL;
	return t->string;
}

/* The index of the argument after the one starting at i; 0 when there is none. */
static size_t next_argument(const struct source *s, size_t i)
{
	int depth = 0;

	for (; i < s->n; i++) {
		if (is(s, i, "(") || is(s, i, "{") || is(s, i, "[") || is(s, i, "function"))
			depth++;
		else if (depth > 0 && (is(s, i, ")") || is(s, i, "}") || is(s, i, "]") || is(s, i, "end")))
			depth--;
		else if (depth == 0 && is(s, i, ")"))
			return 0;
		else if (depth == 0 && is(s, i, ","))
			return i + 1;
	}
	return 0;
}

/* A call of one argument that must be a literal: require "x", dofile("x"), vm_fixture("x"). */
static void look_at_reference(struct search *q, const struct source *s, size_t i,
	void (*found)(struct search *q, const char *name))
{
	size_t arg = first_argument(s, i);
	const char *name = arg ? literal_argument(s, arg, is(s, i + 1, "(")) : NULL;

	if (name)
		found(q, name);
	else
		q->unknown = true;
}

/* provium:vm(name, PROFILE), provium.create(PROFILE). A field that is indexed or assigned is no function of ours. */
static void look_at_vm(struct search *q, const struct source *s, size_t i, bool create)
{
	size_t arg = first_argument(s, i);
	bool parenthesised = is(s, i + 1, "(");
	const char *name;

	if (create && i > 1 && is(s, i - 2, "coroutine"))
		return;
	if (!arg && (is(s, i + 1, ".") || is(s, i + 1, ":") || (is(s, i + 1, "=") && !is(s, i + 2, "="))))
		return;
	if (arg && !create) {
		arg = parenthesised ? next_argument(s, arg) : 0;
		if (!arg)
			return;		/* a look-up */
	}
	name = arg ? literal_argument(s, arg, parenthesised) : NULL;
	if (name)
		add_name(q, name);
	else
		q->unknown = true;
}

static void look_at(struct search *q, const struct source *s, size_t i)
{
	const struct scan_token *t = token(s, i);
	bool member = is_member(s, i);

	if (t->kind == SCAN_STRING && i > 0 && is(s, i - 1, "[") &&
	    (strcmp(t->string, "vm") == 0 || strcmp(t->string, "create") == 0))
		q->unknown = true;
	if (t->kind != SCAN_NAME)
		return;
	if (!member && is(s, i, "require"))
		look_at_reference(q, s, i, add_module);
	else if (!member && (is(s, i, "dofile") || is(s, i, "loadfile")))
		look_at_reference(q, s, i, add_path);
	else if (!member && (is(s, i, "load") || is(s, i, "loadstring")) && first_argument(s, i))
		q->unknown = true;
	else if (member && (is(s, i, "vm_fixture") || is(s, i, "lab_fixture") || is(s, i, "fixture")))
		look_at_reference(q, s, i, add_fixture);
	else if (member && is(s, i, "vm"))
		look_at_vm(q, s, i, false);
	else if (member && is(s, i, "create"))
		look_at_vm(q, s, i, true);
}

static void look_at_file(struct search *q, const char *path)
{
	struct source s;

	if (source_read(&s, path)) {
		source_scan(&s);
		for (size_t i = 0; i < s.n && !q->unknown; i++)
			look_at(q, &s, i);
	} else {
		q->unknown = true;
	}
	source_release(&s);
}

const char **scan_profiles(const char *const *files, const char *const *roots, const char *const *known)
{
	struct search q = { .roots = roots, .known = known };
	const char **result = NULL;
	size_t n = 0;

	while (known[n])
		n++;
	q.named = xcalloc(n + 1, sizeof(*q.named));
	for (; *files; files++)
		add_file(&q, *files);
	while (q.nread < q.nfiles && !q.unknown)
		look_at_file(&q, q.files[q.nread++]);
	if (!q.unknown) {
		result = xcalloc(n + 1, sizeof(*result));
		n = 0;
		for (size_t i = 0; known[i]; i++)
			if (q.named[i])
				result[n++] = known[i];
	}
	for (size_t i = 0; i < q.nfiles; i++)
		free(q.files[i]);
	free(q.files);
	free(q.named);
	return result;
}
