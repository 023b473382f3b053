/*
 * The rig: its ops, its Lua functions, its life.
 */
#include "rig.h"

struct gate_wait {
	struct wait wait;
	struct rig *rig;
	struct event *timer;
	char name[32];
};

static struct rig *rig_of(lua_State *L)
{
	return state_user(state_of(L));
}

/* ---- the ops ---- */

static void rig_gate_forget(struct gate_wait *w)
{
	for (size_t i = 0; i < 16; i++)
		if (w->rig->gates[i] == w)
			w->rig->gates[i] = NULL;
}

static void rig_gate_cancel(struct wait *wait)
{
	struct gate_wait *w = (struct gate_wait *)wait;

	w->rig->cancelled++;
	rig_gate_forget(w);
}

static void rig_gate_release(struct wait *wait)
{
	struct gate_wait *w = (struct gate_wait *)wait;

	w->rig->released++;
	timer_stop(&w->timer);
}

static int rig_gate_push(struct wait *wait, lua_State *L)
{
	lua_pushstring(L, ((struct gate_wait *)wait)->name);
	return 1;
}

static void rig_gate_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "gate %s", ((struct gate_wait *)wait)->name);
}

static const struct wait_kind rig_gate_kind = {
	.name = "gate",
	.cancel = rig_gate_cancel,
	.push = rig_gate_push,
	.describe = rig_gate_describe,
	.release = rig_gate_release,
};

static const struct wait_kind rig_sleep_kind = { .name = "sleep", .release = rig_gate_release };

static int rig_op_gate(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct gate_wait *w = wait_new(L, &rig_gate_kind, sizeof(*w));
	size_t i = 0;

	w->rig = rig_of(L);
	snprintf(w->name, sizeof(w->name), "%s", name);
	while (w->rig->gates[i])
		i++;
	w->rig->gates[i] = w;
	return wait_yield(L, &w->wait);
}

static void rig_sleep_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	wait_finish(&((struct gate_wait *)arg)->wait);
}

static int rig_op_sleep(lua_State *L)
{
	int64_t ns = (int64_t)(luaL_checknumber(L, 1) * 1e9);
	struct gate_wait *w = wait_new(L, &rig_sleep_kind, sizeof(*w));

	w->rig = rig_of(L);
	timer_start(w->rig->loop, &w->timer, ns, rig_sleep_cb, w);
	return wait_yield(L, &w->wait);
}

static struct gate_wait *rig_gate(struct rig *r, const char *name)
{
	for (size_t i = 0; i < 16; i++) {
		struct gate_wait *w = r->gates[i];

		if (w && strcmp(w->name, name) == 0) {
			r->gates[i] = NULL;
			return w;
		}
	}
	fail_msg("nothing waits at gate %s", name);
	return NULL;
}

void rig_open_gate(struct rig *r, const char *name)
{
	wait_finish(&rig_gate(r, name)->wait);
}

/* ---- plain functions ---- */

static int rig_spawn_lua(lua_State *L)
{
	struct rig *r = rig_of(L);

	luaL_checktype(L, 1, LUA_TFUNCTION);
	assert_true(r->nspawned < RIG_TASKS);
	r->spawned[r->nspawned] = task_spawn(L, lua_gettop(L) - 1, "spawned");
	lua_pushlightuserdata(L, r->spawned[r->nspawned++]);
	return 1;
}

static int rig_cancel_lua(lua_State *L)
{
	task_cancel(lua_touserdata(L, 1), luaL_checkstring(L, 2));
	return 0;
}

static int rig_self_lua(lua_State *L)
{
	lua_pushlightuserdata(L, task_current(L));
	return 1;
}

static int rig_status_lua(lua_State *L)
{
	lua_pushinteger(L, task_status(lua_touserdata(L, 1)));
	return 1;
}

void rig_note(struct rig *r, const char *text)
{
	size_t n = strlen(r->notes);

	snprintf(r->notes + n, sizeof(r->notes) - n, "%s%s", n ? " " : "", text);
}

static int rig_note_lua(lua_State *L)
{
	rig_note(rig_of(L), luaL_tolstring(L, 1, NULL));
	return 0;
}

static int rig_stop_lua(lua_State *L)
{
	rig_of(L)->stopped = true;
	loop_stop(rig_of(L)->loop);
	return 0;
}

static int rig_now_lua(lua_State *L)
{
	lua_pushnumber(L, (double)now_ns() / 1e9);
	return 1;
}

static const luaL_Reg rig_ops[] = {
	{ "gate", rig_op_gate },
	{ "sleep", rig_op_sleep },
	{ NULL, NULL },
};

static const luaL_Reg rig_functions[] = {
	{ "spawn", rig_spawn_lua },
	{ "cancel", rig_cancel_lua },
	{ "self", rig_self_lua },
	{ "status", rig_status_lua },
	{ "note", rig_note_lua },
	{ "stop", rig_stop_lua },
	{ "now", rig_now_lua },
	{ NULL, NULL },
};

