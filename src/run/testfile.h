/*
 * One test file while it runs: its Lua state, its timeout, its result.
 */
#ifndef PROVIUM_RUN_TESTFILE_H
#define PROVIUM_RUN_TESTFILE_H

#include "run/config.h"
#include "run/filter.h"
#include "run/pool.h"
#include "run/result.h"

/* What all test files of a run share; owned by the runner. */
struct session {
	struct loop *loop;
	struct vmm *vmm;
	const struct config *config;
	struct filter *filter;
	struct pool *pool;
	int64_t timeout_ns;		/* for each file, 0: none */
	struct artifacts *artifacts;	/* NULL: what failed tests leave is not saved */
};

struct testfile;

/* Starts it. done(arg, result) comes from the loop when everything it made is gone; the result is the receiver's,
 * the testfile is freed by then. shown is its root-relative path. */
struct testfile *testfile_start(struct session *s, const char *path, const char *shown,
	void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg);
/* Ends it early: tests are cancelled, everything is closed, done() still comes. */
void testfile_interrupt(struct testfile *f, const char *reason);

/* Reads a file and loads it as a chunk on top of the stack: 0, or the error's text is there and -errno returned. */
int testfile_load(lua_State *L, const char *path, const char *shown);

#endif
