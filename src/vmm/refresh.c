/*
 * What a restored guest is told before anything else: new entropy, because two guests of one snapshot would
 * otherwise draw the same random numbers, and the time, because its clock stood still.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "agent/protocol.h"
#include "loop/pack.h"
#include "vmm/refresh.h"

#define MAIN_EXECUTOR 1
#define ENTROPY 64

static void reseeded_cb(void *arg, const msgpack_object *o, const struct err *e);
static void clock_set_cb(void *arg, const msgpack_object *o, const struct err *e);

/* Owned by its VM. */
struct refresh {
	struct loop *loop;
	struct agent_call *reseed, *clock;
	bool told;
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

static const struct agent_events reseed_events = { .reply = reseeded_cb };
static const struct agent_events clock_events = { .reply = clock_set_cb };

static void one_done(struct refresh *r, const char *what, const struct err *e)
{
	struct err full = ERR_INIT;

	if (r->told || (!e && (r->reseed || r->clock)))
		return;
	r->told = true;
	if (e) {
		err_copy(&full, e);
		err_prefix(&full, "after the restore: %s", what);
	}
	r->done(r->arg, e ? &full : NULL);
	err_release(&full);
}

static void reseeded_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct refresh *r = arg;

	(void)o;
	agent_call_free(r->reseed);
	r->reseed = NULL;
	one_done(r, "new entropy", e);
}

static void clock_set_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct refresh *r = arg;

	(void)o;
	agent_call_free(r->clock);
	r->clock = NULL;
	one_done(r, "the clock", e);
}

static void start_reseed(struct refresh *r, struct agent *a)
{
	unsigned char entropy[ENTROPY];
	msgpack_sbuffer b;
	msgpack_packer pk;

	INVARIANT(getrandom(entropy, sizeof(entropy), 0) == sizeof(entropy));
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_bin(&pk, "entropy", entropy, sizeof(entropy));
	r->reseed = agent_call(a, WIRE_MUX, "reseed", &b, false, &reseed_events, r);
	msgpack_sbuffer_destroy(&b);
}

static void start_clock(struct refresh *r, struct agent *a, const struct vm_restore_options *o)
{
	struct timespec now;
	msgpack_sbuffer b;
	msgpack_packer pk;

	clock_gettime(CLOCK_REALTIME, &now);
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_int(&pk, "ns", o->has_time ? (int64_t)(o->time * 1e9) :
		(int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
	r->clock = agent_call(a, MAIN_EXECUTOR, "clock_set", &b, false, &clock_events, r);
	msgpack_sbuffer_destroy(&b);
}

struct refresh *refresh_start(struct loop *l, struct agent *a, const struct vm_restore_options *o,
	void (*done)(void *arg, const struct err *e), void *arg)
{
	struct refresh *r = xcalloc(1, sizeof(*r));

	r->loop = l;
	r->done = done;
	r->arg = arg;
	start_reseed(r, a);
	if (!o->keep_clock)
		start_clock(r, a, o);
	return r;
}

void refresh_free(struct refresh *r)
{
	if (!r)
		return;
	agent_call_free(r->reseed);
	agent_call_free(r->clock);
	loop_defer(r->loop, free, r);
}
