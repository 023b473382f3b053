/*
 * Tasks and the run queue: the one place that resumes Lua.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "loop/runqueue.h"
#include "loop/task.h"

#define STALL_NS (50 * INT64_C(1000000))
#define DROP_AFTER_NS INT64_C(1000000000)

static void drop_cb(evutil_socket_t fd, short what, void *arg);

/* Tasks that something has happened to come before those that only compute on. */
struct runqueue {
	struct loop *loop;
	struct task_list woken, preempted;
};

struct runqueue *runqueue_new(struct loop *l)
{
	struct runqueue *q = xcalloc(1, sizeof(*q));

	q->loop = l;
	TAILQ_INIT(&q->woken);
	TAILQ_INIT(&q->preempted);
	return q;
}

void runqueue_free(struct runqueue *q)
{
	INVARIANT(runqueue_empty(q));
	free(q);
}

bool runqueue_empty(const struct runqueue *q)
{
	return TAILQ_EMPTY(&q->woken) && TAILQ_EMPTY(&q->preempted);
}

static void runqueue_insert(struct task_list *list, struct task *t)
{
	if (t->queued)
		return;
	t->queued = list;
	TAILQ_INSERT_TAIL(list, t, run_entry);
}

void runqueue_add(struct runqueue *q, struct task *t)
{
	runqueue_insert(&q->woken, t);
}

void runqueue_add_preempted(struct runqueue *q, struct task *t)
{
	runqueue_insert(&q->preempted, t);
}

void runqueue_remove(struct runqueue *q, struct task *t)
{
	(void)q;
	if (!t->queued)
		return;
	TAILQ_REMOVE(t->queued, t, run_entry);
	t->queued = NULL;
}

static bool run_first(struct runqueue *q, struct task_list *list)
{
	struct task *t = TAILQ_FIRST(list);

	if (!t)
		return false;
	runqueue_remove(q, t);
	task_resume(t);
	return true;
}

/*
 * Whoever was woken, but for no longer than a slice, then one task that computes: events are looked at
 * again after two slices' time at most, however many tasks compute, and nobody is left out.
 */
void runqueue_turn(struct runqueue *q)
{
	int64_t start = now_ns();

	while (run_first(q, &q->woken) && now_ns() - start < SLICE_NS)
		;
	run_first(q, &q->preempted);
}

struct task *task_spawn(lua_State *L, int nargs, const char *name)
{
	struct state *s = state_of(L);
	lua_State *co = lua_newthread(L);	/* these two may raise when the memory cap is reached */
	int ref = luaL_ref(L, LUA_REGISTRYINDEX);
	struct task *t = xcalloc(1, sizeof(*t));

	t->state = s;
	t->name = xstrdup(name);
	t->refs = 2;
	t->start_args = nargs + 1;
	TAILQ_INIT(&t->done);
	t->co = co;
	t->ref = ref;
#if LUA_VERSION_NUM >= 504
	/* A thread inherits its maker's hook, but L may be one that user code made without. */
	lua_sethook(t->co, state_hook, LUA_MASKCOUNT, lua_gethookcount(s->L));
#endif
	state_push_body(L);
	lua_insert(L, -nargs - 2);
	lua_xmove(L, t->co, nargs + 2);
	TAILQ_INSERT_TAIL(&s->tasks, t, state_entry);
	t->status = TASK_RUNNABLE;
	log_debug("task", "arm %s", name);
	if (s->stopping)
		task_cancel(t, "the file is over");
	runqueue_add(loop_runqueue(s->loop), t);
	return t;
}

struct task *task_ref(struct task *t)
{
	t->refs++;
	return t;
}

void task_unref(struct task *t)
{
	struct done_hook *h;

	if (!t || --t->refs > 0)
		return;
	while ((h = TAILQ_FIRST(&t->done))) {
		TAILQ_REMOVE(&t->done, h, entry);
		free(h);
	}
	luaL_unref(t->state->L, LUA_REGISTRYINDEX, t->ref);
	free(t->name);
	free(t->cancel_reason);
	free(t->traceback);
	free(t);
}

enum task_status task_status(const struct task *t)
{
	return t->status;
}

const char *task_name(const struct task *t)
{
	return t->name;
}

lua_State *task_lua(struct task *t)
{
	return t->co;
}

struct task *task_current(lua_State *L)
{
	return state_of(L)->current;
}

void task_add_done(struct task *t, void (*fn)(struct task *t, void *arg), void *arg)
{
	struct done_hook *h = xcalloc(1, sizeof(*h));

	h->fn = fn;
	h->arg = arg;
	TAILQ_INSERT_TAIL(&t->done, h, entry);
}

void task_remove_done(struct task *t, void (*fn)(struct task *t, void *arg), void *arg)
{
	struct done_hook *h;

	TAILQ_FOREACH(h, &t->done, entry) {
		if (h->fn != fn || h->arg != arg)
			continue;
		TAILQ_REMOVE(&t->done, h, entry);
		free(h);
		return;
	}
}

static void task_over(struct task *t, enum task_status status)
{
	struct state *s = t->state;
	struct done_hook *h;

	t->status = status;
	timer_stop(&t->drop_timer);
	runqueue_remove(loop_runqueue(s->loop), t);
	TAILQ_REMOVE(&s->tasks, t, state_entry);
	log_debug("task", "finish %s: status %d", t->name, status);
	while ((h = TAILQ_FIRST(&t->done))) {
		TAILQ_REMOVE(&t->done, h, entry);
		h->fn(t, h->arg);
		free(h);
	}
	task_unref(t);
	state_task_over(s);
}

