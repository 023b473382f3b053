/*
 * provium fixture list | build P | rebuild P | clean | stale: the cache of fixtures by hand.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "run/build.h"
#include "run/commands.h"
#include "run/discover.h"
#include "run/fixturekey.h"
#include "run/hostlimits.h"
#include "run/scan.h"
#include "run/testfile.h"

static void prepared_cb(void *arg, const struct err *e);
static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e);
static void key_cb(void *arg, const char *key, const struct err *e);
static void ended_cb(void *arg);
static void signal_cb(evutil_socket_t sig, short what, void *arg);

/* One invocation; lives on the command's stack. */
struct work {
	const struct args *args;
	const char *name;		/* of the fixture, for build and rebuild */
	struct config *config;
	struct session session;
	struct build *build;
	struct fixture_request *request;
	bool evict;			/* what is there is made again */
	struct found_files found;	/* for stale: the fixtures, and the next one */
	size_t next, nstale;
	struct key_job *job;
	int signal;
	bool trouble;			/* something was said on stderr */
	struct err err;
};

/* ---- list and clean: the directory alone ---- */

static void print_item(const struct cache_item *i)
{
	char size[32], used[32];
	struct tm tm;

	strftime(used, sizeof(used), "%Y-%m-%d %H:%M", localtime_r(&i->used, &tm));
	printf("%-3s  %10s  %s  %s  %s\n", i->lab ? "lab" : "vm", units_format_size(i->bytes, size, sizeof(size)), used,
		i->key, *i->origin ? i->origin : "?");
}

static int list(const struct config *c)
{
	struct cache_item *items;
	struct err e = ERR_INIT;
	uint64_t total;
	char size[32];
	size_t n;

	if (cache_list(config_cache_dir(c), &items, &n, &total, &e) < 0)
		return command_fail(&e);
	for (size_t i = 0; i < n; i++)
		print_item(&items[i]);
	printf("%zu %s, %s\n", n, n == 1 ? "entry" : "entries", units_format_size(total, size, sizeof(size)));
	cache_items_free(items, n);
	return EXIT_OK;
}

static int clean(const struct config *c)
{
	struct err e = ERR_INIT;
	size_t removed, kept;

	if (cache_wipe(config_cache_dir(c), NULL, &removed, &kept, &e) < 0)
		return command_fail(&e);
	printf("removed %zu %s", removed, removed == 1 ? "entry" : "entries");
	if (kept)
		printf(", kept %zu in use", kept);
	printf("\n");
	return EXIT_OK;
}

/* ---- what needs keys ---- */

static void end(struct work *w)
{
	fixtures_end(w->session.fixtures, ended_cb, w);
}

static void ended_cb(void *arg)
{
	struct work *w = arg;

	loop_stop(w->session.loop);
}

static void get(struct work *w)
{
	w->request = fixtures_get(w->session.fixtures, w->name, NULL, got_cb, w);
}

static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e)
{
	struct work *w = arg;

	if (e)
		err_copy(&w->err, e);	/* it is the request's */
	fixture_request_free(w->request);
	w->request = NULL;
	if (!h) {
		end(w);
	} else if (!built && w->evict) {
		w->evict = false;
		cache_evict(h);
		cache_hold_free(h);
		get(w);
	} else {
		printf("%s: %s\n", built ? "built" : "already built", w->name);
		cache_hold_free(h);
		end(w);
	}
}

static char *name_of(const struct found_file *f)
{
	return xstrndup(f->rel, strlen(f->rel) - strlen(FIXTURE_SUFFIX));
}

/* One key after another. A fixture whose key cannot be made is told of and passed over. */
static void next_key(struct work *w)
{
	struct err e = ERR_INIT;

	while (w->next < w->found.n && !w->signal) {
		char *name = name_of(&w->found.v[w->next]);

		w->job = fixture_key_new(w->config, w->session.vmm, fixtures_contents(w->session.fixtures), name, &e);
		if (w->job) {
			free(name);
			key_job_end(w->job, key_cb, w);
			return;
		}
		fprintf(stderr, "provium: `%s`: %s\n", name, e.msg);
		free(name);
		err_release(&e);
		w->trouble = true;
		w->next++;
	}
	if (!w->signal)
		printf("%zu of %zu fixture%s stale\n", w->nstale, w->found.n, w->found.n == 1 ? "" : "s");
	end(w);
}

