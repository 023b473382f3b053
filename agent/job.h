/*
 * Jobs: system calls that may block, each on a thread of its own.
 */
#ifndef PROVIUM_AGENT_JOB_H
#define PROVIUM_AGENT_JOB_H

#include <stdatomic.h>
#include <sys/types.h>

#include "ev.h"

struct jobs;

/* Embedded in its owner's struct, which lives until done(). */
struct job {
	void (*run)(struct job *j);	/* on the thread */
	void (*done)(struct job *j);	/* on the loop; always comes, even after job_abandon */
	struct jobs *all;
	struct job *next;
	_Atomic pid_t tid;
	struct ev_timer kick;
};

struct jobs *jobs_new(struct ev *ev);
int job_start(struct jobs *js, struct job *j);	/* 0 or -errno */
/* Interrupts its system call with a signal until it ends. */
void job_abandon(struct job *j);

#endif
