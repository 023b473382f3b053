/*
 * Saving a machine, against a fake QMP server and a process that stands for QEMU: what is written in which order, and
 * that nothing is left of a save that fails or is ended, wherever it is then.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_qmp.h"
#include "vmm/console.h"
#include "vmm/save.h"

#define RAM (1 << 20)
#define QEMU_VERSION "{\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 1}, \"package\": \"test\"}"

static char dir[] = "/tmp/provium-save-test-XXXXXX";
static struct loop *loop;
static struct qmp *qmp;
static struct fake_qmp *server;
static struct console *console;
static struct save *save;
static pid_t pid;
static char commands[512], *snap;
static const char *stop_at;		/* leave the loop at this command */
static bool done, failed;
static struct vm_saved saved;
static struct err result;
static struct event *guard;

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for 20 s after %s", commands);
}

/* Has guest memory as descriptor 3, as QEMU has. */
static void start_process(void)
{
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		int fd = memfd_create("ram", 0), out = fcntl(ready[1], F_DUPFD, 20);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (dup2(fd, 3) < 0 || ftruncate(3, RAM) < 0 || pwrite(3, "memory", 6, 4096) != 6 || write(out, "", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
}

static void watch_cb(void *arg, const char *command, const json_t *args)
{
	const char *path = json_string_value(json_object_get(args, "filename"));
	FILE *f;

	(void)arg;
	if (strcmp(command, "qmp_capabilities") == 0)
		return;
	snprintf(commands + strlen(commands), sizeof(commands) - strlen(commands), "%s ", command);
	if (path && (f = fopen(path, "w"))) {
		fputs("state", f);
		fclose(f);
	}
	if (stop_at && strcmp(command, stop_at) == 0)
		loop_stop(loop);
}

static void qmp_broken_cb(void *arg, const struct err *e)
{
	(void)arg;
	qmp_fail(qmp, e);
}

static const struct qmp_events qmp_events = { .broken = qmp_broken_cb };

static int setup(void **state)
{
	int sv[2];

	(void)state;
	if (dir[strlen(dir) - 1] == 'X')
		assert_non_null(mkdtemp(dir));
	start_process();	/* first: it would keep our sockets open */
	loop = loop_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	server = fake_qmp_new(loop, sv[1], true);
	fake_qmp_watch(server, watch_cb, NULL);
	fake_qmp_on(server, "query-version", QEMU_VERSION);
	qmp = qmp_new(loop, sv[0], &qmp_events, NULL);
	console = console_new(loop);
	console_restore(console, "hello from the guest\n", 21, 5);
	snap = xasprintf("%s/one.snap", dir);
	commands[0] = 0;
	stop_at = NULL;
	done = failed = false;
	guard = NULL;
	timer_start(loop, &guard, INT64_C(20000000000), guard_cb, NULL);
	return 0;
}

static void turn_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	loop_stop(loop);
}

/* Helpers that were ended are the loop's until they are reaped. */
static void reap_helpers(void)
{
	struct event *timer = NULL;
	siginfo_t info;

	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
		timer_start(loop, &timer, 1000000, turn_cb, NULL);
		loop_run(loop);
	}
	timer_stop(&timer);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	timer_stop(&guard);
	save_free(save);
	save = NULL;
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	reap_helpers();
	qmp_free(qmp);
	fake_qmp_free(server);
	console_free(console);
	loop_free(loop);
	err_release(&result);
	free(snap);
	snprintf(command, sizeof(command), "rm -rf %s/*", dir);
	return system(command);
}

static void done_cb(void *arg, const struct vm_saved *s, const struct err *e)
{
	(void)arg;
	done = true;
	failed = e != NULL;
	saved = *s;
	if (e)
		err_copy(&result, e);
	loop_stop(loop);
}

static struct image *make_image(void)
{
	struct image *i = image_new();

	i->id = xstrdup("0123");
	i->pub.vm_name = xstrdup("a");
	i->pub.profile = xstrdup("p");
	i->pub.qemu_version = xstrdup("");
	i->pub.machine = xstrdup("pc");
	i->pub.accel = xstrdup("tcg");
	i->pub.memory = RAM;
	i->pub.cpus = 1;
	i->arch = xstrdup(host_arch());
	i->cpu = xstrdup(host_cpu());
	i->agent_version = xstrdup("1");
	return i;
}

static void start(bool running, const struct qemu_disk *disks, size_t ndisks)
{
	struct save_spec s = { .loop = loop, .qmp = qmp, .pid = pid, .ram_fd = 3, .dir = snap,
		.image = make_image(), .disks = disks, .ndisks = ndisks, .console = console, .running = running, .done = done_cb };

	save = save_start(&s, &result);
}

static size_t entries(void)
{
	char command[128];
	unsigned n;
	FILE *f;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", dir);
	f = popen(command, "r");
	assert_int_equal(fscanf(f, "%u", &n), 1);
	pclose(f);
	return n;
}

static void expect_failure(const char *text)
{
	loop_run(loop);
	assert_true(done && failed);
	if (!strstr(result.msg, text))
		fail_msg("%s", result.msg);
	assert_int_equal(entries(), 0);
}

/* ---- the whole way ---- */

