/*
 * The VM state machine against a fake QEMU: this program, executed anew, speaking QMP, console and agent
 * port on the inherited descriptors. Each end of a guest has its own error, state and reason.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/rundir.h"
#include "vmm/vmm.h"

/* ---- the fake QEMU ---- */

enum { FD_QMP = 4, FD_SERIAL, FD_HVC, FD_AGENT };

static void say(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		_exit(9);
}

/* Answers every QMP command with an empty object until `quit` or EOF; the handshake had id 1. */
static void serve_qmp(void)
{
	char buf[4096], reply[64];
	ssize_t n;
	int id = 1;

	while ((n = read(FD_QMP, buf, sizeof(buf) - 1)) > 0) {
		buf[n] = 0;
		for (char *p = buf; (p = strchr(p, '\n')); p++) {
			snprintf(reply, sizeof(reply), "{\"return\": {}, \"id\": %d}\n", ++id);
			say(FD_QMP, reply);
		}
		if (strstr(buf, "\"quit\"")) {
			say(FD_QMP, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, "
				"\"reason\": \"host-qmp-quit\"}}\n");
			_exit(0);
		}
	}
}

static void negotiate(void)
{
	char buf[4096];

	say(FD_QMP, "{\"QMP\": {}}\n");
	if (read(FD_QMP, buf, sizeof(buf)) <= 0)
		_exit(9);
	say(FD_QMP, "{\"return\": {}, \"id\": 1}\n");
}

static void open_agent_port(void)
{
	char sync[32];

	say(FD_QMP, "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"open\": true, \"id\": \"agent\"}}\n");
	if (read(FD_AGENT, sync, sizeof(sync)) != sizeof(sync) || write(FD_AGENT, sync, sizeof(sync)) < 0)
		_exit(9);
}

static int fake_qemu(const char *what)
{
	if (strcmp(what, "exits") == 0) {
		say(2, "fake: cannot do it\n");
		return 3;
	}
	negotiate();
	say(FD_SERIAL, "\033[1mhello\033[0m from the guest\r\n");
	if (strcmp(what, "panics") == 0)
		say(FD_HVC, "[    1.000000] Kernel panic - not syncing: test\n[    1.1] the trace\n");
	else if (strcmp(what, "pvpanics") == 0)
		say(FD_QMP, "{\"event\": \"GUEST_PANICKED\", \"data\": {}}\n");
	else if (strcmp(what, "halts") == 0)
		say(FD_SERIAL, "[    1.000000] reboot: System halted\n");
	else if (strcmp(what, "powers off") == 0) {
		say(FD_QMP, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": "
			"\"guest-shutdown\"}}\n");
		return 0;
	} else if (strcmp(what, "spins off") == 0)
		say(FD_SERIAL, "reboot: Power down\n");
	else if (strcmp(what, "reboots") == 0)
		for (int i = 0; i < 3; i++)
			say(FD_QMP, "{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n");
	else if (strcmp(what, "lies") == 0) {
		open_agent_port();
		say(FD_AGENT, "\x7f\xff\xff\xff garbage");
	} else if (strcmp(what, "stutters") == 0) {
		open_agent_port();
	} else if (strcmp(what, "babbles") == 0)
		say(FD_QMP, "what?\n");
	serve_qmp();
	return 0;
}

/* ---- the test ---- */

static struct loop *loop;
static struct vmm *vmm;
static struct vm *vm;
static struct profile profile;
static struct vm_options options;
static char base[] = "/tmp/provium-vm-test-XXXXXX", exe[4096];
static struct err result;		/* of the last operation waited for */
static unsigned waiting;
static char states[256];
static struct event *guard;

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for 20 s");
}

static void changed(struct vm_listener *l, struct vm *v, enum vm_state from, enum vm_state to)
{
	(void)l, (void)v, (void)from;
	snprintf(states + strlen(states), sizeof(states) - strlen(states), " %s", vm_state_name(to));
}

static struct vm_listener listener = { .changed = changed };

