/*
 * The QMP client against a fake server: many commands in flight, events, deadlines, garbage, ends.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_qmp.h"
#include "vmm/qmp.h"

static struct loop *loop;
static struct qmp *qmp;
static struct fake_qmp *server;
static unsigned ready, events, answers, stop_after;
static json_int_t event_n;
static char broken[256], last[256], order[16];
static struct event *guard;

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for 10 s");
}

static void stop_if_enough(void)
{
	if (answers >= stop_after)
		loop_stop(loop);
}

static void ready_cb(void *arg)
{
	(void)arg;
	ready++;
}

static void event_cb(void *arg, const char *name, const json_t *data)
{
	(void)arg;
	assert_string_equal(name, "TEST");
	event_n = json_integer_value(json_object_get(data, "n"));
	events++;
}

static void broken_cb(void *arg, const struct err *e)
{
	(void)arg;
	snprintf(broken, sizeof(broken), "%s", e->msg);
	loop_stop(loop);
}

static const struct qmp_events qmp_events = { .ready = ready_cb, .event = event_cb, .broken = broken_cb };

/* arg is the mark that the answer leaves in order[]. */
static void answer_cb(void *arg, const json_t *result, const struct err *e)
{
	char *text = e ? NULL : json_dumps(result, JSON_ENCODE_ANY | JSON_COMPACT);

	assert_true(!e != !result);
	snprintf(last, sizeof(last), "%s", e ? e->msg : text);
	free(text);
	strncat(order, arg, sizeof(order) - strlen(order) - 1);
	answers++;
	stop_if_enough();
}

static void open_qmp(bool greet)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	loop = loop_new();
	server = fake_qmp_new(loop, sv[1], greet);
	qmp = qmp_new(loop, sv[0], &qmp_events, NULL);
	ready = events = answers = 0;
	stop_after = 1;
	broken[0] = last[0] = order[0] = 0;
	timer_start(loop, &guard, INT64_C(10000000000), guard_cb, NULL);
}

static int setup(void **state)
{
	(void)state;
	open_qmp(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	timer_stop(&guard);
	qmp_free(qmp);
	fake_qmp_free(server);
	loop_free(loop);
	return 0;
}

static struct qmp_call *say(const char *command, const char *mark)
{
	return qmp_execute(qmp, command, NULL, answer_cb, (void *)mark);
}

static void run_until(unsigned n)
{
	stop_after = n;
	loop_run(loop);
}

static void answers_with_arguments(void **state)
{
	(void)state;
	qmp_execute(qmp, "echo", json_pack("{s:i}", "x", 1), answer_cb, (void *)"a");
	run_until(1);
	assert_int_equal(ready, 1);
	assert_string_equal(last, "{\"x\":1}");
}

static void answers_come_in_any_order(void **state)
{
	(void)state;
	say("hold", "h");
	say("echo", "e");
	say("release", "r");
	run_until(3);
	assert_string_equal(order, "erh");
	assert_string_equal(last, "\"held\"");
}

static void errors_name_the_command(void **state)
{
	(void)state;
	say("fail", "f");
	run_until(1);
	assert_string_equal(last, "QMP `fail`: no such device");
	assert_string_equal(broken, "");
}

static void events_are_told(void **state)
{
	(void)state;
	say("event", "e");
	run_until(1);
	assert_int_equal(events, 1);
	assert_int_equal(event_n, 7);
}

static void cancelled_calls_are_silent(void **state)
{
	struct qmp_call *held;

	(void)state;
	held = say("hold", "h");
	qmp_cancel(held);
	say("release", "r");
	say("echo", "e");
	run_until(2);
	assert_string_equal(order, "re");
	assert_int_equal(fake_qmp_commands(server), 4);
}

static void silence_is_the_end(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	qmp_set_deadline(qmp, 50000000);
	say("hold", "h");
	loop_run(loop);
	assert_string_equal(broken, "QMP silent for 0 s while executing `hold`");
	assert_int_equal(answers, 0);
	/* The owner ends what is pending, with what it knows; later calls fail as well. */
	err_set(&e, ECONNRESET, "QEMU died");
	qmp_fail(qmp, &e);
	err_release(&e);
	assert_int_equal(answers, 0);
	run_until(1);
	assert_string_equal(last, "QEMU died");
	say("echo", "l");
	assert_int_equal(answers, 1);
	run_until(2);
	assert_string_equal(order, "hl");
	assert_string_equal(last, "QEMU died");
}

static void the_deadline_is_30_seconds(void **state)
{
	(void)state;
	assert_int_equal(QMP_DEADLINE_NS, INT64_C(30000000000));
}

static void garbage_breaks(void **state)
{
	(void)state;
	say("garbage", "g");
	loop_run(loop);
	assert_non_null(strstr(broken, "QMP broken: not a JSON object"));
	assert_non_null(strstr(broken, "what?"));
}

static void other_json_breaks(void **state)
{
	(void)state;
	fake_qmp_send(server, "[1, 2]\n");
	loop_run(loop);
	assert_non_null(strstr(broken, "another type"));
}

static void strange_objects_break(void **state)
{
	(void)state;
	fake_qmp_send(server, "{\"id\": 1}\n");
	loop_run(loop);
	assert_non_null(strstr(broken, "neither event nor reply"));
}

static void lines_are_bounded(void **state)
{
	size_t piece = 1 << 20;
	char *text = xmalloc(piece + 1);

	(void)state;
	memset(text, 'x', piece);
	text[piece] = 0;
	for (size_t n = 0; n <= QMP_LINE_MAX; n += piece)
		fake_qmp_send(server, text);
	free(text);
	loop_run(loop);
	assert_non_null(strstr(broken, "a line longer than 16777216 bytes"));
}

static void closing_is_told(void **state)
{
	(void)state;
	say("hang-up", "h");
	loop_run(loop);
	assert_string_equal(broken, "QMP connection closed by QEMU");
}

static void a_greeting_is_needed(void **state)
{
	(void)state;
	open_qmp(false);
	fake_qmp_send(server, "{\"hello\": 1}\n");
	loop_run(loop);
	assert_string_equal(broken, "QMP broken: no greeting");
}

static void drain_reads_the_last_events(void **state)
{
	int sv[2];
	const char *text = "{\"QMP\": {}}\r\n{\"event\": \"TEST\", \"data\": {\"n\": 9}}\r\n";
	struct qmp *q;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	q = qmp_new(loop, sv[0], &qmp_events, NULL);
	assert_int_equal(write(sv[1], text, strlen(text)), (ssize_t)strlen(text));
	close(sv[1]);
	qmp_drain(q);
	assert_int_equal(events, 1);
	assert_int_equal(event_n, 9);
	qmp_free(q);
}

/* What the other end has got so far, and how many descriptors with it. */
static size_t take(int fd, char *buf, size_t size, unsigned *fds)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(8 * sizeof(int))]; } control;
	struct iovec iov = { buf, size - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *h;
	ssize_t n;
	int got;

	for (unsigned i = 0; i < 5; i++)
		event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
	n = recvmsg(fd, &m, MSG_DONTWAIT);
	buf[n > 0 ? n : 0] = 0;
	h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	*fds = 0;
	if (h) {
		assert_int_equal(h->cmsg_len, CMSG_LEN(sizeof(int)));
		memcpy(&got, CMSG_DATA(h), sizeof(int));
		close(got);
		*fds = 1;
	}
	return n > 0 ? (size_t)n : 0;
}

