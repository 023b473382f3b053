/*
 * Framed connections (src/loop/framed.c): framing, sync, hostile input, back-pressure, fairness.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "agent/wire.h"
#include "loop/loop.h"

#define GUARD_NS INT64_C(20000000000)

/* One end under test, the other a plain socket of ours. */
struct end {
	struct loop *loop;
	struct framed *f;
	int peer;
	uint32_t seen[4096];		/* the frames' ids */
	size_t nseen, bytes;
	size_t stop_at;			/* stop the loop after so many frames */
	bool synced, closed, drained;
	bool free_in_frame, free_in_synced, pause_in_frame;
	struct err err;
};

static void end_frame(void *arg, const msgpack_object *o)
{
	struct end *n = arg;

	n->seen[n->nseen++ % 4096] = (uint32_t)o->via.array.ptr[2].via.u64;
	if (o->via.array.ptr[3].type == MSGPACK_OBJECT_BIN)
		n->bytes += o->via.array.ptr[3].via.bin.size;
	if (n->free_in_frame) {
		framed_free(n->f);
		n->f = NULL;
		loop_stop(n->loop);
	} else if (n->pause_in_frame) {
		framed_pause(n->f, true);
		loop_stop(n->loop);
	}
	if (n->nseen == n->stop_at)
		loop_stop(n->loop);
}

static void end_synced(void *arg)
{
	struct end *n = arg;

	n->synced = true;
	if (n->free_in_synced) {
		framed_free(n->f);
		n->f = NULL;
	}
	loop_stop(n->loop);
}

static void end_closed(void *arg, const struct err *e)
{
	struct end *n = arg;

	n->closed = true;
	err_copy(&n->err, e);
	framed_free(n->f);
	n->f = NULL;
	loop_stop(n->loop);
}

static void end_drained(void *arg)
{
	struct end *n = arg;

	n->drained = true;
	loop_stop(n->loop);
}

static const struct framed_events end_events = { end_frame, end_synced, end_closed, end_drained };

static void end_open(struct end *n, struct loop *l)
{
	int sv[2];

	memset(n, 0, sizeof(*n));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	n->loop = l;
	n->peer = sv[1];
	n->f = framed_new(l, sv[0], &end_events, n);
}

static void end_close(struct end *n)
{
	framed_free(n->f);
	if (n->peer >= 0)
		close(n->peer);
	err_release(&n->err);
}

static void peer_write(struct end *n, const void *data, size_t len)
{
	assert_int_equal(write(n->peer, data, len), len);
}

static void peer_hangup(struct end *n)
{
	close(n->peer);
	n->peer = -1;
}

static void pack_frame(msgpack_sbuffer *b, uint32_t id, const void *data, size_t len)
{
	size_t start = b->size;
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, msgpack_sbuffer_write);
	msgpack_sbuffer_write(b, "\0\0\0\0", 4);
	msgpack_pack_array(&pk, 4);
	msgpack_pack_int(&pk, WIRE_EVENT);
	msgpack_pack_int(&pk, 1);
	msgpack_pack_uint32(&pk, id);
	msgpack_pack_bin_with_body(&pk, data, len);
	wire_put_u32((uint8_t *)b->data + start, (uint32_t)(b->size - start - 4));
}

/* Writes frames [event, 1, id, bin] with `count` ids, all at once: a socket holds few small writes. */
static void peer_frames(struct end *n, uint32_t id, uint32_t count)
{
	static const char data[64];
	msgpack_sbuffer b;

	msgpack_sbuffer_init(&b);
	for (uint32_t i = 0; i < count; i++)
		pack_frame(&b, id + i, data, (id + i) % sizeof(data));
	peer_write(n, b.data, b.size);
	msgpack_sbuffer_destroy(&b);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	fail_msg("the loop was not stopped by what the test waits for");
}

static void quiet_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	loop_stop(arg);
}

static void run(struct loop *l)
{
	struct event *guard = NULL;

	timer_start(l, &guard, GUARD_NS, guard_cb, NULL);
	loop_run(l);
	timer_stop(&guard);
}

/* Lets the loop do what it can do now. */
static void run_quiet(struct loop *l)
{
	struct event *quiet = NULL;

	timer_start(l, &quiet, 30000000, quiet_cb, l);
	loop_run(l);
	timer_stop(&quiet);
}

