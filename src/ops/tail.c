/*
 * tail_file() and fd_stream(): a guest file's or descriptor's bytes as a stream.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/reply.h"
#include "ops/stream.h"

static void tail_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void tail_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void tail_broken_cb(void *arg, const struct err *e);
static const struct agent_events tail_events;
static const struct stream_source tail_source;
static const struct wait_kind tail_kind;

struct tail_wait;

/* Freed when its stream is closed, or when it could not be started. */
struct tail {
	struct target *target;
	struct agent_call *call;
	struct stream *stream;
	struct tail_wait *starter;	/* the task that waits for the agent's answer */
};

struct tail_wait {
	struct wait wait;
	struct tail *tail;
	struct target *target;
	struct stream *stream;
	const char *op;
	char *shown;
};

/* tail(vm or worker, params packed, op, shown) -> Stream */
static int op_tail(lua_State *L)
{
	const char *op = luaL_checkstring(L, 3), *shown = luaL_checkstring(L, 4);
	struct target *t = check_target(L, 1, op);
	msgpack_sbuffer params = { 0 };
	struct stream *s;
	struct tail_wait *w;
	struct tail *tl;

	ops_scope(L);	/* raises while nothing is made yet */
	params.data = (char *)luaL_checklstring(L, 2, &params.size);
	w = wait_new(L, &tail_kind, sizeof(*w));
	w->tail = tl = xcalloc(1, sizeof(*tl));
	tl->target = w->target = t;
	tl->starter = w;
	w->op = strcmp(op, "tail_file") == 0 ? "tail_file" : "fd_stream";
	w->shown = xstrdup(shown);
	s = stream_new(L, &tail_source, tl, &target_mux(t)->open_streams);
	stream_label(s, "%s(\"%s\")", op, shown);
	w->stream = tl->stream = s;
	stream_push(L, s);
	tl->call = agent_call(vm_agent(t->vm), t->channel, "tail", &params, true, &tail_events, tl);
	return wait_yield(L, &w->wait);
}

static void tail_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct tail *tl = arg;
	struct tail_wait *w = tl->starter;

	(void)o;
	tl->starter = NULL;
	if (!w)
		return;
	if (!e) {
		w->tail = NULL;
		wait_finish(&w->wait);
		return;
	}
	target_fail(&w->wait, tl->target, w->op, w->shown, e);
}

static void tail_piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct tail *tl = arg;

	(void)stream;
	if (!tl->stream)
		return;
	if (data)
		stream_feed(tl->stream, data, len);
	else
		stream_end(tl->stream, NULL);
}

static void tail_broken_cb(void *arg, const struct err *e)
{
	struct tail *tl = arg;

	if (tl->stream)
		stream_end(tl->stream, e);
}

static void tail_consumed(void *arg, size_t n)
{
	struct tail *tl = arg;

	agent_call_credit(tl->call, 0, n);
}

/* Freeing the call ends the agent's events. */
static void tail_closed(void *arg)
{
	struct tail *tl = arg;

	agent_call_free(tl->call);
	if (tl->starter)
		tl->starter->tail = NULL;
	free(tl);
}

static int tail_push(struct wait *wait, lua_State *L)
{
	stream_push(L, ((struct tail_wait *)wait)->stream);
	return 1;
}

static void tail_describe(struct wait *wait, char *buf, size_t size)
{
	struct tail_wait *w = (struct tail_wait *)wait;

	snprintf(buf, size, "vm \"%s\": %s \"%.200s\"", vm_name(w->target->vm), w->op, w->shown);
}

/* With the tail still in hand it failed or was cancelled: nobody will see the stream. */
static void tail_release(struct wait *wait)
{
	struct tail_wait *w = (struct tail_wait *)wait;
	struct tail *tl = w->tail;

	if (tl) {
		tl->starter = NULL;
		stream_close(tl->stream);
		agent_call_free(tl->call);
		free(tl);
	}
	free(w->shown);
}

static const struct agent_events tail_events = {
	.reply = tail_reply_cb,
	.piece = tail_piece_cb,
	.broken = tail_broken_cb,
};

static const struct stream_source tail_source = {
	.kind = "file",
	.consumed = tail_consumed,
	.closed = tail_closed,
};

static const struct wait_kind tail_kind = {
	.name = "vm:tail_file",
	.push = tail_push,
	.describe = tail_describe,
	.release = tail_release,
};

static const luaL_Reg core_ops[] = {
	{ "tail", op_tail },
	{ NULL, NULL },
};

void ops_open_tail(lua_State *L)
{
	lua_set_ops(L, core_ops);
}