static void a_running_guest(void **state)
{
	struct vm_image *i;
	const char *log;
	size_t n;

	(void)state;
	start(true, NULL, 0);
	loop_run(loop);
	assert_true(done);
	if (failed)
		fail_msg("%s", result.msg);
	assert_string_equal(commands, "query-version stop xen-save-devices-state cont ");
	assert_true(saved.pause_ns > 0 && saved.bytes > 0);
	assert_int_equal(entries(), 1);
	i = vm_image_open(NULL, snap, &result);
	if (!i)
		fail_msg("%s", result.msg);
	assert_string_equal(i->qemu_version, "7.2.1 (test)");
	assert_int_equal(i->memory, RAM);
	assert_int_equal(image_of(i)->state, 5);
	assert_int_equal(image_of(i)->changes, 0);
	assert_int_equal(image_of(i)->consumed, 5);
	log = image_console(image_of(i), &n, &result);
	assert_int_equal(n, 21);
	assert_string_equal(log, "hello from the guest\n");
	free((char *)log);
	vm_image_free(i);
}

static void a_guest_that_stands_still(void **state)
{
	(void)state;
	start(false, NULL, 0);
	loop_run(loop);
	assert_true(done && !failed);
	assert_string_equal(commands, "query-version xen-save-devices-state ");
	assert_int_equal(saved.pause_ns, 0);
}

static void disks_that_can_be_written_are_copied(void **state)
{
	char *path = xasprintf("%s/x.img", dir), *copy = xasprintf("%s/disk-data", snap);
	struct qemu_disk disks[] = { { .id = "data", .path = path }, { .id = "fixed", .path = path, .readonly = true } };
	FILE *f = fopen(path, "w");
	struct vm_image *i;

	(void)state;
	fputs("content", f);
	fclose(f);
	start(true, disks, 2);
	loop_run(loop);
	assert_true(done && !failed);
	assert_int_equal(access(copy, R_OK), 0);
	i = vm_image_open(NULL, snap, &result);
	assert_non_null(i);
	assert_string_equal(image_of(i)->disks[0], "data");
	assert_null(image_of(i)->disks[1]);
	vm_image_free(i);
	assert_int_equal(unlink(copy), 0);
	assert_null(vm_image_open(NULL, snap, &result));
	assert_non_null(strstr(result.msg, "its file `disk-data`"));
	free(path);
	free(copy);
}

/* ---- what fails ---- */

static void every_command_may_fail(void **state)
{
	static const char *const all[] = { "query-version", "stop", "xen-save-devices-state", "cont" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		fake_qmp_on(server, all[i], "fail");
		start(true, NULL, 0);
		expect_failure("no such device");
		if (i == 2)
			assert_non_null(strstr(commands, "cont "));	/* it runs again */
		teardown(state);
		setup(state);
	}
}

static void a_disk_that_is_not_there(void **state)
{
	struct qemu_disk disk = { .id = "data", .path = "/nonexistent/x.img" };

	(void)state;
	start(true, &disk, 1);
	expect_failure("/nonexistent/x.img");
	assert_string_equal(commands, "query-version stop xen-save-devices-state cont ");
}

static void a_process_that_is_gone(void **state)
{
	(void)state;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	start(true, NULL, 0);
	expect_failure("cannot open `/proc/");
	pid = 0;
}

static void a_directory_that_is_there(void **state)
{
	(void)state;
	assert_int_equal(mkdir(snap, 0700), 0);
	start(true, NULL, 0);
	assert_null(save);
	assert_non_null(strstr(result.msg, "exists already"));
	assert_int_equal(entries(), 1);
}

/* ---- what is ended ---- */

static void the_peer_dies_at_each_command(void **state)
{
	static const char *const all[] = { "query-version", "stop", "xen-save-devices-state", "cont" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		fake_qmp_on(server, all[i], "hold");
		stop_at = all[i];
		start(true, NULL, 0);
		loop_run(loop);
		assert_false(done);
		fake_qmp_hang_up(server);
		expect_failure("QMP");
		teardown(state);
		setup(state);
	}
}

static void silence_ends_it(void **state)
{
	(void)state;
	qmp_set_deadline(qmp, 50000000);
	fake_qmp_on(server, "xen-save-devices-state", "hold");
	start(true, NULL, 0);
	expect_failure("QMP silent");
}

static void cancelled_while_pending(void **state)
{
	static const char *const all[] = { "query-version", "stop", "xen-save-devices-state", "cont" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		fake_qmp_on(server, all[i], "hold");
		stop_at = all[i];
		start(true, NULL, 0);
		loop_run(loop);
		save_free(save);
		save = NULL;
		assert_int_equal(entries(), 0);
		if (i == 1 || i == 2) {		/* it stood still because of us */
			stop_at = "cont";
			loop_run(loop);
			assert_non_null(strstr(commands, "cont "));
		}
		assert_false(done);
		teardown(state);
		setup(state);
	}
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(a_running_guest), TEST(a_guest_that_stands_still), TEST(disks_that_can_be_written_are_copied),
		TEST(every_command_may_fail), TEST(a_disk_that_is_not_there), TEST(a_process_that_is_gone),
		TEST(a_directory_that_is_there), TEST(the_peer_dies_at_each_command), TEST(silence_ends_it),
		TEST(cancelled_while_pending),
	};
	int r;

	helper_register(vmm_helper_verbs);
	if (argc > 1 && !strcmp(argv[1], "--helper"))
		return helper_main(argc, argv);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
