/*
 * One test file: loaded into a Lua state of its own, run as a task, cleaned up, judged.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"
#include "run/supply.h"
#include "run/testfile.h"

static void main_done_cb(struct task *t, void *arg);
static void cleanup_done_cb(struct task *t, void *arg);
static void cleanup_timeout_cb(evutil_socket_t fd, short what, void *arg);
static void scope_closed_cb(void *arg);
static void state_stopped_cb(void *arg);
static void timeout_cb(evutil_socket_t fd, short what, void *arg);
static void finish(void *arg);
static const struct ops_env env_functions;

/* For what tests have deferred, when their file ends before them. */
#define CLEANUP_NS (10 * INT64_C(1000000000))
#define INTERRUPT_CLEANUP_NS (2 * INT64_C(1000000000))

/* Freed after done(). */
struct testfile {
	struct session *session;
	struct state *state;
	struct ops_env env;
	struct pool_owner *owner;
	struct supply supply;
	struct task *main, *cleanup;
	struct file_result *result;
	int64_t started_ns;
	struct event *timer;		/* NULL while the file waits for the pool, or has no timeout */
	int64_t time_left_ns, timer_started_ns;
	void (*done)(void *arg, struct testfile *f, struct file_result *r);
	void *arg;
};

/* ---- what the Lua face asks for ---- */

/* All files of a run come to the same conclusions about the host. */
static void env_notice(void *arg, const char *text)
{
	static char last[1024];

	(void)arg;
	if (strncmp(last, text, sizeof(last) - 1) == 0)
		return;
	snprintf(last, sizeof(last), "%s", text);
	fprintf(stderr, "provium: %s\n", text);
}

static const struct profile *env_profile(void *arg, const char *name)
{
	struct testfile *f = arg;

	return config_profile(f->session->config, name);
}

static const char *const *env_profile_names(void *arg)
{
	struct testfile *f = arg;

	return config_profile_names(f->session->config);
}

static struct lease *env_lease_new(void *arg, uint64_t memory, unsigned cpus,
	void (*granted)(void *garg, const struct err *e), void *garg)
{
	struct testfile *f = arg;

	return lease_new(f->owner, (struct amount){ memory, cpus }, granted, garg);
}

static struct lease *env_lease_split(struct lease *from, uint64_t memory, unsigned cpus)
{
	return lease_split(from, (struct amount){ memory, cpus });
}

static const char *env_select(void *arg, lua_State *L, const char *name, int meta)
{
	struct testfile *f = arg;

	return filter_reason(f->session->filter, L, name, meta);
}

static void run_clock(struct testfile *f)
{
	/* What is left to end after it may still leave the pool; clean-up has a limit of its own. */
	if (!f->session->timeout_ns || task_status(f->main) > TASK_WAITING)
		return;
	f->timer_started_ns = now_ns();
	timer_start(f->session->loop, &f->timer, f->time_left_ns, timeout_cb, f);
}

static void stop_clock(struct testfile *f)
{
	if (!f->timer || f->cleanup)
		return;
	f->time_left_ns -= now_ns() - f->timer_started_ns;
	timer_stop(&f->timer);
}

static void env_pool_wait(void *arg, bool waiting)
{
	if (waiting)
		stop_clock(arg);
	else
		run_clock(arg);
}

/* ---- what comes from the cache ---- */

static char *env_snapshot_dir(void *arg, struct err *e)
{
	struct testfile *f = arg;

	return fixture_snapshot_path(f->supply.fixture, e);
}

static struct fixture_wish *env_fixture_get(void *arg, const char *name,
	void (*got)(void *garg, struct cache_hold *h, const struct err *e), void *garg)
{
	struct testfile *f = arg;

	return supply_fixture_get(&f->supply, name, got, garg);
}

static void env_fixture_bad(void *arg, const char *name, struct cache_hold *h, const char *why)
{
	struct testfile *f = arg;

	supply_fixture_bad(&f->supply, name, h, why);
}

static struct vm_start *env_boot_start(void *arg, struct vm *vm, const struct vm_options *o,
	void (*done)(void *garg, const char *how, const struct err *e), void *garg)
{
	struct testfile *f = arg;

	return supply_boot_start(&f->supply, vm, o, done, garg);
}

