/*
 * provium [PATH]...: finds the test files, builds the profiles they name, runs them, says how it went.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "run/artifacts.h"
#include "run/build.h"
#include "run/commands.h"
#include "run/discover.h"
#include "run/hostlimits.h"
#include "run/rerun.h"
#include "run/runner.h"
#include "run/scan.h"

static void built_cb(void *arg, const struct err *e);
static void run_done_cb(void *arg);
static void fixtures_done_cb(void *arg);
static void signal_cb(evutil_socket_t sig, short what, void *arg);
static void stall_cb(void *arg, int64_t ns, const char *traceback);

/* One invocation; lives on command_run's stack. */
struct invocation {
	const struct args *args;
	struct loop *loop;
	struct config *config;
	struct found_files found;
	struct run_file *files; size_t nfiles;
	struct build *build;
	struct session session;
	struct runner *runner;
	struct event *sigint, *sigterm;
	int signal;			/* the first one received */
	struct err err;			/* why it could not do its work */
};

int command_fail(struct err *e)
{
	fprintf(stderr, "provium: %s\n", e->msg ? e->msg : strerror(-e->code));
	err_release(e);
	return EXIT_BROKEN;
}

static void notice(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "provium: %s\n", text);
}

/* ---- selection of files ---- */

static bool failed_last_time(const char *path, char **failed, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(path, failed[i]) == 0)
			return true;
	return false;
}

/* 1: go on; 0: nothing to do and said so. */
static int select_files(struct invocation *v, struct err *e)
{
	char **failed = NULL;
	size_t nfailed = 0;
	int r;

	r = discover_files(v->args->paths.v, config_roots(v->config), TEST_SUFFIX, &v->found, e);
	if (r < 0)
		return r;
	if (v->args->rerun_failed) {
		r = rerun_load(&failed, &nfailed, e);
		if (r == 0)
			fputs("provium: no prior failure state\n", stderr);
		if (r <= 0)
			return r;
	}
	v->files = xcalloc(v->found.n + 1, sizeof(*v->files));
	for (size_t i = 0; i < v->found.n; i++) {
		const struct found_file *f = &v->found.v[i];

		if (v->args->filter && !strstr(f->rel, v->args->filter))
			continue;
		if (v->args->rerun_failed && !failed_last_time(f->path, failed, nfailed))
			continue;
		v->files[v->nfiles++] = (struct run_file){ f->path, f->shown };
	}
	rerun_free(failed, nfailed);
	if (v->nfiles == 0)
		render_nothing(stdout, v->args);
	return v->nfiles > 0;
}

/* ---- the run ---- */

static void built_cb(void *arg, const struct err *e)
{
	struct invocation *v = arg;

	v->build = NULL;
	if (e)
		err_copy(&v->err, e);
	else if (!v->signal && session_start_vmm(&v->session, v->args->vmm, v->args->accel, &v->err) == 0) {
		v->runner = runner_start(&v->session, v->args, v->files, v->nfiles, run_done_cb, v);
		return;
	}
	loop_stop(v->loop);
}

static void run_done_cb(void *arg)
{
	struct invocation *v = arg;

	fixtures_end(v->session.fixtures, fixtures_done_cb, v);
}

static void fixtures_done_cb(void *arg)
{
	struct invocation *v = arg;

	loop_stop(v->loop);
}

/* The first one cleans up; the second does not wait for guests, and QEMUs die with us. */
static void signal_cb(evutil_socket_t sig, short what, void *arg)
{
	struct invocation *v = arg;

	(void)what;
	if (v->signal) {
		if (v->session.vmm)
			vmm_abandon(v->session.vmm);
		_exit(128 + (int)sig);
	}
	v->signal = (int)sig;
	fprintf(stderr, "provium: %s: cleaning up (once more to stop at once)\n", sig == SIGINT ? "interrupted" : "terminated");
	if (v->runner) {
		runner_interrupt(v->runner, "interrupted");
	} else {
		build_cancel(v->build);
		v->build = NULL;
		loop_stop(v->loop);
	}
}

static void stall_cb(void *arg, int64_t ns, const char *traceback)
{
	(void)arg;
	if (traceback)
		log_debug("loop", "%.0f ms in Lua without a pause:\n%s", (double)ns / 1e6, traceback);
}

static struct event *watch_signal(struct invocation *v, int sig)
{
	struct event *ev = evsignal_new(loop_base(v->loop), sig, signal_cb, v);

	evsignal_add(ev, NULL);
	return ev;
}

static void log_versions(void)
{
	struct utsname u;

	uname(&u);
	log_debug("run", "provium %s, %s, libevent %s, %s %s", PACKAGE_VERSION, LUA_RELEASE, event_get_version(),
		u.sysname, u.release);
}

static void execute(struct invocation *v)
{
	const char *const *roots = config_roots(v->config);
	const char **paths = xcalloc(v->nfiles + 1, sizeof(*paths)), **profiles;

	for (size_t i = 0; i < v->nfiles; i++)
		paths[i] = v->files[i].path;
	profiles = scan_profiles(paths, roots, config_profile_names(v->config));
	free(paths);
	v->session.loop = v->loop;
	v->session.config = v->config;
	v->session.filter = filter_new(v->args);
	v->session.pool = pool_new(v->loop, host_pool(v->args));
	v->session.timeout_ns = v->args->timeout;
	v->session.artifacts = artifacts_new(v->args);
	v->session.quiet = v->args->quiet;
	v->build = build_start(v->loop, v->config, profiles,
		(v->args->no_build || v->args->vmm == VMM_LOCAL ? BUILD_SKIP : 0) | (v->args->quiet ? BUILD_QUIET : 0) |
		(v->args->verbose ? BUILD_VERBOSE : 0), built_cb, v);
	free(profiles);
	loop_run(v->loop);
}

static int verdict(struct invocation *v)
{
	const char *const *failed;
	struct err e = ERR_INIT;
	size_t n = 0;

	if (v->signal)
		return 128 + v->signal;
	if (!v->runner)
		return EXIT_BROKEN;
	for (failed = runner_failed_paths(v->runner); failed[n]; n++)
		;
	if (rerun_save(failed, n, &e) < 0)
		notice(NULL, e.msg);
	err_release(&e);
	return runner_totals(v->runner)->failed_files ? EXIT_FAILED : EXIT_OK;
}

static void release(struct invocation *v)
{
	runner_free(v->runner);
	session_release(&v->session);
	artifacts_free(v->session.artifacts);
	if (v->sigint)
		event_free(v->sigint);
	if (v->sigterm)
		event_free(v->sigterm);
	loop_free(v->loop);
	free(v->files);
	found_files_release(&v->found);
	config_free(v->config);
}

int command_run(const struct args *a)
{
	struct invocation v = { .args = a };
	struct err e = ERR_INIT;
	int r;

	v.config = config_load(a->config, &e);
	if (!v.config)
		return command_fail(&e);
	r = select_files(&v, &e);
	if (r > 0) {
		host_raise_descriptors();
		filter_export(a);
		v.loop = loop_new();
		loop_on_stall(v.loop, stall_cb, NULL);
		v.sigint = watch_signal(&v, SIGINT);
		v.sigterm = watch_signal(&v, SIGTERM);
		log_versions();
		execute(&v);
		r = verdict(&v);
		err_move(&e, &v.err);
	} else if (r == 0) {
		r = EXIT_OK;
	}
	release(&v);
	return err_is_set(&e) ? command_fail(&e) : r;
}
