/*
 * What a Lua source names in literals, and where that is.
 *
 * Naming too many profiles costs a build that was not needed; naming too few boots something stale. So
 * whatever is not plainly a literal counts as "cannot be told".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/refs.h"
#include "run/scan.h"

#define SOURCE_MAX ((size_t)16 << 20)

/* One source's tokens, with the strings' values. */
struct source {
	char *text;
	size_t len;
	struct scan_token *v;	/* owns the strings */
	size_t n;
};

/* ---- lists ---- */

bool names_have(const struct names *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], name) == 0)
			return true;
	return false;
}

void names_add(struct names *l, const char *name)
{
	if (names_have(l, name))
		return;
	l->v = xrealloc(l->v, (l->n + 2) * sizeof(*l->v));
	l->v[l->n++] = xstrdup(name);
	l->v[l->n] = NULL;
}

void names_release(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

/* ---- sources ---- */

/* What is read so far is the source's even when it fails. */
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
static void look_at_reference(struct refs *r, const struct source *s, size_t i, struct names *found)
{
	size_t arg = first_argument(s, i);
	const char *name = arg ? literal_argument(s, arg, is(s, i + 1, "(")) : NULL;

	if (name)
		names_add(found, name);
	else
		r->unknown = true;
}

/* provium:vm(name, PROFILE), provium.create(PROFILE). A field that is indexed or assigned is no function of
 * ours. */
static void look_at_vm(struct refs *r, const struct source *s, size_t i, bool create)
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
		names_add(&r->profiles, name);
	else
		r->unknown = true;
}

/* Whether `auto_dep = false` stands somewhere in the call whose arguments begin at i. */
static bool auto_dep_is_false(const struct source *s, size_t i)
{
	int depth = 0;

	for (; i < s->n; i++) {
		if (is(s, i, "(") || is(s, i, "{") || is(s, i, "[") || is(s, i, "function"))
			depth++;
		else if (is(s, i, ")") || is(s, i, "}") || is(s, i, "]") || is(s, i, "end"))
			if (--depth < 0)
				return false;
		if (is(s, i, "auto_dep") && is(s, i + 1, "=") && is(s, i + 2, "false"))
			return true;
	}
	return false;
}

/* Below the source's directory unless it is absolute; malloc'ed. */
static char *beside(const char *source, const char *path)
{
	const char *slash = strrchr(source, '/');

	if (*path == '/' || !slash)
		return xstrdup(path);
	return xasprintf("%.*s/%s", (int)(slash - source), source, path);
}

/* vm:push_file(HOST, ...), provium:depends_on_file(HOST): a computed path says nothing. */
static void look_at_host_file(struct refs *r, const struct source *s, size_t i, const char *source)
{
	size_t arg = first_argument(s, i);
	bool parenthesised = is(s, i + 1, "(");
	const char *name = arg ? literal_argument(s, arg, parenthesised) : NULL;
	char *path;

	if (!name || (parenthesised && auto_dep_is_false(s, arg)))
		return;
	path = beside(source, name);
	names_add(&r->host_files, path);
	free(path);
}

/* {host = "PATH"} of boot's files, {template = "PATH"} of a disk */
static void look_at_field(struct refs *r, const struct source *s, size_t i)
{
	if (is(s, i + 1, "=") && (is(s, i - 1, "{") || is(s, i - 1, ",") || is(s, i - 1, ";")) &&
	    token(s, i + 2)->kind == SCAN_STRING && (is(s, i + 3, ",") || is(s, i + 3, "}") || is(s, i + 3, ";")))
		names_add(&r->host_files, token(s, i + 2)->string);
}

static void look_at(struct refs *r, const struct source *s, size_t i, const char *source)
{
	const struct scan_token *t = token(s, i);
	bool member = is_member(s, i);

	if (t->kind == SCAN_STRING && i > 0 && is(s, i - 1, "[") &&
	    (strcmp(t->string, "vm") == 0 || strcmp(t->string, "create") == 0))
		r->unknown = true;
	if (t->kind != SCAN_NAME)
		return;
	if (!member && is(s, i, "require"))
		look_at_reference(r, s, i, &r->modules);
	else if (!member && (is(s, i, "dofile") || is(s, i, "loadfile")))
		look_at_reference(r, s, i, &r->files);
	else if (!member && (is(s, i, "load") || is(s, i, "loadstring")) && first_argument(s, i))
		r->unknown = true;
	else if (!member && i > 0 && (is(s, i, "host") || is(s, i, "template")))
		look_at_field(r, s, i);
	else if (member && (is(s, i, "vm_fixture") || is(s, i, "lab_fixture") || is(s, i, "fixture")))
		look_at_reference(r, s, i, &r->fixtures);
	else if (member && (is(s, i, "push_file") || is(s, i, "depends_on_file")))
		look_at_host_file(r, s, i, source);
	else if (member && is(s, i, "vm"))
		look_at_vm(r, s, i, false);
	else if (member && is(s, i, "create"))
		look_at_vm(r, s, i, true);
}

/* ---- a source ---- */

int refs_read(struct refs *r, const char *path)
{
	struct source s;
	bool ok;

	memset(r, 0, sizeof(*r));
	errno = 0;
	ok = source_read(&s, path);
	r->text = s.text;
	r->len = s.len;
	if (!ok)
		return errno ? -errno : -EFBIG;
	source_scan(&s);
	for (size_t i = 0; i < s.n; i++)
		look_at(r, &s, i, path);
	source_release(&s);
	return 0;
}

void refs_release(struct refs *r)
{
	free(r->text);
	names_release(&r->modules);
	names_release(&r->files);
	names_release(&r->fixtures);
	names_release(&r->profiles);
	names_release(&r->host_files);
}

/* ---- where things are ---- */

/* ROOT/name SUFFIX of the first root that has it; malloc'ed. */
static char *below_roots(const char *const *roots, const char *name, const char *suffix)
{
	for (; *roots; roots++) {
		char *path = xasprintf("%s/%s%s", *roots, name, suffix);

		if (access(path, F_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

char *refs_find_module(const char *const *roots, const char *name)
{
	char *path = xstrdup(name), *found;

	for (char *p = path; *p; p++)
		if (*p == '.')
			*p = '/';
	/* Neither: a library outside the roots, or nothing at all; require will say so. */
	found = below_roots(roots, path, ".lua");
	if (!found)
		found = below_roots(roots, path, "/init.lua");
	free(path);
	return found;
}

char *refs_find_fixture(const char *const *roots, const char *name)
{
	char *found = below_roots(roots, name, ".fixture.lua"), *path;

	if (found)
		return found;
	path = xasprintf("fixtures/%s", name);
	found = below_roots(roots, path, ".lua");
	free(path);
	return found;
}

char *refs_find_file(const char *const *roots, const char *path)
{
	return access(path, F_OK) == 0 ? xstrdup(path) : below_roots(roots, path, "");
}
