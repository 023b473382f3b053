/*
 * Profile builds: for one profile after another, lock, compare the inputs, run the command, keep the stamp.
 *
 * Beside the build directory OUT lie OUT.lock, held while a build decides and runs, OUT.stamp, what the last
 * successful build used (written by the helper verb build-inputs), and OUT.stamp.new, the same for the build
 * going on. The stamp is removed before a build starts: half-made output has none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/build.h"

#define LOCK_RETRY_NS ((int64_t)100000000)
#define OUTPUT_MAX ((size_t)256 << 10)

static void next_cb(evutil_socket_t fd, short what, void *arg);
static void lock_cb(evutil_socket_t fd, short what, void *arg);
static void inputs_done(void *arg, const struct err *e);
static void command_done(void *arg, const struct child_result *r);

/* Freed right before its callback is called, or by build_cancel. */
struct build {
	struct loop *loop;
	struct config *config;		/* borrowed */
	char **names;
	unsigned flags;
	void (*cb)(void *arg, const struct err *e);
	void *arg;

	size_t next;			/* the profile to build, in names */
	const struct build_info *info;	/* its build */
	struct event *timer;
	struct helper *helper;
	struct child *child;
	int lock_fd;			/* -1: not held */
	bool waiting;			/* it was said that another build holds the lock */
	bool fresh;			/* OUT did not exist */
};

static void build_free(struct build *b)
{
	timer_stop(&b->timer);
	if (b->helper)
		helper_cancel(b->helper);
	child_free(b->child);
	if (b->lock_fd >= 0)
		close(b->lock_fd);
	for (char **n = b->names; *n; n++)
		free(*n);
	free(b->names);
	free(b);
}

void build_cancel(struct build *b)
{
	if (b)
		build_free(b);
}

static void finish(struct build *b, const struct err *e)
{
	void (*cb)(void *, const struct err *) = b->cb;
	void *arg = b->arg;

	build_free(b);
	cb(arg, e);
}

/* Ends everything with a failure of the profile at hand; releases e. */
static void fail(struct build *b, struct err *e)
{
	finish(b, e);
	err_release(e);
}

static void notice(const struct build *b, const char *text)
{
	if (!(b->flags & BUILD_QUIET))
		fprintf(stderr, "provium: %s profile %s ...\n", text, b->names[b->next]);
}

/* A file beside the build directory. malloc'ed. */
static char *beside(const struct build *b, const char *suffix)
{
	return xasprintf("%s%s", b->info->out, suffix);
}

/* ---- step 1: the lock ---- */

static int open_lock(struct build *b, struct err *e)
{
	char *path = beside(b, ".lock");
	struct stat st;
	int r;

	b->fresh = stat(b->info->out, &st) < 0;
	r = make_dirs(b->info->out, 0755, e);
	if (r == 0) {
		b->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (b->lock_fd < 0)
			r = err_set(e, errno, "open `%s`: %s", path, strerror(errno));
	}
	free(path);
	return r < 0 ? err_prefix(e, "building profile `%s`", b->names[b->next]) : 0;
}

/* Asks the helper which files the build uses and what is in them. */
static void start_inputs(struct build *b)
{
	const struct build_info *info = b->info;
	char *old = beside(b, ".stamp"), *new = beside(b, ".stamp.new");
	const char **argv;
	struct err e = ERR_INIT;
	size_t n;

	for (n = 0; info->inputs[n]; n++)
		;
	argv = xcalloc(n + 7, sizeof(*argv));
	argv[0] = "build-inputs";
	argv[1] = old;
	argv[2] = new;
	argv[3] = info->dir;
	argv[4] = info->command;
	argv[5] = info->out;
	memcpy(argv + 6, info->inputs, n * sizeof(*argv));
	b->helper = helper_start(b->loop, argv, inputs_done, b, &e);
	free(argv);
	free(old);
	free(new);
	if (!b->helper)
		fail(b, &e);
}

static void run_command(struct build *b)
{
	char *script = xasprintf("exec 2>&1; %s", b->info->command), *stamp = beside(b, ".stamp");
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct child_spec spec = {
		.argv = argv, .cwd = b->info->dir, .capture_out = !(b->flags & BUILD_VERBOSE),
		.capture_max = OUTPUT_MAX, .own_group = true, .batch = true, .done = command_done, .arg = b,
	};
	struct err e = ERR_INIT;

	notice(b, "building");
	unlink(stamp);
	free(stamp);
	b->child = child_spawn(b->loop, &spec, &e);
	free(script);
	if (!b->child) {
		err_prefix(&e, "building profile `%s`", b->names[b->next]);
		fail(b, &e);
	}
}

/* flock that is asked again and again: waiting for it would stop the loop. */
static void try_lock(struct build *b)
{
	struct err e = ERR_INIT;

	if (flock(b->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		if (b->info->inputs)
			start_inputs(b);
		else
			run_command(b);
	} else if (errno == EWOULDBLOCK || errno == EINTR) {
		if (!b->waiting)
			notice(b, "waiting for another build of");
		b->waiting = true;
		timer_start(b->loop, &b->timer, LOCK_RETRY_NS, lock_cb, b);
	} else {
		err_set(&e, errno, "building profile `%s`: lock `%s.lock`: %s", b->names[b->next], b->info->out,
			strerror(errno));
		fail(b, &e);
	}
}

static void lock_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	try_lock(arg);
}

