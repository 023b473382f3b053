/*
 * What state.c, task.c and wait.c know of one another. Private to src/loop/.
 */
#ifndef PROVIUM_TASK_H
#define PROVIUM_TASK_H

#include "loop/loop.h"

#define SLICE_NS (10 * INT64_C(1000000))

TAILQ_HEAD(task_list, task);

struct done_hook {
	TAILQ_ENTRY(done_hook) entry;
	void (*fn)(struct task *t, void *arg);
	void *arg;
};

/*
 * A reference is held by whoever spawned the task, and one by its state until it is over. The
 * coroutine stays anchored in the registry until the last reference goes, so results and
 * tracebacks can be read from its stack.
 */
struct task {
	TAILQ_ENTRY(task) run_entry;		/* in *queued */
	TAILQ_ENTRY(task) state_entry;		/* in state->tasks until it is over */
	struct state *state;
	lua_State *co;
	int ref;				/* of the coroutine in the registry */
	unsigned refs;
	enum task_status status;
	struct task_list *queued;		/* the run queue's list that it is in, or NULL */
	int start_args;				/* -1 once it has started */
	struct wait *wait;			/* the one wait slot; owned */
	char *cancel_reason;			/* set by task_cancel */
	bool cancel_pending;			/* to be resumed with it */
	struct event *drop_timer;
	char *traceback;			/* of a failure */
	char *name;
	int64_t slice_start;
	int64_t overdue_cpu;			/* processor time when the slice was over, 0 before */
	bool cancel_raised;			/* the cancellation, in this slice */
	bool stall_reported;
#ifdef PROVIUM_DEBUG
	int top;				/* of the stack at the last yield */
#endif
	TAILQ_HEAD(, done_hook) done;
};

/* Freed by state_free. */
struct state {
	struct loop *loop;
	lua_State *L;
	size_t used, cap;
	bool starved;		/* an allocation was refused */
	struct task_list tasks;
	struct task *current;
	void *user;
	bool yielding;		/* a wait or the hook has yielded, and it has not reached the run queue yet */
	bool preempted;		/* that yield was the hook's */
	unsigned blocked;	/* coroutine.resume calls, not over yet, that were made where Lua cannot yield */
	bool stopping;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

/* Pushes the function that runs a task's function under a protected call: body(fn, ...) -> true, results... |
 * false, error (lua/shim.lua). */
void state_push_body(lua_State *L);
/* Where the error was raised that ends the task, told before its stack unwinds. */
void task_set_traceback(struct task *t, const char *traceback);
/* Pushes onto L a traceback of `of` from this level on: all of it, or the innermost levels of a deep stack. */
void lua_push_traceback(lua_State *L, lua_State *of, int level);

/* Gives the task one slice; from the run queue only. */
void task_resume(struct task *t);
void runqueue_add(struct runqueue *q, struct task *t);
/* A task whose slice was over while it computed. */
void runqueue_add_preempted(struct runqueue *q, struct task *t);
void runqueue_remove(struct runqueue *q, struct task *t);

/* Pushes a wait's results, or (false, message), onto co; frees the wait. Returns how many. */
int wait_push_and_free(struct wait *w, lua_State *co);
/* Stops and frees a wait whose task is cancelled. */
void wait_cancel_and_free(struct wait *w);

/* Collects garbage before the next slice when an allocation was refused: LuaJIT does not before it gives up, and
 * its next cycle may be far. */
void state_feed(struct state *s);
/* The count hook of every state (state.c). */
void state_hook(lua_State *L, lua_Debug *ar);
/* A task of the state is over. */
void state_task_over(struct state *s);

#endif
