/*
 * Which profiles test files name, themselves and through the modules and fixtures they use.
 */
#include <stdlib.h>
#include <string.h>

#include "run/refs.h"
#include "run/scan.h"

struct search {
	const char *const *roots;
	struct names files, profiles;	/* met so far */
	bool unknown;
};

static void add_found(struct search *q, char *path)
{
	if (path)
		names_add(&q->files, path);
	free(path);
}

static void look_at_file(struct search *q, const char *path)
{
	struct refs r;

	q->unknown = refs_read(&r, path) < 0 || r.unknown;
	for (size_t i = 0; i < r.profiles.n; i++)
		names_add(&q->profiles, r.profiles.v[i]);
	for (size_t i = 0; i < r.modules.n; i++)
		add_found(q, refs_find_module(q->roots, r.modules.v[i]));
	for (size_t i = 0; i < r.fixtures.n; i++)
		add_found(q, refs_find_fixture(q->roots, r.fixtures.v[i]));
	for (size_t i = 0; i < r.files.n; i++) {
		char *file = refs_find_file(q->roots, r.files.v[i]);

		q->unknown |= !file;
		add_found(q, file);
	}
	refs_release(&r);
}

const char **scan_profiles(const char *const *files, const char *const *roots, const char *const *known)
{
	struct search q = { .roots = roots };
	const char **result = NULL;
	size_t n = 0, nread = 0;

	for (; *files; files++)
		names_add(&q.files, *files);
	while (nread < q.files.n && !q.unknown)
		look_at_file(&q, q.files.v[nread++]);
	while (known[n])
		n++;
	if (!q.unknown) {
		result = xcalloc(n + 1, sizeof(*result));
		n = 0;
		for (; *known; known++)
			if (names_have(&q.profiles, *known))
				result[n++] = *known;
	}
	names_release(&q.files);
	names_release(&q.profiles);
	return result;
}