static int setup(void **state)
{
	*state = loop_new();
	return 0;
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void frames_arrive_in_order(void **state)
{
	struct end n;

	end_open(&n, *state);
	peer_frames(&n, 0, 200);
	n.stop_at = 200;
	run(*state);
	for (uint32_t i = 0; i < 200; i++)
		assert_int_equal(n.seen[i], i);
	assert_int_equal(n.bytes, 3 * 64 * 63 / 2 + 8 * 7 / 2);
	end_close(&n);
}

static void a_frame_may_come_byte_by_byte(void **state)
{
	static const uint8_t frame[] = { 0, 0, 0, 7, 0x94, 3, 1, 42, 0xc4, 1, 0xff };
	struct end n;

	end_open(&n, *state);
	for (size_t i = 0; i < sizeof(frame) - 1; i++) {
		peer_write(&n, &frame[i], 1);
		if (i % 4 == 0)
			run_quiet(*state);
	}
	run_quiet(*state);
	assert_int_equal(n.nseen, 0);
	peer_write(&n, &frame[sizeof(frame) - 1], 1);
	n.stop_at = 1;
	run(*state);
	assert_int_equal(n.seen[0], 42);
	assert_int_equal(n.bytes, 1);
	end_close(&n);
}

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ })

static void hostile_input_closes_with_a_reason(void **state)
{
	static const uint8_t deep[] = {
		0, 0, 0, 46, 0x94, 1, 1, 1, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
		0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
		0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
		0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0xc0,
	};
	const struct { const uint8_t *data; size_t len; const char *message; } cases[] = {
		{ BYTES(0, 0, 0, 0), "a frame of 0 bytes" },
		{ BYTES(4, 0, 0, 1), "a frame of 67108865 bytes (the most is 67108864)" },
		{ BYTES(0xff, 0xff, 0xff, 0xff), "a frame of 4294967295 bytes" },
		{ deep, sizeof(deep), "a malformed frame of 46 bytes: it is nested too deep" },
		{ BYTES(0, 0, 0, 1, 0xc1), "a malformed frame of 1 bytes: it has the reserved byte" },
		{ BYTES(0, 0, 0, 1, 0x80), "a malformed frame" },			/* a map */
		{ BYTES(0, 0, 0, 4, 0x93, 1, 1, 1), "a malformed frame" },		/* three fields */
		{ BYTES(0, 0, 0, 5, 0x94, 9, 1, 1, 0xc0), "a malformed frame" },	/* type 9 */
		{ BYTES(0, 0, 0, 5, 0x94, 1, 0xff, 1, 0xc0), "a malformed frame" },	/* channel -1 */
		{ BYTES(0, 0, 0, 6, 0x94, 1, 1, 0xa1, 'x', 0xc0), "a malformed frame" },	/* id "x" */
		{ BYTES(0, 0, 0, 6, 0x94, 1, 1, 1, 0xc0, 0xc0), "a malformed frame" },	/* one byte more */
		{ BYTES(0, 0, 0, 9, 0x94, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff), "elements" },
		{ BYTES(0, 0, 0, 9, 0x94, 1, 1, 1, 0xdf, 0x7f, 0xff, 0xff, 0xff), "elements" },
		{ BYTES(0, 0, 0, 9, 0x94, 1, 1, 1, 0xc6, 0xff, 0xff, 0xff, 0xff), "more bytes" },
		{ BYTES(0, 0, 0, 5, 0x94, 1, 1, 1, 0xcf), "a malformed frame" },	/* cut off */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct end n;

		end_open(&n, *state);
		peer_frames(&n, 1, 1);		/* what came before is still delivered */
		peer_write(&n, cases[i].data, cases[i].len);
		run(*state);
		assert_true(n.closed);
		assert_int_equal(n.nseen, 1);
		assert_int_equal(n.err.code, -EPROTO);
		assert_non_null(strstr(n.err.msg, cases[i].message));
		end_close(&n);
	}
}

