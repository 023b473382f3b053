/*
 * sleep(dur): the model of a waiting op. Its five parts: check arguments, arm, yield in tail
 * position, finish, cancel.
 */
#include <stdio.h>

#include "ops/args.h"
#include "ops/openers.h"

static void sleep_cb(evutil_socket_t fd, short what, void *arg);
static const struct wait_kind sleep_kind;

struct sleep_wait {
	struct wait wait;
	struct event *timer;
	double seconds;
};

static int op_sleep(lua_State *L)
{
	struct sleep_wait *w;
	int64_t ns;

	args_max(L, 1, "sleep(duration)");
	ns = value_duration(L, 1, "sleep");
	w = wait_new(L, &sleep_kind, sizeof(*w));
	w->seconds = (double)ns / 1e9;
	timer_start(state_loop(state_of(L)), &w->timer, ns, sleep_cb, w);
	return wait_yield(L, &w->wait);
}

static void sleep_cb(evutil_socket_t fd, short what, void *arg)
{
	struct sleep_wait *w = arg;

	(void)fd, (void)what;
	wait_finish(&w->wait);
}

static void sleep_describe(struct wait *wait, char *buf, size_t size)
{
	struct sleep_wait *w = (struct sleep_wait *)wait;

	snprintf(buf, size, "sleep(%g)", w->seconds);
}

/* Serves as cancel too: there is nothing to stop but the timer. */
static void sleep_release(struct wait *wait)
{
	struct sleep_wait *w = (struct sleep_wait *)wait;

	timer_stop(&w->timer);
}

static const struct wait_kind sleep_kind = {
	.name = "sleep",
	.describe = sleep_describe,
	.release = sleep_release,
};

static const luaL_Reg sleep_ops[] = {
	{ "sleep", op_sleep },
	{ NULL, NULL },
};

/* Puts its op into the table `core` on top of the stack. */
void ops_open_sleep(lua_State *L)
{
	lua_set_ops(L, sleep_ops);
}
