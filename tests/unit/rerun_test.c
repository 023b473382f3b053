/*
 * The state that --rerun-failed reads.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/rerun.h"

static char dir[64];
static char *path;

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/provium-rerun-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/state/rerun.json", dir);
	setenv("PROVIUM_RERUN_STATE", path, 1);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	free(path);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void put(const char *text)
{
	const char *paths[] = { "/x" };
	FILE *f;

	assert_int_equal(rerun_save(paths, 1, NULL), 0);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void the_place_follows_the_environment(void **state)
{
	char *got, *home = xstrdup(getenv("HOME"));

	(void)state;
	got = rerun_path();
	assert_string_equal(got, path);
	free(got);
	unsetenv("PROVIUM_RERUN_STATE");
	setenv("HOME", "/home/x", 1);
	got = rerun_path();
	assert_string_equal(got, "/home/x/.cache/provium/rerun.json");
	free(got);
	unsetenv("HOME");
	got = rerun_path();
	assert_string_equal(got, "/tmp/provium-rerun.json");
	free(got);
	if (home)
		setenv("HOME", home, 1);
	free(home);
}

static void what_is_saved_is_loaded(void **state)
{
	const char *paths[] = { "/a/b.test.lua", "/a/\"\xc3\xbc\".test.lua" };
	char **got;
	size_t n;

	(void)state;
	assert_int_equal(rerun_load(&got, &n, NULL), 0);	/* no prior state */
	assert_int_equal(rerun_save(paths, 2, NULL), 0);
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 2);
	assert_string_equal(got[0], paths[0]);
	assert_string_equal(got[1], paths[1]);
	rerun_free(got, n);
	assert_int_equal(rerun_save(paths + 1, 1, NULL), 0);
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 1);
	rerun_free(got, n);
}

static void missing_directories_are_made(void **state)
{
	const char *paths[] = { "/a" };
	char **got, *home = xstrdup(getenv("HOME"));
	size_t n;

	(void)state;
	unsetenv("PROVIUM_RERUN_STATE");
	setenv("HOME", dir, 1);
	assert_int_equal(rerun_save(paths, 1, NULL), 0);
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 1);
	rerun_free(got, n);
	if (home)
		setenv("HOME", home, 1);
	free(home);
}

/* 0: saved and loaded there; 77: no right to try. */
static int save_in_a_chroot(void)
{
	const char *paths[] = { "/a" };
	char **got;
	size_t n;

	if (chroot(dir) && (unshare(CLONE_NEWUSER) || chroot(dir)))
		return 77;
	if (chdir("/") || access("/proc", F_OK) == 0)
		return 2;
	unsetenv("PROVIUM_RERUN_STATE");
	setenv("HOME", "/home", 1);
	return rerun_save(paths, 1, NULL) == 0 && rerun_load(&got, &n, NULL) == 1 && n == 1 ? 0 : 1;
}

static void a_chroot_without_proc_does_too(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(save_in_a_chroot());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}

static void a_clean_run_leaves_it_alone(void **state)
{
	const char *paths[] = { "/a" };
	char **got;
	size_t n;

	(void)state;
	assert_int_equal(rerun_save(NULL, 0, NULL), 0);
	assert_int_equal(rerun_load(&got, &n, NULL), 0);
	rerun_save(paths, 1, NULL);
	assert_int_equal(rerun_save(NULL, 0, NULL), 0);
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 1);
	rerun_free(got, n);
}

static void an_empty_array_is_a_state(void **state)
{
	char **got;
	size_t n;

	(void)state;
	put("[]");
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 0);
	rerun_free(got, n);
}

static void other_content_is_refused(void **state)
{
	static const char *const bad[] = { "", "{}", "[1]", "[\"/a\", null]", "[\"/a\"", "[\"/a\"] x",
		"\xff" };
	struct err e = ERR_INIT;
	char **got;
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		put(bad[i]);
		assert_int_equal(rerun_load(&got, &n, &e), -EINVAL);
		assert_null(got);
		assert_int_equal(n, 0);
		assert_non_null(strstr(e.msg, path));
		assert_non_null(strstr(e.msg, "expected a JSON array of paths"));
	}
	err_release(&e);
}

static void names_that_are_not_utf8_are_left_out_aloud(void **state)
{
	const char *paths[] = { "/a", "/\xff" };
	struct err e = ERR_INIT;
	char **got;
	size_t n;

	(void)state;
	assert_int_equal(rerun_save(paths, 2, &e), -EILSEQ);
	err_release(&e);
	assert_int_equal(rerun_load(&got, &n, NULL), 1);
	assert_int_equal(n, 1);
	rerun_free(got, n);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_place_follows_the_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_saved_is_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_directories_are_made, setup, teardown),
		cmocka_unit_test_setup_teardown(a_chroot_without_proc_does_too, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clean_run_leaves_it_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(an_empty_array_is_a_state, setup, teardown),
		cmocka_unit_test_setup_teardown(other_content_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(names_that_are_not_utf8_are_left_out_aloud, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
