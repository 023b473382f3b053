/*
 * Calls to the guest's agent: which are outstanding, what the guest may send for each, and its credit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/protocol.h"
#include "vmm/agentcall.h"

#define BUCKETS 256		/* ids count up, so they spread evenly */
#define STREAMS 3
#define DROPPED_MAX 4096	/* cancelled calls that are remembered */
#define CREDIT_STEP (WIRE_WINDOW / 4)

/*
 * What is on its way to the guest goes before any later request, so a stream keeps no more there than what
 * comes back as credit within a time: a short one while others ask the guest as well, else a time in which it
 * is surely kept busy.
 */
#define MS INT64_C(1000000)
#define FLIGHT_START (4 * WIRE_LIGHT)
#define FLIGHT_NS(others) ((others) ? MS / 10 : 20 * MS)
#define OTHERS_NS (50 * MS)	/* since the last request, that there are others */

static void call_fail_cb(void *arg);
static void calls_overflow_cb(void *arg);

enum call_state {
	PENDING,	/* no reply yet */
	OPEN,		/* replied, its streams go on (keep_open) */
	FAILING,	/* a failure is on its way to the owner through the loop */
	OVER,		/* told everything, waits for agent_call_free */
	CANCELLED,	/* given up by the owner; the guest owes a reply or an error */
	DETACHED,	/* given up by the owner; late events or an error may come, or nothing */
	GONE		/* freed, but for its memory */
};

/* One incoming stream. */
struct window {
	size_t left;		/* bytes the guest may still send */
	size_t held;		/* bytes the owner has not returned */
	size_t owed;		/* bytes returned by the owner and not yet told to the guest */
	bool ended;
};

/* Our stream 0. */
struct flight {
	size_t credit;		/* bytes the guest takes now */
	size_t most;		/* bytes that may be on their way, of the whole window */
	size_t timed;		/* this many bytes more are to come back until the timed ones have; 0: none */
	int64_t timed_ns;	/* when they were sent */
	bool blocked;		/* the owner waits for writable() */
	bool ended;
};

/*
 * A call is in its connection's table while the guest may send frames for its id, that is also after its
 * owner gave it up: what was on its way then is no breach. It is freed at the end of a turn, never within
 * one, so code that ran a callback may still look at it.
 *
 * It belongs to its owner until agent_call_free, even when the connection is gone by then.
 */
struct agent_call {
	LIST_ENTRY(agent_call) entry;		/* in its bucket */
	TAILQ_ENTRY(agent_call) dropped;	/* while CANCELLED or DETACHED, oldest first */
	struct calls *calls;			/* NULL once it is out of the table */
	struct loop *loop;
	const struct agent_events *ev;
	void *arg;
	uint32_t id;
	unsigned channel;
	int64_t began_ns;
	enum call_state state;
	bool keep_open;
	bool replied;
	struct window in[STREAMS];
	struct flight out;
	struct err err;				/* while FAILING */
};

/* Freed by calls_free, at the end of the turn. */
struct calls {
	struct loop *loop;
	struct framed *framed;			/* borrowed; NULL when disconnected */
	void (*broken)(void *arg, const struct err *e);
	void *arg;
	uint32_t next_id;
	bool wrapped;				/* every id has been used */
	int64_t asked_ns;			/* when the last request was sent */
	LIST_HEAD(, agent_call) buckets[BUCKETS];
	TAILQ_HEAD(, agent_call) dropped;
	size_t ndropped;
	struct err reason;			/* set by calls_fail */
};

/* ---- the table ---- */

size_t calls_pending(const struct calls *cs)
{
	const struct agent_call *c;
	size_t n = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		LIST_FOREACH(c, &cs->buckets[i], entry)
			n += c->state == PENDING;
	return n;
}

struct calls *calls_new(struct loop *l, struct framed *f, void (*broken)(void *arg, const struct err *e),
	void *arg)
{
	struct calls *cs = xcalloc(1, sizeof(*cs));

	cs->loop = l;
	cs->framed = f;
	cs->broken = broken;
	cs->arg = arg;
	TAILQ_INIT(&cs->dropped);
	return cs;
}

static struct agent_call *calls_find(struct calls *cs, uint32_t id)
{
	struct agent_call *c;

	LIST_FOREACH(c, &cs->buckets[id % BUCKETS], entry)
		if (c->id == id)
			return c;
	return NULL;
}

