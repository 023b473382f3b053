/*
 * Children: results, captured streams, descriptors, groups, stopping, forgetting, leaks (src/loop/child.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/loop.h"

#define GUARD_NS INT64_C(30000000000)
#define MIB ((size_t)1 << 20)

/* One child and what came of it. */
struct run {
	struct loop *loop;
	struct child *child;
	bool done, free_in_done;
	unsigned times;
	struct child_result r;
	char *out, *err;
	size_t out_len, err_len;
};

static struct loop *loop;

static char *take(struct evbuffer *b, size_t *len)
{
	char *text;

	*len = b ? evbuffer_get_length(b) : 0;
	text = xcalloc(1, *len + 1);
	if (b)
		evbuffer_copyout(b, text, *len);
	return text;
}

static void done_cb(void *arg, const struct child_result *r)
{
	struct run *run = arg;

	run->times++;
	run->done = true;
	run->r = *r;
	run->out = take(r->out, &run->out_len);
	run->err = take(r->err, &run->err_len);
	if (run->free_in_done) {
		child_free(run->child);
		run->child = NULL;
	}
	loop_stop(run->loop);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	*(bool *)arg = true;
	loop_stop(loop);
}

static void run_loop(void)
{
	struct event *guard = NULL;
	bool fired = false;

	timer_start(loop, &guard, GUARD_NS, guard_cb, &fired);
	loop_run(loop);
	timer_stop(&guard);
	assert_false(fired);
}

static void run_loop_for(int64_t ns)
{
	struct event *timer = NULL;
	bool fired;

	timer_start(loop, &timer, ns, guard_cb, &fired);
	loop_run(loop);
	timer_stop(&timer);
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	return 0;
}

static int teardown(void **state)
{
	siginfo_t info;

	(void)state;
	/* Those that were forgotten are reaped in the background: no child, no zombie is left. */
	for (int i = 0; i < 500 && waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0; i++)
		run_loop_for(10000000);
	assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT), -1);
	assert_int_equal(errno, ECHILD);
	run_loop_for(1000000);
	loop_free(loop);
	return 0;
}

/* Starts `sh -c line`; base may be NULL. */
static void start(struct run *run, const char *line, const struct child_spec *base)
{
	const char *argv[] = { "sh", "-c", line, NULL };
	struct child_spec spec = base ? *base : (struct child_spec){ .capture_out = true, .capture_err = true };
	struct err e = ERR_INIT;

	memset(run, 0, sizeof(*run));
	run->loop = loop;
	spec.argv = argv;
	spec.done = done_cb;
	spec.arg = run;
	run->child = child_spawn(loop, &spec, &e);
	if (!run->child)
		fail_msg("%s", e.msg);
	assert_true(child_pid(run->child) > 0);
}

static void release(struct run *run)
{
	assert_int_equal(run->times, 1);
	child_free(run->child);
	free(run->out);
	free(run->err);
}

static void shell(struct run *run, const char *line, const struct child_spec *base)
{
	start(run, line, base);
	while (!run->done)
		run_loop();
}

static void expect(const char *line, const struct child_spec *base, const char *out)
{
	struct run run;

	shell(&run, line, base);
	assert_string_equal(run.out, out);
	assert_false(run.r.signalled);
	assert_int_equal(run.r.code, 0);
	release(&run);
}

/* Until the child has written something to stderr. */
static void await_stderr(struct run *run)
{
	for (int i = 0; i < 3000 && evbuffer_get_length(child_stderr(run->child)) == 0; i++)
		run_loop_for(10000000);
	assert_true(evbuffer_get_length(child_stderr(run->child)) > 0);
}

/* ---- results ---- */

static void test_exit_code(void **state)
{
	struct run run;
	char text[64];

	(void)state;
	shell(&run, "exit 7", NULL);
	assert_false(run.r.signalled);
	assert_int_equal(run.r.code, 7);
	assert_string_equal(child_result_text(&run.r, text, sizeof(text)), "exit status 7");
	release(&run);
	shell(&run, "exit 0", &(struct child_spec){ 0 });
	assert_int_equal(run.r.code, 0);
	assert_null(run.r.out);
	assert_null(run.r.err);
	release(&run);
}

