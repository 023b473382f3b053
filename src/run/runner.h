/*
 * The dispatcher: runs test files at the same time in one loop and collects their results.
 */
#ifndef PROVIUM_RUN_RUNNER_H
#define PROVIUM_RUN_RUNNER_H

#include "run/render.h"
#include "run/testfile.h"

/* A test file to run; strings are the caller's. */
struct run_file {
	const char *path;	/* absolute */
	const char *shown;	/* root-relative */
};

struct runner;

/* Dispatches in order; done(arg) comes from the loop when every dispatched file is over. session and args are borrowed. */
struct runner *runner_start(struct session *s, const struct args *args, const struct run_file *files, size_t n,
	void (*done)(void *arg), void *arg);
/* Dispatches nothing more and ends what runs. */
void runner_interrupt(struct runner *r, const char *reason);
const struct totals *runner_totals(const struct runner *r);
/* The absolute paths of the files that failed, NULL-terminated; borrowed. */
const char *const *runner_failed_paths(const struct runner *r);
void runner_free(struct runner *r);

#endif