static uint32_t calls_new_id(struct calls *cs)
{
	do {
		if (++cs->next_id == 0) {
			cs->wrapped = true;
			cs->next_id = 1;
		}
	} while (calls_find(cs, cs->next_id));
	return cs->next_id;
}

static bool is_dropped(const struct agent_call *c)
{
	return c->state == CANCELLED || c->state == DETACHED;
}

/* Takes c out of the table: the guest may send nothing more for it. */
static void call_remove(struct agent_call *c)
{
	if (!c->calls)
		return;
	if (is_dropped(c)) {
		TAILQ_REMOVE(&c->calls->dropped, c, dropped);
		c->calls->ndropped--;
	}
	LIST_REMOVE(c, entry);
	c->calls = NULL;
}

static void call_destroy(void *arg)
{
	struct agent_call *c = arg;

	err_release(&c->err);
	free(c);
}

static void call_forget(struct agent_call *c)
{
	call_remove(c);
	loop_defer(c->loop, call_destroy, c);
}

/* ---- failing ---- */

/* The owner hears of it from the loop. */
static void call_fail_later(struct agent_call *c, const struct err *why)
{
	call_remove(c);
	c->state = FAILING;
	err_copy(&c->err, why);
	loop_defer(c->loop, call_fail_cb, c);
}

/* Tells the owner how c ended; o or e. */
static void call_end(struct agent_call *c, const msgpack_object *o, const struct err *e)
{
	bool first = !c->replied;

	call_remove(c);
	c->state = OVER;
	c->replied = true;
	if (first)
		c->ev->reply(c->arg, o, e);
	else if (c->ev->broken)
		c->ev->broken(c->arg, e);
}

static void call_fail_cb(void *arg)
{
	struct agent_call *c = arg;

	if (c->state == GONE)
		call_destroy(c);
	else
		call_end(c, NULL, &c->err);
}

void calls_disconnect(struct calls *cs)
{
	cs->framed = NULL;
}

void calls_fail(struct calls *cs, const struct err *why)
{
	struct agent_call *c, *next;

	if (err_is_set(&cs->reason))
		return;
	err_copy(&cs->reason, why);
	for (size_t i = 0; i < BUCKETS; i++)
		for (c = LIST_FIRST(&cs->buckets[i]); c; c = next) {
			next = LIST_NEXT(c, entry);
			if (is_dropped(c))
				call_forget(c);
			else
				call_fail_later(c, why);
		}
}

static void calls_destroy(void *arg)
{
	struct calls *cs = arg;

	err_release(&cs->reason);
	free(cs);
}

void calls_free(struct calls *cs)
{
	INVARIANT(err_is_set(&cs->reason));
	calls_disconnect(cs);
	loop_defer(cs->loop, calls_destroy, cs);
}

static void calls_overflow_cb(void *arg)
{
	struct calls *cs = arg;
	struct err e = ERR_INIT;

	if (err_is_set(&cs->reason) || !cs->framed)
		return;
	err_set(&e, EPROTO, "it left more than %d cancelled operations unanswered", DROPPED_MAX);
	cs->broken(cs->arg, &e);
	err_release(&e);
}

/* ---- output ---- */

static void pack_text(msgpack_packer *pk, const char *s)
{
	msgpack_pack_str_with_body(pk, s, strlen(s));
}

static void frame_begin(msgpack_sbuffer *b, msgpack_packer *pk, enum wire_type type,
	const struct agent_call *c)
{
	msgpack_sbuffer_init(b);
	msgpack_packer_init(pk, b, msgpack_sbuffer_write);
	msgpack_pack_array(pk, 4);
	msgpack_pack_unsigned_int(pk, type);
	msgpack_pack_unsigned_int(pk, c->channel);
	msgpack_pack_uint32(pk, c->id);
}

static void frame_end(struct calls *cs, msgpack_sbuffer *b)
{
	if (cs->framed)
		framed_send(cs->framed, b->data, b->size);
	msgpack_sbuffer_destroy(b);
}

