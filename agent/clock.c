/*
 * Time: clock_get, clock_set, sleep.
 *
 * On the host (--local) the clock is not ours to set: an offset that all executors share stands for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "agent.h"
#include "ops.h"

static void slept(void *arg);
static void sleep_cancel(struct call *c);

static const struct call_cbs sleep_cbs;

static int64_t wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

void op_clock_get(struct call *c)
{
	msgpack_packer *pk;

	if (call_refused(c))
		return;
	pk = call_reply(c, 1);
	pack_str(pk, "ns");
	msgpack_pack_int64(pk, wall_clock() + (agent_env.local ? agent_env.shared->clock_offset : 0));
	call_reply_end(c);
}

void op_clock_set(struct call *c)
{
	int64_t ns = args_int(&c->args, "ns", INT64_MIN, INT64_MAX);
	struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	if (call_refused(c))
		return;
	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += 1000000000;
	}
	if (agent_env.local) {
		agent_env.shared->clock_offset = ns - wall_clock();
		call_reply_empty(c);
	} else if (clock_settime(CLOCK_REALTIME, &ts) < 0) {
		call_errno(c, errno);
	} else {
		call_reply_empty(c);
	}
}

static void slept(void *arg)
{
	struct call *c = arg;

	free(c->state);
	call_reply_empty(c);
}

static void sleep_cancel(struct call *c)
{
	ev_timer_clear(c->state);
	free(c->state);
}

void op_sleep(struct call *c)
{
	int64_t ns = args_int(&c->args, "ns", 0, INT64_MAX);
	struct ev_timer *t;

	if (call_refused(c))
		return;
	t = xcalloc(1, sizeof(*t));
	ev_timer_init(t, slept, c);
	ev_timer_set(call_ev(c), t, ns);
	c->state = t;
	c->cbs = &sleep_cbs;
}

static const struct call_cbs sleep_cbs = {.cancel = sleep_cancel};
