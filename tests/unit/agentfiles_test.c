/*
 * The real guest agent, continued: files, system calls, memory, time, tails, batches, and the pinned wire
 * format.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "agent/wire.h"
#include "agent_rig.h"

#define expect agent_rig_expect

static char dir[64];		/* the test's own, where the agent works */

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/agentfiles_test.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	*state = agent_rig_new(NULL);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	assert_int_equal(agent_rig_free(*state), 0);
	assert_int_equal(chdir("/"), 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	return 0;
}

/* The parameters by a format, each @ standing for the test's directory. */
static const char *params(const char *format, ...)
{
	static char text[4096];
	char expanded[4096], *out = expanded;
	va_list ap;

	for (; *format; format++) {
		if (*format == '@')
			out += sprintf(out, "%s", dir);
		else
			*out++ = *format;
	}
	*out = '\0';
	va_start(ap, format);
	vsnprintf(text, sizeof(text), expanded, ap);
	va_end(ap);
	return text;
}

static const char *call(struct agent_rig *a, const char *op, const char *text)
{
	return agent_rig_call(a, op, params(text));
}

/* ---- whole files ---- */

static char *pattern_bytes(size_t n)
{
	char *p = malloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (char)(i * 31 + i / 251);
	return p;
}

/* Sends a file within the credit that the agent gives. */
static const char *put(struct agent_rig *a, uint32_t id, const char *data, size_t n)
{
	size_t credit = WIRE_WINDOW, piece;
	unsigned more;

	for (size_t off = 0; off < n; off += piece, credit -= piece) {
		while (credit == 0) {
			assert_int_equal(sscanf(agent_rig_next(a), "(5,1,%*u,(0,%u", &more), 1);
			credit += more;
		}
		piece = n - off < WIRE_PIECE ? n - off : WIRE_PIECE;
		piece = piece < credit ? piece : credit;
		agent_rig_event(a, id, data + off, piece);
	}
	agent_rig_event(a, id, NULL, 0);
	return agent_rig_answer(a, id);
}

static uint32_t put_request(struct agent_rig *a, const char *text)
{
	return agent_rig_request(a, WIRE_MAIN, "put_file", params(text));
}

static void test_put_and_get_in_pieces(void **state)
{
	size_t n = 5 * WIRE_WINDOW + 12345;
	char *data = pattern_bytes(n);
	struct agent_rig *a = *state;

	expect(put(a, put_request(a, "{'path':'@/big','mode':384}"), data, n), "ok {size:5255225}");
	expect(call(a, "get_file", "{'path':'@/big'}"), "ok {size:5255225,mode:384}");
	assert_int_equal(a->out[0].len, n);
	assert_memory_equal(a->out[0].data, data, n);
	assert_true(a->out[0].ended);
	expect(call(a, "get_file", "{'path':'@/big','max':100}"), "error {errno:27,*");
	free(data);
}

static void test_put_file_ways(void **state)
{
	struct agent_rig *a = *state;

	expect(put(a, put_request(a, "{'path':'@/f'}"), "one", 3), "ok {size:3}");
	expect(put(a, put_request(a, "{'path':'@/f','append':true}"), "two", 3), "ok {size:3}");
	expect(call(a, "get_file", "{'path':'@/f'}"), "ok {size:6,mode:420}");
	assert_string_equal(a->out[0].data, "onetwo");
	/* A replaced file keeps its mode; nothing else is left in the directory. */
	expect(call(a, "chmod", "{'path':'@/f','mode':416}"), "ok {}");
	expect(put(a, put_request(a, "{'path':'@/f','atomic':true}"), "three", 5), "ok {size:5}");
	expect(call(a, "get_file", "{'path':'@/f'}"), "ok {size:5,mode:416}");
	expect(call(a, "listdir", "{'path':'@'}"), "ok {entries:(('f','file'))}");
	expect(agent_rig_answer(a, put_request(a, "{'path':'@/none/f'}")), "error {errno:2,*");
	expect(agent_rig_answer(a, put_request(a, "{'path':'@'}")), "error {errno:21,*");
}

static void test_cancelled_put_leaves_nothing(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = put_request(a, "{'path':'@/f','atomic':true}");

	agent_rig_event(a, id, "half", 4);
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, id, "null");
	expect(agent_rig_answer(a, id), "error {kind:'cancelled'*");
	expect(call(a, "listdir", "{'path':'@'}"), "ok {entries:()}");
}

