/*
 * What a run prints, to the byte: plain, -v, -q, --json, order (src/run/render.c, src/run/renderjson.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "run/render.h"

static struct args args;
static struct render *render;
static FILE *out;
static char *text;
static size_t len;

static int setup(void **state)
{
	(void)state;
	memset(&args, 0, sizeof(args));
	out = open_memstream(&text, &len);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	render_free(render);
	render = NULL;
	if (out)
		fclose(out);
	out = NULL;
	free(text);
	text = NULL;
	return 0;
}

static void begin(size_t expected)
{
	render = render_new(out, &args, expected);
}

static const char *so_far(void)
{
	fflush(out);
	return text;
}

static struct test_result *add(struct file_result *r, const char *name, enum test_status status, const char *reason,
	const char *where)
{
	struct test_result *t = file_result_test(r, name);

	t->over = true;
	t->status = status;
	t->reason = xstrdup(reason);
	t->where = xstrdup(where);
	t->duration_ns = 210000000;
	return t;
}

static void log_line(struct test_result *t, const char *line)
{
	t->log = xrealloc(t->log, (t->nlog + 1) * sizeof(*t->log));
	t->log[t->nlog++] = xstrdup(line);
}

static struct file_result *passing(const char *path)
{
	struct file_result *r = file_result_new(path);

	add(r, "boots", TEST_PASSED, NULL, NULL);
	return r;
}

/* tests/net/partition.test.lua as cli.md shows it. */
static struct file_result *failing(void)
{
	struct file_result *r = file_result_new("tests/net/partition.test.lua");
	struct test_result *t;

	add(r, "joins", TEST_PASSED, NULL, NULL);
	t = add(r, "split-brain", TEST_FAILED, "client A could not reach client B after partition",
		"tests/net/partition.test.lua:41");
	t->traceback = xstrdup("tests/net/partition.test.lua:41: in function 'check'\n");
	add(r, "heals", TEST_PASSED, NULL, NULL);
	return r;
}

static struct file_result *late(void)
{
	struct file_result *r = file_result_new("tests/long.test.lua");

	add(r, "quick", TEST_PASSED, NULL, NULL);
	file_result_test(r, "never over");
	r->timed_out = true;
	return r;
}

static void test_plain(void **state)
{
	struct file_result *r = passing("tests/smoke.test.lua");

	(void)state;
	begin(3);
	add(r, "two", TEST_PASSED, NULL, NULL);
	add(r, "left out", TEST_SKIPPED, "slow", NULL);
	render_file(render, 0, r);
	render_file(render, 1, failing());
	render_file(render, 2, late());
	render_end(render, 12340000000);
	assert_string_equal(so_far(),
		"PASS tests/smoke.test.lua (2 passed, 0 failed, 1 skipped)\n"
		"FAIL tests/net/partition.test.lua (2 passed, 1 failed, 0 skipped)\n"
		"    FAIL split-brain\n"
		"        client A could not reach client B after partition\n"
		"        tests/net/partition.test.lua:41\n"
		"TIME tests/long.test.lua (1 passed, 0 failed, 0 skipped)\n"
		"\n"
		"3 file(s); 5 passed, 1 failed, 1 skipped; 12.34s\n");
	assert_int_equal(render_totals(render)->files, 3);
	assert_int_equal(render_totals(render)->failed_files, 2);
	assert_int_equal(render_totals(render)->passed, 5);
	assert_int_equal(render_totals(render)->failed, 1);
	assert_int_equal(render_totals(render)->skipped, 1);
}

static void test_verbose(void **state)
{
	struct file_result *r = failing();

	(void)state;
	args.verbose = true;
	begin(1);
	add(r, "left out", TEST_SKIPPED, "filtered: did not match --tag (smoke)", NULL);
	file_result_test(r, "never over");
	render_file(render, 0, r);
	assert_string_equal(so_far(),
		"FAIL tests/net/partition.test.lua (2 passed, 1 failed, 1 skipped)\n"
		"    PASS joins (0.21s)\n"
		"    FAIL split-brain\n"
		"        client A could not reach client B after partition\n"
		"        tests/net/partition.test.lua:41\n"
		"          tests/net/partition.test.lua:41: in function 'check'\n"
		"    PASS heals (0.21s)\n"
		"    SKIP left out (filtered: did not match --tag (smoke))\n");
}