/* Sends the request, or lets the call fail when it is too big for a frame. */
static void call_request(struct agent_call *c, const char *op, const msgpack_sbuffer *params)
{
	struct err e = ERR_INIT;
	msgpack_sbuffer b;
	msgpack_packer pk;

	frame_begin(&b, &pk, WIRE_REQUEST, c);
	msgpack_pack_array(&pk, 2);
	pack_text(&pk, op);
	if (params)
		msgpack_sbuffer_write(&b, params->data, params->size);
	else
		msgpack_pack_map(&pk, 0);
	if (b.size <= WIRE_FRAME_MAX) {
		frame_end(c->calls, &b);
		return;
	}
	err_set(&e, EMSGSIZE, "the request `%s` takes %zu bytes; the most is %u", op, b.size, WIRE_FRAME_MAX);
	call_fail_later(c, &e);
	err_release(&e);
	msgpack_sbuffer_destroy(&b);
}

static struct agent_call *call_new(struct calls *cs, unsigned channel, const struct agent_events *ev,
	void *arg)
{
	struct agent_call *c = xcalloc(1, sizeof(*c));

	c->calls = cs;
	c->loop = cs->loop;
	c->ev = ev;
	c->arg = arg;
	c->channel = channel;
	c->out.credit = WIRE_WINDOW;
	c->out.most = FLIGHT_START;
	for (int i = 0; i < STREAMS; i++)
		c->in[i].left = WIRE_WINDOW;
	c->id = calls_new_id(cs);
	LIST_INSERT_HEAD(&cs->buckets[c->id % BUCKETS], c, entry);
	return c;
}

struct agent_call *calls_start(struct calls *cs, unsigned channel, const char *op,
	const msgpack_sbuffer *params, bool keep_open, const struct agent_events *ev, void *arg)
{
	struct agent_call *c = call_new(cs, channel, ev, arg);

	c->keep_open = keep_open;
	cs->asked_ns = c->began_ns = now_ns();
	log_debug("agent", "arm: %s, channel %u, id %u", op, channel, c->id);
	if (err_is_set(&cs->reason))
		call_fail_later(c, &cs->reason);
	else
		call_request(c, op, params);
	return c;
}

uint32_t agent_call_id(const struct agent_call *c)
{
	return c->id;
}

/* An event or credit frame: [stream, bytes | nil | n]. */
static void call_send_pair(struct agent_call *c, enum wire_type type, unsigned stream, const void *data,
	size_t n)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	frame_begin(&b, &pk, type, c);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_unsigned_int(&pk, stream);
	if (type == WIRE_CREDIT)
		msgpack_pack_uint64(&pk, n);
	else if (data)
		msgpack_pack_bin_with_body(&pk, data, n);
	else
		msgpack_pack_nil(&pk);
	frame_end(c->calls, &b);
}

void agent_call_credit(struct agent_call *c, unsigned stream, size_t n)
{
	struct window *w;

	INVARIANT(stream < STREAMS);
	w = &c->in[stream];
	INVARIANT(n <= w->held);
	w->held -= n;
	w->owed += n;
	/* Told in steps: a guest that prints line by line would else get a frame back for each. */
	if (!c->calls || w->ended || w->owed < CREDIT_STEP)
		return;
	call_send_pair(c, WIRE_CREDIT, stream, NULL, w->owed);
	w->left += w->owed;
	w->owed = 0;
}

static size_t flight_room(const struct flight *f)
{
	size_t flying = WIRE_WINDOW - f->credit;

	return f->most > flying ? f->most - flying : 0;
}

static void flight_sent(struct flight *f, size_t n)
{
	f->credit -= n;
	if (f->timed)
		return;
	f->timed = WIRE_WINDOW - f->credit;
	f->timed_ns = now_ns();
}

static bool others_ask(const struct agent_call *c)
{
	return c->calls->asked_ns > c->began_ns && now_ns() - c->calls->asked_ns < OTHERS_NS;
}

static void flight_returned(struct flight *f, size_t n, bool others)
{
	int64_t now, most;
	size_t least = others ? WIRE_LIGHTER : WIRE_LIGHT;

	f->credit += n;
	if (f->timed > n) {
		f->timed -= n;
		return;
	}
	now = now_ns();
	most = FLIGHT_NS(others);
	if (f->timed && now - f->timed_ns < most / 2)
		f->most = f->most < WIRE_WINDOW / 2 ? f->most * 2 : WIRE_WINDOW;
	else if (f->timed && now - f->timed_ns > most)
		f->most = f->most > 2 * least ? f->most / 2 : least;
	f->timed = 0;
}

