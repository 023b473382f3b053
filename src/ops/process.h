/*
 * Process: a command that runs on in the guest, made by run_async(). process.c is its life, processops.c what tests call.
 */
#ifndef PROVIUM_PROCESS_H
#define PROVIUM_PROCESS_H

#include "ops/command.h"
#include "ops/ops.h"
#include "ops/stream.h"
#include "ops/target.h"

#define PROCESS_TYPE "provium.Process"

struct process;

/* stdout or stderr: collected here for wait(), until a stream takes it. */
struct output {
	struct process *process;
	unsigned number;		/* 1 or 2 */
	struct evbuffer *data;
	struct mark { unsigned era; size_t n; } *marks;	/* when what is in data came, in order */
	size_t nmarks;
	size_t owed;			/* received and not yet credited */
	struct stream *stream;		/* NULL until asked for, and after it is closed */
	bool ended, taken;		/* taken: a stream had it, so wait() does not */
	unsigned taken_era;
};

/* Belongs to its scope until it is closed; freed with its userdata. */
struct process {
	struct target *target;
	struct undo undo;
	struct agent_call *call;	/* the spawn's, for its output; NULL once closed */
	char *text;
	struct command_input input;	/* given with the command: its stdin is closed behind it */
	int64_t handle;
	unsigned era;			/* of the guest, when it was started */
	unsigned restores;		/* of its VM, when its output was last asked for */
	unsigned exit_era, broken_era;	/* when that became known, */
	const struct agent *broken_agent;	/* and on which connection; only compared */
	pid_t pid;
	struct output out[2];
	bool closed, exited, timed_out, lingered;
	struct command_exit exit;
	struct err broken;
	struct spawn_wait *starter;	/* the task in run_async, until the agent has answered */
	LIST_HEAD(, exit_wait) waits;
	struct event *linger;
	struct loop *loop;
	lua_State *L;			/* the state's main thread */
};

/* A task in wait(). */
struct exit_wait {
	struct wait wait;
	struct process *p;
	LIST_ENTRY(exit_wait) entry;
	struct agent_call *call;	/* the agent's wait request */
	struct event *timer;
	bool keep, gave_up;
};

/* run_async(cmd, ...) -> Process, as an op. */
int process_start(lua_State *L);
/* After this nothing refers to the VM any more. */
void process_close(struct process *p);
void process_free(struct process *p);

/* Makes up for what restores have taken back: before anything is asked of a process. */
void process_catch_up(struct process *p);
/* Nothing more will be heard of it, and e says why. */
void process_set_broken(struct process *p, const struct err *e);
/* Lets the tasks in wait() go on when the process has exited and its output is there. */
void process_check_waits(struct process *p);

/* Lets the command print on, as far as there is somebody who wants it. */
void output_give_credit(struct output *o);
/* Whether what came then is output of the process as it is now. What is gone keeps what it had. */
bool output_mark_counts(const struct output *o, const struct mark *m);
/* Pushes its stream, made if there is none yet; pushes nothing and returns false when that was closed. */
bool output_push_stream(struct output *o, lua_State *L);

#endif
