/*
 * The real guest agent (agent/), built for this host and started on a socketpair: connection, programs,
 * workers.
 * agentfiles_test.c goes on with files, system calls and the rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "agent/wire.h"
#include "agent_rig.h"

#define expect agent_rig_expect
#define call agent_rig_call

static int setup(void **state)
{
	*state = agent_rig_new(NULL);
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(agent_rig_free(*state), 0);
	return 0;
}

/* ---- connection ---- */

static const char *hello(struct agent_rig *a, const char *params)
{
	return agent_rig_answer(a, agent_rig_request(a, WIRE_MUX, "hello", params));
}

static void test_hello(void **state)
{
	struct agent_rig *a = *state;

	expect(hello(a, "{'protocol_version':1,'nonce':'abc'}"),
		"ok {protocol_version:1,agent_version:'*',kernel:'*',arch:'*',features:('exec'*),boot_id:'*',"
		"nonce:b\"abc\"}");
}

static void test_version_mismatch_names_both(void **state)
{
	struct agent_rig *a = *state;

	expect(hello(a, "{'protocol_version':7,'nonce':'abc'}"),
		"error {kind:'unsupported',message:'*protocol version 7*speaks 1*'}");
	expect(hello(a, "{'nonce':'abc'}"),
		"error {kind:'bad_request',message:'`protocol_version` is missing'}");
}

static void test_garbage_is_explained_and_forgotten_at_sync(void **state)
{
	static const char *const garbage[] = {
		"\x7f\xff\xff\xff", "\x00\x00\x00\x00", "\x00\x00\x00\x01\xc1", "\x00\x00\x00\x02\x91\xc0",
		"\x00\x00\x00\x05\x94\x09\x01\x01\xc0",
	};
	static const size_t lengths[] = {4, 4, 5, 6, 9};
	struct agent_rig *a = *state;

	for (unsigned i = 0; i < 5; i++) {
		agent_rig_raw(a, garbage[i], lengths[i]);
		expect(agent_rig_next(a), "(2,0,0,{kind:'bad_request',message:'*no frame*'})");
		agent_rig_sync(a);
		expect(call(a, "stat", "{'path':'/'}"), "ok {size:*");
		agent_rig_sync_after(a, garbage[i], lengths[i]);
		expect(call(a, "stat", "{'path':'/'}"), "ok {size:*");
	}
}

static void test_sync_within_a_frame(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id;

	agent_rig_raw(a, "\x00\x00\x10\x00\x94\x00", 6);
	usleep(50000);		/* the mark must come in a read of its own */
	agent_rig_sync(a);
	id = agent_rig_request(a, WIRE_MAIN, "exec", "{'argv':['sleep','1000']}");
	agent_rig_sync(a);	/* forgets that request */
	expect(call(a, "stat", "{'path':'/nonexistent'}"),
		"error {errno:2,message:'No such file or directory'}");
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, id, "null");
	expect(call(a, "stat", "{'path':'/'}"), "ok {*");
}

static void test_spawned_processes_outlive_sync(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "spawn", "{'argv':['cat']}"), "ok {handle:1,pid:*}");
	expect(call(a, "open", "{'path':'/dev/null','read':true}"), "ok {handle:2,fd:*}");
	agent_rig_sync(a);
	expect(call(a, "status", "{'handle':1}"), "ok {running:true}");
	expect(call(a, "close", "{'handle':2}"), "ok {}");
	expect(call(a, "stdin", "{'handle':1,'data':'','eof':true}"), "ok {written:0}");
	expect(call(a, "wait", "{'handle':1}"), "ok {status:'exited',code:0,signal:0,duration:*}");
}

