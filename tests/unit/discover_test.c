/*
 * The walk that finds test files.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/discover.h"

static char dir[64], back[4096];
static struct found_files found;
static struct err err;

static void put(const char *path)
{
	char *parent = xstrdup(path), *slash = strrchr(parent, '/');
	FILE *f;

	if (slash) {
		*slash = '\0';
		assert_int_equal(make_dirs(parent, 0755, NULL), 0);
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	free(parent);
}

static int setup(void **state)
{
	(void)state;
	assert_non_null(getcwd(back, sizeof(back)));
	strcpy(dir, "/tmp/provium-discover-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	put("tests/b.test.lua");
	put("tests/a/z.test.lua");
	put("tests/a/helper.lua");
	put("tests/a/base.fixture.lua");
	put("tests/.hidden/x.test.lua");
	put("tests/.#b.test.lua");
	put("tests/.test.lua");
	put("more/c.test.lua");
	assert_int_equal(symlink("../more", "tests/linked"), 0);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	found_files_release(&found);
	err_release(&err);
	assert_int_equal(chdir(back), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* The files with blanks between: "shown" of each, or its "rel"; "error: ..." when it fails. */
static char *find(const char *const *paths, const char *const *roots, const char *suffix, bool rel)
{
	char *all = xstrdup("");
	size_t i;

	found_files_release(&found);
	if (discover_files(paths, roots, suffix, &found, &err)) {
		free(all);
		return xasprintf("error: %s", err.msg);
	}
	for (i = 0; i < found.n; i++) {
		const struct found_file *f = &found.v[i];
		char *more = xasprintf("%s%s%s", all, *all ? " " : "", rel ? f->rel : f->shown);

		free(all);
		all = more;
	}
	return all;
}

#define PATHS(...) ((const char *const []){ __VA_ARGS__, NULL })

static void expect(const char *const *paths, const char *const *roots, const char *shown, const char *rel)
{
	char *got = find(paths, roots, TEST_SUFFIX, false);

	assert_string_equal(got, shown);
	free(got);
	got = find(paths, roots, TEST_SUFFIX, true);
	assert_string_equal(got, rel);
	free(got);
}

static void roots_are_walked_without_paths(void **state)
{
	(void)state;
	expect(NULL, PATHS("tests"), "tests/a/z.test.lua tests/b.test.lua", "a/z.test.lua b.test.lua");
	expect(PATHS(NULL), PATHS("tests", "more"), "more/c.test.lua tests/a/z.test.lua tests/b.test.lua",
		"c.test.lua a/z.test.lua b.test.lua");
	expect(NULL, PATHS("."), "more/c.test.lua tests/a/z.test.lua tests/b.test.lua",
		"more/c.test.lua tests/a/z.test.lua tests/b.test.lua");
	expect(NULL, PATHS("tests", "tests/a"), "tests/a/z.test.lua tests/b.test.lua",
		"z.test.lua b.test.lua");
}

static void paths_win_over_roots(void **state)
{
	(void)state;
	expect(PATHS("tests/a"), PATHS("tests"), "tests/a/z.test.lua", "a/z.test.lua");
	expect(PATHS("more"), PATHS("tests"), "more/c.test.lua", "c.test.lua");
	expect(PATHS("tests/a/helper.lua"), PATHS("tests"), "tests/a/helper.lua", "a/helper.lua");
	expect(PATHS("more/c.test.lua"), PATHS("tests"), "more/c.test.lua", "c.test.lua");
	expect(PATHS("tests/.hidden"), PATHS("tests"), "tests/.hidden/x.test.lua", ".hidden/x.test.lua");
}

static void each_file_comes_once(void **state)
{
	(void)state;
	expect(PATHS("tests/b.test.lua", "tests", "./tests/../tests/b.test.lua"), PATHS("tests"),
		"tests/a/z.test.lua tests/b.test.lua", "a/z.test.lua b.test.lua");
	assert_int_equal(symlink("b.test.lua", "tests/same.test.lua"), 0);
	expect(NULL, PATHS("tests"), "tests/a/z.test.lua tests/b.test.lua", "a/z.test.lua b.test.lua");
}

static void linked_files_keep_their_place(void **state)
{
	char *want;

	(void)state;
	assert_int_equal(symlink("../../more/c.test.lua", "tests/a/l.test.lua"), 0);
	expect(NULL, PATHS("tests"), "tests/a/l.test.lua tests/a/z.test.lua tests/b.test.lua",
		"a/l.test.lua a/z.test.lua b.test.lua");
	want = xasprintf("%s/more/c.test.lua", dir);
	assert_string_equal(found.v[0].path, want);
	free(want);
}

static void files_elsewhere_are_shown_absolute(void **state)
{
	char *want;

	(void)state;
	assert_int_equal(chdir("more"), 0);
	want = xasprintf("%s/tests/b.test.lua", dir);
	expect(PATHS("../tests/b.test.lua"), PATHS("../tests"), want, "b.test.lua");
	free(want);
}

static void other_suffixes(void **state)
{
	char *got = find(NULL, PATHS("tests"), FIXTURE_SUFFIX, true);

	(void)state;
	assert_string_equal(got, "a/base.fixture.lua");
	free(got);
}

static void expect_error(const char *const *paths, const char *const *roots, const char *want)
{
	char *got = find(paths, roots, TEST_SUFFIX, false);

	assert_string_equal(got, want);
	free(got);
}

static void what_is_missing_is_named(void **state)
{
	(void)state;
	expect_error(PATHS("tests/b.tst.lua"), NULL,
		"error: `tests/b.tst.lua`: No such file or directory; did you mean `tests/b.test.lua`?");
	expect_error(PATHS("test"), NULL, "error: `test`: No such file or directory; did you mean `tests`?");
	expect_error(PATHS("test/"), NULL,
		"error: `test/`: No such file or directory; did you mean `tests`?");
	expect_error(PATHS("completely-different"), NULL,
		"error: `completely-different`: No such file or directory");
	expect_error(PATHS("/dev/null"), NULL, "error: `/dev/null`: neither a file nor a directory");
	expect_error(NULL, PATHS("text"),
		"error: roots: `text`: No such file or directory; did you mean `tests`?");
}

static void dangling_links_are_errors(void **state)
{
	char *want;

	(void)state;
	assert_int_equal(symlink("nowhere", "tests/d.test.lua"), 0);
	want = xasprintf("error: `%s/tests/d.test.lua`: a symbolic link that leads nowhere: "
		"No such file or directory", dir);
	expect_error(PATHS("tests"), NULL, want);
	free(want);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(roots_are_walked_without_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(paths_win_over_roots, setup, teardown),
		cmocka_unit_test_setup_teardown(each_file_comes_once, setup, teardown),
		cmocka_unit_test_setup_teardown(linked_files_keep_their_place, setup, teardown),
		cmocka_unit_test_setup_teardown(files_elsewhere_are_shown_absolute, setup, teardown),
		cmocka_unit_test_setup_teardown(other_suffixes, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_missing_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(dangling_links_are_errors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