static void test_signal(void **state)
{
	struct run run;
	char text[64];

	(void)state;
	shell(&run, "kill -9 $$", NULL);
	assert_true(run.r.signalled);
	assert_int_equal(run.r.code, 9);
	assert_string_equal(child_result_text(&run.r, text, sizeof(text)), "signal 9 (Killed)");
	release(&run);
	start(&run, "exec sleep 100", NULL);
	child_signal(run.child, SIGUSR1);
	run_loop();
	assert_true(run.r.signalled);
	assert_int_equal(run.r.code, SIGUSR1);
	child_signal(run.child, SIGUSR1);	/* it is gone: no effect */
	release(&run);
}

static void test_cannot_execute(void **state)
{
	struct err e = ERR_INIT;
	struct child_spec spec = { .capture_out = true };

	(void)state;
	spec.argv = (const char *const []){ "no-such-program-here", NULL };
	assert_null(child_spawn(loop, &spec, &e));
	assert_int_equal(e.code, -ENOENT);
	assert_string_equal(e.msg, "cannot execute `no-such-program-here`: No such file or directory");
	spec.argv = (const char *const []){ "/etc/passwd", NULL };
	assert_null(child_spawn(loop, &spec, &e));
	assert_int_equal(e.code, -EACCES);
	spec.argv = (const char *const []){ "sh", "-c", "true", NULL };
	spec.cwd = "/no/such/directory";
	assert_null(child_spawn(loop, &spec, &e));
	assert_int_equal(e.code, -ENOENT);
	spec.cwd = NULL;
	spec.fds = &(struct child_fd){ 9999, 5 };
	spec.nfds = 1;
	assert_null(child_spawn(loop, &spec, &e));
	assert_int_equal(e.code, -EBADF);
	assert_null(child_spawn(loop, &spec, NULL));
	err_release(&e);
}

/* ---- streams ---- */

static void test_large_output(void **state)
{
	struct run run;
	const struct child_spec spec = { .capture_out = true, .capture_err = true, .capture_max = 3 * MIB };

	(void)state;
	shell(&run, "head -c 2097152 /dev/zero | tr '\\0' a & head -c 2097152 /dev/zero | tr '\\0' b >&2; "
		"wait", &spec);
	assert_int_equal(run.out_len, 2 * MIB);
	assert_int_equal(run.err_len, 2 * MIB);
	assert_int_equal(strspn(run.out, "a"), 2 * MIB);
	assert_int_equal(strspn(run.err, "b"), 2 * MIB);
	release(&run);
}

/* The last bytes are those that are kept. */
static void test_capped_output(void **state)
{
	struct run run;
	const struct child_spec spec = { .capture_out = true, .capture_err = true, .capture_max = 1000 };

	(void)state;
	shell(&run, "head -c 2097152 /dev/zero | tr '\\0' a; printf end; echo short >&2", &spec);
	assert_int_equal(run.out_len, 1000);
	assert_string_equal(run.out + 997, "end");
	assert_string_equal(run.err, "short\n");
	release(&run);
	shell(&run, "head -c 2097152 /dev/zero; printf end", NULL);
	assert_int_equal(run.out_len, MIB);		/* the default */
	release(&run);
}

static void test_stderr_meanwhile(void **state)
{
	struct run run;
	size_t n;
	char *text;

	(void)state;
	start(&run, "echo early >&2; exec sleep 100", NULL);
	await_stderr(&run);
	text = take(child_stderr(run.child), &n);
	assert_string_equal(text, "early\n");
	free(text);
	child_signal(run.child, SIGKILL);
	run_loop();
	assert_string_equal(run.err, "early\n");
	release(&run);
}

static void test_stdin(void **state)
{
	struct child_spec spec = { .capture_out = true };
	int sv[2];

	(void)state;
	expect("cat; readlink /proc/self/fd/0", &spec, "/dev/null\n");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(write(sv[0], "to the child", 12), 12);
	shutdown(sv[0], SHUT_WR);
	spec.stdin_fd = sv[1];
	expect("cat", &spec, "to the child");
	assert_int_not_equal(fcntl(sv[1], F_GETFD), -1);	/* it stays ours */
	close(sv[0]);
	close(sv[1]);
}