static void test_their_output_is_had_again(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id;

	expect(call(a, "spawn", "{'argv':['cat']}"), "ok {handle:1,pid:*}");
	expect(call(a, "attach", "{'handle':1}"), "error {errno:16,*");
	agent_rig_sync(a);
	id = agent_rig_request(a, WIRE_MAIN, "attach", "{'handle':1}");
	expect(agent_rig_answer(a, id), "ok {}");
	expect(call(a, "stdin", "{'handle':1,'data':'line'}"), "ok {written:4}");
	assert_true(agent_rig_more(a, id, 1));
	assert_string_equal(a->out[1].data, "line");
	expect(call(a, "stdin", "{'handle':1,'data':'','eof':true}"), "ok {written:0}");
	expect(call(a, "wait", "{'handle':1}"), "ok {status:'exited',*");
	assert_false(agent_rig_more(a, id, 1));
	assert_false(agent_rig_more(a, id, 2));
	expect(call(a, "attach", "{'handle':2}"), "error {kind:'unknown_handle'*");
}

static void test_of_an_ended_one_only_the_end(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id;

	expect(call(a, "spawn", "{'argv':['true']}"), "ok {handle:1,pid:*}");
	agent_rig_sync(a);
	expect(call(a, "wait", "{'handle':1}"), "ok {status:'exited',*");
	id = agent_rig_request(a, WIRE_MAIN, "attach", "{'handle':1}");
	expect(agent_rig_answer(a, id), "ok {}");
	assert_false(agent_rig_more(a, id, 1));
	assert_false(agent_rig_more(a, id, 2));
}

static void test_bad_requests_name_the_field(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "frobnicate", "{}"), "error {kind:'unsupported',message:'*`frobnicate`'}");
	expect(call(a, "stat", "{}"), "error {kind:'bad_request',message:'`path` is missing'}");
	expect(call(a, "stat", "{'path':3}"), "error {kind:'bad_request',message:'`path` should be bytes*'}");
	expect(call(a, "stat", "{'path':'a\\u0000b'}"),
		"error {kind:'bad_request',message:'`path` has a zero byte*'}");
	expect(call(a, "stat", "[1]"), "error {kind:'bad_request',message:'the parameters are no map'}");
	expect(call(a, "exec", "{'argv':[]}"), "error {kind:'bad_request',message:'`argv`*'}");
	expect(call(a, "exec", "{'argv':['true'],'timeout':-1}"),
		"error {kind:'bad_request',message:'`timeout`*'}");
	expect(call(a, "exec", "{'argv':['true'],'tty':1}"), "error {kind:'bad_request',message:'`tty`*'}");
	expect(call(a, "exec", "{'argv':['true'],'env':{'A=B':'x'}}"),
		"error {kind:'bad_request',message:'`env`*'}");
	expect(call(a, "exec", "{'argv':['true'],'user':'no such'}"),
		"error {kind:'bad_request',message:'`user`*'}");
	expect(call(a, "seek", "{'handle':1,'off':0,'whence':'here'}"),
		"error {kind:'bad_request',message:'`whence` should be one of: set, cur, end'}");
	expect(call(a, "wait", "{'handle':77}"), "error {kind:'unknown_handle',message:'*77*'}");
	expect(agent_rig_answer(a, agent_rig_request(a, 9, "stat", "{'path':'/'}")),
		"error {kind:'unknown_handle'*");
}

/* ---- programs ---- */

static void test_exec(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "exec", "{'argv':['/bin/sh','-c','echo out; echo err >&2; exit 3']}"),
		"ok {status:'exited',code:3,signal:0,duration:*}");
	assert_string_equal(a->out[1].data, "out\n");
	assert_string_equal(a->out[2].data, "err\n");
	assert_true(a->out[1].ended && a->out[2].ended);
	expect(call(a, "exec", "{'argv':['sh','-c','kill -TERM $$']}"),
		"ok {status:'signalled',code:-1,signal:15,*}");
	expect(call(a, "exec", "{'argv':['no-such-program'],'env':{'PATH':'/usr/bin:/bin'}}"),
		"error {errno:2,message:'No such file or directory'}");
	expect(call(a, "exec", "{'argv':['/etc']}"), "error {errno:13,message:'Permission denied'}");
	expect(call(a, "exec", "{'argv':['true'],'cwd':'/nonexistent'}"), "error {errno:2,*");
}

