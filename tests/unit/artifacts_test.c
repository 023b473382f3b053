/*
 * What failed tests leave on disk (src/run/artifacts.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/artifacts.h"

static char dir[64];
static char *base;
static struct args args;
static struct artifacts *saved;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/provium-artifacts-XXXXXX");
	assert_non_null(mkdtemp(dir));
	base = xasprintf("%s/deep/er", dir);
	memset(&args, 0, sizeof(args));
	args.artifacts = base;
	saved = artifacts_new(&args);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	artifacts_free(saved);
	free(base);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static struct test_result *failed(struct file_result *f, const char *name)
{
	struct test_result *t = file_result_test(f, name);

	t->over = true;
	t->status = TEST_FAILED;
	t->reason = xstrdup("it broke");
	return t;
}

static void keep(struct test_result *t, const char *name, const void *data, size_t len)
{
	struct artifact *a;

	t->artifacts = xrealloc(t->artifacts, (t->nartifacts + 1) * sizeof(*t->artifacts));
	a = &t->artifacts[t->nartifacts++];
	a->name = xstrdup(name);
	a->data = xmalloc(len + 1);
	memcpy(a->data, data, len);
	a->len = len;
}

static void expect(const char *place, const char *name, const char *data, size_t len)
{
	char *path = xasprintf("%s/%s", place, name), got[4096];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	assert_int_equal(fread(got, 1, sizeof(got), f), len);
	assert_memory_equal(got, data, len);
	fclose(f);
	free(path);
}

static void expect_text(const char *place, const char *name, const char *text)
{
	expect(place, name, text, strlen(text));
}

static bool exists(const char *place, const char *name)
{
	char *path = xasprintf("%s/%s", place, name);
	bool there = access(path, F_OK) == 0;

	free(path);
	return there;
}

static void nothing_failed_nothing_made(void **state)
{
	struct file_result *f = file_result_new("a.test.lua");
	struct test_result *t = file_result_test(f, "passes");

	(void)state;
	t->over = true;
	keep(t, "x", "x", 1);
	file_result_test(f, "never over");
	assert_int_equal(artifacts_save(saved, "/a.test.lua", f, NULL), 0);
	assert_null(f->tests[0].artifacts_dir);
	assert_false(exists(dir, "deep"));
	file_result_free(f);
}

static void a_failure_is_saved(void **state)
{
	struct file_result *f = file_result_new("net/a.test.lua");
	struct test_result *t = failed(f, "it's late");
	char *cwd = getcwd(NULL, 0), *again;

	(void)state;
	args.config = "p.toml";
	args.vmm = VMM_LOCAL;
	args.accel = ACCEL_TCG;
	args.include_slow = true;
	t->where = xstrdup("net/a.test.lua:3");
	t->traceback = xstrdup("net/a.test.lua:3: in function 'check'\n");
	t->console = xstrdup("--- console of a ---\nhello");
	keep(t, "data.bin", "a\0b", 3);
	keep(t, "empty", "", 0);
	assert_int_equal(artifacts_save(saved, "/s/net/a.test.lua", f, NULL), 0);
	t = &f->tests[0];
	assert_int_equal(strncmp(t->artifacts_dir, base, strlen(base)), 0);
	assert_string_equal(t->artifacts_dir + strlen(base), "/net_a.test.lua_it_s_late");
	expect_text(t->artifacts_dir, "error.txt",
		"it broke\nnet/a.test.lua:3\nnet/a.test.lua:3: in function 'check'\n");
	expect_text(t->artifacts_dir, "console.txt", "--- console of a ---\nhello");
	expect(t->artifacts_dir, "data.bin", "a\0b", 3);
	expect(t->artifacts_dir, "empty", "", 0);
	again = xasprintf("cd '%s' && provium -v --config='p.toml' --vmm='local' --accel='tcg' --include-slow "
		"--test='it'\\''s late' '/s/net/a.test.lua'\n", cwd);
	expect_text(t->artifacts_dir, "reproduce.txt", again);
	free(again);
	free(cwd);
	file_result_free(f);
}

/* Nothing leaves its directory, nothing takes another's place. */
static void names_are_plain_and_different(void **state)
{
	struct file_result *f = file_result_new("../a");
	char name[1024];
	struct test_result *t;

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	failed(f, name);
	name[sizeof(name) - 2] = '\0';
	failed(f, name);
	failed(f, "a/b");
	failed(f, "a b");
	t = failed(f, "..");
	keep(t, "../../x", "1", 1);
	keep(t, "..", "2", 1);
	keep(t, "error.txt", "3", 1);
	keep(t, "same", "4", 1);
	keep(t, "same", "5", 1);
	assert_int_equal(artifacts_save(saved, "/a", f, NULL), 0);
	for (size_t i = 0; i < f->ntests; i++) {
		const char *own = f->tests[i].artifacts_dir + strlen(base) + 1;

		assert_null(strchr(own, '/'));
		assert_true(*own != '.' && strlen(own) <= 255);
		expect_text(f->tests[i].artifacts_dir, "error.txt", "it broke\n");
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(f->tests[i].artifacts_dir, f->tests[j].artifacts_dir);
	}
	t = &f->tests[4];
	expect_text(t->artifacts_dir, "_._.._x", "1");
	expect_text(t->artifacts_dir, "_.", "2");
	expect_text(t->artifacts_dir, "error.txt.2", "3");
	expect_text(t->artifacts_dir, "same", "4");
	expect_text(t->artifacts_dir, "same.2", "5");
	assert_false(exists(dir, "x") || exists(dir, "deep/x"));
	file_result_free(f);
}

static void an_earlier_run_is_replaced(void **state)
{
	for (int run = 0; run < 2; run++) {
		struct file_result *f = file_result_new("a");

		(void)state;
		keep(failed(f, "t"), run ? "new" : "old", "x", 1);
		assert_int_equal(artifacts_save(saved, "/a", f, NULL), 0);
		assert_int_equal(exists(f->tests[0].artifacts_dir, "old"), !run);
		file_result_free(f);
		artifacts_free(saved);
		saved = artifacts_new(&args);
	}
}

static void a_place_that_cannot_be_made_is_named(void **state)
{
	struct file_result *f = file_result_new("a");
	struct err e = ERR_INIT;

	(void)state;
	args.artifacts = "/dev/null";
	artifacts_free(saved);
	saved = artifacts_new(&args);
	failed(f, "t");
	assert_true(artifacts_save(saved, "/a", f, &e) < 0);
	assert_non_null(strstr(e.msg, "the artifacts of the test `t`: "));
	assert_non_null(strstr(e.msg, "/dev/null/a_t"));
	assert_null(f->tests[0].artifacts_dir);
	err_release(&e);
	file_result_free(f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_failed_nothing_made, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failure_is_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(names_are_plain_and_different, setup, teardown),
		cmocka_unit_test_setup_teardown(an_earlier_run_is_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(a_place_that_cannot_be_made_is_named, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