static int setup(void **state)
{
	struct vmm_config c = { .kind = VMM_QEMU, .accel = ACCEL_TCG, .qemu = exe, .cache_dir = base };

	(void)state;
	loop = loop_new();
	vmm = vmm_new(loop, &c, NULL);
	assert_non_null(vmm);
	profile = (struct profile){
		.name = (char *)"p", .kernel = exe, .cmdline = (char *)"quiet", .arch = (char *)"x86_64",
		.memory = 32 << 20, .cpus = 1,
	};
	options = (struct vm_options){ .agent_timeout = INT64_C(10000000000) };
	vm = vm_new(vmm, "a", &profile);
	vm_listen(vm, &listener);
	states[0] = 0;
	waiting = 0;
	timer_start(loop, &guard, INT64_C(20000000000), guard_cb, NULL);
	return 0;
}

static void stop_cb(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void done_cb(void *arg, const struct err *e)
{
	(void)arg;
	err_release(&result);
	if (e)
		err_copy(&result, e);
	if (--waiting == 0)
		loop_stop(loop);
}

static void wait_for(void (*op)(struct vm *v, vm_done_fn *cb, void *arg))
{
	waiting++;
	op(vm, done_cb, NULL);
	loop_run(loop);
}

static int teardown(void **state)
{
	(void)state;
	wait_for(vm_kill);	/* reaped before the loop ends */
	timer_stop(&guard);
	vm_free(vm);
	loop_defer(loop, stop_cb, NULL);
	loop_run(loop);
	vmm_free(vmm);
	loop_free(loop);
	err_release(&result);
	return 0;
}

static void boot_as(const char *what)
{
	setenv("FAKE_QEMU", what, 1);
	waiting++;
	vm_boot(vm, &options, done_cb, NULL);
	assert_int_equal(waiting, 1);
	loop_run(loop);
}

static void assert_failed(const char *text, enum vm_state now)
{
	assert_true(err_is_set(&result));
	if (!strstr(result.msg, text))
		fail_msg("\"%s\" has no \"%s\"", result.msg, text);
	assert_int_equal(vm_state(vm), now);
}

static void booted(void **state)
{
	const char *const *argv;

	(void)state;
	options.expect = (char *)"from the guest";
	boot_as("lives");
	assert_false(err_is_set(&result));
	assert_int_equal(vm_state(vm), VM_BOOTED);
	assert_true(vm_pid(vm) > 0);
	assert_null(vm_agent(vm));
	assert_true(vm_booted_ns(vm) > 0);
	argv = vm_qemu_argv(vm);
	assert_string_equal(argv[1], "-name");
	wait_for(vm_pause);
	assert_false(err_is_set(&result));
	wait_for(vm_pause);
	assert_int_equal(vm_state(vm), VM_PAUSED);
	wait_for(vm_resume);
	assert_int_equal(vm_state(vm), VM_BOOTED);
	boot_as("lives");
	assert_failed("VM is booted already", VM_BOOTED);
	waiting++;
	vm_shutdown(vm, INT64_C(5000000000), done_cb, NULL);
	loop_run(loop);
	assert_false(err_is_set(&result));
	assert_string_equal(vm_reason(vm),
		"QEMU was told to quit\nconsole (last 4 KiB):\nhello from the guest\n");
	assert_int_equal(vm_pid(vm), 0);
	wait_for(vm_pause);
	assert_failed("VM not booted (cannot pause)", VM_SHUTDOWN);
	boot_as("lives");
	assert_false(err_is_set(&result));
	assert_string_equal(vm_reason(vm), "");
	wait_for(vm_kill);
	assert_string_equal(states, " created booted paused booted shutdown created booted dead");
}

static void qemu_exits(void **state)
{
	(void)state;
	boot_as("exits");
	assert_failed("failed while starting QEMU: QEMU exited: exit status 3: fake: cannot do it", VM_DEAD);
}

static void no_qemu(void **state)
{
	(void)state;
	vm_free(vm);
	vmm_free(vmm);
	vmm = vmm_new(loop, &(struct vmm_config){ .qemu = "/nonexistent/qemu", .accel = ACCEL_TCG }, NULL);
	vm = vm_new(vmm, "a", &profile);
	boot_as("lives");
	assert_failed("cannot execute `/nonexistent/qemu`: No such file", VM_DEAD);
	assert_non_null(strstr(result.msg, "PROVIUM_QEMU"));
}

static void no_kernel(void **state)
{
	(void)state;
	profile.kernel = (char *)"/nonexistent/vmlinuz";
	boot_as("lives");
	assert_failed("profile `p`: cannot read the kernel `/nonexistent/vmlinuz`: No such file", VM_DEAD);
	profile.kernel = NULL;
	boot_as("lives");
	assert_failed("profile `p` has no kernel", VM_DEAD);
}

static void no_disk(void **state)
{
	struct disk_spec disk = { .path = (char *)"/nonexistent/disk" };

	(void)state;
	options.disks = &disk;
	options.ndisks = 1;
	boot_as("lives");
	assert_failed("disk `disk0`: cannot open `/nonexistent/disk` for writing", VM_DEAD);
}

static void guest_panics(void **state)
{
	(void)state;
	boot_as("panics");
	assert_failed("failed while booting the guest kernel: "
		"guest panicked: Kernel panic - not syncing: test\n", VM_DEAD);
	assert_non_null(strstr(result.msg, "hello from the guest\n"));
	assert_non_null(strstr(result.msg, "the trace"));
	boot_as("pvpanics");
	assert_failed("guest panicked (told by pvpanic)", VM_DEAD);
}

static void guest_ends(void **state)
{
	(void)state;
	boot_as("halts");
	assert_failed("guest halted", VM_DEAD);
	boot_as("powers off");
	assert_failed("guest powered off", VM_DEAD);
	boot_as("spins off");
	assert_failed("guest powered off", VM_DEAD);
	boot_as("reboots");
	assert_failed("guest rebooted 3 times before its agent answered", VM_DEAD);
}

static void booted_guest_dies(void **state)
{
	(void)state;
	options.expect = (char *)"guest";
	boot_as("lives");
	kill(vm_pid(vm), SIGKILL);
	wait_for(vm_pause);
	assert_failed("QEMU died: signal 9 (Killed)\nconsole (last 4 KiB):\nhello", VM_DEAD);
}

static void hostile_agent(void **state)
{
	(void)state;
	boot_as("lies");
	assert_failed("failed while shaking hands with the agent: the guest's agent broke the protocol",
		VM_DEAD);
	boot_as("babbles");
	assert_failed("QMP broken: not a JSON object", VM_DEAD);
}

static void silence(void **state)
{
	(void)state;
	options.agent_timeout = 300000000;
	boot_as("lives");
	assert_failed("agent silent for 0.3 s: it never opened its connection", VM_BOOTED);
	assert_null(vm_agent(vm));
	wait_for(vm_kill);
	assert_int_equal(vm_state(vm), VM_DEAD);
	boot_as("stutters");
	assert_failed("it opened its connection but did not answer", VM_BOOTED);
	wait_for(vm_kill);
	options.expect = (char *)"never";
	boot_as("lives");
	assert_failed("`never` not seen for 0.3 s", VM_BOOTED);
}

static void cancelled_boot(void **state)
{
	(void)state;
	setenv("FAKE_QEMU", "lives", 1);
	for (int turns = 0; turns < 2; turns++) {
		waiting = 2;
		vm_boot(vm, &options, done_cb, NULL);
		vm_kill(vm, done_cb, NULL);
		loop_run(loop);
		assert_int_equal(vm_state(vm), VM_DEAD);
	}
	/* Forgotten: neither is called. */
	vm_boot(vm, &options, done_cb, vm);
	vm_kill(vm, done_cb, vm);
	vm_forget(vm, done_cb, vm);
	wait_for(vm_kill);
	assert_int_equal(waiting, 0);
}

static void shutdown_of_nothing(void **state)
{
	(void)state;
	wait_for(vm_kill);
	assert_false(err_is_set(&result));
	assert_int_equal(vm_state(vm), VM_SHUTDOWN);
	wait_for(vm_kill);
	assert_false(err_is_set(&result));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(booted), TEST(qemu_exits), TEST(no_qemu), TEST(no_kernel), TEST(no_disk),
		TEST(guest_panics), TEST(guest_ends), TEST(booted_guest_dies), TEST(hostile_agent),
		TEST(silence), TEST(cancelled_boot), TEST(shutdown_of_nothing),
	};
	const char *what = getenv("FAKE_QEMU");
	int r;

	if (what)
		return fake_qemu(what);
	signal(SIGPIPE, SIG_IGN);	/* as main does: a guest may die while we write to it */
	if (!mkdtemp(base) || readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return 99;
	setenv("TMPDIR", base, 1);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rundir_remove(base);
	return r;
}