static void env_vm_spawned(void *arg, struct vm *vm, uint64_t memory, const char *how, int64_t boot_ns)
{
	struct testfile *f = arg;

	log_debug("run", "%s: vm %s: %s of %llu bytes in %.3fs", f->result->path, vm_name(vm), how,
		(unsigned long long)memory, (double)boot_ns / 1e9);
}

static void env_vm_gone(void *arg, struct vm *vm)
{
	struct testfile *f = arg;

	log_debug("run", "%s: vm %s is gone: %s", f->result->path, vm_name(vm), vm_reason(vm));
	supply_vm_gone(&f->supply, vm);
}

/* ---- reports of the framework ---- */

static char *field_string(lua_State *L, int t, const char *key)
{
	char *s;

	lua_getfield(L, t, key);
	s = xstrdup(lua_tostring(L, -1));
	lua_pop(L, 1);
	return s;
}

static void read_log(lua_State *L, int t, struct test_result *r)
{
	lua_getfield(L, t, "log");
	if (lua_istable(L, -1)) {
		size_t n = lua_rawlen(L, -1);

		r->log = xcalloc(n + 1, sizeof(*r->log));
		for (size_t i = 0; i < n; i++) {
			lua_rawgeti(L, -1, (int)i + 1);
			r->log[r->nlog++] = xstrdup(lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
			lua_pop(L, 1);
		}
	}
	lua_pop(L, 1);
}

/* {{name=, data=}...}: what is kept of a failed test. */
static void read_artifacts(lua_State *L, int t, struct test_result *r)
{
	lua_getfield(L, t, "artifacts");
	if (lua_istable(L, -1)) {
		size_t n = lua_rawlen(L, -1), len;

		r->artifacts = xcalloc(n + 1, sizeof(*r->artifacts));
		for (size_t i = 0; i < n; i++) {
			struct artifact *a = &r->artifacts[i];
			const char *data;

			lua_rawgeti(L, -1, (int)i + 1);
			a->name = field_string(L, lua_gettop(L), "name");
			lua_getfield(L, -1, "data");
			data = lua_tolstring(L, -1, &len);
			a->data = xmalloc(len + 1);
			memcpy(a->data, data, len);
			a->len = len;
			r->nartifacts++;
			lua_pop(L, 2);
		}
	}
	lua_pop(L, 1);
}

static void report_outcome(struct testfile *f, lua_State *L, int t, enum test_status status)
{
	char *name = field_string(L, t, "name");
	struct test_result *r = file_result_test(f->result, name);

	free(name);
	if (r->over)
		return;
	r->over = true;
	r->status = status;
	r->reason = field_string(L, t, "reason");
	r->where = field_string(L, t, "where");
	r->traceback = field_string(L, t, "traceback");
	r->console = field_string(L, t, "console_excerpt");
	read_log(L, t, r);
	if (status == TEST_FAILED)
		read_artifacts(L, t, r);
	lua_getfield(L, t, "duration_ns");
	r->duration_ns = (int64_t)lua_tonumber(L, -1);
	lua_getfield(L, t, "flaky");
	r->flaky = lua_toboolean(L, -1);
	lua_pop(L, 2);
}

static void report_chunk_error(struct testfile *f, lua_State *L, int t)
{
	char *message = field_string(L, t, "message"), *tb = field_string(L, t, "traceback");

	free(f->result->chunk_error);
	f->result->chunk_error = tb && *tb ? xasprintf("%s\n%s", message ? message : "", tb) : xstrdup(message);
	free(message);
	free(tb);
}

static void env_report(void *arg, lua_State *L, const char *kind, int t)
{
	struct testfile *f = arg;
	char *name;

	if (strcmp(kind, "test_started") == 0) {
		name = field_string(L, t, "name");
		file_result_test(f->result, name);
		log_debug("run", "%s: test %s started", f->result->path, name);
		free(name);
	} else if (strcmp(kind, "test_passed") == 0) {
		report_outcome(f, L, t, TEST_PASSED);
	} else if (strcmp(kind, "test_failed") == 0) {
		report_outcome(f, L, t, TEST_FAILED);
	} else if (strcmp(kind, "test_skipped") == 0) {
		report_outcome(f, L, t, TEST_SKIPPED);
	} else if (strcmp(kind, "chunk_error") == 0) {
		report_chunk_error(f, L, t);
	} else if (strcmp(kind, "fixture") == 0) {
		f->result->snapshot = field_string(L, t, "path");
		lua_getfield(L, t, "lab");
		f->result->snapshot_is_lab = lua_toboolean(L, -1);
		lua_pop(L, 1);
	}
}

static bool owner_stuck(void *arg)
{
	struct testfile *f = arg;

	return ops_waits_for_pool_only(f->state);
}

bool testfile_is_stuck(struct testfile *f)
{
	return (pool_waits(f->owner) || f->supply.wishes > 0) && task_status(f->main) == TASK_WAITING && owner_stuck(f);
}

/* ---- its life ---- */

/* The whole of a file, malloc'ed; NULL and errno. */
static char *read_all(const char *path, size_t *len)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t n, room = 0;
	int code;

	*len = 0;
	if (!file)
		return NULL;
	do {
		text = xrealloc(text, room += 65536);
		n = fread(text + *len, 1, room - *len, file);
		*len += n;
	} while (*len == room);
	code = ferror(file) ? errno : 0;
	fclose(file);
	if (code) {
		free(text);
		text = NULL;
		errno = code;
	}
	return text;
}