static void test_get_special_files(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "get_file", "{'path':'/proc/version'}"), "ok {size:*,mode:292}");
	assert_memory_equal(a->out[0].data, "Linux", 5);
	expect(call(a, "get_file", "{'path':'/dev/null'}"), "ok {size:0,mode:*}");
	expect(call(a, "get_file", "{'path':'@'}"), "error {errno:21,*");
	expect(call(a, "get_file", "{}"),
		"error {kind:'bad_request',message:'one of `path` and `handle` is needed'}");
}

/* ---- names ---- */

static void test_names(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "mkdir", "{'path':'@/a/b','parents':true}"), "ok {}");
	expect(call(a, "mkdir", "{'path':'@/a/b','parents':true}"), "ok {}");
	expect(call(a, "mkdir", "{'path':'@/a/b'}"), "error {errno:17,*");
	expect(put(a, put_request(a, "{'path':'@/a/f','mode':416}"), "xyz", 3), "ok {size:3}");
	expect(call(a, "stat", "{'path':'@/a/f','follow':true}"),
		"ok {size:3,mtime:*,mtime_ns:*,perm:416,uid:*,gid:*,nlink:1,ino:*,entry_type:'file'}");
	assert_int_equal(symlink("f", params("@/a/l")), 0);
	expect(call(a, "stat", "{'path':'@/a/l','follow':false}"), "ok {size:1,*entry_type:'symlink'}");
	expect(call(a, "stat", "{'path':'@/a/l','follow':true}"), "ok {size:3,*entry_type:'file'}");
	expect(call(a, "stat", "{'path':'/dev/null'}"), "ok {*entry_type:'char'}");
	expect(call(a, "rename", "{'from':'@/a/f','to':'@/a/g'}"), "ok {}");
	expect(call(a, "unlink", "{'path':'@/a/f'}"), "error {errno:2,*");
	expect(call(a, "unlink", "{'path':'@/a'}"), "error {errno:39,*");
	expect(call(a, "unlink", "{'path':'@/a','recursive':true}"), "ok {}");
	expect(call(a, "listdir", "{'path':'@/a'}"), "error {errno:2,*");
}

/* ---- open files ---- */

static void test_open_files(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "open", "{'path':'@/f','read':true,'write':true,'create':true}"),
		"ok {handle:1,fd:*}");
	expect(call(a, "write", "{'handle':1,'data':'0123456789'}"), "ok {written:10}");
	expect(call(a, "read", "{'handle':1,'n':5}"), "ok {data:b\"\"}");
	expect(call(a, "seek", "{'handle':1,'off':-4,'whence':'end'}"), "ok {off:6}");
	expect(call(a, "read", "{'handle':1,'n':100}"), "ok {data:b\"6789\"}");
	expect(call(a, "pread", "{'handle':1,'off':2,'n':3}"), "ok {data:b\"234\"}");
	expect(call(a, "pwrite", "{'handle':1,'off':8,'data':'xyz'}"), "ok {written:3}");
	expect(call(a, "truncate", "{'handle':1,'size':9}"), "ok {}");
	expect(call(a, "sync", "{'handle':1}"), "ok {}");
	expect(call(a, "get_file", "{'handle':1}"), "ok {size:9,mode:420}");
	assert_string_equal(a->out[0].data, "01234567x");
	expect(call(a, "close", "{'handle':1}"), "ok {}");
	expect(call(a, "close", "{'handle':1}"), "error {kind:'unknown_handle',message:'no open file*'}");
	expect(call(a, "open", "{'path':'@/f'}"), "error {kind:'bad_request',message:'one of `read`*'}");
	expect(call(a, "open", "{'path':'@/f','write':true,'exclusive':true}"), "error {errno:17,*");
}

/* Whoever waits for a FIFO's other end waits alone. */
static void test_fifo(void **state)
{
	struct agent_rig *a = *state;
	uint32_t reader, writer;

	assert_int_equal(mkfifo(params("@/p"), 0600), 0);
	reader = agent_rig_request(a, WIRE_MAIN, "open", params("{'path':'@/p','read':true}"));
	expect(call(a, "stat", "{'path':'/'}"), "ok {*");
	writer = agent_rig_request(a, WIRE_MAIN, "open", params("{'path':'@/p','write':true}"));
	expect(agent_rig_answer(a, reader), "ok {handle:*,fd:*}");
	expect(agent_rig_answer(a, writer), "ok {handle:*,fd:*}");
	expect(call(a, "close", "{'handle':2}"), "ok {}");
	expect(call(a, "close", "{'handle':1}"), "ok {}");
	/* Cancelled while it waits, both in open and in read. */
	reader = agent_rig_request(a, WIRE_MAIN, "open", params("{'path':'@/p','read':true}"));
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, reader, "null");
	expect(agent_rig_answer(a, reader), "error {kind:'cancelled'*");
	expect(call(a, "open", "{'path':'@/p','read':true,'write':true}"), "ok {handle:3,*");
	reader = agent_rig_request(a, WIRE_MAIN, "read", "{'handle':3,'n':10}");
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, reader, "null");
	expect(agent_rig_answer(a, reader), "error {kind:'cancelled'*");
	reader = agent_rig_request(a, WIRE_MAIN, "read", "{'handle':3,'n':10}");
	expect(call(a, "write", "{'handle':3,'data':'through'}"), "ok {written:7}");
	expect(agent_rig_answer(a, reader), "ok {data:b\"through\"}");
}