static void test_exec_surroundings(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "exec", "{'argv':['/bin/sh','-c','echo $A-$B; pwd'],'env':{'A':'1'},'env_clear':true,"
		"'cwd':'/usr'}"), "ok {*");
	assert_string_equal(a->out[1].data, "1-\n/usr\n");
	/* No signal blocked or ignored, nothing open but 0, 1, 2 (and what ls opens). */
	expect(call(a, "exec", "{'argv':['sh','-c',"
		"'grep -E \\\"^Sig(Blk|Ign)\\\" /proc/self/status; ls /proc/self/fd']}"),
		"ok {*");
	assert_string_equal(a->out[1].data,
		"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0\n1\n2\n3\n");
}

static void test_exec_stdin(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = agent_rig_request(a, WIRE_MAIN, "exec", "{'argv':['cat'],'stdin':true}");

	agent_rig_event(a, id, "hello ", 6);
	agent_rig_event(a, id, "world", 5);
	agent_rig_event(a, id, NULL, 0);
	expect(agent_rig_answer(a, id), "ok {status:'exited',code:0,*");
	assert_string_equal(a->out[1].data, "hello world");
	/* A program that does not read: what it was sent is dropped, and credited. */
	id = agent_rig_request(a, WIRE_MAIN, "exec", "{'argv':['true'],'stdin':true}");
	agent_rig_event(a, id, "x", 1);
	expect(agent_rig_answer(a, id), "ok {status:'exited',code:0,*");
}

static void test_exec_timeout_kills_the_group(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "exec", "{'argv':['sh','-c','echo begun; sleep 1000; echo late'],"
		"'timeout':200000000}"),
		"ok {status:'timed_out',code:-2,signal:9,duration:*}");
	assert_string_equal(a->out[1].data, "begun\n");
}

static void test_exec_cancel(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = agent_rig_request(a, WIRE_MAIN, "exec", "{'argv':['sh','-c','echo $$; sleep 1000']}");
	pid_t pid = 0;

	assert_int_equal(sscanf(agent_rig_next(a), "(3,1,%*u,(1,b\"%d", &pid), 1);
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, id, "null");
	expect(agent_rig_answer(a, id), "error {kind:'cancelled',message:'cancelled'}");
	for (int i = 0; i < 1000 && kill(-pid, 0) == 0; i++)
		usleep(10000);
	assert_int_equal(kill(-pid, 0), -1);
}

/* A background process that keeps the streams open does not hang its parent's answer. */
static void test_exec_background(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "exec", "{'argv':['sh','-c','sleep 60 & echo now']}"), "ok {status:'exited',code:0,*");
	assert_string_equal(a->out[1].data, "now\n");
}

static void test_exec_tty(void **state)
{
	struct agent_rig *a = *state;

	if (access("/dev/ptmx", R_OK | W_OK) != 0)
		skip();
	expect(call(a, "exec", "{'argv':['sh','-c','test -t 0 && test -t 2 && stty size >&2'],'tty':true}"),
		"ok {status:'exited',code:0,*");
	assert_string_equal(a->out[1].data, "24 80\r\n");
	assert_int_equal(a->out[2].len, 0);
}

/* The agent sends no more than the host takes; what was sent is complete. */
static void test_credit(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id, got = 0;
	char frame[64];

	id = agent_rig_request(a, WIRE_MAIN, "exec", "{'argv':['sh','-c','head -c 3000000 /dev/zero']}");
	while (got < WIRE_WINDOW) {
		const char *text = agent_rig_next(a);

		assert_memory_equal(text, "(3,1,", 5);
		for (const char *p = text; (p = strstr(p, "\\x00")); p += 4)
			got++;
	}
	assert_int_equal(got, WIRE_WINDOW);
	agent_rig_request(a, WIRE_MAIN, "sleep", "{'ns':200000000}");
	assert_memory_equal(agent_rig_next(a), "(1,", 3);	/* and nothing more before */
	snprintf(frame, sizeof(frame), "[1,%u]", 10000000);
	agent_rig_frame(a, WIRE_CREDIT, WIRE_MAIN, id, frame);
	expect(agent_rig_answer(a, id), "ok {status:'exited',code:0,*");
	assert_int_equal(got + a->out[1].len, 3000000);
}