/* QEMU forgets the descriptors of a message when the next one brings some. */
static void descriptors_go_one_at_a_time(void **state)
{
	const char *greeting = "{\"QMP\": {}}\r\n", *one = "{\"return\": {}, \"id\": 1}\r\n",
		*two = "{\"return\": {}, \"id\": 2}\r\n";
	char buf[512];
	unsigned fds;
	struct qmp *q;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	q = qmp_new(loop, sv[0], &qmp_events, NULL);
	qmp_execute_fd(q, "getfd", json_pack("{s:s}", "fdname", "a"), 0, answer_cb, (void *)"a");
	qmp_execute_fd(q, "getfd", json_pack("{s:s}", "fdname", "b"), 0, answer_cb, (void *)"b");
	assert_int_equal(take(sv[1], buf, sizeof(buf), &fds), 0);
	assert_true(write(sv[1], greeting, strlen(greeting)) > 0);
	assert_true(take(sv[1], buf, sizeof(buf), &fds) > 0);
	assert_non_null(strstr(buf, "qmp_capabilities"));
	assert_int_equal(fds, 0);
	assert_true(write(sv[1], "{\"return\": {}, \"id\": 3}\r\n", 25) > 0);
	assert_true(take(sv[1], buf, sizeof(buf), &fds) > 0);
	assert_string_equal(buf, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"a\"},\"id\":1}\n");
	assert_int_equal(fds, 1);
	assert_int_equal(take(sv[1], buf, sizeof(buf), &fds), 0);
	assert_true(write(sv[1], one, strlen(one)) > 0);
	assert_true(take(sv[1], buf, sizeof(buf), &fds) > 0);
	assert_non_null(strstr(buf, "\"b\""));
	assert_int_equal(fds, 1);
	assert_true(write(sv[1], two, strlen(two)) > 0);
	take(sv[1], buf, sizeof(buf), &fds);
	assert_string_equal(order, "ab");
	qmp_free(q);
	close(sv[1]);
}

static void freed_while_pending(void **state)
{
	(void)state;
	say("hold", "h");
	qmp_free(qmp);
	run_until(1);
	assert_string_equal(last, "the QMP connection was closed");
	qmp = NULL;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_with_arguments), TEST(answers_come_in_any_order), TEST(errors_name_the_command),
		TEST(events_are_told), TEST(cancelled_calls_are_silent), TEST(silence_is_the_end),
		TEST(the_deadline_is_30_seconds), TEST(garbage_breaks), TEST(other_json_breaks),
		TEST(strange_objects_break), TEST(lines_are_bounded), TEST(closing_is_told),
		cmocka_unit_test_teardown(a_greeting_is_needed, teardown),
		TEST(drain_reads_the_last_events), TEST(descriptors_go_one_at_a_time), TEST(freed_while_pending),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
