/*
 * The agent client (src/vmm/agent.c, agentcall.c) against a fake agent: handshake, replies, streams,
 * credit, cancelling, and a guest that lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/protocol.h"
#include "fake_agent.h"
#include "vmm/agent.h"

#define GUARD_NS INT64_C(20000000000)
#define SEEN_MAX 512

/* A connection, its fake other side, and what both saw. */
struct world {
	struct loop *loop;
	struct agent *agent;
	struct fake_agent *fa;
	int nready, nbroken;
	bool free_in_ready, keep_calls;
	struct err err;				/* of ready or broken */
	struct { unsigned type; uint32_t id; char op[16]; } seen[SEEN_MAX];
	size_t nseen;
	uint32_t id;				/* of the last request */
	size_t taken, pieces, largest;		/* of stream 0 */
	bool taken_all;
	size_t granted;				/* credit frames' bytes */
	bool return_credit;
	void (*on_frame)(struct world *w, unsigned type, uint32_t id, const msgpack_object *body);
};

/* One call's callbacks. */
struct probe {
	struct world *w;
	struct agent_call *call;
	int nreply, nbroken, nends, nwritable;
	size_t bytes, sent;
	bool free_in_reply, free_in_piece, free_agent, hold;
	struct err err;
};

static void fake_frame(struct fake_agent *fa, unsigned type, unsigned channel, uint32_t id,
	const msgpack_object *body, void *arg)
{
	struct world *w = arg;
	const msgpack_object *pair = body->via.array.ptr;

	w->seen[w->nseen % SEEN_MAX].type = type;
	w->seen[w->nseen % SEEN_MAX].id = id;
	if (type == WIRE_REQUEST) {
		w->id = id;
		snprintf(w->seen[w->nseen % SEEN_MAX].op, 16, "%.*s", (int)pair[0].via.str.size,
			pair[0].via.str.ptr);
	} else if (type == WIRE_CREDIT) {
		w->granted += (size_t)pair[1].via.u64;
	} else if (type == WIRE_EVENT && pair[1].type == MSGPACK_OBJECT_NIL) {
		w->taken_all = true;
	} else if (type == WIRE_EVENT) {
		size_t n = pair[1].via.bin.size;

		w->taken += n;
		w->pieces++;
		w->largest = n > w->largest ? n : w->largest;
		if (w->return_credit)
			fake_agent_send(fa, WIRE_CREDIT, channel, id, "[2uu", 0, (uint32_t)n);
	}
	w->nseen++;
	if (w->on_frame)
		w->on_frame(w, type, id, body);
	loop_stop(w->loop);
}

static void world_ready(void *arg, const struct err *e)
{
	struct world *w = arg;

	w->nready++;
	err_copy(&w->err, e);
	if (w->free_in_ready) {
		agent_free(w->agent);
		w->agent = NULL;
	}
	loop_stop(w->loop);
}

static void world_broken(void *arg, const struct err *e)
{
	struct world *w = arg;

	w->nbroken++;
	err_copy(&w->err, e);
	if (!w->keep_calls)
		agent_fail(w->agent, e);
	loop_stop(w->loop);
}

static void probe_reply(void *arg, const msgpack_object *o, const struct err *e)
{
	struct probe *p = arg;

	assert_true(!o != !e);
	p->nreply++;
	err_copy(&p->err, e);
	if (p->free_in_reply) {
		agent_call_free(p->call);
		p->call = NULL;
	}
	if (p->free_agent) {
		agent_free(p->w->agent);
		p->w->agent = NULL;
	}
	loop_stop(p->w->loop);
}

static void probe_piece(void *arg, unsigned stream, const void *data, size_t len)
{
	struct probe *p = arg;

	p->bytes += len;
	p->nends += !data;
	if (p->free_in_piece) {
		agent_call_free(p->call);
		p->call = NULL;
	} else if (data && !p->hold) {
		agent_call_credit(p->call, stream, len);
	}
	loop_stop(p->w->loop);
}

static void probe_writable(void *arg)
{
	struct probe *p = arg;

	p->nwritable++;
	loop_stop(p->w->loop);
}

static void probe_broken(void *arg, const struct err *e)
{
	struct probe *p = arg;

	p->nbroken++;
	err_copy(&p->err, e);
	loop_stop(p->w->loop);
}

static const struct agent_events stream_events = { probe_reply, probe_piece, probe_writable, probe_broken };
static const struct agent_events plain_events = { .reply = probe_reply };

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	fail_msg("the loop was not stopped by what the test waits for");
}

