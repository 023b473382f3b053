/*
 * Requests to the agent without streams, and the fields of replies.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/reply.h"

static struct request *request_new(struct target *t, const char *name, const msgpack_sbuffer *params);
static void request_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static const struct wait_kind request_kind;
static const struct agent_events request_events;

#define SBUFFER_TYPE "provium.sbuffer"

struct request_wait;

/* One request on its way. It outlives a task that is cancelled when its answer will need an undo. */
struct request {
	struct target *target, *mux;
	struct agent_call *call;
	struct request_wait *waiter;	/* NULL: nobody waits for the answer */
	const struct request_undo *undo;	/* NULL: an unwanted answer is just dropped */
};

struct request_wait {
	struct wait wait;
	struct request *request;	/* NULL once answered */
	struct target *target;		/* lives as long as the userdata on the op's stack */
	const struct request_undo *undo;
	const char *name;
	char *arg;
	int (*push)(lua_State *L, const msgpack_object *reply);
	void *(*keep)(const msgpack_object *reply);	/* or these two, for what they make of the reply */
	int (*push_own)(lua_State *L, const void *own);
	void *own;
	msgpack_sbuffer kept;		/* the reply, until Lua takes it */
	msgpack_unpacked unpacked;
	bool taken;
};

static int sbuffer_gc(lua_State *L)
{
	msgpack_sbuffer_destroy(lua_touserdata(L, 1));
	return 0;
}

msgpack_sbuffer *sbuffer_push(lua_State *L)
{
	msgpack_sbuffer *b = lua_newuserdata(L, sizeof(*b));

	msgpack_sbuffer_init(b);
	if (luaL_newmetatable(L, SBUFFER_TYPE)) {
		lua_pushcfunction(L, sbuffer_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_setmetatable(L, -2);
	return b;
}

int64_t reply_int(const msgpack_object *o, const char *key, int64_t def)
{
	const msgpack_object *v = map_get(o, key);

	if (v && (v->type == MSGPACK_OBJECT_POSITIVE_INTEGER || v->type == MSGPACK_OBJECT_NEGATIVE_INTEGER))
		return v->via.i64;
	return def;
}

bool object_bytes(const msgpack_object *o, const char **data, size_t *len)
{
	if (o->type != MSGPACK_OBJECT_STR && o->type != MSGPACK_OBJECT_BIN)
		return false;
	*data = o->via.bin.ptr;		/* the same place in both */
	*len = o->via.bin.size;
	return true;
}

bool reply_bytes(const msgpack_object *o, const char *key, const char **data, size_t *len)
{
	const msgpack_object *v = map_get(o, key);

	return v && object_bytes(v, data, len);
}

void reply_str(const msgpack_object *o, const char *key, char *buf, size_t size)
{
	const char *s;
	size_t n;

	if (reply_bytes(o, key, &s, &n))
		snprintf(buf, size, "%.*s", (int)n, s);
}

/* ---- requests that nobody waits for ---- */

void request_forget(struct target *t, const char *name, const msgpack_sbuffer *params)
{
	if (!vm_agent(t->vm))
		return;
	request_new(t, name, params);
	target_mux(t)->unheeded++;
}

void request_forget_int(struct target *t, const char *name, const char *key, int64_t n)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_int(&pk, key, n);
	request_forget(t, name, &b);
	msgpack_sbuffer_destroy(&b);
}

/* ---- requests that a task waits for ---- */

/* What the guest has opened and nobody will ever know of is closed again. */
static void undo_reply(struct target *t, const struct request_undo *undo, const msgpack_object *o)
{
	int64_t n = reply_int(o, undo->field, -1);

	if (n >= 0)
		request_forget_int(undo->mux ? undo->mux(t) : t, undo->name, undo->field, n);
}

static struct request *request_new(struct target *t, const char *name, const msgpack_sbuffer *params)
{
	struct request *r = xcalloc(1, sizeof(*r));

	r->target = t;
	r->mux = target_mux(t);
	r->call = agent_call(vm_agent(t->vm), t->channel, name, params, false, &request_events, r);
	return r;
}

static void request_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct request *r = arg;
	struct request_wait *w = r->waiter;
	msgpack_packer pk;

	if (w)
		w->request = NULL;
	else
		r->mux->unheeded--;
	if (!w && !e && r->undo)
		undo_reply(r->target, r->undo, o);
	agent_call_free(r->call);
	free(r);
	if (!w)
		return;
	if (e) {
		target_fail(&w->wait, w->target, w->name, w->arg, e);
		return;
	}
	if (w->keep) {
		w->own = w->keep(o);
	} else {
		msgpack_packer_init(&pk, &w->kept, msgpack_sbuffer_write);
		msgpack_pack_object(&pk, *o);
	}
	wait_finish(&w->wait);
}