static void key_cb(void *arg, const char *key, const struct err *e)
{
	struct work *w = arg;
	char *name = name_of(&w->found.v[w->next++]);

	if (e) {
		fprintf(stderr, "provium: `%s`: %s\n", name, e->msg);
		w->trouble = true;
	} else if (!cache_has(fixtures_cache(w->session.fixtures), key)) {
		printf("%s\n", name);
		w->nstale++;
	}
	free(name);
	key_job_free(w->job);
	w->job = NULL;
	next_key(w);
}

static void prepared_cb(void *arg, const struct err *e)
{
	struct work *w = arg;

	w->build = NULL;
	if (e)
		err_copy(&w->err, e);
	else if (!w->signal && session_start_vmm(&w->session, VMM_QEMU, w->args->accel, &w->err) == 0) {
		if (w->name)
			get(w);
		else
			next_key(w);
		return;
	}
	loop_stop(w->session.loop);
}

/* The first one cleans up; with the second everything dies with us. */
static void signal_cb(evutil_socket_t sig, short what, void *arg)
{
	struct work *w = arg;

	(void)what;
	if (w->signal) {
		if (w->session.vmm)
			vmm_abandon(w->session.vmm);
		_exit(128 + (int)sig);
	}
	w->signal = (int)sig;
	build_cancel(w->build);
	w->build = NULL;
	fixture_request_free(w->request);
	w->request = NULL;
	if (w->session.fixtures)
		end(w);
	else
		loop_stop(w->session.loop);
}

static void start(struct work *w)
{
	struct session *s = &w->session;
	const char **profiles = NULL;
	char *path = w->name ? fixture_find(w->config, w->name, &w->err) : NULL;

	if (w->name && !path)
		return;
	if (path)
		profiles = scan_profiles((const char *const[]){ path, NULL }, config_roots(w->config),
			config_profile_names(w->config));
	w->build = build_start(s->loop, w->config, profiles,
		(!w->name || w->args->no_build ? BUILD_SKIP : 0) | (w->args->quiet ? BUILD_QUIET : 0) |
		(w->args->verbose ? BUILD_VERBOSE : 0), prepared_cb, w);
	free(profiles);
	free(path);
	loop_run(s->loop);
}

static int with_loop(struct work *w)
{
	struct session *s = &w->session;
	struct event *sigint, *sigterm;

	host_raise_descriptors();
	s->loop = loop_new();
	s->config = w->config;
	s->filter = filter_new(w->args);
	s->pool = pool_new(s->loop, host_pool(w->args));
	s->timeout_ns = w->args->timeout;
	s->quiet = w->args->quiet;
	sigint = evsignal_new(loop_base(s->loop), SIGINT, signal_cb, w);
	sigterm = evsignal_new(loop_base(s->loop), SIGTERM, signal_cb, w);
	evsignal_add(sigint, NULL);
	evsignal_add(sigterm, NULL);
	start(w);
	key_job_free(w->job);
	session_release(s);
	event_free(sigint);
	event_free(sigterm);
	loop_free(s->loop);
	if (w->signal)
		return 128 + w->signal;
	if (!err_is_set(&w->err))
		return w->trouble ? EXIT_BROKEN : EXIT_OK;
	if (!w->name)
		return command_fail(&w->err);
	fprintf(stderr, "provium: %s\n", w->err.msg);
	return w->err.code == -ENOENT || w->err.code == -ELOOP ? EXIT_BROKEN : EXIT_FAILED;
}

static int dispatch(struct work *w, const char *verb)
{
	if (strcmp(verb, "list") == 0)
		return list(w->config);
	if (strcmp(verb, "clean") == 0)
		return clean(w->config);
	w->evict = strcmp(verb, "rebuild") == 0;
	if (strcmp(verb, "stale") == 0 && discover_files(NULL, config_roots(w->config), FIXTURE_SUFFIX, &w->found,
			&w->err) < 0)
		return command_fail(&w->err);
	return with_loop(w);
}

int command_fixture(const struct args *a)
{
	struct work w = { .args = a, .name = a->paths.n > 1 ? a->paths.v[1] : NULL };
	struct err e = ERR_INIT;
	int r;

	w.config = config_load(a->config, &e);
	if (!w.config)
		return command_fail(&e);
	r = dispatch(&w, a->paths.v[0]);
	err_release(&w.err);
	found_files_release(&w.found);
	config_free(w.config);
	return r;
}
