/*
 * The initramfs of a boot, from our end: who waits for which helper.
 *
 * Jobs that come to the same cache file wait for one helper.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/initramfs.h"

static void job_tell_cb(evutil_socket_t fd, short what, void *arg);
static void piece_made(void *arg, const struct err *e);

/* A cache file that a helper makes now. Lives while a job waits for it and the helper runs. */
struct piece {
	LIST_ENTRY(piece) entry;
	char *path;
	struct helper *helper;
	char *input;			/* removed when the helper is done; NULL: none */
	TAILQ_HEAD(, initramfs_job) jobs;
};

/* Freed by its owner with initramfs_job_free. */
struct initramfs_job {
	TAILQ_ENTRY(initramfs_job) entry;
	struct vmm *vmm;
	void (*cb)(void *arg, const char *path, const struct err *e);
	void *arg;
	struct initramfs_plan plan;
	struct piece *waits_for;
	struct event *tell;
	struct err err;
};

static LIST_HEAD(, piece) pieces = LIST_HEAD_INITIALIZER(pieces);

/* ---- pieces ---- */

static void piece_free(struct piece *pc)
{
	LIST_REMOVE(pc, entry);
	helper_cancel(pc->helper);
	if (pc->input)
		unlink(pc->input);
	free(pc->input);
	free(pc->path);
	free(pc);
}

static void piece_leave(struct initramfs_job *job)
{
	struct piece *pc = job->waits_for;

	if (!pc)
		return;
	TAILQ_REMOVE(&pc->jobs, job, entry);
	job->waits_for = NULL;
	if (TAILQ_EMPTY(&pc->jobs) && pc->helper)
		piece_free(pc);
}

/* Moves everyone on. They are taken out one by one, because a callback may free any of them. */
static void piece_made(void *arg, const struct err *e)
{
	struct piece *pc = arg;
	struct initramfs_job *job;

	pc->helper = NULL;
	while ((job = TAILQ_FIRST(&pc->jobs))) {
		piece_leave(job);
		if (e)
			err_copy(&job->err, e);
		/* Through a timer: job callbacks may start the very same piece again. */
		timer_start(vmm_loop(job->vmm), &job->tell, 0, job_tell_cb, job);
	}
	piece_free(pc);
}

/* Joins the helper that makes path, or starts one. input belongs to the piece from now on. */
static int piece_join(struct initramfs_job *job, const char *path, const char *const *argv, char *input)
{
	struct piece *pc;

	pc = xcalloc(1, sizeof(*pc));
	pc->path = xstrdup(path);
	pc->input = input;
	TAILQ_INIT(&pc->jobs);
	LIST_INSERT_HEAD(&pieces, pc, entry);
	pc->helper = helper_start(vmm_loop(job->vmm), argv, piece_made, pc, &job->err);
	if (!pc->helper) {
		piece_free(pc);
		return job->err.code;
	}
	TAILQ_INSERT_TAIL(&pc->jobs, job, entry);
	job->waits_for = pc;
	return 0;
}

static bool join_running(struct initramfs_job *job, const char *path)
{
	struct piece *pc;

	LIST_FOREACH(pc, &pieces, entry)
		if (pc->helper && !strcmp(pc->path, path)) {
			TAILQ_INSERT_TAIL(&pc->jobs, job, entry);
			job->waits_for = pc;
			return true;
		}
	return false;
}

/* Whether it is in the cache; if so it is marked as used now. */
static bool is_cached(const char *path)
{
	return utimensat(AT_FDCWD, path, NULL, 0) == 0;
}

/* ---- the job's steps: the initrd's names, then the result ---- */

static int start_names(struct initramfs_job *job)
{
	const char *argv[] = { "initrd-names", job->plan.names, job->plan.initrd, NULL };

	return piece_join(job, job->plan.names, argv, NULL);
}

static int start_result(struct initramfs_job *job)
{
	static unsigned counter;
	char *input = xasprintf("%s/initramfs-%u.description", vmm_run_dir(job->vmm), counter++);
	const char *argv[] = { "initramfs", job->plan.path, input, NULL };
	struct outfile *o = outfile_open(input, job->plan.description.size, &job->err);
	msgpack_sbuffer head;
	msgpack_packer pk;
	int rc;

	msgpack_sbuffer_init(&head);
	msgpack_packer_init(&pk, &head, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_str_with_body(&pk, "need", 4);
	msgpack_pack_uint64(&pk, job->plan.need);
	rc = o ? outfile_write(o, head.data, head.size, &job->err) : job->err.code;
	if (!rc)
		rc = outfile_write(o, job->plan.description.data, job->plan.description.size, &job->err);
	if (!rc)
		rc = outfile_commit(o, false, &job->err);
	outfile_free(o);
	msgpack_sbuffer_destroy(&head);
	if (rc) {
		free(input);
		return rc;
	}
	return piece_join(job, job->plan.path, argv, input);
}

/* Goes to the next step that has something to wait for; at the end, or on failure, the callback. */
static void job_advance(struct initramfs_job *job)
{
	const struct initramfs_plan *plan = &job->plan;
	bool finished = err_is_set(&job->err) || plan->as_is || is_cached(plan->path);

	if (!finished && join_running(job, plan->path))
		return;
	if (!finished && plan->names && !is_cached(plan->names)) {
		if (join_running(job, plan->names) || !start_names(job))
			return;
	} else if (!finished && !start_result(job)) {
		return;
	}
	if (err_is_set(&job->err))
		job->cb(job->arg, NULL, &job->err);
	else
		job->cb(job->arg, plan->path, NULL);
}

static void job_tell_cb(evutil_socket_t fd, short what, void *arg)
{
	struct initramfs_job *job = arg;

	(void)fd, (void)what;
	timer_stop(&job->tell);
	job_advance(job);
}

struct initramfs_job *initramfs_build(struct vmm *v, const struct profile *p, const struct vm_options *o,
	void (*cb)(void *arg, const char *path, const struct err *e), void *arg, struct err *e)
{
	struct initramfs_job *job = xcalloc(1, sizeof(*job));
	char *dir = xasprintf("%s/initramfs", vmm_cache_dir(v));

	job->vmm = v;
	job->cb = cb;
	job->arg = arg;
	if (initramfs_describe(&job->plan, v, p, o, e) || (!job->plan.as_is && make_dirs(dir, 0755, e))) {
		initramfs_job_free(job);
		job = NULL;
	} else {
		timer_start(vmm_loop(v), &job->tell, 0, job_tell_cb, job);
	}
	free(dir);
	return job;
}

void initramfs_job_free(struct initramfs_job *job)
{
	if (!job)
		return;
	timer_stop(&job->tell);
	piece_leave(job);
	initramfs_plan_release(&job->plan);
	err_release(&job->err);
	free(job);
}
