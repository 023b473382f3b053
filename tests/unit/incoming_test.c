/*
 * Loading a snapshot, against a fake QMP server: what is sent in which order, and every way in which it does not work.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_qmp.h"
#include "vmm/incoming.h"

#define QEMU_VERSION "{\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 1}, \"package\": \"test\"}"

static struct loop *loop;
static struct qmp *qmp;
static struct fake_qmp *server;
static struct image *image;
static struct incoming *incoming;
static char commands[512];
static const char *stop_at, *migration;	/* what becomes of it: the event's status */
static unsigned done;
static struct err result;
static struct event *guard;

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for 20 s after %s", commands);
}

static void watch_cb(void *arg, const char *command, const json_t *args)
{
	(void)arg;
	if (strcmp(command, "qmp_capabilities") == 0)
		return;
	snprintf(commands + strlen(commands), sizeof(commands) - strlen(commands), "%s ", command);
	if (strcmp(command, "migrate-incoming") == 0) {
		assert_string_equal(json_string_value(json_object_get(args, "uri")), "fd:9");
		if (migration) {
			char *text = xasprintf("{\"event\": \"MIGRATION\", \"data\": {\"status\": \"%s\"}, \"timestamp\": {}}\n",
				migration);

			fake_qmp_send(server, "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}, \"timestamp\": {}}\n");
			fake_qmp_send(server, text);
			free(text);
		}
	}
	if (stop_at && strcmp(command, stop_at) == 0)
		loop_stop(loop);
}

static void event_cb(void *arg, const char *name, const json_t *data)
{
	(void)arg;
	if (incoming)
		incoming_event(incoming, name, data);
}

static void qmp_broken_cb(void *arg, const struct err *e)
{
	(void)arg;
	qmp_fail(qmp, e);
}

static const struct qmp_events qmp_events = { .event = event_cb, .broken = qmp_broken_cb };