static void quiet_cb(evutil_socket_t fd, short what, void *arg)
{
	struct event **ev = arg;

	(void)fd;
	(void)what;
	timer_stop(ev);
}

/* Runs the loop until the condition holds. */
#define RUN_UNTIL(w, cond) \
	do { \
		struct event *guard = NULL; \
		timer_start((w)->loop, &guard, GUARD_NS, guard_cb, NULL); \
		while (!(cond)) \
			loop_run((w)->loop); \
		timer_stop(&guard); \
	} while (0)

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	loop_stop(arg);
}

/* Lets both sides do what they can do now. */
static void run_quiet(struct world *w)
{
	struct event *quiet = NULL, *ticks = NULL;

	timer_start(w->loop, &quiet, 40000000, quiet_cb, &quiet);
	while (quiet) {
		timer_start(w->loop, &ticks, 5000000, stop_cb, w->loop);
		loop_run(w->loop);
	}
	timer_stop(&ticks);
}

static void world_open(struct world *w)
{
	int sv[2];

	memset(w, 0, sizeof(*w));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	w->loop = loop_new();
	w->fa = fake_agent_new(w->loop, sv[1], fake_frame, w);
	w->agent = agent_new(w->loop, sv[0], "a", world_ready, world_broken, w);
}

static void world_open_ready(struct world *w)
{
	world_open(w);
	RUN_UNTIL(w, w->nready);
	assert_int_equal(w->err.code, 0);
}

static void world_hangup(struct world *w)
{
	fake_agent_free(w->fa);
	w->fa = NULL;
}

static void world_close(struct world *w)
{
	agent_free(w->agent);
	fake_agent_free(w->fa);
	loop_free(w->loop);
	err_release(&w->err);
}

static void probe_start(struct probe *p, struct world *w, const char *op, bool keep_open, bool streams)
{
	memset(p, 0, sizeof(*p));
	p->w = w;
	p->call = agent_call(w->agent, WIRE_MAIN, op, NULL, keep_open,
		streams ? &stream_events : &plain_events, p);
	assert_int_equal(p->nreply, 0);
}

static void probe_end(struct probe *p)
{
	agent_call_free(p->call);
	err_release(&p->err);
}

/* ---- handshake ---- */

static void the_handshake_tells_about_the_guest(void **state)
{
	const struct agent_info *info;
	struct world w;

	(void)state;
	world_open_ready(&w);
	info = agent_info(w.agent);
	assert_string_equal(info->agent_version, "1.0");
	assert_string_equal(info->kernel, "6.1");
	assert_string_equal(info->arch, "x86_64");
	assert_string_equal(info->boot_id, "b-1");
	assert_string_equal(info->features[0], "tail");
	assert_null(info->features[1]);
	world_close(&w);
}