/* What a failed test has left: its consoles under -v only. */
static void test_consoles_and_artifacts(void **state)
{
	struct file_result *r = failing();
	struct test_result *t = file_result_test(r, "split-brain");

	t->console = xstrdup("--- console of a ---\nBooting\n\nPanic");
	t->artifacts_dir = xstrdup("provium-artifacts/x_t");
	args.verbose = *state != NULL;
	begin(1);
	render_file(render, 0, r);
	assert_non_null(strstr(so_far(), "        artifacts: provium-artifacts/x_t\n"));
	if (!args.verbose) {
		assert_null(strstr(so_far(), "console"));
		return;
	}
	assert_non_null(strstr(so_far(),
		"          tests/net/partition.test.lua:41: in function 'check'\n"
		"        > --- console of a ---\n"
		"        > Booting\n"
		"\n"
		"        > Panic\n"
		"        artifacts: provium-artifacts/x_t\n"
		"    PASS heals"));
}

/* Only what failed, and the summary. */
static void test_quiet(void **state)
{
	(void)state;
	args.quiet = true;
	begin(3);
	render_file(render, 0, passing("a"));
	render_file(render, 1, failing());
	render_file(render, 2, passing("b"));
	render_end(render, 0);
	assert_string_equal(so_far(),
		"FAIL tests/net/partition.test.lua (2 passed, 1 failed, 0 skipped)\n"
		"    FAIL split-brain\n"
		"        client A could not reach client B after partition\n"
		"        tests/net/partition.test.lua:41\n"
		"\n"
		"3 file(s); 4 passed, 1 failed, 0 skipped; 0.00s\n");
}

static void test_chunk_error(void **state)
{
	struct file_result *r = file_result_new("broken.test.lua"), *later = passing("later.test.lua");

	(void)state;
	begin(2);
	r->chunk_error = xstrdup("broken.test.lua:3: boom\nbroken.test.lua:3: in main chunk\n");
	render_file(render, 0, r);
	later->chunk_error = xstrdup("later.test.lua:9: boom");
	render_file(render, 1, later);
	assert_string_equal(so_far(),
		"FAIL broken.test.lua\n"
		"    broken.test.lua:3: boom\n"
		"    broken.test.lua:3: in main chunk\n"
		"FAIL later.test.lua (1 passed, 0 failed, 0 skipped)\n"
		"    later.test.lua:9: boom\n");
}

static void test_log_and_long_reasons(void **state)
{
	struct file_result *r = file_result_new("x");
	struct test_result *t = add(r, "t", TEST_FAILED, "first line\n\nthird line\n", NULL);

	(void)state;
	begin(1);
	log_line(t, "one");
	log_line(t, "two\nlines");
	render_file(render, 0, r);
	assert_string_equal(so_far(),
		"FAIL x (0 passed, 1 failed, 0 skipped)\n"
		"    FAIL t\n"
		"        first line\n"
		"\n"
		"        third line\n"
		"        | one\n"
		"        | two\n"
		"        | lines\n");
}

static void test_flaky(void **state)
{
	struct file_result *r = passing("x");

	(void)state;
	begin(1);
	r->tests[0].flaky = true;
	render_file(render, 0, r);
	assert_string_equal(so_far(),
		"PASS x (1 passed, 0 failed, 0 skipped)\n"
		"    PASS boots (0.21s) flaky: it failed before it passed\n");
}

/* In the order of input, each as soon as all before it are there. */
static void test_order(void **state)
{
	(void)state;
	begin(4);
	render_file(render, 2, passing("c"));
	assert_string_equal(so_far(), "");
	render_file(render, 0, passing("a"));
	assert_string_equal(so_far(), "PASS a (1 passed, 0 failed, 0 skipped)\n");
	render_file(render, 1, passing("b"));
	assert_string_equal(so_far(),
		"PASS a (1 passed, 0 failed, 0 skipped)\n"
		"PASS b (1 passed, 0 failed, 0 skipped)\n"
		"PASS c (1 passed, 0 failed, 0 skipped)\n");
}

/* A run that ends early prints what it has. */
static void test_order_with_gaps(void **state)
{
	(void)state;
	begin(4);
	render_file(render, 3, passing("d"));
	render_file(render, 1, passing("b"));
	render_end(render, 1000000000);
	assert_string_equal(so_far(),
		"PASS b (1 passed, 0 failed, 0 skipped)\n"
		"PASS d (1 passed, 0 failed, 0 skipped)\n"
		"\n"
		"2 file(s); 2 passed, 0 failed, 0 skipped; 1.00s\n");
}

