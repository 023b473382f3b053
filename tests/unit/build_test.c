/*
 * Profile builds: when they run and when they are skipped, their lock, their failures.
 *
 * The test program is its own helper: it is started again with --helper.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/build.h"

struct world {
	struct loop *loop;
	struct config *config;
	char dir[64];
	bool over;
	struct err err;
};

static struct world w;

static void put(const char *path, const char *text)
{
	struct err e = ERR_INIT;
	char *parent = xstrdup(path);
	FILE *f;

	if (strrchr(parent, '/')) {
		*strrchr(parent, '/') = '\0';
		assert_int_equal(make_dirs(parent, 0755, &e), 0);
	}
	free(parent);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* How often the build ran: each run appends a line to `count`. */
static int runs(void)
{
	FILE *f = fopen("count", "r");
	int n = 0, c;

	while (f && (c = getc(f)) != EOF)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	strcpy(w.dir, "/tmp/provium-build-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	assert_int_equal(chdir(w.dir), 0);
	setenv("PROVIUM_BUILD_DIR", "out", 1);
	w.loop = loop_new();
	return 0;
}

static int teardown(void **state)
{
	char *command = xasprintf("rm -rf '%s'", w.dir);

	(void)state;
	config_free(w.config);
	loop_free(w.loop);
	err_release(&w.err);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(system(command), 0);
	free(command);
	return 0;
}

static void load(const char *text)
{
	struct err e = ERR_INIT;

	put("provium.toml", text);
	config_free(w.config);
	w.config = config_load(NULL, &e);
	if (!w.config)
		fail_msg("%s", e.msg);
}

static void over(void *arg, const struct err *e)
{
	struct world *world = arg;

	world->over = true;
	err_release(&world->err);
	if (e)
		err_copy(&world->err, e);
	loop_stop(world->loop);
}

static void run(const char *const *names, unsigned flags)
{
	w.over = false;
	build_start(w.loop, w.config, names, flags | BUILD_QUIET, over, &w);
	assert_false(w.over);
	loop_run(w.loop);
	assert_true(w.over);
}

/* Builds everything; it must succeed. Returns how often the command has run so far. */
static int build(void)
{
	run(NULL, 0);
	if (err_is_set(&w.err))
		fail_msg("%s", w.err.msg);
	return runs();
}

#define COUNTED "[profiles.a]\ncmdline = ''\nkernel = '{out}/k'\nbuild = 'echo x >>count; touch {out}/k'\n"

static void test_without_build(void **state)
{
	(void)state;
	load("[profiles.a]\ncmdline = ''\n");
	assert_int_equal(build(), 0);
	load("");
	assert_int_equal(build(), 0);
}

static void test_every_time_without_inputs(void **state)
{
	(void)state;
	load(COUNTED);
	assert_int_equal(build(), 1);
	assert_int_equal(access("out/a/k", F_OK), 0);
	assert_int_equal(build(), 2);
}

static void test_skipped_when_unchanged(void **state)
{
	(void)state;
	put("src/one.c", "1");
	put("src/deep/er/two.c", "2");
	load(COUNTED "build_inputs = ['src/**/*.c']\n");
	assert_int_equal(build(), 1);
	assert_int_equal(build(), 1);
	put("src/other.txt", "not an input");
	assert_int_equal(build(), 1);
	assert_int_equal(system("touch -d '2001-01-01' src/one.c"), 0);
	assert_int_equal(build(), 1);			/* the same content */
	put("src/deep/er/two.c", "3");
	assert_int_equal(build(), 2);
	put("src/deep/new.c", "");
	assert_int_equal(build(), 3);
	assert_int_equal(unlink("src/one.c"), 0);
	assert_int_equal(build(), 4);
	assert_int_equal(chmod("src/deep/new.c", 0755), 0);
	assert_int_equal(build(), 5);
	assert_int_equal(build(), 5);
}

static void test_rebuilt(void **state)
{
	(void)state;
	put("in", "1");
	load(COUNTED "build_inputs = ['in']\n");
	assert_int_equal(build(), 1);
	assert_int_equal(unlink("out/a/k"), 0);
	assert_int_equal(build(), 2);			/* the output is gone */
	assert_int_equal(system("rm -r out/a"), 0);
	assert_int_equal(build(), 3);
	load("[profiles.a]\ncmdline = ''\nbuild = 'echo y >>count'\nbuild_inputs = ['in']\n");
	assert_int_equal(build(), 4);			/* another command */
	assert_int_equal(build(), 4);
}

static void test_directory_and_links(void **state)
{
	(void)state;
	put("d/x/y", "1");
	assert_int_equal(symlink("nowhere", "d/dangling"), 0);
	assert_int_equal(symlink("..", "d/up"), 0);
	load(COUNTED "build_inputs = ['d']\n");
	assert_int_equal(build(), 1);
	assert_int_equal(build(), 1);
	assert_int_equal(unlink("d/dangling"), 0);
	assert_int_equal(symlink("elsewhere", "d/dangling"), 0);
	assert_int_equal(build(), 2);
}

static void test_missing_input(void **state)
{
	char *expected;

	(void)state;
	load(COUNTED "build_inputs = ['nothing-*', 'gone']\n");
	run(NULL, 0);
	expected = xasprintf("building profile `a`: build_inputs: `gone` does not exist in `%s`", w.dir);
	assert_string_equal(w.err.msg, expected);
	free(expected);
	assert_int_equal(runs(), 0);
}

static void test_failure(void **state)
{
	char *expected;

	(void)state;
	put("in", "1");
	load(COUNTED "build_inputs = ['in']\n");
	assert_int_equal(build(), 1);
	load("[profiles.a]\ncmdline = ''\nbuild = 'echo out; echo err >&2; echo x >>count; exit 3'\n"
		"build_inputs = ['in']\n");
	run(NULL, 0);
	expected = xasprintf("building profile `a` failed: exit status 3\n"
		"  command: echo out; echo err >&2; echo x >>count; exit 3\n  directory: %s\n  output:\nout\nerr", w.dir);
	assert_string_equal(w.err.msg, expected);
	free(expected);
	run(NULL, 0);
	assert_true(err_is_set(&w.err));		/* tried again, not taken as done */
	assert_int_equal(runs(), 3);
}

static void test_one_profile(void **state)
{
	(void)state;
	load("[profiles.a]\ncmdline=''\nbuild='echo a >>count'\n[profiles.second]\ncmdline=''\nbuild='echo b >>count'\n");
	run((const char *const []){ "second", NULL }, 0);
	assert_int_equal(runs(), 1);
	run((const char *const []){ NULL }, 0);
	assert_int_equal(runs(), 1);
	run((const char *const []){ "secnod", NULL }, 0);
	assert_non_null(strstr(w.err.msg, "no profile `secnod` in `"));
	assert_non_null(strstr(w.err.msg, "did you mean `second`?"));
}

static void test_skip_completes(void **state)
{
	(void)state;
	load("[profiles.a]\ncmdline_file = '{out}/c'\nbuild = 'echo x >>count; echo made >{out}/c'\n");
	assert_int_equal(build(), 1);
	assert_string_equal(config_profile(w.config, "a")->cmdline, "made console=ttyS0");
	put("out/a/c", "changed");
	run(NULL, BUILD_SKIP);
	assert_false(err_is_set(&w.err));
	assert_string_equal(config_profile(w.config, "a")->cmdline, "changed console=ttyS0");
	assert_int_equal(runs(), 1);
	assert_int_equal(unlink("out/a/c"), 0);
	run(NULL, BUILD_SKIP);
	assert_non_null(strstr(w.err.msg, "No such file or directory"));
}

static void unlock_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	assert_int_equal(runs(), 0);
	close(*(int *)arg);
}

