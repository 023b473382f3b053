/*
 * Helper children: the verbs copy and hash, errors that come back, cancelling, and whole files.
 *
 * The test program is its own helper: it is started again with --helper.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "loop/loop.h"

#define MIB ((off_t)1 << 20)

struct world {
	struct loop *loop;
	char dir[64];
	struct err err;
	int calls;
};

static int verb_say(int argc, char **argv, struct err *e);
static int verb_die(int argc, char **argv, struct err *e);
static int verb_hang(int argc, char **argv, struct err *e);

static const struct helper_verb test_verbs[] = {
	{ "say", verb_say },
	{ "die", verb_die },
	{ "hang", verb_hang },
	{ NULL, NULL },
};

static int verb_say(int argc, char **argv, struct err *e)
{
	return err_set(e, EIO, "two\nlines of %s", argc > 1 ? argv[1] : "nothing");
}

static int verb_die(int argc, char **argv, struct err *e)
{
	(void)argc, (void)argv, (void)e;
	raise(SIGKILL);
	return 0;
}

static int verb_hang(int argc, char **argv, struct err *e)
{
	(void)argc, (void)argv, (void)e;
	pause();
	return 0;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/provium-helper-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->loop = loop_new();
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	err_release(&w->err);
	loop_free(w->loop);
	free(w);
	return 0;
}

static void finished(void *arg, const struct err *e)
{
	struct world *w = arg;

	w->calls++;
	err_release(&w->err);
	if (e)
		err_copy(&w->err, e);
	loop_stop(w->loop);
}

/* Runs a verb to its end; "" or the error's message. */
static const char *run(struct world *w, const char *verb, const char *a, const char *b)
{
	const char *argv[] = { verb, a, b, NULL };

	assert_non_null(helper_start(w->loop, argv, finished, w, NULL));
	loop_run(w->loop);
	return w->err.msg ? w->err.msg : "";
}

static char *in(struct world *w, const char *name)
{
	return xasprintf("%s/%s", w->dir, name);
}

static void copies_keep_content_and_holes(void **state)
{
	struct world *w = *state;
	char *src = in(w, "src"), *dst = in(w, "dst"), buf[8] = "";
	struct stat st;
	int fd = open(src, O_CREAT | O_RDWR, 0444);

	assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
	assert_int_equal(pwrite(fd, "middle", 6, 40 * MIB), 6);
	assert_int_equal(ftruncate(fd, 100 * MIB), 0);
	close(fd);
	assert_string_equal(run(w, "copy", src, dst), "");

	assert_int_equal(stat(dst, &st), 0);
	assert_int_equal(st.st_size, 100 * MIB);
	assert_true(st.st_blocks * 512 < 10 * MIB);
	assert_int_equal(st.st_mode & 0777, 0644);
	fd = open(dst, O_RDONLY);
	assert_int_equal(pread(fd, buf, 5, 0), 5);
	assert_memory_equal(buf, "begin", 5);
	assert_int_equal(pread(fd, buf, 6, 40 * MIB), 6);
	assert_memory_equal(buf, "middle", 6);
	assert_int_equal(pread(fd, buf, 6, 60 * MIB), 6);
	assert_memory_equal(buf, "\0\0\0\0\0\0", 6);
	close(fd);
	free(src), free(dst);
}

static void copies_between_file_systems(void **state)
{
	struct world *w = *state;
	char *dst = in(w, "dst"), buf[8] = "", shm[] = "/dev/shm/provium-helper-test-XXXXXX";
	int fd = mkstemp(shm);

	if (fd < 0)
		skip();
	assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
	assert_int_equal(pwrite(fd, "middle", 6, 4 * MIB + 1), 6);
	close(fd);
	assert_string_equal(run(w, "copy", shm, dst), "");
	fd = open(dst, O_RDONLY);
	assert_int_equal(pread(fd, buf, 6, 4 * MIB + 1), 6);
	assert_memory_equal(buf, "middle", 6);
	close(fd);
	unlink(shm);
	free(dst);
}

static void copy_replaces_what_was_there(void **state)
{
	struct world *w = *state;
	char *src = in(w, "src"), *dst = in(w, "dst"), buf[8] = "";
	FILE *f = fopen(src, "w");

	fputs("new", f);
	fclose(f);
	f = fopen(dst, "w");
	fputs("older", f);
	fclose(f);
	assert_string_equal(run(w, "copy", src, dst), "");
	f = fopen(dst, "r");
	assert_non_null(fgets(buf, sizeof(buf), f));
	assert_string_equal(buf, "new");
	fclose(f);
	free(src), free(dst);
}