int testfile_load(lua_State *L, const char *path, const char *shown)
{
	char *text, *code, chunk[4096];
	size_t len;
	int r;

	text = code = read_all(path, &len);
	if (!text) {
		r = -errno;
		lua_pushfstring(L, "cannot read `%s`: %s", shown, strerror(-r));
		return r;
	}
	if (len >= 3 && memcmp(code, "\xef\xbb\xbf", 3) == 0)	/* some editors put it there */
		code += 3, len -= 3;
	if (len > 0 && *code == '#')				/* a first line "#!..." is the shell's */
		while (len > 0 && *code != '\n')
			code++, len--;
	snprintf(chunk, sizeof(chunk), "@%s", shown);
	r = luaL_loadbuffer(L, code, len, chunk) == LUA_OK ? 0 : -EINVAL;
	free(text);
	return r;
}

static struct testfile *start(struct session *s, const char *path, const char *shown, struct fixture *fixture,
	void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg)
{
	struct testfile *f = xcalloc(1, sizeof(*f));
	lua_State *L;

	f->session = s;
	f->done = done;
	f->arg = arg;
	f->result = file_result_new(shown);
	f->started_ns = now_ns();
	f->owner = pool_join(s->pool, shown, owner_stuck, f);
	if (fixture)
		pool_set_awaited(f->owner);
	f->supply = (struct supply){ .session = s, .fixture = fixture, .owner = f->owner };
	f->state = state_new(s->loop, STATE_MEMORY_CAP);
	f->env = env_functions;
	f->env.vmm = s->vmm;
	f->env.path = f->result->path;
	f->env.roots = config_roots(s->config);
	f->env.arg = f;
	if (fixture)
		f->env.snapshot_dir = env_snapshot_dir;
	ops_open(f->state, &f->env);

	L = state_lua(f->state);
	ops_push_framework(L, fixture ? "fixture" : "run");
	if (testfile_load(L, path, shown) < 0) {
		f->result->chunk_error = xstrdup(lua_tostring(L, -1));
		lua_pop(L, 2);
		scope_close(ops_file_scope(f->state), scope_closed_cb, f);
		return f;
	}
	f->main = task_spawn(L, 1, shown);
	task_add_done(f->main, main_done_cb, f);
	f->time_left_ns = s->timeout_ns;
	run_clock(f);
	return f;
}

struct testfile *testfile_start(struct session *s, const char *path, const char *shown,
	void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg)
{
	return start(s, path, shown, NULL, done, arg);
}

struct testfile *testfile_start_fixture(struct session *s, const char *path, const char *shown,
	struct fixture *fixture, void (*done)(void *arg, struct testfile *f, struct file_result *r), void *arg)
{
	return start(s, path, shown, fixture, done, arg);
}

