/*
 * A call: one request that an executor carries out, its parameters, its answer and its streams.
 *
 * A handler starts it and returns; it ends with exactly one reply or error, at once or from a later callback
 * of the loop. Streams may go on after the reply when the handler says so.
 */
#ifndef PROVIUM_AGENT_CALL_H
#define PROVIUM_AGENT_CALL_H

#include <sys/queue.h>

#include "args.h"
#include "ev.h"
#include "frame.h"

struct executor;
struct call;
struct batch;

#define CALL_STREAMS 3

/* What a call that does not end in its handler can be told. Any may be NULL. */
struct call_cbs {
	/* A piece of stream 0 from the host, or its end (p NULL). */
	void (*event)(struct call *c, const void *p, size_t n);
	/* The host takes more of a stream. */
	void (*credit)(struct call *c, unsigned stream);
	/* Stop and release what the call holds; it is freed right after and must not be answered. */
	void (*cancel)(struct call *c);
	/* The same because the host connected anew; NULL: cancel. */
	void (*reset)(struct call *c);
	/* The host wants no more of the streams of a replied call: ends them and the call. */
	void (*unsubscribe)(struct call *c);
};

struct call {
	TAILQ_ENTRY(call) entry;
	struct executor *x;
	uint32_t id;
	const struct op *op;
	struct args args;		/* valid as long as the call */
	const struct call_cbs *cbs;	/* NULL: nothing to tell it */
	void *state;			/* the handler's */
	struct batch *batch;		/* it is one of a batch; NULL: of its own */
	size_t credit[CALL_STREAMS];
	struct buf collected[CALL_STREAMS];	/* in a batch: the streams, which go into the reply */
	size_t outcome;			/* in a batch: where in its results the answer begins */
	bool replied, bulk, overflow;
	struct frame reply;
};

/* One request that executors know. */
struct op {
	const char *name;
	void (*start)(struct call *c);
	bool no_batch;			/* its streams outlive its reply, or it makes no sense there */
	const char *input;		/* in a batch: the parameter that stands for stream 0 */
	const char *output[CALL_STREAMS];	/* in a batch: the reply's fields that stand for streams */
};
extern const struct op op_table[];	/* ops.c; ends with name NULL */

struct ev *call_ev(const struct call *c);

/* True, and the call is over, when a parameter was bad. */
bool call_refused(struct call *c);

/* Errors end the call. */
void call_fail(struct call *c, const char *kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void call_errno(struct call *c, int err);	/* positive; or negative as returned by functions */

/* A reply: pack key-value pairs between the two. call_reply_end ends the call; call_reply_keep leaves it
 * open for its streams until call_end. */
msgpack_packer *call_reply(struct call *c, unsigned fields);
void call_reply_end(struct call *c);
void call_reply_keep(struct call *c);
void call_reply_empty(struct call *c);
void call_end(struct call *c);

/* Streams to the host. At most call_room bytes may be sent; the rest after the credit callback. */
size_t call_room(const struct call *c, unsigned stream);
void call_send(struct call *c, unsigned stream, const void *p, size_t n);
void call_send_end(struct call *c, unsigned stream);
/* The handler has consumed n bytes of stream 0: the host may send as many. */
void call_consumed(struct call *c, size_t n);

/* ---- for executor.c and batch.c ---- */

/* The zone, where params live, is given back to the executor at the call's end unless the call is in a
 * batch. */
struct call *call_new(struct executor *x, uint32_t id, const msgpack_object *params, msgpack_zone *zone);
msgpack_zone *executor_zone(struct executor *x);
void executor_zone_put(struct executor *x, msgpack_zone *z);
const struct op *op_find(const msgpack_object *name);
/* Cancels without answering, frees. reset: because the host connected anew. */
void call_drop(struct call *c, bool reset);

void executor_send(struct executor *x, struct buf frame, bool bulk);
uint32_t executor_channel(const struct executor *x);
void executor_call_over(struct executor *x, struct call *c);
struct call *executor_find_call(struct executor *x, uint32_t id);
/* The sub-call's outcome was packed as [true, {}] or [false, {error}] into b, which is the batch's. */
struct buf *batch_results(struct batch *b);
void batch_next(struct batch *b);

#endif
