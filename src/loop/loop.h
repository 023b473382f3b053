/*
 * The runtime that everything stands on: errors, the log, the event loop, Lua states, tasks,
 * waits, scopes, child processes and framed connections.
 *
 * This is the one header of src/loop/ that other folders include. Struct bodies are private to
 * their .c files unless a caller must embed them (struct err, struct wait, struct undo).
 */
#ifndef PROVIUM_LOOP_H
#define PROVIUM_LOOP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <msgpack.h>

#include "loop/luacompat.h"

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* ---- memory: out of memory ends the program, so none of these returns NULL (err.c) ---- */

void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);		/* NULL stays NULL */
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
char *xvasprintf(const char *fmt, va_list ap) PRINTF_LIKE(1, 0);

/* ---- errors (err.c) ----
 *
 * What a guest, a host or a test can provoke is reported as 0 / -errno plus a message that is
 * complete enough to print as it is. A struct err starts as ERR_INIT and is released by whoever
 * declared it; functions that take one accept NULL.
 */
struct err {
	int code;	/* -errno, 0 when nothing failed */
	char *msg;	/* owned; NULL when nothing failed */
};
#define ERR_INIT { 0, NULL }

/* Records a failure and returns -code's sign-normalised value (always negative). Replaces what was there. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts context in front of the message: "CONTEXT: message". Returns e->code. */
int err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends to the message. Returns e->code. */
int err_append(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
void err_copy(struct err *dst, const struct err *src);
void err_move(struct err *dst, struct err *src);	/* src becomes ERR_INIT */
void err_release(struct err *e);
static inline bool err_is_set(const struct err *e) { return e && e->code != 0; }

/* Our own broken invariants: prints place and text, aborts. */
#define INVARIANT(cond) \
	((cond) ? (void)0 : invariant_failed(#cond, __FILE__, __LINE__, __func__))
void invariant_failed(const char *cond, const char *file, int line, const char *func)
	__attribute__((noreturn));

/* ---- the log (log.c) ----
 *
 * Off unless PROVIUM_LOG names a file ("-" is stderr). Stable words: arm, finish, cancel, reap.
 */
void log_open(const char *path);	/* NULL closes */
bool log_enabled(void);
#define log_debug(tag, ...) \
	do { if (log_enabled()) log_write((tag), __func__, __VA_ARGS__); } while (0)
void log_write(const char *tag, const char *func, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- time (loop.c) ---- */

int64_t now_ns(void);				/* CLOCK_MONOTONIC */
struct timeval timeval_from_ns(int64_t ns);	/* negative becomes 0 */

/* ---- durations and sizes (units.c), as users write them everywhere ----
 *
 * Duration: seconds, or a number with ms, s, m or h. Size: bytes, or a number with K, M, G, T
 * (binary, any case). NaN, infinity, negative values, unknown suffixes and overflow are refused with a
 * message that names the value. 0 or -EINVAL / -ERANGE.
 */
int units_parse_duration(const char *text, int64_t *ns, struct err *e);
int units_duration_from_seconds(double seconds, int64_t *ns, struct err *e);
int units_parse_size(const char *text, uint64_t *bytes, struct err *e);
int units_size_from_number(double n, uint64_t *bytes, struct err *e);
/* "1.5 GiB", "512 MiB". Returns buf. */
const char *units_format_size(uint64_t bytes, char *buf, size_t size);
/* 32 hexadecimal digits that nobody else has; malloc'ed. */
char *units_new_id(void);
/* The nearest of names (NULL-terminated) to word, or NULL when none is close: for "did you mean". */
const char *nearest_name(const char *word, const char *const *names);

/* ---- the loop (loop.c) ---- */

struct loop;

struct loop *loop_new(void);
void loop_free(struct loop *l);
/* One more (1) or one less (-1) that still ends after its owner has let go of it. loop_free() waits for these, 5 s. */
void loop_ending(struct loop *l, int n);
struct event_base *loop_base(struct loop *l);
/* Runs until loop_stop(). Returns 0. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Runs fn(arg) when this turn's callbacks are over: the place to free what called you. */
void loop_defer(struct loop *l, void (*fn)(void *arg), void *arg);
/* Called when one turn kept the loop busy for longer than 50 ms. traceback may be NULL. */
void loop_on_stall(struct loop *l, void (*fn)(void *arg, int64_t ns, const char *traceback), void *arg);

/* A one-shot timer: *ev is made on first use; timer_stop frees it and sets *ev to NULL. */
void timer_start(struct loop *l, struct event **ev, int64_t ns, event_callback_fn fn, void *arg);
void timer_stop(struct event **ev);

/* ---- Lua states (state.c) ----
 *
 * One for each test file: own memory cap, preemption of computing code, libraries that yield.
 */
struct state;
struct task;
struct wait;

#define STATE_MEMORY_CAP ((size_t)1 << 30)

/* Never NULL: out of memory ends the program. The caller owns it. */
struct state *state_new(struct loop *l, size_t memory_cap);
/* Every task must be over. */
void state_free(struct state *s);
lua_State *state_lua(struct state *s);
struct loop *state_loop(struct state *s);
struct state *state_of(lua_State *L);
size_t state_memory_used(struct state *s);
/* One borrowed pointer for the layer above (src/ops's struct ops_env). */
void state_set_user(struct state *s, void *user);
void *state_user(struct state *s);
/* Whether every task of the state is suspended in a wait of which is(w) holds. */
bool state_every_wait(struct state *s, bool (*is)(const struct wait *w));
/* Cancels every task of the state. done(arg) is called from the loop when none is left. */
void state_stop(struct state *s, const char *reason, void (*done)(void *arg), void *arg);
/* Runs an embedded Lua chunk (see embed.h) with nargs arguments from the stack, leaves nres results. */
int state_call_embedded(lua_State *L, const char *name, int nargs, int nres, struct err *e);

/* The position "file:line: " of the nearest caller that is test code (not embedded Lua); "" if none. Pushes it. */
void lua_push_where(lua_State *L);
/* Raises msg with that position in front. */
int lua_raise(lua_State *L, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- tasks (task.c) ----
 *
 * A task owns a Lua coroutine. It is runnable (in the run queue), waiting (holds one struct wait),
 * running, or over. Only the run queue resumes Lua.
 */
enum task_status { TASK_RUNNABLE, TASK_RUNNING, TASK_WAITING, TASK_DONE, TASK_FAILED, TASK_CANCELLED };

/* Takes a function and nargs arguments from the top of L's stack (pops them), makes it runnable.
 * name is copied. The caller gets one reference. */
struct task *task_spawn(lua_State *L, int nargs, const char *name);
struct task *task_ref(struct task *t);
void task_unref(struct task *t);
enum task_status task_status(const struct task *t);
const char *task_name(const struct task *t);
/* Called from the loop once, when the task is over; its results, or its error value, are then on
 * task_lua(t)'s stack. Several may be added; each is removed by task_remove_done with the same pair. */
void task_add_done(struct task *t, void (*fn)(struct task *t, void *arg), void *arg);
void task_remove_done(struct task *t, void (*fn)(struct task *t, void *arg), void *arg);
lua_State *task_lua(struct task *t);
/* The task running now in L's state, or NULL. */
struct task *task_current(lua_State *L);
/* Ends the task where it waits or computes: it is resumed with the error `reason`, and every later
 * wait of it raises the same. One that swallows the error for ever is dropped after one second.
 * Idempotent; no effect on a task that is over. */
void task_cancel(struct task *t, const char *reason);
/* The traceback of a waiting or failed task, malloc'ed. */
char *task_traceback(struct task *t);
/* What the task waits for ("vm \"a\": run \"sleep 9\""), "" when it does not. Returns buf. */
const char *task_waiting_for(struct task *t, char *buf, size_t size);

/* ---- waits (wait.c) ----
 *
 * One suspended operation. An op embeds struct wait first in its own struct, allocates it with
 * wait_new, arms its event source and returns wait_yield(L, w). Whoever ends it calls
 * wait_finish or wait_fail exactly once; if the task is cancelled first, kind->cancel is called
 * instead and no callback may touch the wait afterwards. src/ops/sleep.c is the file to copy.
 */
struct wait;

struct wait_kind {
	const char *name;	/* "sleep" */
	/* Stop the event source. Called at most once; never yields. May be NULL. */
	void (*cancel)(struct wait *w);
	/* Push the results of a finished wait; returns how many. May be NULL (no results). To raise
	 * instead, call wait_fail before (push must not raise). */
	int (*push)(struct wait *w, lua_State *L);
	/* What it waits for, for timeouts and the live status. May be NULL (the name is used). */
	void (*describe)(struct wait *w, char *buf, size_t size);
	/* Release what the struct owns (not the struct). Called once, on every way out. May be NULL. */
	void (*release)(struct wait *w);
	bool on_others;		/* ends only by what other tasks do */
};

struct wait {
	const struct wait_kind *kind;
	struct task *task;	/* borrowed */
	struct err err;		/* set by wait_fail */
	int64_t armed_ns;
	bool finished;
};

/* Allocates size bytes (zeroed) whose first member is a struct wait, for the task that runs L.
 * Raises when L cannot yield here (table.sort comparator, string.gsub callback, ...), saying which
 * op and what to write instead, and when the task has been cancelled. */
void *wait_new(lua_State *L, const struct wait_kind *kind, size_t size);
/* Suspends: `return wait_yield(L, &w->wait);`. A wait that has finished already is fine. */
int wait_yield(lua_State *L, struct wait *w);
/* The wait's arming failed or was not needed: frees w without yielding and returns the op's
 * results: an error (wait_return_error) as the shim expects it. */
int wait_abandon(lua_State *L, struct wait *w, const struct err *e);
/* Ends the wait: the task becomes runnable; push runs right before it is resumed. */
void wait_finish(struct wait *w);
/* Ends the wait with an error that the Lua shim raises at the caller's line. */
void wait_fail(struct wait *w, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
void wait_fail_err(struct wait *w, const struct err *e);
/* Seconds since the wait was armed. */
double wait_elapsed(const struct wait *w);

/* The protocol between yielding C ops and the shim in lua/shim.lua: an op returns
 * (true, results...) or (false, message). These make the two for ops that need not wait. */
int op_return(lua_State *L, int nresults);		/* results on top of the stack */
int op_return_error(lua_State *L, const struct err *e);
/* Makes `fn`, a yielding op as above, callable from Lua: pushes the shimmed closure. */
void lua_push_op(lua_State *L, lua_CFunction fn);
/* luaL_setfuncs for a table of yielding ops. The table is on top of the stack. */
void lua_set_ops(lua_State *L, const luaL_Reg *ops);

/* ---- scopes (scope.c): a clean-up stack ----
 *
 * What is made registers its undo. scope_close undoes by rank (streams first, VMs and bridges
 * last), last made first within a rank, whatever the outcome; an undo may take its time.
 */
enum scope_rank {
	RANK_STREAM, RANK_PROCESS, RANK_FILE, RANK_WORKER, RANK_TASK, RANK_BRIDGE, RANK_VM,
	RANK_FINAL, RANK_MAX
};

struct scope;

/* Embedded in what is to be undone. */
struct undo {
	TAILQ_ENTRY(undo) entry;
	struct scope *scope;		/* NULL when in none */
	enum scope_rank rank;
	bool started;			/* scope.c: the undo runs */
	/* Starts the undo; calls undo_done(u) now or later, exactly once. */
	void (*start)(struct undo *u);
};

struct scope *scope_new(struct loop *l, const char *name);
/* Must be empty or closed. */
void scope_free(struct scope *sc);
const char *scope_name(const struct scope *sc);
void scope_add(struct scope *sc, struct undo *u, enum scope_rank rank, void (*start)(struct undo *u));
/* Takes u out (its object was closed by hand). No effect when in none. */
void scope_remove(struct undo *u);
void undo_done(struct undo *u);
/* Undoes everything; done(arg) is called from the loop when it is all over. */
void scope_close(struct scope *sc, void (*done)(void *arg), void *arg);

/* ---- children (child.c) ----
 *
 * A child is done when it is reaped (pidfd) and its captured streams are at EOF, in either order.
 */
struct child;

struct child_fd { int fd; int as; };	/* fd of ours, number in the child */

struct child_result {
	bool signalled;
	int code;			/* exit code, or the signal's number */
	struct evbuffer *out, *err;	/* captured; owned by the child, valid during done() */
};

struct child_spec {
	const char *const *argv;	/* argv[0] is searched in PATH */
	const char *const *envp;	/* NULL: ours */
	const char *cwd;		/* NULL: ours */
	const struct child_fd *fds;	/* inherited besides 0-2 */
	size_t nfds;
	int stdin_fd;			/* 0: /dev/null; else a descriptor of ours */
	bool capture_out, capture_err;	/* else stdout to stderr, stderr inherited */
	size_t capture_max;		/* bytes kept of each stream, the last ones; 0: 1 MiB */
	bool own_group;			/* a process group of its own: signals go to all of it */
	bool batch;			/* SCHED_BATCH */
	void (*done)(void *arg, const struct child_result *r);
	void *arg;
};

/* Starts it with PR_SET_PDEATHSIG=SIGKILL, default signal dispositions and no other descriptor of
 * ours. NULL and *e when it cannot be executed. */
struct child *child_spawn(struct loop *l, const struct child_spec *spec, struct err *e);
pid_t child_pid(const struct child *c);
void child_signal(struct child *c, int sig);
/* SIGTERM, then SIGKILL after grace_ns. done() still comes. */
void child_stop(struct child *c, int64_t grace_ns);
/* What the child wrote to stderr so far (capture_err); borrowed. */
struct evbuffer *child_stderr(struct child *c);
/* Forgets it: no callback any more; killed and reaped in the background if it still runs. */
void child_free(struct child *c);
/* "exit status 1", "signal 9 (Killed)". Returns buf. */
const char *child_result_text(const struct child_result *r, char *buf, size_t size);

/* Runs `provium --helper VERB ARGS...`: heavy file work away from the loop's thread. The verb's
 * stderr becomes the error's message. cb(arg, NULL) is success. argv ends with NULL. */
struct helper;
struct helper *helper_start(struct loop *l, const char *const *argv,
	void (*cb)(void *arg, const struct err *e), void *arg, struct err *e);
/* With descriptors of ours for it, such as one of /proc/PID/mem or of a file that it is to lock. */
struct helper *helper_start_fds(struct loop *l, const char *const *argv, const struct child_fd *fds, size_t nfds,
	void (*cb)(void *arg, const struct err *e), void *arg, struct err *e);
void helper_cancel(struct helper *h);	/* kills it; no callback */
/* The program that helper_start runs, for unit tests (default: /proc/self/exe). Borrowed. */
void helper_set_program(const char *path);

/* What the helper can do. run gets the verb's arguments (argv[0] is the verb); it may block. */
struct helper_verb {
	const char *name;	/* NULL ends a table */
	int (*run)(int argc, char **argv, struct err *e);
};
/* Adds a table (borrowed), called by main() before helper_main. `copy SRC DST` and `hash OUT FILE...` are
 * always there. */
void helper_register(const struct helper_verb *verbs);
/* The other end, called by main() with its own arguments when argv[1] is "--helper". The exit code. */
int helper_main(int argc, char **argv);

/* ---- files that appear whole or not at all (outfile.c) ----
 *
 * Written without a name (or under a temporary one beside it) and renamed when complete. These block: for
 * helper verbs, and for files of a few KiB.
 */
struct outfile;
/* size: the bytes it will need, for the message when the disk is full; 0: unknown. */
struct outfile *outfile_open(const char *path, uint64_t size, struct err *e);
int outfile_fd(const struct outfile *o);	/* its offset is the end of what was written */
int outfile_write(struct outfile *o, const void *data, size_t len, struct err *e);
/* Appends a whole file, holes stay holes, sharing blocks where the file system can. */
int outfile_append(struct outfile *o, int fd, const char *name, struct err *e);
/* Fills *e for a write that failed with errno `code`; a full disk names the bytes needed. Returns -code. */
int outfile_failed(const struct outfile *o, int code, struct err *e);
/* Gives it its name, replacing what had it. sync: flushed to the disk first. */
int outfile_commit(struct outfile *o, bool sync, struct err *e);
/* Also removes what was not committed. */
void outfile_free(struct outfile *o);
/* Makes a directory and its parents; fine when it exists. */
int make_dirs(const char *path, mode_t mode, struct err *e);

/* ---- framed connections (framed.c) ----
 *
 * Length-prefixed msgpack over a socket (agent/protocol.h). Input is checked for size, depth and
 * claimed lengths before anything is allocated.
 */
struct framed;

struct framed_events {
	/* One whole, well-formed frame; o is valid during the call. */
	void (*frame)(void *arg, const msgpack_object *o);
	/* After framed_sync(): the peer echoed the mark. */
	void (*synced)(void *arg);
	/* EOF, I/O error or a malformed frame: nothing more will come. e says which. */
	void (*closed)(void *arg, const struct err *e);
	/* Output fell below the low-water mark again (see framed_backlog). May be NULL. */
	void (*drained)(void *arg);
};

/* Owns fd. No callback before the loop runs. */
struct framed *framed_new(struct loop *l, int fd, const struct framed_events *ev, void *arg);
/* Sends the sync mark and drops input until the peer echoes it. */
void framed_sync(struct framed *f);
/* Queues one frame: the length is put in front of body. */
void framed_send(struct framed *f, const void *body, size_t len);
/* Bytes queued and not yet written. */
size_t framed_backlog(const struct framed *f);
/* Stop and go on reading (back-pressure). */
void framed_pause(struct framed *f, bool paused);
/* Safe from its own callbacks. */
void framed_free(struct framed *f);

#endif