/* ---- step 2: has anything changed? ---- */

/* The first line of a stamp holds the key of everything below it. */
static bool read_key(const char *path, char key[128])
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(key, 128, f) && strchr(key, '\n');

	if (f)
		fclose(f);
	return ok;
}

static bool missing_below(const char *path, const char *out)
{
	size_t len = strlen(out);

	return path && strncmp(path, out, len) == 0 && path[len] == '/' && access(path, F_OK) < 0;
}

/* Whether the last success used exactly this, and what the profile names of its output is still there. */
static bool up_to_date(const struct build *b)
{
	const struct profile *p = config_profile(b->config, b->names[b->next]);
	char *old = beside(b, ".stamp"), *new = beside(b, ".stamp.new"), old_key[128], new_key[128];
	bool same = read_key(old, old_key) && read_key(new, new_key) && strcmp(old_key, new_key) == 0;

	free(old);
	free(new);
	return same && !b->fresh && !missing_below(p->kernel, b->info->out) &&
		!missing_below(p->initrd, b->info->out) && !missing_below(p->modules, b->info->out);
}

/* The new stamp becomes the stamp: it also remembers the files' identities, so that they are not read again. */
static void keep_stamp(const struct build *b)
{
	char *old = beside(b, ".stamp"), *new = beside(b, ".stamp.new");

	if (b->info->inputs && rename(new, old) < 0)
		fprintf(stderr, "provium: rename `%s`: %s; profile %s will be built again\n", new, strerror(errno),
			b->names[b->next]);
	free(old);
	free(new);
}

/* ---- step 3: done, on to the next ---- */

static void complete(struct build *b)
{
	struct err e = ERR_INIT;

	if (b->lock_fd >= 0)
		close(b->lock_fd);
	b->lock_fd = -1;
	b->waiting = false;
	if (config_resolve(b->config, b->names[b->next], &e) < 0) {
		fail(b, &e);
		return;
	}
	b->next++;
	timer_start(b->loop, &b->timer, 0, next_cb, b);
}

static void inputs_done(void *arg, const struct err *e)
{
	struct build *b = arg;
	struct err failure = ERR_INIT;

	b->helper = NULL;
	if (e) {
		err_copy(&failure, e);
		err_prefix(&failure, "building profile `%s`: build_inputs", b->names[b->next]);
		fail(b, &failure);
	} else if (up_to_date(b)) {
		keep_stamp(b);
		complete(b);
	} else {
		run_command(b);
	}
}

static void command_done(void *arg, const struct child_result *r)
{
	struct build *b = arg;
	struct err e = ERR_INIT;
	char how[64];
	size_t len = r->out ? evbuffer_get_length(r->out) : 0;
	char *output = xstrndup(len ? (char *)evbuffer_pullup(r->out, -1) : "", len);

	child_free(b->child);
	b->child = NULL;
	if (!r->signalled && r->code == 0) {
		keep_stamp(b);
		complete(b);
	} else {
		while (len > 0 && output[len - 1] == '\n')
			output[--len] = '\0';
		err_set(&e, EIO, "building profile `%s` failed: %s\n  command: %s\n  directory: %s%s%s",
			b->names[b->next], child_result_text(r, how, sizeof(how)), b->info->command, b->info->dir,
			b->flags & BUILD_VERBOSE ? "" : len ? "\n  output:\n" : "\n  output: none", output);
		fail(b, &e);
	}
	free(output);
}

static int unknown_profile(struct build *b, const char *name, struct err *e)
{
	const char *const *known = config_profile_names(b->config);
	const char *near = nearest_name(name, known);

	err_set(e, ENOENT, "no profile `%s` in `%s`", name,
		config_path(b->config) ? config_path(b->config) : CONFIG_FILE);
	if (near)
		return err_append(e, "; did you mean `%s`?", near);
	for (size_t i = 0; known[i]; i++)
		err_append(e, "%s%s", i == 0 ? "; it has " : ", ", known[i]);
	return e->code;
}

static void next_cb(evutil_socket_t fd, short what, void *arg)
{
	struct build *b = arg;
	struct err e = ERR_INIT;
	const char *name = b->names[b->next];

	(void)fd, (void)what;
	if (!name) {
		finish(b, NULL);
		return;
	}
	if (!config_profile(b->config, name)) {
		unknown_profile(b, name, &e);
		fail(b, &e);
		return;
	}
	b->info = config_build(b->config, name);
	if (!b->info || b->flags & BUILD_SKIP)
		complete(b);
	else if (open_lock(b, &e) < 0)
		fail(b, &e);
	else
		try_lock(b);
}

struct build *build_start(struct loop *l, struct config *c, const char *const *names, unsigned flags,
	void (*cb)(void *arg, const struct err *e), void *arg)
{
	struct build *b = xcalloc(1, sizeof(*b));
	size_t n;

	b->loop = l;
	b->config = c;
	b->flags = flags;
	b->cb = cb;
	b->arg = arg;
	b->lock_fd = -1;
	if (!names)
		names = config_profile_names(c);
	for (n = 0; names[n]; n++)
		;
	b->names = xcalloc(n + 1, sizeof(*b->names));
	for (size_t i = 0; i < n; i++)
		b->names[i] = xstrdup(names[i]);
	timer_start(l, &b->timer, 0, next_cb, b);
	return b;
}