/* Not captured, stdout goes where stderr goes. */
/* A pipe can be opened anew by its name, which a socket refuses. */
static void test_output_by_name(void **state)
{
	struct run run;

	(void)state;
	shell(&run, "echo one >/dev/stderr; echo two >/proc/self/fd/1; echo three >/dev/stderr",
		&(struct child_spec){ .capture_out = true, .capture_err = true });
	assert_int_equal(run.r.code, 0);
	assert_string_equal(run.err, "one\nthree\n");
	assert_string_equal(run.out, "two\n");
	release(&run);
}

static void test_stdout_to_stderr(void **state)
{
	struct run run;

	(void)state;
	shell(&run, "[ /proc/$$/fd/1 -ef /proc/$$/fd/2 ] || exit 3", &(struct child_spec){ 0 });
	assert_int_equal(run.r.code, 0);
	release(&run);
}

/* ---- its surroundings ---- */

static void test_cwd_and_environment(void **state)
{
	struct child_spec spec = { .capture_out = true, .cwd = "/usr" };

	(void)state;
	setenv("PROVIUM_TEST_INHERITED", "yes", 1);
	expect("pwd; echo $PROVIUM_TEST_INHERITED", &spec, "/usr\nyes\n");
	spec.envp = (const char *const []){ "ONLY=this", NULL };
	expect("echo $ONLY-$PROVIUM_TEST_INHERITED-", &spec, "this--\n");
	unsetenv("PROVIUM_TEST_INHERITED");
}

/* A file with these contents, at its start. */
static int file_with(const char *text)
{
	char path[] = "/tmp/provium-child-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	lseek(fd, 0, SEEK_SET);
	return fd;
}

/* Numbers that are swapped, the same one twice, and one that is its own target. */
static void test_descriptors(void **state)
{
	int a = file_with("a"), b = file_with("b"), c = file_with("c");
	struct child_fd swap[] = { { a, b }, { b, a }, { c, c } };
	struct child_fd low[] = { { a, 3 }, { b, 4 }, { c, 5 }, { a, 9 } };
	struct child_spec spec = { .capture_out = true, .fds = swap, .nfds = 3 };
	char line[128];

	(void)state;
	snprintf(line, sizeof(line), "cat /proc/self/fd/%d /proc/self/fd/%d /proc/self/fd/%d", a, b, c);
	expect(line, &spec, "bac");
	spec.fds = low;
	spec.nfds = 4;
	expect("cat /proc/self/fd/3 /proc/self/fd/4 /proc/self/fd/5 /proc/self/fd/9", &spec, "abca");
	/* Even 0 to 2. */
	spec.fds = &(struct child_fd){ b, 0 };
	spec.nfds = 1;
	expect("cat", &spec, "b");
	close(a);
	close(b);
	close(c);
}

/* Nothing else of ours is there, not even what is left open on exec. */
static void test_no_other_descriptor(void **state)
{
	int open_one = open("/dev/null", O_RDONLY), fd = file_with("x");
	struct child_spec spec = { .capture_out = true, .fds = &(struct child_fd){ fd, 7 }, .nfds = 1 };

	(void)state;
	assert_true(open_one >= 0);
	expect("cd /proc/self/fd; for f in *; do [ -e $f ] && echo $f; done", &spec, "0\n1\n2\n7\n");
	close(open_one);
	close(fd);
}

static void ignored(int sig)
{
	(void)sig;
}

/* Dispositions are the default ones, nothing is blocked. */
static void test_signals(void **state)
{
	struct child_spec spec = { .capture_out = true };
	sigset_t block, old;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR2, ignored);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &old);
	expect("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'", &spec,
		"SigBlk:0000000000000000SigIgn:0000000000000000");
	sigprocmask(SIG_SETMASK, &old, &block);
	assert_true(sigismember(&block, SIGUSR1));	/* ours is as it was */
	assert_false(sigismember(&block, SIGTERM));
	signal(SIGUSR2, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
}