static void hello_is_checked(void **state)
{
	const struct {
		unsigned type;
		const char *format, *key;
		uint32_t n;
		const char *text, *message;
	} cases[] = {
		{ WIRE_REPLY, "{1su", "protocol_version", 9, "", "it speaks version 9, Provium version 1" },
		{ WIRE_REPLY, "{1su", "protocol_version", 1, "", "a reply to hello with another nonce" },
		{ WIRE_REPLY, "{1su", "other", 1, "", "without the number `protocol_version`" },
		{ WIRE_REPLY, "[0", "", 0, "", "broke the protocol: a reply to id 1 that is no map" },
		{ WIRE_ERROR, "{3sussss", "x", 1, "no such version",
			"refused the handshake: agent: no such version" },
		{ WIRE_EVENT, "[2us", "", 0, "", "broke the protocol" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct world w;

		world_open(&w);
		fake_agent_own_hello(w.fa, true);
		RUN_UNTIL(&w, w.nseen);
		assert_string_equal(w.seen[0].op, "hello");
		if (cases[i].type == WIRE_EVENT)
			fake_agent_send(w.fa, WIRE_EVENT, WIRE_MUX, w.id, "[2us", 0, "x");
		else
			fake_agent_send(w.fa, cases[i].type, WIRE_MUX, w.id, cases[i].format, cases[i].key,
				cases[i].n, "kind", "bad_request", "message", cases[i].text);
		RUN_UNTIL(&w, w.nready);
		assert_non_null(strstr(w.err.msg, cases[i].message));
		assert_int_equal(w.err.code, -EPROTO);
		run_quiet(&w);
		assert_int_equal(w.nready, 1);
		assert_int_equal(w.nbroken, 0);
		world_close(&w);
	}
}

static void a_handshake_may_be_cut_off(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	fake_agent_own_hello(w.fa, true);
	RUN_UNTIL(&w, w.nseen);
	world_hangup(&w);
	RUN_UNTIL(&w, w.nready);
	assert_string_equal(w.err.msg,
		"the connection to the guest's agent was lost: closed by the other side");
	world_close(&w);

	/* Silence: whoever lost patience frees it. */
	world_open(&w);
	fake_agent_own_hello(w.fa, true);
	RUN_UNTIL(&w, w.nseen);
	agent_free(w.agent);
	w.agent = NULL;
	run_quiet(&w);
	assert_int_equal(w.nready, 0);
	world_close(&w);

	world_open(&w);
	w.free_in_ready = true;
	RUN_UNTIL(&w, w.nready);
	run_quiet(&w);
	world_close(&w);
}

/* ---- replies ---- */

static void errors_say_whose_they_are(void **state)
{
	const struct {
		uint32_t number;
		const char *kind, *message, *text;
		int code;
	} cases[] = {
		{ 2, "", "No such file", "os: No such file (errno 2)", -ENOENT },
		{ 0, "unsupported", "no such op `foo`", "agent: no such op `foo`", -ENOTSUP },
		{ 0, "bad_request", "`path` is missing", "agent: `path` is missing", -EPROTO },
		{ 0, "internal", "\x1b[2Jboo", "agent: ?[2Jboo", -EPROTO },
	};
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		probe_start(&p, &w, "stat", false, false);
		RUN_UNTIL(&w, w.nseen == i + 1);
		if (cases[i].number)
			fake_agent_send(w.fa, WIRE_ERROR, WIRE_MAIN, w.id, "{2suss", "errno", cases[i].number,
				"message", cases[i].message);
		else
			fake_agent_send(w.fa, WIRE_ERROR, WIRE_MAIN, w.id, "{2ssss", "kind", cases[i].kind,
				"message", cases[i].message);
		RUN_UNTIL(&w, p.nreply);
		assert_string_equal(p.err.msg, cases[i].text);
		assert_int_equal(p.err.code, cases[i].code);
		probe_end(&p);
	}
	assert_int_equal(w.nbroken, 0);
	world_close(&w);
}

static void replies_come_in_any_order(void **state)
{
	static struct probe p[300];
	struct world w;

	(void)state;
	world_open_ready(&w);
	for (size_t i = 0; i < 300; i++)
		probe_start(&p[i], &w, "stat", false, false);
	RUN_UNTIL(&w, w.nseen == 300);
	for (size_t i = 300; i-- > 0;)
		fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, agent_call_id(p[i].call), "{0");
	RUN_UNTIL(&w, p[0].nreply);
	for (size_t i = 0; i < 300; i++) {
		assert_int_equal(p[i].nreply, 1);
		assert_int_equal(p[i].err.code, 0);
		probe_end(&p[i]);
	}
	world_close(&w);
}

static void a_request_may_be_too_big(void **state)
{
	msgpack_sbuffer b;
	struct world w;
	struct probe p = { .w = &w };
	char *data = calloc(1, WIRE_FRAME_MAX);

	(void)state;
	world_open_ready(&w);
	msgpack_sbuffer_init(&b);
	fake_pack(&b, "{1sb", "data", data, (size_t)WIRE_FRAME_MAX);
	p.call = agent_call(w.agent, WIRE_MAIN, "write", &b, false, &plain_events, &p);
	assert_int_equal(p.nreply, 0);
	RUN_UNTIL(&w, p.nreply);
	assert_int_equal(p.err.code, -EMSGSIZE);
	assert_non_null(strstr(p.err.msg, "the request `write` takes"));
	probe_end(&p);
	msgpack_sbuffer_destroy(&b);
	free(data);
	world_close(&w);
}

/* ---- streams ---- */