size_t agent_call_send(struct agent_call *c, const void *data, size_t len)
{
	const char *p = data;
	size_t n, sent = 0, piece;

	if (!c->calls || c->out.ended)
		return 0;
	if (!data) {
		c->out.ended = true;
		call_send_pair(c, WIRE_EVENT, 0, NULL, 0);
		return 0;
	}
	piece = others_ask(c) || c->out.most < WIRE_LIGHT ? WIRE_LIGHTER : WIRE_LIGHT;
	while (sent < len) {
		n = len - sent > piece ? piece : len - sent;
		if (flight_room(&c->out) < n)
			break;		/* rather than in ever smaller pieces */
		call_send_pair(c, WIRE_EVENT, 0, p + sent, n);
		flight_sent(&c->out, n);
		sent += n;
	}
	c->out.blocked = sent < len;
	return sent;
}

/* ---- giving up ---- */

static void call_send_cancel(struct agent_call *c)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	log_debug("agent", "cancel: channel %u, id %u", c->channel, c->id);
	frame_begin(&b, &pk, WIRE_CANCEL, c);
	msgpack_pack_nil(&pk);
	frame_end(c->calls, &b);
}

/*
 * Remembers c for what the guest may still send. A guest that owes too many answers is broken; a call
 * that is owed none makes room.
 */
static void call_drop(struct agent_call *c, enum call_state state)
{
	struct calls *cs = c->calls;
	struct agent_call *old;

	c->state = state;
	c->ev = NULL;
	TAILQ_INSERT_TAIL(&cs->dropped, c, dropped);
	if (++cs->ndropped <= DROPPED_MAX)
		return;
	TAILQ_FOREACH(old, &cs->dropped, dropped)
		if (old->state == DETACHED) {
			call_forget(old);
			return;
		}
	loop_defer(cs->loop, calls_overflow_cb, cs);
}

/* Asks the guest to end c's events. Nobody waits for the answer: it may overtake events of other calls, so
 * it does not mean that none comes any more. */
static void call_unsubscribe(struct agent_call *c)
{
	struct agent_call *u = call_new(c->calls, c->channel, NULL, NULL);
	msgpack_sbuffer b;
	msgpack_packer pk;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_text(&pk, "id");
	msgpack_pack_uint32(&pk, c->id);
	call_request(u, "unsubscribe", &b);
	msgpack_sbuffer_destroy(&b);
	call_drop(u, CANCELLED);
}

void agent_call_free(struct agent_call *c)
{
	if (!c)
		return;
	switch (c->state) {
	case PENDING:
		call_send_cancel(c);
		call_drop(c, CANCELLED);
		break;
	case OPEN:
		call_unsubscribe(c);
		call_drop(c, DETACHED);
		break;
	case FAILING:
		c->state = GONE;
		break;
	case OVER:
		c->state = GONE;
		call_forget(c);
		break;
	default:
		INVARIANT(!"agent_call_free called twice");
	}
}

/* ---- input ---- */

static int on_dropped(struct agent_call *c, enum wire_type type, struct err *e)
{
	if (type == WIRE_ERROR) {
		call_forget(c);
	} else if (type == WIRE_REPLY) {
		if (c->state == DETACHED)
			return err_set(e, EPROTO, "a second reply to id %u", c->id);
		/* What it started may send events until the cancel arrives there. */
		if (c->keep_open)
			c->state = DETACHED;
		else
			call_forget(c);
	}
	return 0;
}

static int on_reply(struct agent_call *c, const msgpack_object *body, struct err *e)
{
	if (body->type != MSGPACK_OBJECT_MAP)
		return err_set(e, EPROTO, "a reply to id %u that is no map", c->id);
	if (c->state != PENDING)
		return err_set(e, EPROTO, "a second reply to id %u", c->id);
	log_debug("agent", "finish: id %u", c->id);
	if (!c->keep_open) {
		call_end(c, body, NULL);
		return 0;
	}
	c->state = OPEN;
	c->replied = true;
	c->ev->reply(c->arg, body, NULL);
	return 0;
}

static int on_error(struct agent_call *c, const msgpack_object *body, struct err *e)
{
	struct err failure = ERR_INIT;

	if (body_error(body, &failure, e) < 0)
		return e->code;
	log_debug("agent", "finish: id %u: %s", c->id, failure.msg);
	call_end(c, NULL, &failure);
	err_release(&failure);
	return 0;
}

