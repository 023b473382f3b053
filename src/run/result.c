/*
 * Results of test files.
 */
#include <stdlib.h>
#include <string.h>

#include "run/result.h"

struct file_result *file_result_new(const char *path)
{
	struct file_result *r = xcalloc(1, sizeof(*r));

	r->path = xstrdup(path);
	return r;
}

static void test_result_release(struct test_result *t)
{
	free(t->name);
	free(t->reason);
	free(t->where);
	free(t->traceback);
	free(t->console);
	for (size_t i = 0; i < t->nlog; i++)
		free(t->log[i]);
	free(t->log);
	for (size_t i = 0; i < t->nartifacts; i++) {
		free(t->artifacts[i].name);
		free(t->artifacts[i].data);
	}
	free(t->artifacts);
	free(t->artifacts_dir);
}

void file_result_free(struct file_result *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->ntests; i++)
		test_result_release(&r->tests[i]);
	free(r->tests);
	free(r->chunk_error);
	free(r->snapshot);
	free(r->path);
	free(r);
}

struct test_result *file_result_test(struct file_result *r, const char *name)
{
	struct test_result *t;

	for (size_t i = 0; i < r->ntests; i++)
		if (strcmp(r->tests[i].name, name) == 0)
			return &r->tests[i];
	r->tests = xrealloc(r->tests, (r->ntests + 1) * sizeof(*r->tests));
	t = &r->tests[r->ntests++];
	memset(t, 0, sizeof(*t));
	t->name = xstrdup(name);
	return t;
}

unsigned file_result_count(const struct file_result *r, enum test_status s)
{
	unsigned n = 0;

	for (size_t i = 0; i < r->ntests; i++)
		n += r->tests[i].over && r->tests[i].status == s;
	return n;
}

bool file_result_failed(const struct file_result *r)
{
	return r->chunk_error || r->timed_out || file_result_count(r, TEST_FAILED) > 0;
}
