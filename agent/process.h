/*
 * Processes that an executor started: their streams, their end, and their handles.
 */
#ifndef PROVIUM_AGENT_PROCESS_H
#define PROVIUM_AGENT_PROCESS_H

#include "call.h"
#include "launch.h"

struct executor;
struct process;
struct processes;

struct processes *processes_new(struct executor *x);
/* The executor ends: so does what it started. */
void processes_kill_all(struct processes *ps);

enum process_kind {
	PROCESS_EXEC,		/* belongs to its call: freed when it is answered */
	PROCESS_SPAWN		/* has a handle */
};

/* Starts what l says for a call, whose streams its output goes to. -errno on failure. */
int process_start(struct call *c, struct launch *l, enum process_kind kind, bool with_stdin,
	struct process **out);
uint32_t process_handle(const struct process *p);
pid_t process_pid(const struct process *p);
/* A PROCESS_EXEC only: the group is killed when it still runs after ns. */
void process_set_timeout(struct process *p, int64_t ns);
/* Its call's events. */
void process_call_event(struct call *c, const void *data, size_t n);
void process_call_credit(struct call *c, unsigned stream);
void process_call_cancel(struct call *c);
void process_call_forget(struct call *c);	/* it runs on */
void process_call_unsubscribe(struct call *c);

/* By handle; NULL, and the call failed, when there is none. */
struct process *process_find(struct call *c, uint32_t handle);
void process_free(struct process *p);		/* kills it if it runs */
bool process_running(const struct process *p);
/* Its output goes to c from now on, which is replied and stays open. False when another call has it. */
bool process_attach(struct process *p, struct call *c);
int process_signal(struct process *p, int sig, bool group);	/* 0 or -errno */
void process_write(struct process *p, struct call *c, const void *data, size_t n, bool eof);
/* Packs status, code and signal: three pairs. */
void process_pack_status(const struct process *p, msgpack_packer *pk);
/* Replies to the call with the above and the duration when it has ended. */
void process_wait(struct process *p, struct call *c);

#endif