/* ---- the rig ---- */

static void rig_guard_cb(evutil_socket_t fd, short what, void *arg)
{
	struct rig *r = arg;

	(void)fd, (void)what;
	r->guard_fired = true;
	loop_stop(r->loop);
}

/* Runs the loop until something stops it; fails the test after RIG_GUARD_NS. */
void rig_run(struct rig *r)
{
	struct event *guard = NULL;

	timer_start(r->loop, &guard, RIG_GUARD_NS, rig_guard_cb, r);
	loop_run(r->loop);
	timer_stop(&guard);
	assert_false(r->guard_fired);
}

static void rig_stop_cb(void *arg)
{
	loop_stop(arg);
}

static void rig_timer_stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

void rig_run_for(struct rig *r, int64_t ns)
{
	struct event *timer = NULL;

	timer_start(r->loop, &timer, ns, rig_timer_stop_cb, r->loop);
	rig_run(r);
	timer_stop(&timer);
}

/* One turn and what it leads to, short of waiting. */
/* Some tests compute for seconds in each turn: three turns are enough then. */
static void rig_hop(void *arg)
{
	struct rig *r = arg;

	if (++r->hops < 20 && (r->hops < 3 || now_ns() - r->settle_start < 500000000))
		loop_defer(r->loop, rig_hop, r);
	else
		loop_stop(r->loop);
}

void rig_settle(struct rig *r)
{
	r->hops = 0;
	r->settle_start = now_ns();
	loop_defer(r->loop, rig_hop, r);
	rig_run(r);
}

static bool rig_at_gate(struct rig *r, const char *name)
{
	for (size_t i = 0; i < 16; i++)
		if (r->gates[i] && strcmp(r->gates[i]->name, name) == 0)
			return true;
	return false;
}

void rig_reach_gate(struct rig *r, const char *name)
{
	int64_t start = now_ns();

	while (!rig_at_gate(r, name)) {
		if (now_ns() - start > RIG_GUARD_NS)
			fail_msg("nothing reached gate %s", name);
		rig_run_for(r, 1000000);
	}
}

void rig_open(struct rig *r, size_t cap)
{
	memset(r, 0, sizeof(*r));
	r->loop = loop_new();
	r->state = state_new(r->loop, cap);
	r->L = state_lua(r->state);
	state_set_user(r->state, r);
	lua_pushglobaltable(r->L);
	luaL_setfuncs(r->L, rig_functions, 0);
	lua_set_ops(r->L, rig_ops);
	lua_pop(r->L, 1);
}

/* Ends every task and frees it all. */
void rig_close(struct rig *r)
{
	state_stop(r->state, "the rig is closed", rig_stop_cb, r->loop);
	rig_run(r);
	for (size_t i = 0; i < r->nspawned; i++)
		task_unref(r->spawned[i]);
	assert_int_equal(lua_gettop(r->L), 0);
	state_free(r->state);
	loop_free(r->loop);
}

/* A task that runs code; the rig owns it. */
struct task *rig_spawn(struct rig *r, const char *code)
{
	if (luaL_loadbuffer(r->L, code, strlen(code), "=test.lua") != LUA_OK)
		fail_msg("%s", lua_tostring(r->L, -1));
	assert_true(r->nspawned < RIG_TASKS);
	return r->spawned[r->nspawned++] = task_spawn(r->L, 0, "test");
}

static void rig_over_cb(struct task *t, void *arg)
{
	(void)t;
	loop_stop(arg);
}

/* Runs the loop until the task is over; returns its status. */
enum task_status rig_finish(struct rig *r, struct task *t)
{
	if (task_status(t) <= TASK_WAITING) {
		task_add_done(t, rig_over_cb, r->loop);
		rig_run(r);
	}
	return task_status(t);
}

/* The last result, or the error, as text. */
const char *rig_text(struct task *t)
{
	lua_State *co = task_lua(t);

	return lua_gettop(co) ? luaL_tolstring(co, -1, NULL) : "(nothing)";
}

/* Runs code to its end and expects it to return `expected` (as text). */
void rig_expect(struct rig *r, const char *code, const char *expected)
{
	struct task *t = rig_spawn(r, code);

	if (rig_finish(r, t) != TASK_DONE) {
		char *tb = task_traceback(t);

		print_error("%s\n%s\n", rig_text(t), tb);
		free(tb);
	}
	assert_string_equal(rig_text(t), expected);
	assert_int_equal(task_status(t), TASK_DONE);
}

/* Runs code to its end and expects it to fail with `expected` in the message. */
void rig_expect_error(struct rig *r, const char *code, const char *expected)
{
	struct task *t = rig_spawn(r, code);

	assert_int_equal(rig_finish(r, t), TASK_FAILED);
	if (!strstr(rig_text(t), expected))
		fail_msg("expected \"%s\" in \"%s\"", expected, rig_text(t));
}
