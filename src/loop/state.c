/*
 * A test file's Lua state: memory cap, preemption, and the libraries that the runtime replaces.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loop/embed.h"
#include "loop/loop.h"
#include "loop/runqueue.h"
#include "loop/task.h"

#if LUA_VERSION_NUM < 504
#include <luajit.h>
#endif

#define HOOK_COUNT 10000			/* VM instructions between two looks at the clock */
#define STALL_NS (50 * INT64_C(1000000))
#define RUNTIME_SLACK ((size_t)1 << 20)		/* beyond the cap, for what the runtime does between slices */
#define UNYIELDABLE_MAX_NS (2 * INT64_C(1000000000))

static int core_raise(lua_State *L);
static int core_caught(lua_State *L);
static int core_scheduled(lua_State *L);
static int core_resume_blocked(lua_State *L);
static int core_at_top(lua_State *L);
static const luaL_Reg core_functions[];

static const char shim_key, body_key, embedded_prefix[] = "=provium:";

static void *capped_alloc(void *ud, void *p, size_t old, size_t new)
{
	struct state *s = ud;

	if (!p)
		old = 0;	/* Lua passes a type tag there */
	if (new == 0) {
		free(p);
		s->used -= old;
		return NULL;
	}
	if (new > old && s->used + (new - old) > s->cap + (s->current ? 0 : RUNTIME_SLACK)) {
		s->starved = true;
		return NULL;
	}
	p = realloc(p, new);
	if (p)
		s->used += new - old;
	return p;
}

/* Lua's allocator argument is our state: the quickest way from any coroutine to it. */
struct state *state_of(lua_State *L)
{
	void *ud;

	lua_getallocf(L, &ud);
	return ud;
}

void state_feed(struct state *s)
{
#if LUA_VERSION_NUM < 504
	if (s->starved)
		lua_gc(s->L, LUA_GCCOLLECT, 0);
#endif
	s->starved = false;
}

static int panic(lua_State *L)
{
	fprintf(stderr, "provium: error outside of any protected call: %s\n", lua_tostring(L, -1));
	abort();
}

/* The shims come first: they replace coroutine.* and give lua_push_op its wrapper. */
static int open_libraries(lua_State *L)
{
	struct err e = ERR_INIT;

	luaL_openlibs(L);
	lua_newtable(L);
	luaL_setfuncs(L, core_functions, 0);
	if (state_call_embedded(L, "shim", 1, 2, &e) < 0) {
		lua_pushstring(L, e.msg);
		err_release(&e);
		return lua_error(L);
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, &body_key);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &shim_key);
	return 0;
}

static void set_hook(lua_State *L, int count)
{
	lua_sethook(L, state_hook, LUA_MASKCOUNT, count);
}

struct state *state_new(struct loop *l, size_t memory_cap)
{
	struct state *s = xcalloc(1, sizeof(*s));

