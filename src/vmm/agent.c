/*
 * The connection to one guest's agent: sync, handshake, and its end.
 *
 * What is outstanding on it is in agentcall.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/protocol.h"
#include "loop/pack.h"
#include "vmm/agent.h"
#include "vmm/agentcall.h"

#define NONCE_LEN 16
#define INFO_TEXT_MAX 256
#define FEATURES_MAX 256

static void agent_frame_cb(void *arg, const msgpack_object *o);
static void agent_synced_cb(void *arg);
static void agent_closed_cb(void *arg, const struct err *e);
static void agent_breach_cb(void *arg, const struct err *e);
static void agent_hello_cb(void *arg, const msgpack_object *o, const struct err *e);

enum agent_state { HANDSHAKE, READY, BROKEN };

/* Freed by agent_free, at the end of the turn. Owns the framed connection and the table of calls. */
struct agent {
	struct loop *loop;
	char *vm_name;
	struct framed *framed;		/* NULL when broken */
	struct calls *calls;
	struct agent_call *hello;	/* NULL before and after the handshake */
	enum agent_state state;
	uint8_t nonce[NONCE_LEN];
	struct agent_info info;
	agent_event_fn *ready, *broken;
	void *arg;
};

static const struct framed_events framed_events = {
	.frame = agent_frame_cb, .synced = agent_synced_cb, .closed = agent_closed_cb,
};

static const struct agent_events hello_events = { .reply = agent_hello_cb };

struct agent *agent_new(struct loop *l, int fd, const char *vm_name, agent_event_fn *ready,
	agent_event_fn *broken, void *arg)
{
	struct agent *a = xcalloc(1, sizeof(*a));

	a->loop = l;
	a->vm_name = xstrdup(vm_name);
	a->ready = ready;
	a->broken = broken;
	a->arg = arg;
	a->framed = framed_new(l, fd, &framed_events, a);
	a->calls = calls_new(l, a->framed, agent_breach_cb, a);
	INVARIANT(getrandom(a->nonce, NONCE_LEN, 0) == NONCE_LEN);
	framed_sync(a->framed);
	return a;
}

static void agent_disconnect(struct agent *a)
{
	a->state = BROKEN;
	agent_call_free(a->hello);
	a->hello = NULL;
	calls_disconnect(a->calls);
	framed_free(a->framed);
	a->framed = NULL;
}

/* Ends the connection and tells the owner why. Called from the loop only, and last. */
static void agent_break(struct agent *a, const struct err *e)
{
	bool was_ready = a->state == READY;

	if (a->state == BROKEN)
		return;
	log_debug("agent", "%s: finish: %s", a->vm_name, e->msg);
	agent_disconnect(a);
	(was_ready ? a->broken : a->ready)(a->arg, e);
}

void agent_fail(struct agent *a, const struct err *why)
{
	if (a->state != BROKEN)
		agent_disconnect(a);
	calls_fail(a->calls, why);
}

static void agent_destroy(void *arg)
{
	struct agent *a = arg;

	free(a->info.agent_version);
	free(a->info.kernel);
	free(a->info.arch);
	free(a->info.boot_id);
	for (char **f = a->info.features; f && *f; f++)
		free(*f);
	free(a->info.features);
	free(a->vm_name);
	free(a);
}

void agent_free(struct agent *a)
{
	struct err e = ERR_INIT;

	if (!a)
		return;
	err_set(&e, ECONNRESET, "the connection to the guest's agent was closed");
	agent_fail(a, &e);
	err_release(&e);
	calls_free(a->calls);
	loop_defer(a->loop, agent_destroy, a);
}

size_t agent_pending(const struct agent *a)
{
	return calls_pending(a->calls);
}

struct agent_call *agent_call(struct agent *a, unsigned channel, const char *op,
	const msgpack_sbuffer *params, bool keep_open, const struct agent_events *ev, void *arg)
{
	INVARIANT(a->state != HANDSHAKE);
	return calls_start(a->calls, channel, op, params, keep_open, ev, arg);
}

const struct agent_info *agent_info(const struct agent *a)
{
	return &a->info;
}

/* ---- the framed connection's events ---- */

static void agent_breach_cb(void *arg, const struct err *e)
{
	struct agent *a = arg;
	struct err full = ERR_INIT;

	err_copy(&full, e);
	err_prefix(&full, "the guest's agent broke the protocol");
	agent_break(a, &full);
	err_release(&full);
}

