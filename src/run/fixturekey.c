/*
 * A fixture's key.
 *
 * The sources are followed from the fixture: the modules it requires, the fixtures it restores, and theirs.
 * What goes in is flat and in the order of finding; a source's comments are part of it like the rest. Paths
 * go in as written, so that a tree that is moved keeps its keys.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "run/discover.h"
#include "run/fixturekey.h"
#include "run/refs.h"

struct visit {
	const struct config *config;
	struct key_job *job;
	struct names done;		/* paths of sources that are in */
	struct names stack;		/* names of the fixtures that led here */
	struct names profiles;
	bool all_profiles;
};

/* ---- finding ---- */

static void add_known(const struct config *c, struct names *known)
{
	struct found_files found = { 0 };
	struct err e = ERR_INIT;

	if (discover_files(NULL, config_roots(c), FIXTURE_SUFFIX, &found, &e) == 0)
		for (size_t i = 0; i < found.n; i++) {
			char *name = xstrndup(found.v[i].rel, strlen(found.v[i].rel) - strlen(FIXTURE_SUFFIX));

			names_add(known, name);
			free(name);
		}
	found_files_release(&found);
	err_release(&e);
}

static void not_found(const struct config *c, const char *name, struct err *e)
{
	struct names known = { 0 };
	const char *near;

	names_add(&known, "");		/* so that there is a list */
	add_known(c, &known);
	near = nearest_name(name, (const char *const *)known.v + 1);
	err_set(e, ENOENT, "fixture `%s` not found in any test root", name);
	if (near)
		err_append(e, "; did you mean `%s`?", near);
	else if (known.n > 1)
		err_append(e, "; there is ");
	for (size_t i = 1; !near && i < known.n && i <= 8; i++)
		err_append(e, "%s`%s`", i > 1 ? ", " : "", known.v[i]);
	if (!near && known.n > 9)
		err_append(e, ", ...");
	if (known.n == 1)
		err_append(e, ": there is no *" FIXTURE_SUFFIX " at all");
	names_release(&known);
}

char *fixture_find(const struct config *c, const char *name, struct err *e)
{
	char *path = refs_find_fixture(config_roots(c), name);
	size_t len = path ? strlen(path) : 0, suffix = strlen(FIXTURE_SUFFIX);

	if (len > suffix && strcmp(path + len - suffix, FIXTURE_SUFFIX) == 0)
		return path;
	free(path);		/* a fixture of the first generation */
	not_found(c, name, e);
	return NULL;
}

/* ---- following ---- */

static int visit_source(struct visit *v, const char *label, const char *name, char *path, bool is_fixture,
	struct err *e);

static int cycle(struct visit *v, const char *name, struct err *e)
{
	size_t i;

	for (i = 0; strcmp(v->stack.v[i], name); i++)
		;
	err_set(e, ELOOP, "fixtures need one another in a circle: ");
	for (; i < v->stack.n; i++)
		err_append(e, "%s -> ", v->stack.v[i]);
	return err_append(e, "%s", name);
}

static void pop(struct names *stack)
{
	free(stack->v[--stack->n]);
	stack->v[stack->n] = NULL;
}

static int visit_fixture(struct visit *v, const char *name, struct err *e)
{
	char *path = fixture_find(v->config, name, e);
	int r;

	if (!path)
		return e->code;
	names_add(&v->stack, name);
	r = visit_source(v, "fixture", name, path, true, e);
	pop(&v->stack);
	return r;
}

/* A module may hold functions that use a fixture and be required by that very fixture: only what a fixture
 * itself names is a circle. What a module only mentions need not be there either. */
static int visit_fixtures(struct visit *v, const struct names *fixtures, bool is_fixture, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < fixtures->n; i++) {
		bool circle = names_have(&v->stack, fixtures->v[i]);

		if (is_fixture && circle)
			r = cycle(v, fixtures->v[i], e);
		else if (!circle)
			r = visit_fixture(v, fixtures->v[i], e);
		if (!is_fixture && r == -ENOENT) {
			key_job_text(v->job, "missing fixture", fixtures->v[i]);
			err_release(e);
			r = 0;
		}
	}
	return r;
}

static int visit_refs(struct visit *v, const struct refs *refs, bool is_fixture, struct err *e)
{
	const char *const *roots = config_roots(v->config);
	int r = visit_fixtures(v, &refs->fixtures, is_fixture, e);

	v->all_profiles |= refs->unknown;
	for (size_t i = 0; i < refs->profiles.n; i++)
		names_add(&v->profiles, refs->profiles.v[i]);
	for (size_t i = 0; i < refs->host_files.n; i++)
		key_job_file_and_mode(v->job, "host file", refs->host_files.v[i]);
	for (size_t i = 0; r == 0 && i < refs->modules.n; i++)
		r = visit_source(v, "module", refs->modules.v[i], refs_find_module(roots, refs->modules.v[i]), false,
			e);
	for (size_t i = 0; r == 0 && i < refs->files.n; i++)
		r = visit_source(v, "file", refs->files.v[i], refs_find_file(roots, refs->files.v[i]), false, e);
	return r;
}

/* Takes path, which may be NULL: a module of the system, or one that is not there. */
static int visit_source(struct visit *v, const char *label, const char *name, char *path, bool is_fixture,
	struct err *e)
{
	struct refs refs = { 0 };
	int r = 0;

	key_job_text(v->job, label, name);
	if (path && !names_have(&v->done, path)) {
		names_add(&v->done, path);
		r = refs_read(&refs, path);
		if (r < 0)
			err_set(e, r, "read `%s`: %s", path, strerror(-r));
		else
			key_job_bytes(v->job, "source", refs.text, refs.len);
		if (r == 0)
			r = visit_refs(v, &refs, is_fixture, e);
		refs_release(&refs);
	}
	free(path);
	return r;
}

static void add_profiles(struct visit *v)
{
	const char *const *known = config_profile_names(v->config);

	for (; *known; known++)
		if (v->all_profiles || names_have(&v->profiles, *known))
			key_job_profile(v->job, config_profile(v->config, *known), NULL);
}

struct key_job *fixture_key_new(const struct config *c, struct vmm *vmm, struct contents *contents,
	const char *name, struct err *e)
{
	struct visit v = { .config = c, .job = key_job_new(vmm, contents, "fixture") };

	if (visit_fixture(&v, name, e) == 0) {
		add_profiles(&v);
	} else {
		key_job_free(v.job);
		v.job = NULL;
	}
	names_release(&v.done);
	names_release(&v.stack);
	names_release(&v.profiles);
	return v.job;
}
