/*
 * A call: one request that an executor carries out, its parameters, its answer and its streams.
 */
#include "call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "executor.h"

struct call *call_new(struct executor *x, uint32_t id, const msgpack_object *params, msgpack_zone *zone)
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->x = x;
	c->id = id;
	args_init(&c->args, params, zone);
	for (unsigned i = 0; i < CALL_STREAMS; i++)
		c->credit[i] = WIRE_WINDOW;
	return c;
}

const struct op *op_find(const msgpack_object *name)
{
	const msgpack_object_str *s = &name->via.str;

	if (name->type != MSGPACK_OBJECT_STR)
		return NULL;
	for (const struct op *op = op_table; op->name; op++)
		if (strlen(op->name) == s->size && memcmp(op->name, s->ptr, s->size) == 0)
			return op;
	return NULL;
}

struct ev *call_ev(const struct call *c)
{
	return executor_ev(c->x);
}

static void release(struct call *c)
{
	for (unsigned i = 0; i < CALL_STREAMS; i++)
		buf_free(&c->collected[i]);
	if (!c->batch)
		executor_zone_put(c->x, c->args.zone);
	ev_free_later(call_ev(c), c);
}

void call_drop(struct call *c, bool reset)
{
	if (c->cbs && c->cbs->reset && reset)
		c->cbs->reset(c);
	else if (c->cbs && c->cbs->cancel)
		c->cbs->cancel(c);
	if (!c->batch)
		executor_call_over(c->x, c);
	release(c);
}

void call_end(struct call *c)
{
	struct batch *b = c->batch;

	if (!b)
		executor_call_over(c->x, c);
	release(c);
	if (b)
		batch_next(b);
}

/* ---- answers ---- */

static void begin(struct call *c, unsigned type)
{
	struct frame *f = &c->reply;

	c->replied = true;
	if (!c->batch) {
		frame_begin(f, type, executor_channel(c->x), c->id);
		return;
	}
	c->outcome = batch_results(c->batch)->len;
	msgpack_packer_init(&f->pk, batch_results(c->batch), buf_pack);
	msgpack_pack_array(&f->pk, 2);
	if (type == WIRE_REPLY)
		msgpack_pack_true(&f->pk);
	else
		msgpack_pack_false(&f->pk);
}

/* A call that sent much lets others pass; its answer follows its own pieces. */
static void finish(struct call *c)
{
	if (!c->batch) {
		executor_send(c->x, frame_end(&c->reply), c->bulk);
	} else if (c->overflow) {
		c->overflow = false;
		batch_results(c->batch)->len = c->outcome;
		begin(c, WIRE_ERROR);
		pack_errno(&c->reply.pk, EFBIG);
	}
}

bool call_refused(struct call *c)
{
	if (!c->args.problem[0])
		return false;
	call_fail(c, WIRE_BAD_REQUEST, "%s", c->args.problem);
	return true;
}

void call_fail(struct call *c, const char *kind, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	begin(c, WIRE_ERROR);
	pack_error(&c->reply.pk, kind, message);
	finish(c);
	call_end(c);
}

void call_errno(struct call *c, int err)
{
	begin(c, WIRE_ERROR);
	pack_errno(&c->reply.pk, err < 0 ? -err : err);
	finish(c);
	call_end(c);
}

msgpack_packer *call_reply(struct call *c, unsigned fields)
{
	unsigned streams = 0;

	begin(c, WIRE_REPLY);
	for (unsigned i = 0; c->batch && i < CALL_STREAMS; i++)
		streams += c->op->output[i] != NULL;
	msgpack_pack_map(&c->reply.pk, fields + streams);
	for (unsigned i = 0; c->batch && i < CALL_STREAMS; i++) {
		if (!c->op->output[i])
			continue;
		pack_str(&c->reply.pk, c->op->output[i]);
		pack_bin(&c->reply.pk, c->collected[i].p, c->collected[i].len);
	}
	return &c->reply.pk;
}

void call_reply_keep(struct call *c)
{
	finish(c);
}

void call_reply_end(struct call *c)
{
	finish(c);
	call_end(c);
}

void call_reply_empty(struct call *c)
{
	call_reply(c, 0);
	call_reply_end(c);
}

/* ---- streams ---- */

size_t call_room(const struct call *c, unsigned stream)
{
	if (c->batch)
		return WIRE_PIECE;
	return c->credit[stream] < WIRE_PIECE ? c->credit[stream] : WIRE_PIECE;
}

static void send_event(struct call *c, unsigned stream, const void *p, size_t n)
{
	struct frame f;

	frame_begin(&f, WIRE_EVENT, executor_channel(c->x), c->id);
	msgpack_pack_array(&f.pk, 2);
	msgpack_pack_uint32(&f.pk, stream);
	if (p)
		pack_bin(&f.pk, p, n);
	else
		msgpack_pack_nil(&f.pk);
	executor_send(c->x, frame_end(&f), c->bulk);
}

/* In a batch, too much is not kept: the handler goes on to its end, and its answer is EFBIG instead. */
void call_send(struct call *c, unsigned stream, const void *p, size_t n)
{
	if (c->batch) {
		c->overflow = c->overflow || c->collected[stream].len + n > WIRE_BATCH_MAX;
		if (!c->overflow)
			buf_append(&c->collected[stream], p, n);
		return;
	}
	c->credit[stream] -= n < c->credit[stream] ? n : c->credit[stream];
	if (n >= 4096)
		c->bulk = true;
	send_event(c, stream, p, n);
}

void call_send_end(struct call *c, unsigned stream)
{
	if (!c->batch)
		send_event(c, stream, NULL, 0);
}

void call_consumed(struct call *c, size_t n)
{
	struct frame f;

	if (c->batch || n == 0)
		return;
	frame_begin(&f, WIRE_CREDIT, executor_channel(c->x), c->id);
	msgpack_pack_array(&f.pk, 2);
	msgpack_pack_uint32(&f.pk, 0);
	msgpack_pack_uint64(&f.pk, n);
	executor_send(c->x, frame_end(&f), false);
}