static void incoming_streams_run_on_credit(void **state)
{
	static const char data[WIRE_PIECE];
	size_t total = 4u << 20, sent = 0, allowance;
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "get_file", false, true);
	RUN_UNTIL(&w, w.nseen);
	while (sent < total) {
		allowance = WIRE_WINDOW + w.granted - sent;
		for (; allowance >= WIRE_PIECE && sent < total; allowance -= WIRE_PIECE, sent += WIRE_PIECE)
			fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2ub", 0, data, sizeof(data));
		RUN_UNTIL(&w, p.bytes == sent);
		run_quiet(&w);
	}
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2un", 0);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	RUN_UNTIL(&w, p.nreply);
	assert_int_equal(p.bytes, total);
	assert_int_equal(p.nends, 1);
	assert_int_equal(w.nbroken, 0);
	probe_end(&p);
	world_close(&w);
}

static void outgoing_streams_run_on_credit(void **state)
{
	size_t total = 3 * WIRE_WINDOW + 100, first;
	char *data = calloc(1, total);
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "put_file", false, true);
	/* Little at first: how fast the guest takes it is not known yet. */
	p.sent = first = agent_call_send(p.call, data, total);
	assert_in_range(first, 1, WIRE_WINDOW / 8);
	assert_int_equal(agent_call_send(p.call, data, total), 0);
	RUN_UNTIL(&w, w.taken == first);
	assert_int_equal(p.nwritable, 0);
	w.return_credit = true;
	fake_agent_send(w.fa, WIRE_CREDIT, WIRE_MAIN, w.id, "[2uu", 0, (unsigned)first);
	while (p.sent < total) {
		int before = p.nwritable;

		RUN_UNTIL(&w, p.nwritable > before);
		p.sent += agent_call_send(p.call, data, total - p.sent);
	}
	assert_int_equal(agent_call_send(p.call, NULL, 0), 0);
	RUN_UNTIL(&w, w.taken_all);
	assert_int_equal(w.taken, total);
	assert_in_range(w.largest, 1, WIRE_PIECE);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	RUN_UNTIL(&w, p.nreply);
	/* A credit that crosses the reply is no breach. */
	fake_agent_send(w.fa, WIRE_CREDIT, WIRE_MAIN, w.id, "[2uu", 0, 1);
	run_quiet(&w);
	assert_int_equal(w.nbroken, 0);
	probe_end(&p);
	free(data);
	world_close(&w);
}

/* How much is on its way follows how soon it comes back, so that later requests are not long behind it. */
static void outgoing_streams_keep_little_on_the_way(void **state)
{
	size_t total = 2 * WIRE_WINDOW, credit, most = 0;
	char *data = calloc(1, total);
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "put_file", false, true);
	p.sent = agent_call_send(p.call, data, total);
	for (int i = 0; i < 10; i++) {
		int before = p.nwritable;

		RUN_UNTIL(&w, w.taken == p.sent);
		credit = w.taken - w.granted;
		most = credit;
		usleep(30000);		/* what a slow guest takes */
		w.granted += credit;
		fake_agent_send(w.fa, WIRE_CREDIT, WIRE_MAIN, w.id, "[2uu", 0, (unsigned)credit);
		RUN_UNTIL(&w, p.nwritable > before);
		p.sent += agent_call_send(p.call, data, total - p.sent);
	}
	assert_in_range(most, 1, 16 << 10);
	probe_end(&p);
	free(data);
	world_close(&w);
}

/* The least is on its way when others ask a slow guest; when they have stopped asking it goes on. */
static void outgoing_streams_go_on_when_others_stop(void **state)
{
	static const char data[WIRE_WINDOW];
	struct world w;
	struct probe p, other;
	size_t n = 0;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "put_file", false, true);
	n = agent_call_send(p.call, data, sizeof(data));
	for (int i = 0; i < 8; i++) {
		int before = p.nwritable;
		unsigned id;

		RUN_UNTIL(&w, w.taken == w.granted + n);
		id = w.id;
		usleep(5000);
		probe_start(&other, &w, "stat", false, false);
		w.granted += n;
		fake_agent_send(w.fa, WIRE_CREDIT, WIRE_MAIN, id, "[2uu", 0, (unsigned)n);
		RUN_UNTIL(&w, p.nwritable > before);
		RUN_UNTIL(&w, w.id != id);
		fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
		RUN_UNTIL(&w, other.nreply);
		probe_end(&other);
		w.id = id;
		if (i == 7)
			usleep(60000);
		n = agent_call_send(p.call, data, sizeof(data));
		assert_in_range(n, 1, WIRE_WINDOW);
	}
	probe_end(&p);
	world_close(&w);
}

