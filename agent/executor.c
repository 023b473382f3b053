/*
 * An executor: a process with one epoll loop that carries out requests of one channel.
 *
 * Everything but asynchronous system calls happens on its one thread, so that what a guest's system calls
 * change in it (descriptors, credentials, namespaces, mappings) is there for the next one.
 */
#include "executor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "call.h"
#include "conn.h"
#include "file.h"
#include "job.h"
#include "process.h"

#define ZONE_SIZE 2048
#define ZONES_MAX 8

static void mux_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body);
static void mux_closed(void *arg, int err);
static void mux_drained(void *arg);

static const struct conn_cbs mux_cbs;

/* Lives as long as the process. */
struct executor {
	struct ev *ev;
	struct conn *conn;
	uint32_t channel;
	TAILQ_HEAD(, call) calls;
	uint32_t last_handle;
	msgpack_zone *zones[ZONES_MAX];		/* spare ones */
	unsigned nzones;
	struct processes *processes;
	struct files *files;
	struct jobs *jobs;
};

/* What the mux had open is not for us, and not for anything we start. */
static void close_all_but(int fd)
{
	struct rlimit lim = {.rlim_cur = 4096};

#ifdef SYS_close_range
	if (syscall(SYS_close_range, 3, fd - 1, 0) == 0 && syscall(SYS_close_range, fd + 1, ~0u, 0) == 0)
		return;
#endif
	getrlimit(RLIMIT_NOFILE, &lim);
	for (int i = 3; i < 65536 && (rlim_t)i < lim.rlim_cur; i++)
		if (i != fd)
			close(i);
}

int executor_main(int fd, uint32_t channel, uint32_t handles)
{
	struct executor *x = xcalloc(1, sizeof(*x));

	fd = agent_high_fd(fd);
	close_all_but(fd);
	x->channel = channel;
	x->last_handle = handles;
	x->ev = ev_new();
	TAILQ_INIT(&x->calls);
	x->processes = processes_new(x);
	x->files = files_new();
	x->jobs = jobs_new(x->ev);
	x->conn = conn_new(x->ev, fd, false, &mux_cbs, x);
	ev_run(x->ev);
	processes_kill_all(x->processes);
	return 0;
}

struct ev *executor_ev(const struct executor *x)
{
	return x->ev;
}

uint32_t executor_channel(const struct executor *x)
{
	return x->channel;
}

struct processes *executor_processes(const struct executor *x)
{
	return x->processes;
}

struct files *executor_files(const struct executor *x)
{
	return x->files;
}

struct jobs *executor_jobs(const struct executor *x)
{
	return x->jobs;
}

uint32_t executor_new_handle(struct executor *x)
{
	return ++x->last_handle;
}

/* Most calls are over in their handler: their memory is used again. */
msgpack_zone *executor_zone(struct executor *x)
{
	msgpack_zone *z = x->nzones ? x->zones[--x->nzones] : msgpack_zone_new(ZONE_SIZE);

	if (!z)
		agent_die("out of memory");
	return z;
}

void executor_zone_put(struct executor *x, msgpack_zone *z)
{
	if (x->nzones == ZONES_MAX) {
		msgpack_zone_free(z);
		return;
	}
	msgpack_zone_clear(z);
	x->zones[x->nzones++] = z;
}

void executor_send(struct executor *x, struct buf frame, bool bulk)
{
	if (frame.len - 4 > WIRE_FRAME_MAX) {
		struct wire_head h;

		wire_head(frame.p + 4, frame.len - 4, &h);
		buf_free(&frame);
		frame = frame_error(h.channel, h.id, WIRE_INTERNAL,
			"the answer is longer than a frame's 64 MiB");
	}
	conn_send(x->conn, frame, bulk ? CONN_BULK : CONN_EXPRESS);
	if (conn_queued(x->conn) > CONN_LONG)
		conn_pause(x->conn, true);
}

static void mux_drained(void *arg)
{
	struct executor *x = arg;

	conn_pause(x->conn, false);
}

static void mux_closed(void *arg, int err)
{
	struct executor *x = arg;

	(void)err;
	ev_stop(x->ev);
}

struct call *executor_find_call(struct executor *x, uint32_t id)
{
	struct call *c;

	TAILQ_FOREACH(c, &x->calls, entry)
		if (c->id == id)
			return c;
	return NULL;
}

void executor_call_over(struct executor *x, struct call *c)
{
	TAILQ_REMOVE(&x->calls, c, entry);
}

/* ---- frames ---- */