static int setup(void **state)
{
	int sv[2];

	(void)state;
	loop = loop_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	server = fake_qmp_new(loop, sv[1], true);
	fake_qmp_watch(server, watch_cb, NULL);
	fake_qmp_on(server, "query-version", QEMU_VERSION);
	qmp = qmp_new(loop, sv[0], &qmp_events, NULL);
	image = image_new();
	image->pub.dir = xstrdup("/tmp/x.snap");
	image->pub.qemu_version = xstrdup("7.2.1 (test)");
	commands[0] = 0;
	stop_at = NULL;
	migration = "completed";
	done = 0;
	guard = NULL;
	timer_start(loop, &guard, INT64_C(20000000000), guard_cb, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	timer_stop(&guard);
	incoming_free(incoming);
	incoming = NULL;
	qmp_free(qmp);
	fake_qmp_free(server);
	loop_free(loop);
	image_unref(image);
	err_release(&result);
	return 0;
}

static void done_cb(void *arg, const struct err *e)
{
	(void)arg;
	done++;
	if (e)
		err_copy(&result, e);
	loop_stop(loop);
}

static void start(bool hold)
{
	struct incoming_spec s = { .loop = loop, .qmp = qmp, .pid = getpid(), .ram_fd = 99, .state_fd = 9, .image = image,
		.hold = hold, .done = done_cb };

	incoming = incoming_start(&s);
}

static void expect_failure(int code, const char *text)
{
	loop_run(loop);
	assert_int_equal(done, 1);
	if (!strstr(result.msg, text))
		fail_msg("%s", result.msg);
	assert_int_equal(result.code, code);
}

static void one_that_ran_runs(void **state)
{
	(void)state;
	start(false);
	loop_run(loop);
	assert_int_equal(done, 1);
	assert_false(err_is_set(&result));
	assert_string_equal(commands, "query-version migrate-set-capabilities migrate-incoming cont ");
}

static void one_that_was_paused_or_is_held_stands_still(void **state)
{
	for (int i = 0; i < 2; i++) {
		image->paused = i == 0;
		start(i == 1);
		loop_run(loop);
		assert_int_equal(done, 1);
		assert_false(err_is_set(&result));
		assert_null(strstr(commands, "cont"));
		teardown(state);
		setup(state);
	}
}

static void another_version_is_refused(void **state)
{
	(void)state;
	fake_qmp_on(server, "query-version", "{\"qemu\": {\"major\": 8, \"minor\": 0, \"micro\": 0}, \"package\": \"\"}");
	start(false);
	expect_failure(-ESTALE, "snapshot `/tmp/x.snap`: it was made by QEMU 7.2.1 (test), this is 8.0.0");
	assert_null(strstr(commands, "migrate-incoming"));
}

static void changes_without_a_guest(void **state)
{
	(void)state;
	image->changes = 100;
	start(false);
	loop_run(loop);
	assert_int_equal(done, 1);
	assert_true(err_is_set(&result));
	assert_non_null(strstr(result.msg, "fd/99"));
	assert_null(strstr(commands, "migrate-incoming"));
}

static void every_command_may_fail(void **state)
{
	static const char *const all[] = { "query-version", "migrate-set-capabilities", "migrate-incoming", "cont" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		migration = i == 2 ? NULL : "completed";
		fake_qmp_on(server, all[i], "fail");
		start(false);
		loop_run(loop);
		assert_int_equal(done, 1);
		if (!strstr(result.msg, "no such device"))
			fail_msg("%s: %s", all[i], result.msg);
		teardown(state);
		setup(state);
	}
}

static void qemu_cannot_load_it(void **state)
{
	(void)state;
	migration = "failed";
	start(false);
	loop_run(loop);
	assert_int_equal(done, 1);
	assert_non_null(strstr(result.msg, "QEMU could not load it"));
	assert_null(strstr(commands, "cont"));
}

static void the_peer_dies_at_each_command(void **state)
{
	static const char *const all[] = { "query-version", "migrate-set-capabilities", "migrate-incoming", "cont" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		fake_qmp_on(server, all[i], "hold");
		migration = i == 2 ? NULL : "completed";
		stop_at = all[i];
		start(false);
		loop_run(loop);
		assert_int_equal(done, 0);
		fake_qmp_hang_up(server);
		loop_run(loop);
		assert_int_equal(done, 1);
		assert_true(err_is_set(&result));
		teardown(state);
		setup(state);
	}
}

static void silence_ends_it(void **state)
{
	(void)state;
	qmp_set_deadline(qmp, 50000000);
	fake_qmp_on(server, "migrate-incoming", "hold");
	migration = NULL;
	start(false);
	loop_run(loop);
	assert_int_equal(done, 1);
	assert_non_null(strstr(result.msg, "QMP silent"));
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	loop_stop(loop);
}

static void cancelled_while_pending(void **state)
{
	static const char *const all[] = { "query-version", "migrate-set-capabilities", "migrate-incoming", "cont" };
	struct event *timer = NULL;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		stop_at = all[i];
		start(false);
		loop_run(loop);
		incoming_free(incoming);	/* its answer is on its way */
		incoming = NULL;
		stop_at = NULL;
		timer_start(loop, &timer, 30000000, stop_cb, NULL);
		loop_run(loop);
		timer_stop(&timer);
		assert_int_equal(done, 0);
		teardown(state);
		setup(state);
	}
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(one_that_ran_runs), TEST(one_that_was_paused_or_is_held_stands_still), TEST(another_version_is_refused),
		TEST(changes_without_a_guest), TEST(every_command_may_fail), TEST(qemu_cannot_load_it),
		TEST(the_peer_dies_at_each_command), TEST(silence_ends_it), TEST(cancelled_while_pending),
	};

	helper_register(vmm_helper_verbs);
	if (argc > 1 && !strcmp(argv[1], "--helper"))
		return helper_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