/* What is read from a file in parts has short ends: they do not cut what follows into ever smaller pieces. */
static void outgoing_streams_are_not_cut_to_bits(void **state)
{
	enum { PART = 20000, PARTS = 100 };
	static const char data[PART];
	size_t sent = 0;
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "put_file", false, true);
	w.return_credit = true;
	while (sent < PART * PARTS) {
		int before = p.nwritable;
		size_t n = agent_call_send(p.call, data, PART - sent % PART);

		sent += n;
		if (n == 0)
			RUN_UNTIL(&w, p.nwritable > before);
	}
	RUN_UNTIL(&w, w.taken == sent);
	assert_in_range(w.pieces, 1, 2 * PARTS);
	probe_end(&p);
	world_close(&w);
}

/* ---- a guest that lies ---- */

static void lie_unknown_reply(struct world *w)
{
	fake_agent_send(w->fa, WIRE_REPLY, WIRE_MAIN, 77, "{0");
}

static void lie_unknown_error(struct world *w)
{
	fake_agent_send(w->fa, WIRE_ERROR, WIRE_MAIN, 77, "{0");
}

static void lie_unknown_event(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, 77, "[2un", 0);
}

static void lie_unknown_credit(struct world *w)
{
	fake_agent_send(w->fa, WIRE_CREDIT, WIRE_MAIN, 77, "[2uu", 0, 1);
}

static void lie_channel(struct world *w)
{
	fake_agent_send(w->fa, WIRE_REPLY, 5, w->id, "{0");
}

static void lie_reply_shape(struct world *w)
{
	fake_agent_send(w->fa, WIRE_REPLY, WIRE_MAIN, w->id, "u", 1);
}

static void lie_error_shape(struct world *w)
{
	fake_agent_send(w->fa, WIRE_ERROR, WIRE_MAIN, w->id, "s", "boo");
}

static void lie_error_errno(struct world *w)
{
	fake_agent_send(w->fa, WIRE_ERROR, WIRE_MAIN, w->id, "{2suss", "errno", 0, "message", "boo");
}

static void lie_error_errno_text(struct world *w)
{
	fake_agent_send(w->fa, WIRE_ERROR, WIRE_MAIN, w->id, "{2ssss", "errno", "2", "message", "boo");
}

static void lie_event_shape(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "{0");
}