static void copy_says_what_is_wrong(void **state)
{
	struct world *w = *state;
	char *src = in(w, "none"), *dst = in(w, "dst"), *want;

	want = xasprintf("read `%s`: No such file or directory", src);
	assert_string_equal(run(w, "copy", src, dst), want);
	free(want);
	want = xasprintf("read `%s`: not a regular file", w->dir);
	assert_string_equal(run(w, "copy", w->dir, dst), want);
	free(want);
	assert_int_equal(access(dst, F_OK), -1);
	assert_string_equal(run(w, "copy", src, NULL), "expected copy SRC DST");
	free(src), free(dst);
}

static void hash_is_sha256(void **state)
{
	struct world *w = *state;
	char *src = in(w, "abc"), *out = in(w, "out"), line[256] = "", *want;
	FILE *f = fopen(src, "w");

	fputs("abc", f);
	fclose(f);
	assert_string_equal(run(w, "hash", out, src), "");
	f = fopen(out, "r");
	assert_non_null(fgets(line, sizeof(line), f));
	fclose(f);
	want = xasprintf("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  %s\n", src);
	assert_string_equal(line, want);
	free(src), free(out), free(want);
}

static void errors_come_back(void **state)
{
	struct world *w = *state;

	assert_string_equal(run(w, "say", "it", NULL), "two lines of it");
	assert_string_equal(run(w, "die", NULL, NULL), "helper `die` ended with signal 9 (Killed)");
	assert_string_equal(run(w, "nonsense", NULL, NULL),
		"helper `nonsense` ended with exit status 2: provium: --helper: no verb `nonsense`");
}

static void no_program_is_an_error(void **state)
{
	struct world *w = *state;
	const char *argv[] = { "copy", "a", "b", NULL };

	helper_set_program("/nowhere/provium");
	assert_null(helper_start(w->loop, argv, finished, w, &w->err));
	helper_set_program("/proc/self/exe");
	assert_int_equal(w->err.code, -ENOENT);
	assert_non_null(strstr(w->err.msg, "helper `copy`: "));
}

static void stop_loop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

static void cancelled_while_pending(void **state)
{
	struct world *w = *state;
	const char *argv[] = { "hang", NULL };
	struct helper *h = helper_start(w->loop, argv, finished, w, NULL);
	struct event *ev = NULL;

	assert_non_null(h);
	helper_cancel(h);
	timer_start(w->loop, &ev, 100000000, stop_loop, w->loop);
	loop_run(w->loop);
	timer_stop(&ev);
	assert_int_equal(w->calls, 0);
}

static void abandoned_files_leave_nothing(void **state)
{
	struct world *w = *state;
	char *path = in(w, "half");
	struct outfile *o = outfile_open(path, 0, NULL);

	assert_int_equal(outfile_write(o, "half", 4, NULL), 0);
	assert_int_equal(access(path, F_OK), -1);
	outfile_free(o);
	assert_int_equal(rmdir(w->dir), 0);
	assert_int_equal(mkdir(w->dir, 0700), 0);
	free(path);
}

static void full_disks_name_path_and_need(void **state)
{
	struct world *w = *state;
	char *path = in(w, "big"), *want = xasprintf("write `%s`: No space left on device: "
		"it needs 12582912 bytes (12 MiB), ", path);
	struct outfile *o = outfile_open(path, 12 * MIB, NULL);

	assert_int_equal(outfile_failed(o, ENOSPC, &w->err), -ENOSPC);
	assert_memory_equal(w->err.msg, want, strlen(want));
	outfile_free(o);
	free(path), free(want);
}

static void directories_are_made(void **state)
{
	struct world *w = *state;
	char *deep = in(w, "a/b/c"), *file = in(w, "f"), *below = in(w, "f/x");

	assert_int_equal(make_dirs(deep, 0755, NULL), 0);
	assert_int_equal(make_dirs(deep, 0755, NULL), 0);
	assert_int_equal(access(deep, F_OK), 0);
	close(open(file, O_CREAT | O_WRONLY, 0644));
	assert_true(make_dirs(file, 0755, NULL) < 0);
	assert_true(make_dirs(below, 0755, NULL) < 0);
	free(deep), free(file), free(below);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(copies_keep_content_and_holes, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_between_file_systems, setup, teardown),
		cmocka_unit_test_setup_teardown(copy_replaces_what_was_there, setup, teardown),
		cmocka_unit_test_setup_teardown(copy_says_what_is_wrong, setup, teardown),
		cmocka_unit_test_setup_teardown(hash_is_sha256, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(no_program_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_while_pending, setup, teardown),
		cmocka_unit_test_setup_teardown(abandoned_files_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(full_disks_name_path_and_need, setup, teardown),
		cmocka_unit_test_setup_teardown(directories_are_made, setup, teardown),
	};

	helper_register(test_verbs);
	if (argc > 1 && !strcmp(argv[1], "--helper"))
		return helper_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