static void test_lock(void **state)
{
	struct event *timer = NULL;
	int fd;

	(void)state;
	load(COUNTED);
	put("out/a.lock", "");
	fd = open("out/a.lock", O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	timer_start(w.loop, &timer, 250000000, unlock_cb, &fd);
	assert_int_equal(build(), 1);
	timer_stop(&timer);
}

static void cancel_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	build_cancel(arg);
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	loop_stop(w.loop);
}

static void test_cancel(void **state)
{
	struct event *timer = NULL, *end = NULL;
	struct build *b;

	(void)state;
	load("[profiles.a]\ncmdline = ''\nbuild = 'sleep 60; echo x >>count'\n");
	b = build_start(w.loop, w.config, NULL, BUILD_QUIET, over, &w);
	timer_start(w.loop, &timer, 200000000, cancel_cb, b);
	timer_start(w.loop, &end, 500000000, stop_cb, NULL);	/* by then the killed child is reaped */
	loop_run(w.loop);
	timer_stop(&timer);
	timer_stop(&end);
	assert_false(w.over);
	assert_int_equal(runs(), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CASE(test_without_build), CASE(test_every_time_without_inputs), CASE(test_skipped_when_unchanged),
		CASE(test_rebuilt), CASE(test_directory_and_links), CASE(test_missing_input), CASE(test_failure),
		CASE(test_one_profile), CASE(test_skip_completes), CASE(test_lock), CASE(test_cancel),
	};

	helper_register(run_helper_verbs);
	if (argc > 1 && strcmp(argv[1], "--helper") == 0)
		return helper_main(argc, argv);
	return cmocka_run_group_tests_name("build", tests, NULL, NULL);
}