static void lie_event_empty(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[0");
}

static void lie_event_stream(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2ub", 9, "x", (size_t)1);
}

static void lie_event_text(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2us", 1, "x");
}

static void lie_event_size(struct world *w)
{
	static const char data[WIRE_PIECE + 1];

	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2ub", 1, data, sizeof(data));
}

static void lie_event_credit(struct world *w)
{
	static const char data[WIRE_PIECE];

	for (size_t i = 0; i <= WIRE_WINDOW / WIRE_PIECE; i++)
		fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2ub", 1, data, sizeof(data));
}

static void lie_event_ended(struct world *w)
{
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2un", 1);
	fake_agent_send(w->fa, WIRE_EVENT, WIRE_MAIN, w->id, "[2un", 1);
}

static void lie_credit(struct world *w)
{
	fake_agent_send(w->fa, WIRE_CREDIT, WIRE_MAIN, w->id, "[2uu", 0, 1);
}

static void lie_credit_huge(struct world *w)
{
	fake_agent_raw(w->fa, "\0\0\0\x0f\x94\x05\x01", 7);
	fake_agent_raw(w->fa, &(uint8_t){ (uint8_t)w->id }, 1);
	fake_agent_raw(w->fa, "\x92\x00\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 11);
}

static void lie_credit_stream(struct world *w)
{
	fake_agent_send(w->fa, WIRE_CREDIT, WIRE_MAIN, w->id, "[2uu", 1, 0);
}

static void lie_request(struct world *w)
{
	fake_agent_send(w->fa, WIRE_REQUEST, WIRE_MAIN, w->id, "[2s{0", "exec");
}

static void lie_cancel(struct world *w)
{
	fake_agent_send(w->fa, WIRE_CANCEL, WIRE_MAIN, w->id, "n");
}

static void lie_second_reply(struct world *w)
{
	fake_agent_send(w->fa, WIRE_REPLY, WIRE_MAIN, w->id, "{0");
	fake_agent_send(w->fa, WIRE_REPLY, WIRE_MAIN, w->id, "{0");
}

static void lie_length(struct world *w)
{
	fake_agent_raw(w->fa, "\xff\xff\xff\xff", 4);
}

static void lie_array(struct world *w)
{
	fake_agent_raw(w->fa, "\0\0\0\x09\x94\x01\x01\x01\xdd\xff\xff\xff\xff", 13);
}

static const struct lie {
	void (*tell)(struct world *w);
	const char *message;
} lies[] = {
	{ lie_unknown_reply, "a reply for id 77, which is not outstanding" },
	{ lie_unknown_error, "an error for id 77, which is not outstanding" },
	{ lie_unknown_event, "an event for id 77, which is not outstanding" },
	{ lie_unknown_credit, "a credit for id 77, which is not outstanding" },
	{ lie_channel, "a reply for id 2 on channel 5 instead of 1" },
	{ lie_reply_shape, "a reply to id 2 that is no map" },
	{ lie_error_shape, "an error without a message" },
	{ lie_error_errno, "an error with neither a valid errno nor a kind" },
	{ lie_error_errno_text, "an error with neither a valid errno nor a kind" },
	{ lie_event_shape, "an event or credit for id 2 that is no pair" },
	{ lie_event_empty, "an event or credit for id 2 that is no pair" },
	{ lie_event_stream, "an event on stream 9 of id 2, which has no such stream" },
	{ lie_event_text, "an event on stream 1 of id 2 with neither bytes nor nil" },
	{ lie_event_size, "an event of 65537 bytes (the most is 65536)" },
	{ lie_event_credit, "65536 bytes on stream 1 of id 2, which had credit for 0" },
	{ lie_event_ended, "an event on stream 1 of id 2 after its end" },
	{ lie_credit, "a credit of 1 bytes for id 2, which had sent 0" },
	{ lie_credit_huge, "a credit of 18446744073709551615 bytes for id 2" },
	{ lie_credit_stream, "a credit for id 2 that is not [0, bytes]" },
	{ lie_request, "a request, which only the host may send" },
	{ lie_cancel, "a cancel, which only the host may send" },
	{ lie_second_reply, "a second reply to id 2" },
	{ lie_length, "a frame of 4294967295 bytes" },
	{ lie_array, "a malformed frame of 9 bytes: an array or map claims more elements than follow" },
};

static void every_lie_ends_the_connection(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		struct world w;
		struct probe p;

		world_open_ready(&w);
		probe_start(&p, &w, "spawn", true, true);
		p.hold = true;
		RUN_UNTIL(&w, w.nseen);
		lies[i].tell(&w);
		RUN_UNTIL(&w, w.nbroken && p.err.code);
		assert_int_equal(w.err.code, -EPROTO);
		assert_ptr_equal(strstr(w.err.msg, "the guest's agent broke the protocol: "), w.err.msg);
		assert_non_null(strstr(w.err.msg, lies[i].message));
		assert_string_equal(p.err.msg, w.err.msg);
		assert_int_equal(p.nreply, 1);
		run_quiet(&w);
		assert_int_equal(w.nbroken, 1);
		probe_end(&p);
		world_close(&w);
	}
}

static void events_need_a_call_with_streams(void **state)
{
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "stat", false, false);
	RUN_UNTIL(&w, w.nseen);
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2un", 0);
	RUN_UNTIL(&w, p.nreply);
	assert_non_null(strstr(p.err.msg, "an event on stream 0 of id 2, which has no such stream"));
	probe_end(&p);
	world_close(&w);
}

/* ---- ends ---- */

static const char *const ops[] = {
	"exec", "spawn", "attach", "wait", "signal", "stdin", "status", "release", "open", "read", "write", "pread",
	"pwrite", "seek", "truncate", "sync", "close", "get_file", "put_file", "stat", "listdir", "mkdir",
	"unlink", "rename", "chmod", "syscall", "ioctl", "read_mem", "write_mem", "clock_get", "clock_set",
	"sleep", "net_configure", "net_names", "load_module", "tail", "unsubscribe", "batch",
};
#define NOPS (sizeof(ops) / sizeof(*ops))

static bool op_keeps_open(const char *op)
{
	return strcmp(op, "spawn") == 0 || strcmp(op, "attach") == 0 || strcmp(op, "tail") == 0;
}