	s->loop = l;
	s->cap = memory_cap;
	TAILQ_INIT(&s->tasks);
	s->L = lua_newstate(capped_alloc, s);
	INVARIANT(s->L);	/* LuaJIT without GC64 refuses an allocator; configure checks it */
	lua_atpanic(s->L, panic);
	lua_pushcfunction(s->L, open_libraries);
	if (lua_pcall(s->L, 0, 0, 0) != LUA_OK)
		panic(s->L);
#if LUA_VERSION_NUM < 504
	/* Compiled traces run no hooks: a loop in one could not be preempted. */
	luaJIT_setmode(s->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
#endif
	set_hook(s->L, HOOK_COUNT);
	return s;
}

void state_free(struct state *s)
{
	if (!s)
		return;
	INVARIANT(TAILQ_EMPTY(&s->tasks));
	lua_sethook(s->L, NULL, 0, 0);
	lua_close(s->L);
	free(s);
}

lua_State *state_lua(struct state *s)
{
	return s->L;
}

struct loop *state_loop(struct state *s)
{
	return s->loop;
}

size_t state_memory_used(struct state *s)
{
	return s->used;
}

void state_set_user(struct state *s, void *user)
{
	s->user = user;
}

void *state_user(struct state *s)
{
	return s->user;
}

bool state_every_wait(struct state *s, bool (*is)(const struct wait *w))
{
	struct task *t;

	TAILQ_FOREACH(t, &s->tasks, state_entry)
		if (t->status != TASK_WAITING || !is(t->wait))
			return false;
	return true;
}

static void stopped_cb(void *arg)
{
	struct state *s = arg;
	void (*stopped)(void *arg) = s->stopped;

	s->stopped = NULL;
	if (stopped)
		stopped(s->stopped_arg);
}

void state_task_over(struct state *s)
{
	if (s->stopping && s->stopped && TAILQ_EMPTY(&s->tasks))
		loop_defer(s->loop, stopped_cb, s);
}

void state_stop(struct state *s, const char *reason, void (*done)(void *arg), void *arg)
{
	struct task *t, *next;

	INVARIANT(!s->stopped);
	s->stopping = true;
	s->stopped = done;
	s->stopped_arg = arg;
	for (t = TAILQ_FIRST(&s->tasks); t; t = next) {
		next = TAILQ_NEXT(t, state_entry);
		task_cancel(t, reason);
	}
	state_task_over(s);
}

static void report_stall_once(struct task *t, lua_State *L, int64_t spent)
{
	if (t->stall_reported)
		return;
	t->stall_reported = true;
	lua_push_traceback(L, L, 0);	/* the hook has no frame of its own */
	loop_report_stall(t->state->loop, spent, lua_tostring(L, -1));
	lua_pop(L, 1);
}

/* In processor time, since its slice was over: a busy machine is not its fault. */
static int64_t computed_ns(struct task *t)
{
	struct timespec ts;
	int64_t cpu;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	cpu = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
	if (!t->overdue_cpu)
		t->overdue_cpu = cpu;
	return cpu - t->overdue_cpu;
}

/*
 * Ends a computation that is overdue and cannot be preempted. Code that swallows the error may go on with
 * more of the same, so from now on every instruction is looked at: the first one that can yield will.
 */
static void raise_overdue(lua_State *L, struct task *t, const char *message)
{
	set_hook(t->co, 1);
	set_hook(L, 1);
	lua_raise(L, "%s", message);
}

/* Every HOOK_COUNT instructions: ends a cancelled computation, preempts one whose slice is over. */
void state_hook(lua_State *L, lua_Debug *ar)
{
	struct state *s = state_of(L);
	struct task *t = s->current;
	int64_t spent;

	(void)ar;
	if (!t || s->yielding)
		return;
	spent = now_ns() - t->slice_start;
	if (spent < SLICE_NS && lua_gethookcount(L) != HOOK_COUNT)
		set_hook(L, HOOK_COUNT);
	/* At least once in a slice, however little of it a busy machine has left. */
	if (t->cancel_reason && (spent < SLICE_NS || !t->cancel_raised)) {
		t->cancel_raised = true;
		lua_raise(L, "%s", t->cancel_reason);
	}
	if (spent < SLICE_NS)
		return;
	if (spent > STALL_NS)
		report_stall_once(t, L, spent);
	/* A cancelled task too: it may swallow the error again and again. */
	if (lua_isyieldable(L) && !s->blocked) {
		s->yielding = s->preempted = true;
		lua_yield(L, 0);
		return;
	}
	if (t->cancel_reason)
		raise_overdue(L, t, t->cancel_reason);
	if (computed_ns(t) > UNYIELDABLE_MAX_NS)
		raise_overdue(L, t, "computed for 2 s where Lua cannot be preempted (a table.sort "
			"comparator, a string.gsub callback, a metamethod called from C); everything else "
			"waited meanwhile");
}

int state_call_embedded(lua_State *L, const char *name, int nargs, int nres, struct err *e)
{
	const struct embedded *m;
	char chunk[64];
	int r;

	for (m = embedded_lua; m->name && strcmp(m->name, name); m++)
		;
	INVARIANT(m->name);
	snprintf(chunk, sizeof(chunk), "%s%s", embedded_prefix, name);
	r = luaL_loadbuffer(L, m->data, m->len, chunk);
	if (r == LUA_OK) {
		lua_insert(L, -nargs - 1);
		r = lua_pcall(L, nargs, nres, 0);
	}
	if (r == LUA_OK)
		return 0;
	err_set(e, EINVAL, "%s: %s", chunk + 1, lua_tostring(L, -1));
	lua_pop(L, 1);
	return e ? e->code : -EINVAL;
}

void lua_push_where(lua_State *L)
{
	lua_Debug ar;

	for (int level = 0; lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sl", &ar);
		if (ar.currentline <= 0 || strncmp(ar.source, embedded_prefix, strlen(embedded_prefix)) == 0)
			continue;
		lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
		return;
	}
	lua_pushliteral(L, "");
}

int lua_raise(lua_State *L, const char *fmt, ...)
{
	va_list ap;
	char *msg;

	va_start(ap, fmt);
	msg = xvasprintf(fmt, ap);
	va_end(ap);
	lua_push_where(L);
	lua_pushstring(L, msg);
	free(msg);
	lua_concat(L, 2);
	return lua_error(L);
}

void state_push_body(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &body_key);
}

void lua_push_op(lua_State *L, lua_CFunction fn)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &shim_key);
	lua_pushcfunction(L, fn);
	lua_call(L, 1, 1);
}

void lua_set_ops(lua_State *L, const luaL_Reg *ops)
{
	for (; ops->name; ops++) {
		lua_push_op(L, ops->func);
		lua_setfield(L, -2, ops->name);
	}
}

/* raise(message): error() with the position of the nearest test code. */
static int core_raise(lua_State *L)
{
	lua_push_where(L);
	lua_pushvalue(L, 1);
	lua_concat(L, 2);
	return lua_error(L);
}

/* caught(error) -> error: the message handler of a task's body. */
static int core_caught(lua_State *L)
{
	lua_push_traceback(L, L, 1);
	task_set_traceback(task_current(L), lua_tostring(L, -1));
	lua_settop(L, 1);
	return 1;
}

/* scheduled() -> whether the yield that has just come out of a coroutine is on its way to the run queue. */
static int core_scheduled(lua_State *L)
{
	lua_pushboolean(L, state_of(L)->yielding);
	return 1;
}

/*
 * resume_blocked(resume, co, ...) -> what resume returns, for a place where Lua cannot yield: what runs in
 * the coroutine can neither wait nor be preempted. In C, so that no raising hook can miss the decrement.
 */
static int core_resume_blocked(lua_State *L)
{
	struct state *s = state_of(L);
	int r;

	s->blocked++;
	r = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
	s->blocked--;
	return r == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* at_top() -> whether the running coroutine is the task's own. */
static int core_at_top(lua_State *L)
{
	struct task *t = task_current(L);

	lua_pushboolean(L, !t || t->co == L);
	return 1;
}

static const luaL_Reg core_functions[] = {
	{ "raise", core_raise },
	{ "caught", core_caught },
	{ "scheduled", core_scheduled },
	{ "resume_blocked", core_resume_blocked },
	{ "at_top", core_at_top },
	{ NULL, NULL },
};