/* ---- tails ---- */

static void append(const char *name, const char *text)
{
	int fd = open(params("@/%s", name), O_WRONLY | O_APPEND | O_CREAT, 0644);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void test_tail(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id;

	append("log", "old\n");
	id = agent_rig_request(a, WIRE_MAIN, "tail", params("{'path':'@/log','start':-2,'follow':'name'}"));
	expect(agent_rig_answer(a, id), "ok {}");
	assert_true(agent_rig_more(a, id, 0));
	assert_string_equal(a->out[0].data, "d\n");
	append("log", "new\n");
	assert_true(agent_rig_more(a, id, 0));
	assert_string_equal(a->out[0].data, "d\nnew\n");
	assert_int_equal(truncate(params("@/log"), 0), 0);
	append("log", "again\n");
	assert_true(agent_rig_more(a, id, 0));
	assert_non_null(strstr(a->out[0].data, "again\n"));
	/* Another file takes the name. */
	expect(call(a, "rename", "{'from':'@/log','to':'@/log.1'}"), "ok {}");
	append("log", "rotated\n");
	id = 1;
	while (!strstr(a->out[0].data, "rotated\n"))
		assert_true(agent_rig_more(a, id, 0));
	expect(call(a, "unsubscribe", "{'id':1}"), "ok {}");
}

static void test_tail_of_a_pipe_ends(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id;

	assert_int_equal(mkfifo(params("@/p"), 0600), 0);
	expect(call(a, "open", "{'path':'@/p','read':true,'nonblock':true}"), "ok {handle:1,*");
	expect(call(a, "open", "{'path':'@/p','write':true,'nonblock':true}"), "ok {handle:2,*");
	id = agent_rig_request(a, WIRE_MAIN, "tail", "{'handle':1}");
	expect(agent_rig_answer(a, id), "ok {}");
	expect(call(a, "write", "{'handle':2,'data':'drops'}"), "ok {written:5}");
	assert_true(agent_rig_more(a, id, 0));
	assert_string_equal(a->out[0].data, "drops");
	expect(call(a, "close", "{'handle':2}"), "ok {}");
	assert_false(agent_rig_more(a, id, 0));
}

/* ---- system calls ---- */

static const char *sys(struct agent_rig *a, int nr, const char *rest)
{
	return agent_rig_call(a, "syscall", params("{'nr':%d,%s}", nr, rest));
}

static void test_syscall(void **state)
{
	struct agent_rig *a = *state;

	expect(agent_rig_call(a, "syscall", params("{'nr':%d}", SYS_getppid)), "ok {ret:*,errno:0,bufs:()}");
	expect(agent_rig_call(a, "syscall", "{'nr':99999}"), "ok {ret:-1,errno:38,bufs:()}");
	expect(sys(a, SYS_write, "'args':[1,255,10]"),
		"ok {ret:-1,errno:14,bufs:()}");
	expect(sys(a, SYS_close, "'args':[-1]"),
		"ok {ret:-1,errno:9,bufs:()}");
	/* Two pieces through nested addresses into a pipe, and out of it. */
	expect(sys(a, SYS_pipe2, "'args':[0,0],'bufs':[8],'ptrs':[0]"),
		"ok {ret:0,errno:0,bufs:(b\"\\x03\\x00\\x00\\x00\\x04\\x00\\x00\\x00\")}");
	expect(sys(a, SYS_writev, "'args':[4,0,2],'bufs':['AAAAAAAA\\u0002"
		"\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000BBBBBBBB\\u0003"
		"\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000','ab','cde'],'ptrs':[1,-1],"
		"'nested':[[0,1,0],[0,2,16]],'align':64"),
		"ok {ret:5,errno:0,bufs:(b\"*\",b\"ab\",b\"cde\")}");
	expect(sys(a, SYS_read, "'args':[3,0,9],'bufs':[9],'ptrs':[1]"),
		"ok {ret:5,errno:0,bufs:(b\"abcde\\x00\\x00\\x00\\x00\")}");
}

static void test_syscall_refusals(void **state)
{
	struct agent_rig *a = *state;

	expect(agent_rig_call(a, "syscall", "{}"), "error {kind:'bad_request',message:'`nr` is missing'}");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'bufs':['a'],'ptrs':[6]}"),
		"error {kind:'bad_request'*`ptrs`*");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'bufs':['a'],'nested':[[0,0,0]]}"),
		"error {kind:'bad_request'*`nested`*offset 0*");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'bufs':[-1]}"), "error {kind:'bad_request'*`bufs`*");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'bufs':[40000000,40000000]}"),
		"error {kind:'bad_request'*48 MiB*");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'args':[1,2,3,4,5,6,7]}"),
		"error {kind:'bad_request'*six*");
	expect(agent_rig_call(a, "syscall", "{'nr':1,'align':3}"), "error {kind:'bad_request'*`align`*");
}