static void every_op_hears_that_its_peer_died(void **state)
{
	static struct probe p[NOPS];
	struct err why = ERR_INIT;
	struct world w;
	struct probe late;

	(void)state;
	world_open_ready(&w);
	w.keep_calls = true;
	for (size_t i = 0; i < NOPS; i++)
		probe_start(&p[i], &w, ops[i], op_keeps_open(ops[i]), true);
	RUN_UNTIL(&w, w.nseen == NOPS);
	fake_agent_raw(w.fa, "\0\0\0\x09\x94", 5);
	run_quiet(&w);
	world_hangup(&w);
	RUN_UNTIL(&w, w.nbroken);
	assert_string_equal(w.err.msg, "the connection to the guest's agent was lost: "
		"closed by the other side in the middle of a frame (5 of 13 bytes)");
	run_quiet(&w);
	assert_int_equal(p[0].nreply, 0);	/* until its owner knows why */
	err_set(&why, EIO, "QEMU died: signal 9 (Killed)");
	agent_fail(w.agent, &why);
	assert_int_equal(p[0].nreply, 0);
	RUN_UNTIL(&w, p[NOPS - 1].nreply && p[0].nreply);
	for (size_t i = 0; i < NOPS; i++) {
		assert_int_equal(p[i].nreply, 1);
		assert_string_equal(p[i].err.msg, why.msg);
		assert_int_equal(p[i].err.code, -EIO);
		probe_end(&p[i]);
	}
	probe_start(&late, &w, "stat", false, false);
	RUN_UNTIL(&w, late.nreply);
	assert_string_equal(late.err.msg, why.msg);
	probe_end(&late);
	err_release(&why);
	world_close(&w);
}

/* The answer and the events of a call that was given up may be on their way. */
static void every_op_can_be_cancelled_while_pending(void **state)
{
	struct world w;
	struct probe p, after;

	(void)state;
	world_open_ready(&w);
	for (size_t i = 0; i < NOPS; i++) {
		for (int answer = 0; answer < 3; answer++) {
			probe_start(&p, &w, ops[i], op_keeps_open(ops[i]), true);
			w.nseen = 0;
			RUN_UNTIL(&w, w.nseen == 1);
			agent_call_free(p.call);
			p.call = NULL;
			RUN_UNTIL(&w, w.nseen == 2);
			assert_int_equal(w.seen[1].type, WIRE_CANCEL);
			assert_int_equal(w.seen[1].id, w.id);
			fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2ub", 1, "late", (size_t)4);
			if (answer == 0)
				fake_agent_send(w.fa, WIRE_ERROR, WIRE_MAIN, w.id, "{2ssss", "kind",
					"cancelled", "message", "cancelled");
			else if (answer == 1)
				fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
			probe_end(&p);
			assert_int_equal(p.nreply, 0);
		}
	}
	probe_start(&after, &w, "stat", false, false);
	RUN_UNTIL(&w, w.nseen == 3);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	RUN_UNTIL(&w, after.nreply);
	assert_int_equal(after.err.code, 0);
	assert_int_equal(w.nbroken, 0);
	probe_end(&after);
	world_close(&w);
}

/* As a real agent does; anything but sleep is answered at once. */
static void answer_cancel(struct world *w, unsigned type, uint32_t id, const msgpack_object *body)
{
	if (type == WIRE_CANCEL)
		fake_agent_send(w->fa, WIRE_ERROR, WIRE_MAIN, id, "{2ssss", "kind", "cancelled", "message",
			"cancelled");
	else if (body->via.array.ptr[0].via.str.size != strlen("sleep"))
		fake_agent_send(w->fa, WIRE_REPLY, WIRE_MAIN, id, "{0");
}

static void cancelled_calls_must_be_answered(void **state)
{
	struct world w;
	struct probe p;

	(void)state;
	world_open_ready(&w);
	w.on_frame = answer_cancel;
	for (size_t i = 0; i < 3 * 4096; i++) {
		probe_start(&p, &w, "sleep", false, false);
		probe_end(&p);
		if (i % 1024)
			continue;
		probe_start(&p, &w, "stat", false, false);
		RUN_UNTIL(&w, p.nreply);
		assert_int_equal(p.err.code, 0);
		probe_end(&p);
	}
	run_quiet(&w);
	assert_int_equal(w.nbroken, 0);
	w.on_frame = NULL;
	for (size_t i = 0; i < 4097; i++) {
		probe_start(&p, &w, "sleep", false, false);
		probe_end(&p);
	}
	assert_int_equal(w.nbroken, 0);
	RUN_UNTIL(&w, w.nbroken);
	assert_non_null(strstr(w.err.msg, "broke the protocol: it left more than 4096 cancelled operations"));
	world_close(&w);
}

