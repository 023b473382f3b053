/*
 * One test file while it runs: its Lua state, its timeout, its result.
 */
#ifndef PROVIUM_RUN_TESTFILE_H
#define PROVIUM_RUN_TESTFILE_H

#include "run/config.h"
#include "run/filter.h"
#include "run/fixtures.h"
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
	struct fixtures *fixtures;	/* NULL: there are none */
	bool quiet;			/* no lines about what goes on */
	bool told_no_boot_cache;	/* that a boot could not be kept: said once */
	struct artifacts *artifacts;	/* NULL: what failed tests leave is not saved */
};

/* What needs the profiles to be complete: the VMs' context and the fixtures. s has its loop and its config. */
int session_start_vmm(struct session *s, enum vmm_kind kind, enum accel accel, struct err *e);
/* Frees the pool, the filter and those two; the rest is its owner's. */
void session_release(struct session *s);

struct testfile;

/* Starts it. done(arg, result) comes from the loop when everything it made is gone; the result is the receiver's,
 * the testfile is freed by then. shown is its root-relative path. */
struct testfile *testfile_start(struct session *s, const char *path, const char *shown,
	void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg);
/* The same for a fixture's file: its chunk must return a snapshot. */
struct testfile *testfile_start_fixture(struct session *s, const char *path, const char *shown,
	struct fixture *fixture, void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg);
/* Whether nothing in it can go on before the pool grants it something. */
bool testfile_is_stuck(struct testfile *f);
/* Ends it early: tests are cancelled, everything is closed, done() still comes. */
void testfile_interrupt(struct testfile *f, const char *reason);

/* Reads a file and loads it as a chunk on top of the stack: 0, or the error's text is there and -errno returned. */
int testfile_load(lua_State *L, const char *path, const char *shown);

#endif
