/*
 * A batch: many requests in one, carried out one after the other whatever comes of each.
 */
#include <errno.h>
#include <stdlib.h>

#include "executor.h"
#include "ops.h"

/* The answers must fit into one frame; what comes after this is refused. */
#define RESULTS_MAX (44u << 20)

static void batch_cancel(struct call *c);

static const struct call_cbs batch_cbs;

/* Freed with its call. */
struct batch {
	struct call *c;
	const msgpack_object_array *ops;
	uint32_t next;
	struct call *current;	/* NULL: none runs */
	bool looping;		/* batch_run is on the stack: it goes on by itself */
	struct buf results;
};

static void batch_run(struct batch *b);

struct buf *batch_results(struct batch *b)
{
	return &b->results;
}

static void finish(struct batch *b)
{
	struct call *c = b->c;
	msgpack_packer *pk = call_reply(c, 1);

	pack_str(pk, "results");
	msgpack_pack_array(pk, b->ops->size);
	pk->callback(pk->data, (char *)b->results.p, b->results.len);
	buf_free(&b->results);
	free(b);
	call_reply_end(c);
}

static void refuse(struct batch *b, const char *kind, const char *message)
{
	msgpack_packer pk;

	msgpack_packer_init(&pk, &b->results, buf_pack);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_false(&pk);
	pack_error(&pk, kind, message);
}

/* What a request of its own would get in events. */
static void feed(struct batch *b, struct call *sub)
{
	const msgpack_object *o = args_find(&sub->args, sub->op->input);
	struct bytes data = {NULL, 0};

	if (!sub->cbs || !sub->cbs->event)
		return;
	if (o && (o->type == MSGPACK_OBJECT_BIN || o->type == MSGPACK_OBJECT_STR))
		data = args_bytes(&sub->args, sub->op->input);
	if (data.n)
		sub->cbs->event(sub, data.p, data.n);
	if (b->current == sub)
		sub->cbs->event(sub, NULL, 0);
}

static void start_next(struct batch *b)
{
	const msgpack_object *o = &b->ops->ptr[b->next++];
	const struct op *op = NULL;
	struct call *sub;

	if (o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size == 2)
		op = op_find(&o->via.array.ptr[0]);
	if (!op || op->no_batch) {
		refuse(b, op ? WIRE_UNSUPPORTED : WIRE_BAD_REQUEST,
			op ? "this request cannot be in a batch" :
				"a batch's element should be [op, {params}]");
		return;
	}
	if (b->results.len > RESULTS_MAX) {
		refuse(b, WIRE_INTERNAL,
			"the batch's results are too long for one frame: use smaller batches");
		return;
	}
	sub = call_new(b->c->x, b->c->id, &o->via.array.ptr[1], b->c->args.zone);
	sub->op = op;
	sub->batch = b;
	b->current = sub;
	if (call_refused(sub))
		return;
	op->start(sub);
	if (b->current == sub && op->input)
		feed(b, sub);
}

/* A loop, not recursion: there may be many thousands. */
static void batch_run(struct batch *b)
{
	b->looping = true;
	while (!b->current && b->next < b->ops->size)
		start_next(b);
	b->looping = false;
	if (!b->current)
		finish(b);
}

void batch_next(struct batch *b)
{
	b->current = NULL;
	if (!b->looping)
		batch_run(b);
}

static void batch_cancel(struct call *c)
{
	struct batch *b = c->state;

	if (b->current)
		call_drop(b->current, false);
	buf_free(&b->results);
	free(b);
}

void op_batch(struct call *c)
{
	const msgpack_object_array *ops = args_opt_array(&c->args, "ops");
	struct batch *b;

	if (!ops)
		args_refuse(&c->args, "`ops` is missing");
	if (call_refused(c))
		return;
	b = xcalloc(1, sizeof(*b));
	b->c = c;
	b->ops = ops;
	c->state = b;
	c->cbs = &batch_cbs;
	batch_run(b);
}

static const struct call_cbs batch_cbs = {.cancel = batch_cancel};