static void a_call_kept_open_outlives_its_reply(void **state)
{
	struct world w;
	struct probe p;
	uint32_t id;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "spawn", true, true);
	RUN_UNTIL(&w, w.nseen);
	id = w.id;
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, id, "{0");
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, id, "[2ub", 1, "hello", (size_t)5);
	RUN_UNTIL(&w, p.bytes == 5);
	probe_end(&p);
	RUN_UNTIL(&w, w.nseen == 2);
	assert_string_equal(w.seen[1].op, "unsubscribe");
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, id, "[2ub", 1, "late", (size_t)4);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	/* The answer may have overtaken events. */
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, id, "[2ub", 1, "later", (size_t)5);
	run_quiet(&w);
	assert_int_equal(w.nbroken, 0);
	for (size_t i = 0; i < 5000; i++) {
		probe_start(&p, &w, "tail", true, true);
		fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, agent_call_id(p.call), "{0");
		RUN_UNTIL(&w, p.nreply);
		w.nseen = 0;
		probe_end(&p);
		RUN_UNTIL(&w, w.nseen && strcmp(w.seen[w.nseen - 1].op, "unsubscribe") == 0);
		fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	}
	assert_int_equal(w.nbroken, 0);
	world_close(&w);

	world_open_ready(&w);
	probe_start(&p, &w, "tail", true, true);
	RUN_UNTIL(&w, w.nseen);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	RUN_UNTIL(&w, p.nreply);
	world_hangup(&w);
	RUN_UNTIL(&w, p.nbroken);
	assert_int_equal(p.nreply, 1);
	agent_free(w.agent);
	w.agent = NULL;
	run_quiet(&w);
	probe_end(&p);
	world_close(&w);
}

static void callbacks_may_free(void **state)
{
	struct world w;
	struct probe p, other;

	(void)state;
	world_open_ready(&w);
	probe_start(&p, &w, "stat", false, false);
	p.free_in_reply = true;
	RUN_UNTIL(&w, w.nseen);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, w.id, "{0");
	RUN_UNTIL(&w, p.nreply);
	probe_end(&p);

	probe_start(&p, &w, "exec", false, true);
	p.free_in_piece = true;
	RUN_UNTIL(&w, w.nseen == 2);
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2ub", 1, "x", (size_t)1);
	fake_agent_send(w.fa, WIRE_EVENT, WIRE_MAIN, w.id, "[2ub", 1, "y", (size_t)1);
	RUN_UNTIL(&w, w.nseen == 3);
	assert_int_equal(p.bytes, 1);
	assert_int_equal(w.seen[2].type, WIRE_CANCEL);
	probe_end(&p);

	probe_start(&p, &w, "stat", false, false);
	p.free_agent = true;
	probe_start(&other, &w, "tail", true, true);
	RUN_UNTIL(&w, w.nseen == 5);
	fake_agent_send(w.fa, WIRE_REPLY, WIRE_MAIN, agent_call_id(p.call), "{0");
	RUN_UNTIL(&w, other.nreply);
	assert_string_equal(other.err.msg, "the connection to the guest's agent was closed");
	assert_int_equal(w.nbroken, 0);
	probe_end(&p);
	probe_end(&other);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_handshake_tells_about_the_guest),
		cmocka_unit_test(hello_is_checked),
		cmocka_unit_test(a_handshake_may_be_cut_off),
		cmocka_unit_test(errors_say_whose_they_are),
		cmocka_unit_test(replies_come_in_any_order),
		cmocka_unit_test(a_request_may_be_too_big),
		cmocka_unit_test(incoming_streams_run_on_credit),
		cmocka_unit_test(outgoing_streams_run_on_credit),
		cmocka_unit_test(outgoing_streams_keep_little_on_the_way),
		cmocka_unit_test(outgoing_streams_go_on_when_others_stop),
		cmocka_unit_test(outgoing_streams_are_not_cut_to_bits),
		cmocka_unit_test(every_lie_ends_the_connection),
		cmocka_unit_test(events_need_a_call_with_streams),
		cmocka_unit_test(every_op_hears_that_its_peer_died),
		cmocka_unit_test(every_op_can_be_cancelled_while_pending),
		cmocka_unit_test(cancelled_calls_must_be_answered),
		cmocka_unit_test(a_call_kept_open_outlives_its_reply),
		cmocka_unit_test(callbacks_may_free),
	};

	signal(SIGPIPE, SIG_IGN);	/* the fake writes to a connection that the client has closed */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