/* Started with SIGCHLD ignored, as some tools do. */
static void test_sigchld_ignored(void **state)
{
	struct run run;

	(void)state;
	signal(SIGCHLD, SIG_IGN);
	shell(&run, "exit 3", NULL);
	assert_int_equal(run.r.code, 3);
	release(&run);
}

static void test_batch(void **state)
{
	(void)state;
	/* The policy is the 41st field, and the command's name has no space. */
	expect("cut -d' ' -f41 "
		"/proc/self/stat", &(struct child_spec){ .capture_out = true, .batch = true }, "3\n");
	expect("cut -d' ' -f41 /proc/self/stat", &(struct child_spec){ .capture_out = true }, "0\n");
}

/* ---- ends ---- */

static double seconds(int64_t start)
{
	return (double)(now_ns() - start) / 1e9;
}

static bool alive(pid_t pid)
{
	return kill(pid, 0) == 0;
}

/* A grandchild whose parent is gone is reaped by init, some time. */
static bool gone_soon(pid_t pid)
{
	char path[64], text[512] = "";
	FILE *f;

	for (int i = 0; i < 200 && alive(pid); i++) {
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		f = fopen(path, "r");
		if (!f || !fgets(text, sizeof(text), f) || strstr(text, ") Z ")) {
			if (f)
				fclose(f);
			return true;
		}
		fclose(f);
		run_loop_for(10000000);
	}
	return !alive(pid);
}

static void test_stop(void **state)
{
	struct run run;
	int64_t began = now_ns();

	(void)state;
	start(&run, "exec sleep 100", NULL);
	child_stop(run.child, GUARD_NS);
	run_loop();
	assert_int_equal(run.r.code, SIGTERM);
	child_stop(run.child, GUARD_NS);
	release(&run);
	start(&run, "trap '' TERM; echo ready >&2; while :; do sleep 100; done",
		&(struct child_spec){ .capture_err = true, .own_group = true });
	await_stderr(&run);
	child_stop(run.child, 200000000);
	run_loop();
	assert_int_equal(run.r.code, SIGKILL);
	assert_string_equal(run.err, "ready\n");
	release(&run);
	assert_true(seconds(began) < 20);
}

static void test_group(void **state)
{
	const struct child_spec spec = { .capture_err = true, .own_group = true };
	struct run run;
	pid_t grandchild;
	char *text;
	size_t n;

	(void)state;
	start(&run, "sleep 100 & echo $! >&2; wait", &spec);
	await_stderr(&run);
	child_signal(run.child, SIGKILL);
	run_loop();
	grandchild = atoi(run.err);
	assert_true(grandchild > 1);
	assert_true(gone_soon(grandchild));
	release(&run);

	/* Its leader is over, and the stream is held by one that it left behind. */
	start(&run, "sleep 100 & echo $! >&2", &spec);
	await_stderr(&run);
	run_loop_for(100000000);
	assert_false(run.done);
	child_stop(run.child, 200000000);
	run_loop();
	assert_int_equal(run.r.code, 0);
	assert_true(gone_soon(atoi(run.err)));
	release(&run);

	/* Forgotten then. */
	start(&run, "sleep 100 >/dev/null & echo $! >&2; exec sleep 100", &spec);
	await_stderr(&run);
	text = take(child_stderr(run.child), &n);
	child_free(run.child);
	assert_true(gone_soon(atoi(text)));
	free(text);
	assert_false(run.done);
}

/* done() comes even when someone who left the group holds the stream. */
static void test_stop_despite_escaped(void **state)
{
	struct run run;
	int64_t began = now_ns();

	(void)state;
	start(&run, "setsid sh -c 'echo $$ >&2; exec sleep 100' & exec sleep 100",
		&(struct child_spec){ .capture_err = true, .own_group = true });
	await_stderr(&run);
	child_stop(run.child, 200000000);
	run_loop();
	assert_true(run.r.signalled);
	assert_true(seconds(began) < 20);
	kill(atoi(run.err), SIGKILL);
	release(&run);
}