/* The new process is not a second agent; its parent can wait for it. */
static void test_fork(void **state)
{
	struct agent_rig *a = *state;

	expect(sys(a, SYS_clone, "'args':[17,0,0,0,0]"),
		"ok {ret:*,errno:0,*");
	expect(sys(a, SYS_wait4, "'args':[-1,0,0,0],'bufs':['xxxx'],'ptrs':[1]"),
		"ok {ret:*,errno:0,bufs:(b\"\\x00\\x00\\x00\\x00\")}");
	expect(call(a, "stat", "{'path':'/'}"), "ok {*");
}

static void test_async(void **state)
{
	struct agent_rig *a = *state;
	uint32_t reader;

	expect(sys(a, SYS_pipe2, "'args':[0,0],'bufs':[8],'ptrs':[0]"),
		"ok {*");
	reader = agent_rig_request(a, WIRE_MAIN, "syscall",
		params("{'nr':%d,'args':[3,0,4],'bufs':[4],'ptrs':[1],'async':true}", SYS_read));
	expect(sys(a, SYS_write, "'args':[4,0,2],'bufs':['ok'],'ptrs':[1]"),
		"ok {ret:2,*");
	expect(agent_rig_answer(a, reader), "ok {ret:2,errno:0,bufs:(b\"ok\\x00\\x00\")}");
	expect(sys(a, SYS_read, "'args':[3,0,4],'bufs':[4],'ptrs':[1],'async':true,"
		"'timeout':50000000"), "error {errno:110,*");
	reader = agent_rig_request(a, WIRE_MAIN, "syscall",
		params("{'nr':%d,'args':[3,0,4],'bufs':[4],'ptrs':[1],'async':true}", SYS_read));
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, reader, "null");
	expect(agent_rig_answer(a, reader), "error {kind:'cancelled'*");
}

static void test_ioctl(void **state)
{
	struct agent_rig *a = *state;

	expect(sys(a, SYS_pipe2, "'args':[0,0],'bufs':[8],'ptrs':[0]"),
		"ok {*");
	expect(sys(a, SYS_write, "'args':[4,0,3],'bufs':['abc'],'ptrs':[1]"),
		"ok {ret:3,*");
	expect(agent_rig_call(a, "ioctl", "{'fd':3,'cmd':21531,'data':'\\u0000\\u0000\\u0000\\u0000'}"),
		"ok {ret:0,errno:0,data:b\"\\x03\\x00\\x00\\x00\",bufs:()}");
	expect(agent_rig_call(a, "ioctl", "{'fd':3,'cmd':1}"), "ok {ret:-1,errno:25,data:nil,bufs:()}");
}

static void test_memory(void **state)
{
	struct agent_rig *a = *state;
	unsigned long addr;

	expect(agent_rig_call(a, "read_mem", "{'addr':16,'n':4}"), "error {errno:14,*");
	expect(agent_rig_call(a, "write_mem", "{'addr':-8,'data':'x'}"), "error {errno:14,*");
	assert_int_equal(sscanf(sys(a, SYS_mmap, "'args':[0,8192,3,34,-1,0]"), "ok {ret:%lu", &addr), 1);
	expect(agent_rig_call(a, "write_mem", params("{'addr':%lu,'data':'mem'}", addr)), "ok {}");
	expect(agent_rig_call(a, "read_mem", params("{'addr':%lu,'n':4}", addr)), "ok {data:b\"mem\\x00\"}");
	expect(agent_rig_call(a, "syscall", params("{'nr':%d,'args':[%lu,4096]}", SYS_munmap, addr + 4096)),
		"ok {*");
	expect(agent_rig_call(a, "read_mem", params("{'addr':%lu,'n':200}", addr + 4000)),
		"error {errno:14,*");
}

