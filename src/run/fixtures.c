/*
 * The fixtures of a run.
 *
 * A fixture's key is made once in a run. From then on the cache decides: whoever is first for a key builds,
 * in a Lua state of its own like a test file's; the snapshot is written into the cache's directory, and
 * renamed when it is whole.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "run/discover.h"
#include "run/fixturekey.h"
#include "run/fixtures.h"
#include "run/testfile.h"

static void key_cb(void *arg, const char *key, const struct err *e);
static void request_tell_cb(evutil_socket_t fd, short what, void *arg);
static void request_got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e);
static void build(void *arg, struct cache_build *b);
static void build_done_cb(void *arg, struct testfile *f, struct file_result *r);
static void copied_cb(void *arg, const struct err *e);
static void end_cb(void *arg);
static const struct cache_builder fixture_builder;

#define MEMORY_FILE "contents"

TAILQ_HEAD(request_list, fixture_request);

/* One name. Lives as long as the run. */
struct fixture {
	LIST_ENTRY(fixture) entry;
	struct fixtures *fixtures;
	char *name;
	char key[KEY_SIZE];		/* "" until it is known */
	struct key_job *job;
	struct request_list requests;
	/* While it is built: */
	struct cache_build *build;
	struct testfile *run;
	struct helper *copy;		/* of a snapshot that was written elsewhere */
	char *copied;
	bool lab, told_waiting;
	int64_t began_ns;
	unsigned snapshots;
};

struct fixtures {
	struct session *session;
	struct cache *cache;
	struct contents *contents;
	LIST_HEAD(, fixture) list;
	unsigned building;
	void (*ended)(void *arg);
	void *ended_arg;
};

/* Freed by its owner. */
struct fixture_request {
	TAILQ_ENTRY(fixture_request) entry;
	struct fixture *fixture, *requester;
	struct cache_request *ask;	/* NULL until the key is known */
	struct event *tell;		/* of err */
	struct err err;
	bool over;
	void (*got)(void *arg, struct cache_hold *h, bool built, const struct err *e);
	void *arg;
};

struct fixtures *fixtures_new(struct session *s)
{
	struct fixtures *f = xcalloc(1, sizeof(*f));
	const char *dir = config_cache_dir(s->config);
	char *memory = xasprintf("%s/" MEMORY_FILE, dir);

	f->session = s;
	f->cache = cache_new(s->loop, dir, config_cache_max_size(s->config));
	f->contents = contents_new(s->loop, memory);
	LIST_INIT(&f->list);
	free(memory);
	return f;
}

void fixtures_free(struct fixtures *f)
{
	struct fixture *x;

	if (!f)
		return;
	INVARIANT(f->building == 0);
	while ((x = LIST_FIRST(&f->list))) {
		INVARIANT(TAILQ_EMPTY(&x->requests));
		LIST_REMOVE(x, entry);
		key_job_free(x->job);
		free(x->name);
		free(x);
	}
	cache_free(f->cache);
	contents_free(f->contents);
	free(f);
}

void fixtures_end(struct fixtures *f, void (*done)(void *arg), void *arg)
{
	f->ended = done;
	f->ended_arg = arg;
	if (f->building == 0)
		loop_defer(f->session->loop, end_cb, f);
}

static void end_cb(void *arg)
{
	struct fixtures *f = arg;

	cache_drain(f->cache, f->ended, f->ended_arg);
}

struct cache *fixtures_cache(struct fixtures *f)
{
	return f->cache;
}

struct contents *fixtures_contents(struct fixtures *f)
{
	return f->contents;
}

static struct fixture *find(struct fixtures *f, const char *name)
{
	struct fixture *x;

	LIST_FOREACH(x, &f->list, entry)
		if (strcmp(x->name, name) == 0)
			return x;
	x = xcalloc(1, sizeof(*x));
	x->fixtures = f;
	x->name = xstrdup(name);
	TAILQ_INIT(&x->requests);
	LIST_INSERT_HEAD(&f->list, x, entry);
	return x;
}

static void notice(const struct fixture *x, const char *what, const char *more)
{
	if (!x->fixtures->session->quiet)
		fprintf(stderr, "provium: %s fixture `%s`%s\n", what, x->name, more);
}

/* ---- requests ---- */