static void test_free_running(void **state)
{
	struct run run;
	pid_t pid;

	(void)state;
	child_free(NULL);
	start(&run, "trap '' TERM; while :; do :; done", NULL);
	pid = child_pid(run.child);
	child_free(run.child);
	while (alive(pid))
		run_loop_for(10000000);
	run_loop_for(10000000);
	assert_false(run.done);
	/* Stopped first, and over already but not told. */
	start(&run, "exec sleep 100", NULL);
	child_stop(run.child, 10000000);
	child_free(run.child);
	run_loop_for(100000000);
	assert_false(run.done);
	start(&run, "exit 1", NULL);
	usleep(50000);
	child_free(run.child);
	run_loop_for(50000000);
	assert_false(run.done);
	/* Reaped, with a stream still open. */
	start(&run, "sleep 0.3 & exit 1", NULL);
	run_loop_for(100000000);
	child_free(run.child);
	run_loop_for(50000000);
	assert_false(run.done);
}

/* The end of the loop waits for what was killed: nothing of ours is left then, not even to be reaped. */
static void test_free_before_the_end(void **state)
{
	struct loop *l = loop_new();
	const char *argv[] = { "/bin/sleep", "100", NULL };
	struct err e = ERR_INIT;
	struct child *c = child_spawn(l, &(struct child_spec){ .argv = argv }, &e);
	pid_t pid;

	(void)state;
	assert_non_null(c);
	pid = child_pid(c);
	child_free(c);
	loop_free(l);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

static void test_free_in_done(void **state)
{
	struct run run;

	(void)state;
	start(&run, "echo x", NULL);
	run.free_in_done = true;
	run_loop();
	assert_string_equal(run.out, "x\n");
	release(&run);
}

/* Killed with us, however we end. */
static void test_dies_with_us(void **state)
{
	int sv[2], n = 0;
	pid_t pid, grandchild = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	pid = fork();
	if (pid == 0) {
		struct loop *l = loop_new();
		const char *argv[] = { "sleep", "100", NULL };
		struct child_spec spec = { .argv = argv };
		struct child *c = child_spawn(l, &spec, NULL);

		grandchild = child_pid(c);
		n = (int)write(sv[1], &grandchild, sizeof(grandchild));
		kill(getpid(), SIGKILL);
		_exit(n);
	}
	assert_int_equal(read(sv[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(gone_soon(grandchild));
	close(sv[0]);
	close(sv[1]);
}

/* ---- leaks ---- */

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_no_descriptor_leak(void **state)
{
	struct child_spec bad = { .argv = (const char *const []){ "no-such-program-here", NULL },
		.capture_out = true, .capture_err = true };
	unsigned before;
	struct run run;

	(void)state;
	shell(&run, "true", NULL);
	release(&run);
	run_loop_for(10000000);
	before = open_descriptors();
	for (int i = 0; i < 200; i++) {
		if (i % 4 == 3) {
			start(&run, "exec sleep 100", NULL);
			child_free(run.child);
			assert_null(child_spawn(loop, &bad, NULL));
		} else {
			shell(&run, "echo out; echo err >&2", NULL);
			release(&run);
		}
	}
	for (int i = 0; i < 500 && open_descriptors() > before; i++)
		run_loop_for(10000000);
	assert_int_equal(open_descriptors(), before);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_exit_code),
		T(test_signal),
		T(test_cannot_execute),
		T(test_large_output),
		T(test_capped_output),
		T(test_stderr_meanwhile),
		T(test_stdin),
		T(test_output_by_name),
		T(test_stdout_to_stderr),
		T(test_cwd_and_environment),
		T(test_descriptors),
		T(test_no_other_descriptor),
		T(test_signals),
		T(test_sigchld_ignored),
		T(test_batch),
		T(test_stop),
		T(test_group),
		T(test_stop_despite_escaped),
		T(test_free_running),
		T(test_free_before_the_end),
		T(test_free_in_done),
		T(test_dies_with_us),
		T(test_no_descriptor_leak),
	};

	return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
