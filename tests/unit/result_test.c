/*
 * Results of test files: names, counts, what makes a file failed (src/run/result.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "run/result.h"

static void set(struct file_result *r, const char *name, enum test_status status)
{
	struct test_result *t = file_result_test(r, name);

	t->over = true;
	t->status = status;
}

static void test_tests(void **state)
{
	struct file_result *r = file_result_new("tests/a.test.lua");

	(void)state;
	assert_string_equal(r->path, "tests/a.test.lua");
	assert_int_equal(r->ntests, 0);
	for (int i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "test %d", i);
		file_result_test(r, name)->duration_ns = i;
	}
	assert_int_equal(r->ntests, 100);
	assert_int_equal(file_result_test(r, "test 42")->duration_ns, 42);
	assert_int_equal(r->ntests, 100);
	assert_string_equal(r->tests[99].name, "test 99");
	file_result_free(r);
	file_result_free(NULL);
}

/* Only an outcome counts. */
static void test_counts(void **state)
{
	struct file_result *r = file_result_new("a");

	(void)state;
	file_result_test(r, "started");
	assert_int_equal(file_result_count(r, TEST_PASSED), 0);
	set(r, "p", TEST_PASSED);
	set(r, "s1", TEST_SKIPPED);
	set(r, "s2", TEST_SKIPPED);
	assert_int_equal(file_result_count(r, TEST_PASSED), 1);
	assert_int_equal(file_result_count(r, TEST_SKIPPED), 2);
	assert_int_equal(file_result_count(r, TEST_FAILED), 0);
	assert_false(file_result_failed(r));
	set(r, "f", TEST_FAILED);
	assert_int_equal(file_result_count(r, TEST_FAILED), 1);
	assert_true(file_result_failed(r));
	file_result_free(r);
}

static void test_failed(void **state)
{
	struct file_result *r = file_result_new("a");

	(void)state;
	assert_false(file_result_failed(r));
	r->timed_out = true;
	assert_true(file_result_failed(r));
	r->timed_out = false;
	r->interrupted = true;		/* says nothing of the file */
	assert_false(file_result_failed(r));
	r->chunk_error = xstrdup("broken");
	assert_true(file_result_failed(r));
	file_result_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tests),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_failed),
	};

	return cmocka_run_group_tests_name("result", tests, NULL, NULL);
}