/* The outcome comes from the loop, never from inside a call. */
static void refuse(struct fixture_request *r, const struct err *e)
{
	err_copy(&r->err, e);
	timer_start(r->fixture->fixtures->session->loop, &r->tell, 0, request_tell_cb, r);
}

static void request_over(struct fixture_request *r)
{
	if (!r->over)
		TAILQ_REMOVE(&r->fixture->requests, r, entry);
	r->over = true;
}

static void request_tell_cb(evutil_socket_t fd, short what, void *arg)
{
	struct fixture_request *r = arg;

	(void)fd, (void)what;
	timer_stop(&r->tell);
	request_over(r);
	r->got(r->arg, NULL, false, &r->err);
}

static void request_got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e)
{
	struct fixture_request *r = arg;

	request_over(r);
	if (h && !built)
		log_debug("fixture", "hit %s", r->fixture->name);
	r->got(r->arg, h, built, e);
}

/* Whether the build of `from` waits, directly or not, for `to`. A name can be computed: only the circles of
 * literals are known before. */
static bool waits_for(const struct fixture *from, const struct fixture *to)
{
	struct fixture *x;
	struct fixture_request *r;

	if (from == to)
		return true;
	LIST_FOREACH(x, &from->fixtures->list, entry)
		TAILQ_FOREACH(r, &x->requests, entry)
			if (r->requester == from && waits_for(x, to))
				return true;
	return false;
}

static bool refuse_circle(struct fixture_request *r)
{
	struct err e = ERR_INIT;

	if (!r->requester || !waits_for(r->fixture, r->requester))
		return false;
	err_set(&e, ELOOP, "fixtures need one another in a circle: `%s` asks for `%s`, which waits for `%s`",
		r->requester->name, r->fixture->name, r->requester->name);
	refuse(r, &e);
	err_release(&e);
	return true;
}

static void ask_cache(struct fixture_request *r)
{
	struct fixture *x = r->fixture;

	r->ask = cache_get(x->fixtures->cache, x->key, &fixture_builder, x, request_got_cb, r);
}

static void key_cb(void *arg, const char *key, const struct err *e)
{
	struct fixture *x = arg;
	struct fixture_request *r;

	key_job_free(x->job);
	x->job = NULL;
	if (key)
		memcpy(x->key, key, KEY_SIZE);
	log_debug("fixture", "key %s: %s", x->name, key ? key : e->msg);
	TAILQ_FOREACH(r, &x->requests, entry) {
		if (r->tell || r->ask)
			continue;
		if (key)
			ask_cache(r);
		else
			refuse(r, e);
	}
}

static void make_key(struct fixture *x, struct fixture_request *r)
{
	struct session *s = x->fixtures->session;
	struct err e = ERR_INIT;

	x->job = fixture_key_new(s->config, s->vmm, x->fixtures->contents, x->name, &e);
	if (x->job)
		key_job_end(x->job, key_cb, x);
	else
		refuse(r, &e);
	err_release(&e);
}

struct fixture_request *fixtures_get(struct fixtures *f, const char *name, struct fixture *requester,
	void (*got)(void *arg, struct cache_hold *h, bool built, const struct err *e), void *arg)
{
	struct fixture_request *r = xcalloc(1, sizeof(*r));
	struct fixture *x = find(f, name);

	r->fixture = x;
	r->requester = requester;
	r->got = got;
	r->arg = arg;
	if (refuse_circle(r)) {
		TAILQ_INSERT_TAIL(&x->requests, r, entry);
		return r;
	}
	TAILQ_INSERT_TAIL(&x->requests, r, entry);
	if (*x->key)
		ask_cache(r);
	else if (!x->job)
		make_key(x, r);
	return r;
}

void fixture_request_free(struct fixture_request *r)
{
	if (!r)
		return;
	request_over(r);
	timer_stop(&r->tell);
	cache_request_free(r->ask);
	err_release(&r->err);
	free(r);
}

bool fixture_request_is_building(const struct fixture_request *r)
{
	return !r->over && r->ask && r->fixture->run;
}

bool fixture_request_is_stuck(const struct fixture_request *r)
{
	return fixture_request_is_building(r) && testfile_is_stuck(r->fixture->run);
}

void fixtures_evict(struct fixtures *f, const char *what, struct cache_hold *h, const char *why)
{
	(void)f;
	if (cache_evict(h))
		fprintf(stderr, "provium: the kept snapshot of %s cannot be restored and is made again: %s\n", what,
			why);
}

