/*
 * The dispatcher.
 */
#include <stdio.h>
#include <stdlib.h>

#include "run/artifacts.h"
#include "run/runner.h"

static void dispatch(void *arg);
static void file_done_cb(void *arg, struct testfile *f, struct file_result *result);

struct runner {
	struct session *session;
	const struct args *args;
	const struct run_file *files;
	size_t n, next;			/* next to be dispatched */
	struct testfile **running;	/* by file, NULL when it does not run */
	size_t nrunning;
	bool stopping, dispatch_queued;
	const char **failed;
	size_t nfailed;
	struct render *render;
	int64_t started_ns;
	void (*done)(void *arg);
	void *arg;
};

struct runner *runner_start(struct session *s, const struct args *args, const struct run_file *files, size_t n,
	void (*done)(void *arg), void *arg)
{
	struct runner *r = xcalloc(1, sizeof(*r));

	r->session = s;
	r->args = args;
	r->files = files;
	r->n = n;
	r->running = xcalloc(n + 1, sizeof(*r->running));
	r->failed = xcalloc(n + 1, sizeof(*r->failed));
	r->render = render_new(stdout, args, n);
	r->started_ns = now_ns();
	r->done = done;
	r->arg = arg;
	r->dispatch_queued = true;
	loop_defer(s->loop, dispatch, r);
	return r;
}

void runner_free(struct runner *r)
{
	if (!r)
		return;
	INVARIANT(r->nrunning == 0 && !r->dispatch_queued);
	render_free(r->render);
	free(r->running);
	free(r->failed);
	free(r);
}

/* One file a turn: making hundreds of Lua states at once would hold up the files that run already. */
static void dispatch(void *arg)
{
	struct runner *r = arg;
	size_t i;

	r->dispatch_queued = false;
	if (!r->stopping && r->next < r->n && !(r->args->jobs && r->nrunning >= r->args->jobs)) {
		i = r->next++;
		r->nrunning++;
		r->running[i] = testfile_start(r->session, r->files[i].path, r->files[i].shown, file_done_cb, r);
		r->dispatch_queued = true;
		loop_defer(r->session->loop, dispatch, r);
		return;
	}
	if (r->nrunning > 0)
		return;
	render_end(r->render, now_ns() - r->started_ns);
	r->done(r->arg);
}

static void save_artifacts(struct runner *r, size_t i, struct file_result *result)
{
	struct err e = ERR_INIT;

	if (!r->session->artifacts || result->interrupted)
		return;
	if (artifacts_save(r->session->artifacts, r->files[i].path, result, &e) < 0)
		fprintf(stderr, "provium: %s\n", e.msg);
	err_release(&e);
}

static void file_done_cb(void *arg, struct testfile *f, struct file_result *result)
{
	struct runner *r = arg;
	size_t i;

	for (i = 0; r->running[i] != f; i++)
		;
	r->running[i] = NULL;
	r->nrunning--;
	if (file_result_failed(result)) {
		if (!result->interrupted)
			r->failed[r->nfailed++] = r->files[i].path;
		if (r->args->fail_fast)
			r->stopping = true;
	}
	save_artifacts(r, i, result);
	render_file(r->render, i, result);
	if (r->dispatch_queued)
		return;
	r->dispatch_queued = true;
	loop_defer(r->session->loop, dispatch, r);
}

void runner_interrupt(struct runner *r, const char *reason)
{
	r->stopping = true;
	for (size_t i = 0; i < r->n; i++)
		if (r->running[i])
			testfile_interrupt(r->running[i], reason);
}

const struct totals *runner_totals(const struct runner *r)
{
	return render_totals(r->render);
}

const char *const *runner_failed_paths(const struct runner *r)
{
	return r->failed;
}