static void test_big_output_on_both_streams(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "exec", "{'argv':['sh','-c',"
		"'head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait']}"),
		"ok {status:'exited',code:0,*");
	assert_int_equal(a->out[1].len, 5000000);
	assert_int_equal(a->out[2].len, 5000000);
}

static void test_spawn(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = agent_rig_request(a, WIRE_MAIN, "spawn", "{'argv':['cat']}"), waiter;

	expect(agent_rig_answer(a, id), "ok {handle:1,pid:*}");
	expect(call(a, "stdin", "{'handle':1,'data':'line'}"), "ok {written:4}");
	assert_true(agent_rig_more(a, id, 1));
	assert_string_equal(a->out[1].data, "line");
	expect(call(a, "status", "{'handle':1}"), "ok {running:true}");
	waiter = agent_rig_request(a, WIRE_MAIN, "wait", "{'handle':1}");
	expect(call(a, "signal", "{'handle':1,'signal':10}"), "ok {}");
	expect(agent_rig_answer(a, waiter), "ok {status:'signalled',code:-1,signal:10,duration:*}");
	assert_false(agent_rig_more(a, id, 1));
	assert_false(agent_rig_more(a, id, 2));
	expect(call(a, "wait", "{'handle':1}"), "ok {status:'signalled',*");
	expect(call(a, "signal", "{'handle':1,'signal':10}"), "error {errno:3,*");
	expect(call(a, "status", "{'handle':1}"), "ok {running:false,status:'signalled',code:-1,signal:10}");
	expect(call(a, "stdin", "{'handle':1,'data':'x'}"), "error {errno:32,*");
	expect(call(a, "release", "{'handle':1}"), "ok {}");
	expect(call(a, "status", "{'handle':1}"), "error {kind:'unknown_handle'*");
}

static void test_unsubscribe_and_release(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = agent_rig_request(a, WIRE_MAIN, "spawn", "{'argv':['cat']}"), waiter;

	expect(agent_rig_answer(a, id), "ok {handle:1,*");
	expect(call(a, "unsubscribe", "{'id':1}"), "ok {}");
	assert_false(agent_rig_more(a, id, 1));
	expect(call(a, "unsubscribe", "{'id':1}"), "error {kind:'unknown_handle'*");
	expect(call(a, "stdin", "{'handle':1,'data':'into nothing'}"), "ok {written:12}");
	waiter = agent_rig_request(a, WIRE_MAIN, "wait", "{'handle':1}");
	expect(call(a, "release", "{'handle':1}"), "ok {}");
	expect(agent_rig_answer(a, waiter), "ok {status:'signalled',code:-1,signal:9,*");
}

/* ---- executors ---- */

static void test_executor_dies(void **state)
{
	struct agent_rig *a = *state;
	uint32_t sleeper = agent_rig_request(a, WIRE_MAIN, "sleep", "{'ns':1000000000000}");
	char params[64];

	snprintf(params, sizeof(params), "{'nr':%d,'args':[0,0]}", SYS_exit_group);
	expect(call(a, "syscall", params), "error {kind:'internal',message:'executor ended: exit code 0'}");
	expect(agent_rig_answer(a, sleeper), "error {kind:'internal',message:'executor ended: exit code 0'}");
	expect(call(a, "stat", "{'path':'/'}"), "ok {*");
}

static const char *mux_call(struct agent_rig *a, const char *op, const char *params)
{
	return agent_rig_answer(a, agent_rig_request(a, WIRE_MUX, op, params));
}