/* A frame of little more than 4 MiB would take a hundred MiB or more when decoded. */
static void a_bomb_of_objects_is_refused(void **state)
{
	size_t count = WIRE_OBJECTS_MAX + 1, len = 4 + 5 + count;
	uint8_t *body = malloc(len + 4), *p = body + 4;
	struct end n;

	end_open(&n, *state);
	fcntl(n.peer, F_SETFL, O_NONBLOCK);
	wire_put_u32(body, (uint32_t)len);
	memcpy(p, "\x94\x01\x01\x01\xdd", 5);
	wire_put_u32(p + 5, (uint32_t)count);
	memset(p + 9, 0xc0, count);
	for (size_t done = 0; done < len + 4;) {
		ssize_t r = write(n.peer, body + done, len + 4 - done);

		done += r > 0 ? (size_t)r : 0;
		if (r < 0)
			run_quiet(*state);
	}
	if (!n.closed)
		run(*state);
	assert_non_null(strstr(n.err.msg, "it has too many objects"));
	free(body);
	end_close(&n);
}

static void the_end_says_where_it_came(void **state)
{
	const struct { const char *data; size_t len; const char *message; } cases[] = {
		{ "", 0, "closed by the other side" },
		{ "\0\0", 2, "in the middle of a frame (2 of 4 bytes of its length)" },
		{ "\0\0\0\x09\x94\x01", 6, "in the middle of a frame (6 of 13 bytes)" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct end n;

		end_open(&n, *state);
		peer_write(&n, cases[i].data, cases[i].len);
		peer_hangup(&n);
		run(*state);
		assert_int_equal(n.err.code, -ECONNRESET);
		assert_ptr_equal(strstr(n.err.msg, "closed by the other side"), n.err.msg);
		assert_non_null(strstr(n.err.msg, cases[i].message));
		end_close(&n);
	}
}

static void read_mark(struct end *n, uint8_t *mark)
{
	run_quiet(n->loop);
	assert_int_equal(read(n->peer, mark, WIRE_SYNC_LEN), WIRE_SYNC_LEN);
	assert_memory_equal(mark, WIRE_SYNC_MAGIC, WIRE_SYNC_MAGIC_LEN);
}

/* Garbage in front of it, and another mark, are dropped, wherever the reads cut the mark in two. */
static void sync_drops_what_came_before(void **state)
{
	for (size_t cut = 0; cut <= WIRE_SYNC_LEN; cut++) {
		uint8_t mark[WIRE_SYNC_LEN];
		struct end n;

		end_open(&n, *state);
		framed_sync(n.f);
		read_mark(&n, mark);
		peer_write(&n, "\xff\xff\xff\xff", 4);
		peer_write(&n, WIRE_SYNC_MAGIC "0123456789abcdef", WIRE_SYNC_LEN);
		peer_write(&n, mark, cut);
		if (cut % 8 == 1)
			run_quiet(*state);
		assert_false(n.synced);
		peer_write(&n, mark + cut, WIRE_SYNC_LEN - cut);
		peer_frames(&n, 5, 1);
		run(*state);
		assert_true(n.synced);
		n.stop_at = 1;
		if (n.nseen == 0)
			run(*state);
		assert_int_equal(n.seen[0], 5);
		end_close(&n);
	}
}

static void the_end_may_come_before_the_mark(void **state)
{
	struct end n;

	end_open(&n, *state);
	framed_sync(n.f);
	peer_write(&n, "login: ", 7);
	shutdown(n.peer, SHUT_WR);
	run(*state);
	assert_string_equal(n.err.msg, "closed by the other side before it answered the sync mark");
	end_close(&n);
}

static void every_callback_may_free(void **state)
{
	uint8_t mark[WIRE_SYNC_LEN];
	struct end n;

	end_open(&n, *state);
	n.free_in_frame = true;
	peer_frames(&n, 1, 2);
	run(*state);
	assert_int_equal(n.nseen, 1);
	end_close(&n);

	end_open(&n, *state);
	n.free_in_synced = true;
	framed_sync(n.f);
	read_mark(&n, mark);
	peer_write(&n, mark, sizeof(mark));
	peer_frames(&n, 1, 1);
	run(*state);
	assert_int_equal(n.nseen, 0);
	end_close(&n);
	/* closed() frees in every other test. */
}

static void a_paused_connection_delivers_nothing(void **state)
{
	struct end n;

	end_open(&n, *state);
	n.pause_in_frame = true;
	peer_frames(&n, 0, 10);
	run(*state);
	assert_int_equal(n.nseen, 1);
	run_quiet(*state);
	assert_int_equal(n.nseen, 1);
	n.pause_in_frame = false;
	n.stop_at = 10;
	framed_pause(n.f, false);
	run(*state);
	assert_int_equal(n.nseen, 10);
	peer_hangup(&n);
	run(*state);
	assert_true(n.closed);
	end_close(&n);
}

/* One that sends a lot has a share of each turn; another's single frame does not wait for all of it. */
static void a_chatty_peer_does_not_hold_up_others(void **state)
{
	struct end chatty, quiet;

	end_open(&chatty, *state);
	end_open(&quiet, *state);
	peer_frames(&chatty, 0, 1000);
	peer_frames(&quiet, 1, 1);
	quiet.stop_at = 1;
	run(*state);
	assert_in_range(chatty.nseen, 0, 128);
	chatty.stop_at = 1000;
	run(*state);
	assert_int_equal(chatty.seen[999], 999);
	end_close(&chatty);
	end_close(&quiet);
}

/* Nobody needs to run the loop for it: a task may compute on before that. */
static void a_frame_is_written_at_once(void **state)
{
	char buf[16];
	struct end n;

	end_open(&n, *state);
	framed_send(n.f, "ab", 2);
	assert_int_equal(framed_backlog(n.f), 0);
	framed_send(n.f, "c", 1);
	assert_int_equal(recv(n.peer, buf, sizeof(buf), MSG_DONTWAIT), 11);
	assert_memory_equal(buf, "\0\0\0\2ab\0\0\0\1c", 11);
	end_close(&n);
}

static void the_backlog_drains(void **state)
{
	size_t len = 2u << 20, got = 0, most;
	char *body = calloc(1, len), *buf = malloc(len);
	struct end n;
	ssize_t r;

	end_open(&n, *state);
	framed_send(n.f, body, len);
	most = framed_backlog(n.f);
	assert_in_range(most, 1, len + 3);
	run_quiet(*state);
	assert_in_range(framed_backlog(n.f), 1, most);
	assert_false(n.drained);
	while (got < len + 4) {
		r = recv(n.peer, buf, len, MSG_DONTWAIT);
		if (r > 0)
			got += (size_t)r;
		else
			run_quiet(*state);
	}
	assert_true(n.drained);
	assert_int_equal(framed_backlog(n.f), 0);
	free(body);
	free(buf);
	end_close(&n);
}

static void writing_to_a_closed_peer_closes(void **state)
{
	struct end n;

	end_open(&n, *state);
	shutdown(n.peer, SHUT_RD);
	framed_send(n.f, "x", 1);
	run(*state);
	assert_int_equal(n.err.code, -EPIPE);
	assert_string_equal(n.err.msg, "cannot write: Broken pipe");
	end_close(&n);
}

static void large_frames_pass(void **state)
{
	size_t len = 20u << 20;
	char *zero = calloc(1, len);
	msgpack_sbuffer b;
	struct framed *sender;
	struct end n, idle;

	end_open(&n, *state);
	memset(&idle, 0, sizeof(idle));
	idle.loop = *state;
	sender = framed_new(*state, n.peer, &end_events, &idle);
	n.peer = -1;
	msgpack_sbuffer_init(&b);
	pack_frame(&b, 1, zero, len);
	framed_send(sender, b.data + 4, b.size - 4);
	n.stop_at = 1;
	while (n.nseen == 0)
		run(*state);
	assert_int_equal(n.bytes, len);
	msgpack_sbuffer_destroy(&b);
	free(zero);
	framed_free(sender);
	end_close(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frames_arrive_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(a_frame_may_come_byte_by_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_input_closes_with_a_reason, setup, teardown),
		cmocka_unit_test_setup_teardown(a_bomb_of_objects_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_says_where_it_came, setup, teardown),
		cmocka_unit_test_setup_teardown(sync_drops_what_came_before, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_may_come_before_the_mark, setup, teardown),
		cmocka_unit_test_setup_teardown(every_callback_may_free, setup, teardown),
		cmocka_unit_test_setup_teardown(a_paused_connection_delivers_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_chatty_peer_does_not_hold_up_others, setup, teardown),
		cmocka_unit_test_setup_teardown(a_frame_is_written_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(the_backlog_drains, setup, teardown),
		cmocka_unit_test_setup_teardown(writing_to_a_closed_peer_closes, setup, teardown),
		cmocka_unit_test_setup_teardown(large_frames_pass, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