static void timeout_cb(evutil_socket_t fd, short what, void *arg)
{
	struct testfile *f = arg;
	char reason[80];

	(void)fd, (void)what;
	timer_stop(&f->timer);
	f->result->timed_out = true;
	snprintf(reason, sizeof(reason), "file timeout exceeded (%gs)", (double)f->session->timeout_ns / 1e9);
	task_cancel(f->main, reason);
}

void testfile_interrupt(struct testfile *f, const char *reason)
{
	f->result->interrupted = true;
	if (f->main)
		task_cancel(f->main, reason);
}

/* A test that was running when its file ended early has failed with it: each started test gets an outcome. */
static void close_open_tests(struct testfile *f, const char *reason)
{
	for (size_t i = 0; i < f->result->ntests; i++) {
		struct test_result *t = &f->result->tests[i];

		if (t->over)
			continue;
		t->over = true;
		t->status = TEST_FAILED;
		t->reason = xstrdup(reason);
	}
}

/* Deferred functions of the tests that were ended with the file still run, but not for ever. */
static void start_cleanup(struct testfile *f, const char *reason)
{
	lua_State *L = state_lua(f->state);

	ops_push_framework(L, "cleanup");
	lua_pushstring(L, reason);
	f->cleanup = task_spawn(L, 1, "clean-up");
	task_add_done(f->cleanup, cleanup_done_cb, f);
	timer_start(f->session->loop, &f->timer, f->result->interrupted ? INTERRUPT_CLEANUP_NS : CLEANUP_NS,
		cleanup_timeout_cb, f);
}

static void cleanup_timeout_cb(evutil_socket_t fd, short what, void *arg)
{
	struct testfile *f = arg;

	(void)fd, (void)what;
	timer_stop(&f->timer);
	task_cancel(f->cleanup, "the file's clean-up took too long");
}

static void cleanup_done_cb(struct task *t, void *arg)
{
	struct testfile *f = arg;

	(void)t;
	timer_stop(&f->timer);
	scope_close(ops_file_scope(f->state), scope_closed_cb, f);
}

static void main_done_cb(struct task *t, void *arg)
{
	struct testfile *f = arg;
	const char *message = lua_tostring(task_lua(t), -1);

	stop_clock(f);
	if (task_status(t) == TASK_CANCELLED) {
		close_open_tests(f, message ? message : "the file was ended");
		start_cleanup(f, message);
		return;
	}
	if (task_status(t) == TASK_FAILED && !f->result->chunk_error) {
		char *tb = task_traceback(t);

		f->result->chunk_error = xasprintf("%s\n%s", message ? message : "error object is not a string", tb);
		free(tb);
	}
	scope_close(ops_file_scope(f->state), scope_closed_cb, f);
}

static void scope_closed_cb(void *arg)
{
	struct testfile *f = arg;

	state_stop(f->state, "the file is over", state_stopped_cb, f);
}

static void state_stopped_cb(void *arg)
{
	struct testfile *f = arg;

	/* What the tasks' ends have deferred still refers to the state. */
	loop_defer(f->session->loop, finish, f);
}

static void finish(void *arg)
{
	struct testfile *f = arg;

	task_unref(f->main);
	task_unref(f->cleanup);
	ops_close(f->state);
	supply_release(&f->supply);
	pool_leave(f->owner);
	f->result->duration_ns = now_ns() - f->started_ns;
	f->done(f->arg, f, f->result);
	free(f);
}

static const struct ops_env env_functions = {
	.notice = env_notice,
	.profile = env_profile,
	.profile_names = env_profile_names,
	.lease_new = env_lease_new,
	.lease_free = lease_free,
	.lease_split = env_lease_split,
	.select = env_select,
	.report = env_report,
	.pool_wait = env_pool_wait,
	.fixture_get = env_fixture_get,
	.fixture_free = supply_fixture_free,
	.fixture_stuck = supply_fixture_stuck,
	.fixture_bad = env_fixture_bad,
	.boot_start = env_boot_start,
	.boot_free = supply_boot_free,
	.vm_spawned = env_vm_spawned,
	.vm_gone = env_vm_gone,
};