/* Sends it. The caller says what becomes of the reply, and yields. */
static struct request_wait *request_arm(lua_State *L, struct target *t, const char *name, const char *arg,
	const msgpack_sbuffer *params)
{
	struct request_wait *w = wait_new(L, &request_kind, sizeof(*w));

	w->target = t;
	w->name = name;
	w->arg = xstrdup(arg);
	msgpack_sbuffer_init(&w->kept);
	msgpack_unpacked_init(&w->unpacked);
	w->request = request_new(t, name, params);
	w->request->waiter = w;
	return w;
}

int request_start_undo(lua_State *L, struct target *t, const char *name, const char *arg, const msgpack_sbuffer *params,
	int (*push)(lua_State *L, const msgpack_object *reply), const struct request_undo *undo)
{
	struct request_wait *w = request_arm(L, t, name, arg, params);

	w->push = push;
	w->undo = undo;
	w->request->undo = undo;
	return wait_yield(L, &w->wait);
}

int request_start_kept(lua_State *L, struct target *t, const char *name, const char *arg,
	const msgpack_sbuffer *params, void *(*keep)(const msgpack_object *reply), int (*push)(lua_State *L, const void *kept))
{
	struct request_wait *w = request_arm(L, t, name, arg, params);

	w->keep = keep;
	w->push_own = push;
	return wait_yield(L, &w->wait);
}

int request_start(lua_State *L, struct target *t, const char *name, const char *arg, const msgpack_sbuffer *params,
	int (*push)(lua_State *L, const msgpack_object *reply))
{
	return request_start_undo(L, t, name, arg, params, push, NULL);
}

static int request_push(struct wait *wait, lua_State *L)
{
	struct request_wait *w = (struct request_wait *)wait;

	w->taken = true;
	if (w->own)
		return w->push_own(L, w->own);
	if (!w->push)
		return 0;
	msgpack_unpack_next(&w->unpacked, w->kept.data, w->kept.size, NULL);
	return w->push(L, &w->unpacked.data);
}

static void request_describe(struct wait *wait, char *buf, size_t size)
{
	struct request_wait *w = (struct request_wait *)wait;

	snprintf(buf, size, "vm \"%s\": %s%s%.200s%s", vm_name(w->target->vm), w->name, *w->arg ? " \"" : "", w->arg,
		*w->arg ? "\"" : "");
}

static void request_release(struct wait *wait)
{
	struct request_wait *w = (struct request_wait *)wait;

	if (w->request && w->undo) {
		w->request->waiter = NULL;	/* the answer is still wanted, for its undo */
		w->request->mux->unheeded++;
	} else if (w->request) {
		agent_call_free(w->request->call);
		free(w->request);
	} else if (w->undo && !w->taken && !w->wait.err.code && w->kept.size) {
		msgpack_unpack_next(&w->unpacked, w->kept.data, w->kept.size, NULL);
		undo_reply(w->target, w->undo, &w->unpacked.data);
	}
	msgpack_unpacked_destroy(&w->unpacked);
	msgpack_sbuffer_destroy(&w->kept);
	free(w->own);
	free(w->arg);
}

static const struct agent_events request_events = {
	.reply = request_reply_cb,
};

static const struct wait_kind request_kind = {
	.name = "vm request",
	.push = request_push,
	.describe = request_describe,
	.release = request_release,
};