/* Nothing was printed of it: it is freed with the renderer. */
static void test_held_back_and_freed(void **state)
{
	(void)state;
	begin(2);
	render_file(render, 1, passing("b"));
	render_free(render);
	render = NULL;
	render_free(NULL);
}

static void test_as_they_come(void **state)
{
	(void)state;
	args.verbose = true;
	begin(2);
	render_file(render, 1, passing("b"));
	assert_string_equal(so_far(), "PASS b (1 passed, 0 failed, 0 skipped)\n    PASS boots (0.21s)\n");
}

/* ---- --json ---- */

static void test_json(void **state)
{
	struct file_result *r = failing();

	(void)state;
	args.json = true;
	begin(2);
	log_line(file_result_test(r, "split-brain"), "a \"quoted\" line");
	r->duration_ns = 1999999999;
	file_result_test(r, "never over");
	render_file(render, 0, r);
	render_file(render, 1, late());
	render_end(render, 5);
	assert_string_equal(so_far(),
		"{\"path\":\"tests/net/partition.test.lua\",\"timeout\":\"in_time\",\"passed\":false,"
		"\"chunk_error\":null,\"tests\":["
		"{\"name\":\"joins\",\"status\":\"passed\",\"message\":null,\"log\":[],\"duration_ms\":210},"
		"{\"name\":\"split-brain\",\"status\":\"failed\",\"message\":\"client A could not reach "
		"client B after "
		"partition\",\"log\":[\"a \\\"quoted\\\" line\"],\"duration_ms\":210},"
		"{\"name\":\"heals\",\"status\":\"passed\",\"message\":null,\"log\":[],\"duration_ms\":210}],"
		"\"duration_ms\":1999}\n"
		"{\"path\":\"tests/long.test.lua\",\"timeout\":\"timed_out\",\"passed\":false,"
		"\"chunk_error\":null,\"tests\":["
		"{\"name\":\"quick\",\"status\":\"passed\",\"message\":null,\"log\":[],\"duration_ms\":210}],"
		"\"duration_ms\":0}\n");
}

/* Whatever a guest wrote, each line is JSON. */
static void test_json_of_anything(void **state)
{
	struct file_result *r = file_result_new("bad \xff path");
	json_error_t error;
	json_t *o, *t;

	(void)state;
	args.json = true;
	begin(1);
	add(r, "name \xc3\xa4 \xc3", TEST_FAILED, "line\nbreak \x01 \x80 \"", NULL);
	r->chunk_error = xstrdup("");
	render_file(render, 0, r);
	o = json_loads(so_far(), 0, &error);
	assert_non_null(o);
	assert_string_equal(json_string_value(json_object_get(o, "path")), "bad \\xff path");
	assert_string_equal(json_string_value(json_object_get(o, "chunk_error")), "");
	t = json_array_get(json_object_get(o, "tests"), 0);
	assert_string_equal(json_string_value(json_object_get(t, "message")), "line\nbreak \x01 \\x80 \"");
	json_decref(o);
	assert_ptr_equal(strchr(so_far(), '\n'), so_far() + len - 1);
}

static void test_nothing(void **state)
{
	(void)state;
	render_nothing(out, &args);
	assert_string_equal(so_far(), "provium: no *.test.lua files found\n");
	args.json = true;
	render_nothing(out, &args);
	assert_string_equal(so_far(), "provium: no *.test.lua files found\n"
		"{\"type\":\"no_files\",\"message\":\"no *.test.lua files found\"}\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_plain),
		T(test_verbose),
		T(test_consoles_and_artifacts),
		cmocka_unit_test_prestate_setup_teardown(test_consoles_and_artifacts, setup, teardown, &args),
		T(test_quiet),
		T(test_chunk_error),
		T(test_log_and_long_reasons),
		T(test_flaky),
		T(test_order),
		T(test_order_with_gaps),
		T(test_held_back_and_freed),
		T(test_as_they_come),
		T(test_json),
		T(test_json_of_anything),
		T(test_nothing),
	};

	return cmocka_run_group_tests_name("render", tests, NULL, NULL);
}