static void test_workers(void **state)
{
	struct agent_rig *a = *state;
	uint32_t stuck, behind, joiner;
	char params[64];

	expect(mux_call(a, "worker_spawn", "{}"), "ok {channel:2,pid:*}");
	expect(mux_call(a, "worker_spawn", "{}"), "ok {channel:3,pid:*}");
	joiner = agent_rig_request(a, WIRE_MUX, "worker_join", "{'channel':2}");
	snprintf(params, sizeof(params), "{'nr':%d,'args':[0,0,0,0,0]}", SYS_ppoll);
	stuck = agent_rig_request(a, 2, "syscall", params);
	behind = agent_rig_request(a, 2, "stat", "{'path':'/'}");
	/* A stuck worker is nobody else's problem, and what waits for it can be cancelled. */
	expect(call(a, "stat", "{'path':'/'}"), "ok {*");
	expect(agent_rig_answer(a, agent_rig_request(a, 3, "stat", "{'path':'/'}")), "ok {*");
	agent_rig_frame(a, WIRE_CANCEL, 2, behind, "null");
	expect(agent_rig_answer(a, behind), "error {kind:'cancelled'*");
	expect(mux_call(a, "worker_signal", "{'channel':2,'signal':15}"), "ok {}");
	expect(agent_rig_answer(a, stuck), "error {kind:'internal',message:'worker died: signal 15'}");
	expect(agent_rig_answer(a, joiner), "ok {status:143}");
	expect(mux_call(a, "worker_join", "{'channel':2}"), "ok {status:143}");
	expect(agent_rig_answer(a, agent_rig_request(a, 2, "stat", "{'path':'/'}")),
		"error {kind:'unknown_handle'*");
	expect(mux_call(a, "worker_join", "{'channel':9}"), "error {kind:'unknown_handle'*");
	joiner = agent_rig_request(a, WIRE_MUX, "worker_join", "{'channel':3}");
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MUX, joiner, "null");
	expect(agent_rig_answer(a, joiner), "error {kind:'cancelled'*");
}

/* ---- on the host ---- */

static void test_local(void **state)
{
	static const char *args[] = {"--local", "--private-tmp", NULL, NULL};
	char dir[] = "/tmp/agent_test.XXXXXX", path[64];
	struct agent_rig *a;

	(void)state;
	args[2] = mkdtemp(dir);
	assert_non_null(args[2]);
	a = agent_rig_new(args);
	expect(call(a, "exec", "{'argv':['sh','-c','echo x >${TMPDIR:-/tmp}/mark']}"),
		"ok {status:'exited',code:0,*");
	snprintf(path, sizeof(path), "%s/mark", dir);
	assert_int_equal(unlink(path), 0);
	expect(call(a, "clock_set", "{'ns':-5000000000}"), "ok {}");
	expect(call(a, "clock_get", "{}"), "ok {ns:-4*}");
	expect(call(a, "load_module", "{'path':'/x'}"), "error {kind:'unsupported'*");
	expect(mux_call(a, "reseed", "{'entropy':'0123'}"), "ok {}");
	expect(mux_call(a, "shutdown", "{'how':'poweroff'}"), "ok {}");
	assert_null(agent_rig_next(a));
	assert_int_equal(agent_rig_free(a), 0);
	assert_int_equal(rmdir(dir), 0);
}

#define agent_case(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		agent_case(test_hello),
		agent_case(test_version_mismatch_names_both),
		agent_case(test_garbage_is_explained_and_forgotten_at_sync),
		agent_case(test_sync_within_a_frame),
		agent_case(test_spawned_processes_outlive_sync),
		agent_case(test_their_output_is_had_again),
		agent_case(test_of_an_ended_one_only_the_end),
		agent_case(test_bad_requests_name_the_field),
		agent_case(test_exec),
		agent_case(test_exec_surroundings),
		agent_case(test_exec_stdin),
		agent_case(test_exec_timeout_kills_the_group),
		agent_case(test_exec_cancel),
		agent_case(test_exec_background),
		agent_case(test_exec_tty),
		agent_case(test_credit),
		agent_case(test_big_output_on_both_streams),
		agent_case(test_spawn),
		agent_case(test_unsubscribe_and_release),
		agent_case(test_executor_dies),
		agent_case(test_workers),
		cmocka_unit_test(test_local),
	};

	if (!agent_rig_program())
		return 77;	/* skipped: no agent was built */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