/* msgpack leaves strings where they are. */
static int decode(msgpack_zone *z, const void *p, size_t n, msgpack_object *o)
{
	size_t off = 0;

	return msgpack_unpack(p, n, &off, z, o) == MSGPACK_UNPACK_SUCCESS ? 0 : -1;
}

/* The copy keeps them alive as long as the zone. */
static int decode_copy(msgpack_zone *z, const uint8_t *p, size_t n, msgpack_object *o)
{
	void *copy = msgpack_zone_malloc(z, n);

	if (!copy)
		return -1;
	memcpy(copy, p, n);
	return decode(z, copy, n, o);
}

static void refuse(struct executor *x, uint32_t id, const char *kind, const char *message)
{
	executor_send(x, frame_error(x->channel, id, kind, message), false);
}

static void start_request(struct executor *x, uint32_t id, const uint8_t *p, size_t n)
{
	msgpack_zone *z = executor_zone(x);
	const msgpack_object *pair;
	const struct op *op = NULL;
	msgpack_object body;
	struct call *c;
	bool bad;

	bad = decode_copy(z, p, n, &body) < 0 || body.type != MSGPACK_OBJECT_ARRAY || body.via.array.size != 2 ||
		body.via.array.ptr[0].type != MSGPACK_OBJECT_STR;
	pair = bad ? NULL : body.via.array.ptr;
	if (!bad)
		op = op_find(&pair[0]);
	if (!op) {
		char *message = bad ? xstrdup("a request's body should be [op, {params}]") :
			xasprintf("this agent knows no request `%.*s`", (int)(pair->via.str.size & 63),
				pair->via.str.ptr);

		refuse(x, id, bad ? WIRE_BAD_REQUEST : WIRE_UNSUPPORTED, message);
		free(message);
		executor_zone_put(x, z);
		return;
	}
	c = call_new(x, id, &pair[1], z);
	c->op = op;
	TAILQ_INSERT_TAIL(&x->calls, c, entry);
	if (!call_refused(c))
		op->start(c);
}

/* [stream, bytes | nil] or [stream, n]. */
static void take_event(struct executor *x, uint32_t type, struct call *c, const uint8_t *p, size_t n)
{
	const msgpack_object *pair;
	msgpack_object body;
	msgpack_zone *z = executor_zone(x);
	uint64_t stream;

	if (decode(z, p, n, &body) < 0 || body.type != MSGPACK_OBJECT_ARRAY || body.via.array.size != 2 ||
	    body.via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		goto out;
	pair = body.via.array.ptr;
	stream = pair[0].via.u64;
	if (type == WIRE_CREDIT && stream < CALL_STREAMS && pair[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
		if (pair[1].via.u64 > SIZE_MAX / 2 - c->credit[stream])
			goto out;
		c->credit[stream] += pair[1].via.u64;
		if (c->cbs && c->cbs->credit)
			c->cbs->credit(c, (unsigned)stream);
	} else if (type == WIRE_EVENT && stream == 0 && c->cbs && c->cbs->event) {
		if (pair[1].type == MSGPACK_OBJECT_BIN)
			c->cbs->event(c, pair[1].via.bin.ptr, pair[1].via.bin.size);
		else if (pair[1].type == MSGPACK_OBJECT_NIL)
			c->cbs->event(c, NULL, 0);
	}
out:
	executor_zone_put(x, z);
}

static void reset(struct executor *x, uint32_t generation)
{
	struct call *c;

	while ((c = TAILQ_FIRST(&x->calls)))
		call_drop(c, true);
	conn_drop_output(x->conn, false);
	conn_pause(x->conn, false);
	executor_send(x, frame_plain(FRAME_RESET, x->channel, generation), false);
}

static void mux_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	struct executor *x = arg;
	struct call *c;

	if (h->type == FRAME_RESET) {
		reset(x, h->id);
		return;
	}
	if (h->type == WIRE_REQUEST) {
		start_request(x, h->id, p + body, n - body);
		return;
	}
	c = executor_find_call(x, h->id);
	if (!c)
		return;
	if (h->type == WIRE_CANCEL) {
		call_drop(c, false);
		refuse(x, h->id, WIRE_CANCELLED, "cancelled");
	} else if (h->type == WIRE_EVENT || h->type == WIRE_CREDIT) {
		take_event(x, h->type, c, p + body, n - body);
	}
}

static const struct conn_cbs mux_cbs = {
	.frame = mux_frame,
	.closed = mux_closed,
	.drained = mux_drained,
};
