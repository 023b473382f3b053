/*
 * A loop, a Lua state and a few ops for tests of the runtime: tasks from Lua text, run until they are over.
 *
 * In Lua: sleep(seconds) and gate(name) wait (a gate until rig_open_gate); spawn(fn, ...),
 * cancel(task, reason) and status(task) deal in tasks; note(text) appends to rig.notes; stop() ends rig_run.
 */
#ifndef PROVIUM_RIG_H
#define PROVIUM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"

#define RIG_GUARD_NS INT64_C(30000000000)
#define RIG_TASKS 64

struct gate_wait;

struct rig {
	struct loop *loop;
	struct state *state;
	lua_State *L;
	struct task *spawned[RIG_TASKS];
	size_t nspawned;
	char notes[4096];
	bool stopped, guard_fired;
	struct gate_wait *gates[16];
	unsigned cancelled, released;	/* gates */
	int hops;			/* of rig_settle */
	int64_t settle_start;
};

/* Runs the loop until a task waits at the gate. */
void rig_reach_gate(struct rig *r, const char *name);
/* Fails the test when nothing waits there. */
void rig_open_gate(struct rig *r, const char *name);
/* Appends a word to r->notes. */
void rig_note(struct rig *r, const char *text);

/* Runs the loop until something stops it; fails the test after RIG_GUARD_NS. */
void rig_run(struct rig *r);
void rig_run_for(struct rig *r, int64_t ns);
/* A few turns, one slice each at least: whatever can go on at once has done so. */
void rig_settle(struct rig *r);

void rig_open(struct rig *r, size_t cap);
/* Ends every task and frees it all. */
void rig_close(struct rig *r);

/* A task that runs code; the rig owns it. */
struct task *rig_spawn(struct rig *r, const char *code);
/* Runs the loop until the task is over; returns its status. */
enum task_status rig_finish(struct rig *r, struct task *t);
/* The last result, or the error, as text. */
const char *rig_text(struct task *t);
/* Runs code to its end and expects it to return `expected` (as text). */
void rig_expect(struct rig *r, const char *code, const char *expected);
/* Runs code to its end and expects it to fail with `expected` in the message. */
void rig_expect_error(struct rig *r, const char *code, const char *expected);

#endif