/* Pushes what the coroutine is resumed with. */
static int push_resume_values(struct task *t)
{
	struct wait *w = t->wait;

#ifdef PROVIUM_DEBUG
	INVARIANT(t->start_args >= 0 || t->top == lua_gettop(t->co));
#endif
	if (t->start_args >= 0) {
		int n = t->start_args;

		t->start_args = -1;
		return n;
	}
	if (t->cancel_pending) {
		t->cancel_pending = false;
		lua_pushboolean(t->co, 0);
		lua_pushstring(t->co, t->cancel_reason);
		return 2;
	}
	if (!w)
		return 0;	/* it was preempted */
	t->wait = NULL;
	return wait_push_and_free(w, t->co);
}

static void check_stall(struct task *t)
{
	int64_t ns = now_ns() - t->slice_start;
	char *tb;

	if (ns <= STALL_NS || t->stall_reported)
		return;
	tb = task_traceback(t);
	loop_report_stall(t->state->loop, ns, tb);
	free(tb);
}

static void after_yield(struct task *t)
{
	struct state *s = t->state;

	INVARIANT(s->yielding);	/* coroutine.yield is ours and refuses the task's own coroutine */
	s->yielding = false;
#ifdef PROVIUM_DEBUG
	t->top = lua_gettop(t->co);
#endif
	if (t->cancel_reason && t->wait) {	/* cancelled by what it armed itself */
		wait_cancel_and_free(t->wait);
		t->wait = NULL;
		t->cancel_pending = true;
	}
	if (t->cancel_pending || (t->wait && t->wait->finished)) {
		t->status = TASK_RUNNABLE;
		runqueue_add(loop_runqueue(s->loop), t);
	} else if (s->preempted) {
		t->status = TASK_RUNNABLE;
		runqueue_add_preempted(loop_runqueue(s->loop), t);
	} else {
		t->status = TASK_WAITING;
	}
	s->preempted = false;
}

/*
 * Cancelled, and never to be resumed (again). Its stack is left as it is: other functions may share its
 * variables, and unwinding it would run code of the test outside of any task.
 */
static void end_unresumed(struct task *t)
{
	t->traceback = task_traceback(t);
	lua_checkstack(t->co, 1);
	lua_pushstring(t->co, t->cancel_reason);
	task_over(t, TASK_CANCELLED);
}

void task_resume(struct task *t)
{
	struct state *s = t->state;
	int nargs, nres = 0, r;

	if (t->start_args >= 0 && t->cancel_reason) {	/* cancelled before its first slice: nothing of it runs */
		end_unresumed(t);
		return;
	}
	state_feed(s);
	nargs = push_resume_values(t);
	t->status = TASK_RUNNING;
	t->slice_start = now_ns();
	t->overdue_cpu = 0;
	t->cancel_raised = t->stall_reported = false;
	s->current = t;
	r = lua_resume_compat(t->co, s->L, nargs, &nres);
	s->current = NULL;
	check_stall(t);
	if (r == LUA_YIELD) {
		after_yield(t);
		return;
	}
	s->yielding = s->preempted = false;
	if (t->wait) {	/* what armed it has raised instead of yielding */
		wait_cancel_and_free(t->wait);
		t->wait = NULL;
	}
	if (r == LUA_OK && lua_toboolean(t->co, -nres)) {
		while (lua_gettop(t->co) >= nres)	/* only the function's results stay */
			lua_remove(t->co, 1);
		task_over(t, TASK_DONE);
		return;
	}
	if (!t->traceback)	/* out of memory is not caught with a traceback */
		t->traceback = task_traceback(t);
	task_over(t, t->cancel_reason ? TASK_CANCELLED : TASK_FAILED);
}

void task_set_traceback(struct task *t, const char *traceback)
{
	free(t->traceback);
	t->traceback = xstrdup(traceback);
}

/* It has swallowed the cancellation for too long: it is never resumed again. */
static void drop_cb(evutil_socket_t fd, short what, void *arg)
{
	struct task *t = arg;

	(void)fd, (void)what;
	log_debug("task", "cancel %s: dropped, it ignored its cancellation", t->name);
	if (t->wait) {
		wait_cancel_and_free(t->wait);
		t->wait = NULL;
	}
	end_unresumed(t);
}

void task_cancel(struct task *t, const char *reason)
{
	struct loop *l = t->state->loop;

	if (t->status > TASK_WAITING || t->cancel_reason)
		return;
	log_debug("task", "cancel %s: %s", t->name, reason);
	t->cancel_reason = xstrdup(reason);
	if (t->status != TASK_RUNNING && t->wait) {
		wait_cancel_and_free(t->wait);
		t->wait = NULL;
		t->cancel_pending = true;
		t->status = TASK_RUNNABLE;
		runqueue_add(loop_runqueue(l), t);
	}
	timer_start(l, &t->drop_timer, DROP_AFTER_NS, drop_cb, t);
}

char *task_traceback(struct task *t)
{
	lua_State *L = t->state->L;
	char *text;

	if (t->traceback)
		return xstrdup(t->traceback);
	lua_push_traceback(L, t->co, 0);
	text = xstrdup(lua_tostring(L, -1));
	lua_pop(L, 1);
	return text;
}

const char *task_waiting_for(struct task *t, char *buf, size_t size)
{
	buf[0] = '\0';
	if (!t->wait || t->status != TASK_WAITING)
		return buf;
	if (t->wait->kind->describe)
		t->wait->kind->describe(t->wait, buf, size);
	else
		snprintf(buf, size, "%s", t->wait->kind->name);
	return buf;
}
