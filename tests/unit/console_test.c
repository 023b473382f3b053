/*
 * The console: one log of two ports, verdicts on the guest's fate, tails without control sequences.
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

#include "vmm/console.h"

static struct loop *loop;
static struct console *console;
static int serial, hvc;			/* the guest's ends */
static enum verdict verdict;
static char verdict_line[256];
static unsigned ended;
static size_t grew_from;

static void verdict_cb(void *arg, enum verdict v, const char *line)
{
	(void)arg;
	verdict = v;
	snprintf(verdict_line, sizeof(verdict_line), "%s", line);
}

static void grew_cb(struct console_listener *l, struct console *c, size_t from)
{
	(void)l, (void)c;
	grew_from = from;
}

static void ended_cb(struct console_listener *l, struct console *c)
{
	ended++;
	console_unlisten(c, l);
}

static struct console_listener listener = { .grew = grew_cb, .ended = ended_cb };

static int attach(enum console_port port)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	console_attach(console, port, sv[0]);
	return sv[1];
}

static int setup(void **state)
{
	(void)state;
	loop = loop_new();
	console = console_new(loop);
	serial = attach(CONSOLE_SERIAL);
	hvc = attach(CONSOLE_HVC);
	console_on_verdict(console, verdict_cb, NULL);
	verdict = VERDICT_NONE;
	ended = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	console_free(console);
	close(serial);
	close(hvc);
	loop_free(loop);
	return 0;
}

static void stop_cb(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

/* One turn of the loop with I/O in it. */
static void turn(void)
{
	for (int i = 0; i < 3; i++) {
		event_base_loop(loop_base(loop), EVLOOP_NONBLOCK);
		loop_defer(loop, stop_cb, NULL);
		loop_run(loop);
	}
}

static void say(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	turn();
}

static void both_ports_in_one_log(void **state)
{
	const char *log;
	size_t len;

	(void)state;
	console_listen(console, &listener);
	say(serial, "one\n");
	say(hvc, "two\n");
	log = console_log(console, &len);
	assert_int_equal(len, 8);
	assert_memory_equal(log, "one\ntwo\n", 8);
	assert_int_equal(grew_from, 4);
	console_detach(console);
	assert_int_equal(ended, 1);
}

static void detach_reads_what_is_left(void **state)
{
	size_t len;

	(void)state;
	assert_int_equal(write(serial, "last words\n", 11), 11);
	close(serial);
	console_detach(console);
	console_log(console, &len);
	assert_int_equal(len, 11);
	assert_int_equal(console_write(console, "x", 1), -ENOTCONN);
	serial = attach(CONSOLE_SERIAL);
	say(serial, "next boot\n");
	console_log(console, &len);
	assert_int_equal(len, 21);
}

static void input_goes_to_one_port(void **state)
{
	char buf[8];

	(void)state;
	assert_int_equal(console_write(console, "a", 1), 0);
	turn();
	assert_int_equal(read(serial, buf, sizeof(buf)), 1);
	console_set_input(console, CONSOLE_HVC);
	assert_int_equal(console_write(console, "b", 1), 0);
	turn();
	assert_int_equal(read(hvc, buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], 'b');
	assert_int_equal(recv(serial, buf, sizeof(buf), MSG_DONTWAIT), -1);
}

static void verdicts(void **state)
{
	static const struct { const char *text; enum verdict v; const char *line; } cases[] = {
		{ "[    1.234567] Kernel panic - not syncing: VFS: no root\r\n", VERDICT_PANIC,
			"Kernel panic - not syncing: VFS: no root" },
		{ "Kernel panic - not syncing: early\n", VERDICT_PANIC, "Kernel panic - not syncing: early" },
		{ "/ # [  123.456789][   T12] Kernel panic - not syncing: sysrq\n", VERDICT_PANIC,
			"Kernel panic - not syncing: sysrq" },
		{ "[   10.000001] reboot: Power down\n", VERDICT_POWERED_OFF, "reboot: Power down" },
		{ "[   10.000001] reboot: System halted\n", VERDICT_HALTED, "reboot: System halted" },
		{ "[    0.900000] Run /init as init process\n", VERDICT_INIT, "Run /init as init process" },
		{ "saw: Kernel panic - not syncing\n", VERDICT_NONE, NULL },
		{ "[test] Kernel panic - not syncing\n", VERDICT_NONE, NULL },
		{ "[    1.0] end Kernel panic - not syncing\n", VERDICT_NONE, NULL },
		{ "Kernel panic - not", VERDICT_NONE, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		verdict = VERDICT_NONE;
		/* In two pieces, with the other port talking in between. */
		assert_int_equal(write(serial, cases[i].text, 10), 10);
		turn();
		say(hvc, "noise ");
		say(serial, cases[i].text + 10);
		assert_int_equal(verdict, cases[i].v);
		if (cases[i].line)
			assert_string_equal(verdict_line, cases[i].line);
	}
}

static void long_lines_are_judged_by_their_start(void **state)
{
	char *text = xmalloc(100001);

	(void)state;
	memset(text, 'x', 100000);
	memcpy(text, "Kernel panic - not syncing: ", 28);
	text[99999] = '\n';
	text[100000] = 0;
	say(serial, text);
	free(text);
	turn();
	assert_int_equal(verdict, VERDICT_PANIC);
	assert_int_equal(strlen(verdict_line), 255);
}

static void tail_is_stripped_and_whole_lines(void **state)
{
	char *tail;

	(void)state;
	tail = console_tail(console, 100);
	assert_string_equal(tail, "");
	free(tail);
	say(serial, "first line\r\n\033[1;31mred\033[0m\033]0;title\a \033(Bplain\r\nlast");
	tail = console_tail(console, 1000);
	assert_string_equal(tail, "first line\nred plain\nlast");
	free(tail);
	tail = console_tail(console, 16);
	assert_string_equal(tail, "red plain\nlast");
	free(tail);
	tail = console_tail(console, 12);
	assert_string_equal(tail, "last");
	free(tail);
	tail = console_strip("a\033[12", 5);
	assert_string_equal(tail, "a");
	free(tail);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(both_ports_in_one_log, setup, teardown),
		cmocka_unit_test_setup_teardown(detach_reads_what_is_left, setup, teardown),
		cmocka_unit_test_setup_teardown(input_goes_to_one_port, setup, teardown),
		cmocka_unit_test_setup_teardown(verdicts, setup, teardown),
		cmocka_unit_test_setup_teardown(long_lines_are_judged_by_their_start, setup, teardown),
		cmocka_unit_test_setup_teardown(tail_is_stripped_and_whole_lines, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