/* ---- building ---- */

const char *fixture_name(const struct fixture *x)
{
	return x->name;
}

char *fixture_snapshot_path(struct fixture *x, struct err *e)
{
	const char *dir = cache_build_dir(x->build, e);

	return dir ? xasprintf("%s/%u", dir, ++x->snapshots) : NULL;
}

/* The build is over: with the snapshot at path, or e. */
static void finish(struct fixture *x, const char *path, bool lab, const struct err *e)
{
	struct fixtures *f = x->fixtures;
	struct cache_build *b = x->build;

	log_debug("fixture", "built %s in %.3fs: %s", x->name, (double)(now_ns() - x->began_ns) / 1e9,
		e ? e->msg : path);
	x->build = NULL;
	f->building--;
	cache_build_done(b, path, lab, x->name, e);
	if (f->building == 0 && f->ended)
		loop_defer(f->session->loop, end_cb, f);
}

static void fail(struct fixture *x, int code, const char *why)
{
	struct err e = ERR_INIT;

	err_set(&e, code, "fixture `%s`: %s", x->name, why);
	finish(x, NULL, false, &e);
	err_release(&e);
}

static void build(void *arg, struct cache_build *b)
{
	struct fixture *x = arg;
	struct session *s = x->fixtures->session;
	struct found_files found = { 0 };
	struct err e = ERR_INIT;
	char *path = fixture_find(s->config, x->name, &e);

	x->build = b;
	x->began_ns = now_ns();
	x->snapshots = 0;
	x->told_waiting = false;
	x->fixtures->building++;
	if (path && discover_files((const char *const[]){ path, NULL }, config_roots(s->config), FIXTURE_SUFFIX,
			&found, &e) == 0 && found.n == 1) {
		notice(x, "building", "");
		x->run = testfile_start_fixture(s, found.v[0].path, found.v[0].shown, x, build_done_cb, x);
	} else {
		fail(x, err_is_set(&e) ? e.code : ENOENT, err_is_set(&e) ? e.msg : "its file is gone");
	}
	found_files_release(&found);
	err_release(&e);
	free(path);
}

/* Nobody waits for it any more. */
static void unwanted(void *arg, struct cache_build *b)
{
	struct fixture *x = arg;

	(void)b;
	if (x->run)
		testfile_interrupt(x->run, "nobody waits for the fixture any more");
}

static void waiting(void *arg)
{
	struct fixture *x = arg;

	if (!x->told_waiting)
		notice(x, "waiting for", ", which another process is building");
	x->told_waiting = true;
}

/* A snapshot that was given a path of its own stays there: the cache gets a copy. */
static void start_copy(struct fixture *x, const char *from)
{
	struct err e = ERR_INIT;

	x->copied = fixture_snapshot_path(x, &e);
	if (x->copied)
		x->copy = helper_start(x->fixtures->session->loop,
			(const char *const[]){ "cache-copy", from, x->copied, NULL }, copied_cb, x, &e);
	if (!x->copy)
		copied_cb(x, &e);
	err_release(&e);
}

static void copied_cb(void *arg, const struct err *e)
{
	struct fixture *x = arg;

	x->copy = NULL;
	if (e)
		fail(x, EIO, e->msg);
	else
		finish(x, x->copied, x->lab, NULL);
	free(x->copied);
	x->copied = NULL;
}

static bool is_below(const char *path, const char *dir)
{
	size_t len = dir ? strlen(dir) : 0;

	return dir && strncmp(path, dir, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

static void build_done_cb(void *arg, struct testfile *f, struct file_result *r)
{
	struct fixture *x = arg;
	char why[80];

	(void)f;
	x->run = NULL;
	x->lab = r->snapshot_is_lab;
	snprintf(why, sizeof(why), "timed out after %gs", (double)x->fixtures->session->timeout_ns / 1e9);
	if (r->interrupted)
		fail(x, ECANCELED, "cancelled");
	else if (r->timed_out)
		fail(x, ETIMEDOUT, why);
	else if (r->chunk_error)
		fail(x, EIO, r->chunk_error);
	else if (is_below(r->snapshot, cache_build_dir(x->build, NULL)))
		finish(x, r->snapshot, x->lab, NULL);
	else
		start_copy(x, r->snapshot);
	file_result_free(r);
}

static const struct cache_builder fixture_builder = { build, unwanted, waiting };
