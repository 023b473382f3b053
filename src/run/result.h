/*
 * What a test file's run came to.
 */
#ifndef PROVIUM_RUN_RESULT_H
#define PROVIUM_RUN_RESULT_H

#include "loop/loop.h"

enum test_status { TEST_PASSED, TEST_FAILED, TEST_SKIPPED };

/* What a test has kept with t:artifact; bytes, not text. */
struct artifact {
	char *name, *data;
	size_t len;
};

struct test_result {
	char *name;
	enum test_status status;
	bool over;		/* an outcome was reported */
	bool flaky;		/* passed after a retry */
	char *reason;		/* of a failure or a skip; NULL otherwise */
	char *where;		/* "file:line" of a failure, or NULL */
	char *traceback;	/* of a failure, or NULL */
	char *console;		/* excerpt at a failure, or NULL */
	char **log; size_t nlog;
	struct artifact *artifacts; size_t nartifacts;	/* of a failure */
	char *artifacts_dir;	/* where they were saved, or NULL */
	int64_t duration_ns;
};

/* Made by testfile.c, freed with file_result_free by the runner. */
struct file_result {
	char *path;		/* as it is shown */
	struct test_result *tests; size_t ntests;
	char *chunk_error;	/* the file itself failed; with its traceback */
	char *snapshot;		/* a fixture's: where it is; NULL for test files */
	bool snapshot_is_lab;
	bool timed_out;
	bool interrupted;	/* by a signal: it says nothing of the file */
	int64_t duration_ns;
};

struct file_result *file_result_new(const char *path);
void file_result_free(struct file_result *r);
/* The test of that name, appended when there is none yet. Valid until the next call. */
struct test_result *file_result_test(struct file_result *r, const char *name);
unsigned file_result_count(const struct file_result *r, enum test_status s);
bool file_result_failed(const struct file_result *r);

#endif