static void test_time(void **state)
{
	struct agent_rig *a = *state;
	uint32_t sleeper = agent_rig_request(a, WIRE_MAIN, "sleep", "{'ns':1000000000000}");

	expect(agent_rig_call(a, "clock_get", "{}"), "ok {ns:1*}");
	expect(agent_rig_call(a, "sleep", "{'ns':1000}"), "ok {}");
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, sleeper, "null");
	expect(agent_rig_answer(a, sleeper), "error {kind:'cancelled'*");
}

/* ---- batches ---- */

static void test_batch(void **state)
{
	struct agent_rig *a = *state;

	expect(call(a, "batch", "{'ops':["
		"['put_file',{'path':'@/f','data':'abc'}],"
		"['get_file',{'path':'@/f'}],"
		"['stat',{'path':'@/none'}],"
		"['exec',{'argv':['cat'],'stdin':'in'}],"
		"['exec',{'argv':['sh','-c','echo e >&2; exit 2']}],"
		"['get_file',{'path':'/dev/zero'}],"
		"['tail',{'path':'@/f'}],"
		"['nonsense',{}], 7,"
		"['sleep',{'ns':1000}]]}"),
		"ok {results:((true,{size:3}),(true,{data:b\"abc\",size:3,mode:420}),(false,{errno:2,*}),"
		"(true,{stdout:b\"in\",stderr:b\"\",status:'exited',code:0,*}),"
		"(true,{stdout:b\"\",stderr:b\"e\\x0a\",status:'exited',code:2,*}),"
		"(false,{errno:27,*}),(false,{kind:'unsupported',*}),(false,{kind:'bad_request',*}),"
		"(false,{kind:'bad_request',*}),(true,{}))}");
	expect(call(a, "batch", "{}"), "error {kind:'bad_request',message:'`ops` is missing'}");
	expect(call(a, "batch", "{'ops':[]}"), "ok {results:()}");
}

static void test_batch_cancelled(void **state)
{
	struct agent_rig *a = *state;
	uint32_t id = agent_rig_request(a, WIRE_MAIN, "batch",
		params("{'ops':[['exec',{'argv':['sleep','1000']}],"
		"['put_file',{'path':'@/f','data':'x'}]]}"));

	usleep(100000);
	agent_rig_frame(a, WIRE_CANCEL, WIRE_MAIN, id, "null");
	expect(agent_rig_answer(a, id), "error {kind:'cancelled'*");
	expect(call(a, "stat", "{'path':'@/f'}"), "error {errno:2,*");
}

/* ---- the wire format ---- */

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned v;

	for (; sscanf(hex, "%2x", &v) == 1; hex += 2)
		out[n++] = (uint8_t)v;
	return n;
}

/* A change of any of these needs a new PROTOCOL_VERSION. */
static void test_pinned_bytes(void **state)
{
	const char *src = getenv("PROVIUM_SRCDIR");
	struct agent_rig *a = *state;
	uint8_t frame[1024], length[4];
	char path[512], line[2048];
	unsigned pins = 0;
	size_t n;
	FILE *f;

	if (!src)
		skip();
	snprintf(path, sizeof(path), "%s/tests/unit/data/agent_pins.txt", src);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '>') {
			n = from_hex(line + 2, frame);
			wire_put_u32(length, (uint32_t)n);
			agent_rig_raw(a, length, 4);
			agent_rig_raw(a, frame, n);
		} else if (line[0] == '<') {
			expect(agent_rig_next(a), line + 2);
			pins++;
		}
	}
	fclose(f);
	assert_true(pins >= 40);
	assert_int_equal(PROTOCOL_VERSION, 1);
}

#define agent_case(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		agent_case(test_put_and_get_in_pieces),
		agent_case(test_put_file_ways),
		agent_case(test_cancelled_put_leaves_nothing),
		agent_case(test_get_special_files),
		agent_case(test_names),
		agent_case(test_open_files),
		agent_case(test_fifo),
		agent_case(test_tail),
		agent_case(test_tail_of_a_pipe_ends),
		agent_case(test_syscall),
		agent_case(test_syscall_refusals),
		agent_case(test_fork),
		agent_case(test_async),
		agent_case(test_ioctl),
		agent_case(test_memory),
		agent_case(test_time),
		agent_case(test_batch),
		agent_case(test_batch_cancelled),
		agent_case(test_pinned_bytes),
	};

	if (!agent_rig_program())
		return 77;	/* skipped: no agent was built */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