static void agent_closed_cb(void *arg, const struct err *e)
{
	struct agent *a = arg;
	struct err full = ERR_INIT;

	if (e->code == -EPROTO) {
		agent_breach_cb(a, e);
		return;
	}
	err_copy(&full, e);
	err_prefix(&full, "the connection to the guest's agent was lost");
	agent_break(a, &full);
	err_release(&full);
}

static void agent_frame_cb(void *arg, const msgpack_object *o)
{
	struct agent *a = arg;
	struct err e = ERR_INIT;

	if (calls_frame(a->calls, o, &e) < 0)
		agent_breach_cb(a, &e);
	err_release(&e);
}

/* ---- the handshake ---- */

static void agent_synced_cb(void *arg)
{
	struct agent *a = arg;
	msgpack_sbuffer b;
	msgpack_packer pk;

	log_debug("agent", "%s: synced", a->vm_name);
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 2);
	pack_int(&pk, "protocol_version", PROTOCOL_VERSION);
	pack_bin(&pk, "nonce", a->nonce, NONCE_LEN);
	a->hello = calls_start(a->calls, WIRE_MUX, "hello", &b, false, &hello_events, a);
	msgpack_sbuffer_destroy(&b);
}

static int decode_info_text(const msgpack_object *o, const char *key, char **text, struct err *e)
{
	*text = body_text(map_get(o, key), INFO_TEXT_MAX);
	return *text ? 0 : err_set(e, EPROTO, "a reply to hello without the text `%s`", key);
}

static int decode_features(const msgpack_object *o, char ***features, struct err *e)
{
	const msgpack_object *list = map_get(o, "features");
	uint32_t n;

	if (!list || list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size > FEATURES_MAX)
		return err_set(e, EPROTO, "a reply to hello without a list `features` of at most %d",
			FEATURES_MAX);
	n = list->via.array.size;
	*features = xcalloc(n + 1, sizeof(**features));
	for (uint32_t i = 0; i < n; i++) {
		(*features)[i] = body_text(&list->via.array.ptr[i], INFO_TEXT_MAX);
		if (!(*features)[i])
			return err_set(e, EPROTO, "a reply to hello whose `features` are not all text");
	}
	return 0;
}

static int agent_check_hello(struct agent *a, const msgpack_object *o, struct err *e)
{
	const msgpack_object *version = map_get(o, "protocol_version"), *nonce = map_get(o, "nonce");
	struct agent_info *info = &a->info;

	if (!version || version->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return err_set(e, EPROTO, "a reply to hello without the number `protocol_version`");
	if (version->via.u64 != PROTOCOL_VERSION)
		return err_set(e, EPROTO, "it speaks version %llu, Provium version %d: rebuild its overlay",
			(unsigned long long)version->via.u64, PROTOCOL_VERSION);
	if (!nonce || nonce->type != MSGPACK_OBJECT_BIN || nonce->via.bin.size != NONCE_LEN ||
	    memcmp(nonce->via.bin.ptr, a->nonce, NONCE_LEN) != 0)
		return err_set(e, EPROTO, "a reply to hello with another nonce");
	if (decode_info_text(o, "agent_version", &info->agent_version, e) < 0 ||
	    decode_info_text(o, "kernel", &info->kernel, e) < 0 ||
	    decode_info_text(o, "arch", &info->arch, e) < 0 ||
	    decode_info_text(o, "boot_id", &info->boot_id, e) < 0)
		return e->code;
	return decode_features(o, &info->features, e);
}

static void agent_hello_cb(void *arg, const msgpack_object *o, const struct err *refusal)
{
	struct agent *a = arg;
	struct err e = ERR_INIT;

	agent_call_free(a->hello);
	a->hello = NULL;
	if (refusal) {
		err_copy(&e, refusal);
		err_prefix(&e, "the guest's agent refused the handshake");
		agent_break(a, &e);
	} else if (agent_check_hello(a, o, &e) < 0) {
		agent_breach_cb(a, &e);
	} else {
		log_debug("agent", "%s: ready: agent %s, kernel %s", a->vm_name, a->info.agent_version,
			a->info.kernel);
		a->state = READY;
		a->ready(a->arg, NULL);
	}
	err_release(&e);
}