/* The [stream, value] of an event or credit frame. NULL and *e when it is none. */
static const msgpack_object *stream_value(const struct agent_call *c, const msgpack_object *body,
	uint64_t *stream, struct err *e)
{
	const msgpack_object *pair = body->via.array.ptr;

	if (body->type != MSGPACK_OBJECT_ARRAY || body->via.array.size != 2 ||
	    pair[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
		err_set(e, EPROTO, "an event or credit for id %u that is no pair [stream, value]", c->id);
		return NULL;
	}
	*stream = pair[0].via.u64;
	return &pair[1];
}

static int on_event(struct agent_call *c, const msgpack_object *body, struct err *e)
{
	uint64_t stream = 0;
	const msgpack_object *v = stream_value(c, body, &stream, e);
	struct window *w;
	size_t n;

	if (!v)
		return e->code;
	if (!c->ev->piece || stream >= STREAMS)
		return err_set(e, EPROTO, "an event on stream %llu of id %u, which has no such stream",
			(unsigned long long)stream, c->id);
	w = &c->in[stream];
	if (w->ended)
		return err_set(e, EPROTO, "an event on stream %u of id %u after its end", (unsigned)stream,
			c->id);
	if (v->type == MSGPACK_OBJECT_NIL) {
		w->ended = true;
		c->ev->piece(c->arg, (unsigned)stream, NULL, 0);
		return 0;
	}
	if (v->type != MSGPACK_OBJECT_BIN)
		return err_set(e, EPROTO, "an event on stream %u of id %u with neither bytes nor nil",
			(unsigned)stream, c->id);
	n = v->via.bin.size;
	if (n > WIRE_PIECE)
		return err_set(e, EPROTO, "an event of %zu bytes (the most is %u)", n, WIRE_PIECE);
	if (n > w->left)
		return err_set(e, EPROTO, "%zu bytes on stream %u of id %u, which had credit for %zu", n,
			(unsigned)stream, c->id, w->left);
	w->left -= n;
	w->held += n;
	if (n > 0)
		c->ev->piece(c->arg, (unsigned)stream, v->via.bin.ptr, n);
	return 0;
}

static int on_credit(struct agent_call *c, const msgpack_object *body, struct err *e)
{
	uint64_t stream = 0;
	const msgpack_object *v = stream_value(c, body, &stream, e);

	if (!v)
		return e->code;
	if (stream != 0 || v->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return err_set(e, EPROTO, "a credit for id %u that is not [0, bytes]", c->id);
	/* The guest returns what it has taken: together that is never more than the window. */
	if (v->via.u64 > WIRE_WINDOW - c->out.credit)
		return err_set(e, EPROTO, "a credit of %llu bytes for id %u, which had sent %zu",
			(unsigned long long)v->via.u64, c->id, WIRE_WINDOW - c->out.credit);
	flight_returned(&c->out, (size_t)v->via.u64, others_ask(c));
	if (c->out.blocked && flight_room(&c->out) > 0) {
		c->out.blocked = false;
		if (c->ev->writable)
			c->ev->writable(c->arg);
	}
	return 0;
}

int calls_frame(struct calls *cs, const msgpack_object *frame, struct err *e)
{
	static const char *const names[WIRE_TYPES] = {
		"a request", "a reply", "an error", "an event", "a cancel", "a credit"
	};
	/* wire_check_frame has checked the shape. */
	const msgpack_object *field = frame->via.array.ptr;
	enum wire_type type = (enum wire_type)field[0].via.u64;
	uint32_t id = (uint32_t)field[2].via.u64;
	struct agent_call *c = calls_find(cs, id);

	if (type == WIRE_REQUEST || type == WIRE_CANCEL)
		return err_set(e, EPROTO, "%s, which only the host may send", names[type]);
	/* The last credit of a call may cross its reply. */
	if (!c && type == WIRE_CREDIT && id != 0 && (id <= cs->next_id || cs->wrapped))
		return 0;
	if (!c)
		return err_set(e, EPROTO, "%s for id %u, which is not outstanding", names[type], id);
	if (c->channel != field[1].via.u64)
		return err_set(e, EPROTO, "%s for id %u on channel %llu instead of %u", names[type], id,
			(unsigned long long)field[1].via.u64, c->channel);
	if (is_dropped(c))
		return on_dropped(c, type, e);
	switch (type) {
	case WIRE_REPLY:
		return on_reply(c, &field[3], e);
	case WIRE_ERROR:
		return on_error(c, &field[3], e);
	case WIRE_EVENT:
		return on_event(c, &field[3], e);
	default:
		return on_credit(c, &field[3], e);
	}
}
