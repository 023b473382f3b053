/*
 * The command line: which command, which flags, checked.
 */
#ifndef PROVIUM_RUN_ARGS_H
#define PROVIUM_RUN_ARGS_H

#include <stdio.h>

#include "loop/loop.h"
#include "vmm/vmm.h"

enum command { CMD_RUN, CMD_PREPARE, CMD_LIST, CMD_FIXTURE, CMD_VERSION, CMD_HELP };

/* A growing list of words borrowed from argv, NULL-terminated once it has any. */
struct words {
	const char **v;		/* NULL when empty */
	size_t n;
};

/* Filled by args_parse, released by args_release. Strings are borrowed from argv. */
struct args {
	enum command command;
	enum command topic;		/* CMD_HELP: about this one */
	struct words paths;		/* PATH...; for CMD_PREPARE at most one PROFILE; for CMD_FIXTURE verb [P] */

	const char *config;		/* NULL: search */
	const char *filter;		/* NULL: all files */
	bool include_slow;
	struct words tags, no_tags;
	struct words tag_meta, no_tag_meta;	/* "K=V", K not empty */
	struct words tests;
	bool rerun_failed;

	enum vmm_kind vmm;
	enum accel accel;		/* ACCEL_AUTO: the profiles decide */
	uint64_t mem;			/* bytes; 0: 80 % of the host's */
	unsigned cpus;			/* 0: those online */
	double cpu_overcommit;		/* clamped */
	const char *artifacts;		/* directory; NULL: the default one */
	unsigned jobs;			/* 0: no limit but the pool */
	int64_t timeout;		/* ns for each file; 0: none */

	bool no_build, no_color, fail_fast;
	bool verbose, quiet, json;
	bool fixtures;			/* CMD_LIST: instead of test files */

	bool help, version;		/* the parser's own: see command */

	char *note;			/* owned; a line for stderr (a value was clamped), or NULL */
};

/* 0, or a failure whose message is complete: print it after "provium: " and exit 2. */
int args_parse(int argc, char **argv, struct args *a, struct err *e);
void args_release(struct args *a);
/* What `provium help TOPIC` prints; CMD_RUN is the overview. */
void args_usage(FILE *f, enum command topic);

#endif
