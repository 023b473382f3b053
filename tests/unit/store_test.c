/*
 * The store: keys, remembered hashes, and the cache with its builds, locks, users and eviction.
 *
 * The test program is its own helper: it is started again with --helper. Other processes are forked children
 * that hold the locks a builder or a user would hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/store.h"

#define KEY_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define KEY_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define KEY_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define GUARD_NS INT64_C(20000000000)

struct want {			/* one request and what it came to */
	struct world *w;
	struct cache_request *request;
	struct cache_hold *hold;
	bool told, built;
	struct err err;
};

struct world {
	struct loop *loop;
	char dir[64];
	struct cache *cache;
	struct cache_build *building;	/* given to the builder, not yet done */
	unsigned builds, unwanted, waits;
	bool guard_fired;
};

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	struct world *w = arg;

	(void)fd, (void)what;
	w->guard_fired = true;
	loop_stop(w->loop);
}

static void run(struct world *w)
{
	struct event *guard = NULL;

	timer_start(w->loop, &guard, GUARD_NS, guard_cb, w);
	loop_run(w->loop);
	timer_stop(&guard);
	assert_false(w->guard_fired);
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

/* Lets everything that can go on at once do so. */
static void settle(struct world *w)
{
	for (int i = 0; i < 5; i++) {
		struct event *ev = NULL;

		timer_start(w->loop, &ev, 0, stop_cb, w->loop);
		loop_run(w->loop);
		timer_stop(&ev);
	}
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/provium-store-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->loop = loop_new();
	w->cache = cache_new(w->loop, w->dir, (uint64_t)1 << 30);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];
	siginfo_t info;

	cache_drain(w->cache, stop_loop, w->loop);
	run(w);
	cache_free(w->cache);
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		settle(w);		/* a helper that was cancelled is reaped by the loop */
	loop_free(w->loop);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static char *get(const char *path)
{
	static char text[256];
	FILE *f = fopen(path, "r");

	if (!f)
		return NULL;
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return text;
}

static bool there(struct world *w, const char *name)
{
	char *path = xasprintf("%s/%s", w->dir, name);
	bool yes = access(path, F_OK) == 0;

	free(path);
	return yes;
}

/* How many names of the directory contain text. */
static int count(struct world *w, const char *text)
{
	char command[256];
	FILE *f;
	int n = -1;

	snprintf(command, sizeof(command), "ls %s | grep -c -- '%s'", w->dir, text);
	f = popen(command, "r");
	assert_int_equal(fscanf(f, "%d", &n), 1);
	pclose(f);
	return n;
}

/* ---- keys ---- */

static void key_of(char hex[KEY_SIZE], const char *a, const char *x, const char *b, const char *y)
{
	struct key *k = key_new();

	key_text(k, a, x);
	key_text(k, b, y);
	key_end(k, hex);
}

static void test_key_parts(void **state)
{
	static const char *const parts[][4] = {
		{ "a", "x", "b", "y" }, { "a", "xb", "", "y" }, { "ax", "", "b", "y" }, { "a", "", "b", "xy" },
		{ "a", "x", "b", NULL }, { "a", "x", "b", "" }, { "b", "y", "a", "x" }, { "a", NULL, "b", NULL },
	};
	char keys[8][KEY_SIZE], again[KEY_SIZE];

	(void)state;
	for (int i = 0; i < 8; i++) {
		key_of(keys[i], parts[i][0], parts[i][1], parts[i][2], parts[i][3]);
		assert_int_equal(strlen(keys[i]), KEY_SIZE - 1);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(keys[i], keys[j]);
	}
	key_of(again, "a", "x", "b", "y");
	assert_string_equal(again, keys[0]);
}

/* ---- contents ---- */

static void looked_cb(void *arg, const struct err *e)
{
	assert_null(e);
	loop_stop(arg);
}

/* The hash of one file, as a fresh process that has the memory would tell it; malloc'ed. */
static char *look(struct world *w, const char *path)
{
	char *memory = xasprintf("%s/memory", w->dir), *result;
	struct contents *c = contents_new(w->loop, memory);
	struct contents_job *j = contents_look(c, &path, 1, looked_cb, w->loop);

	run(w);
	result = xstrdup(contents_of(j, 0));
	contents_job_free(j);
	contents_free(c);
	free(memory);
	return result;
}

static void set_mtime(const char *path, time_t sec)
{
	struct timespec t[2] = { { sec, 0 }, { sec, 0 } };

	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void test_contents(void **state)
{
	struct world *w = *state;
	char *path = xasprintf("%s/file", w->dir), *first, *second;

	put(path, "hello\n");
	set_mtime(path, 1000);
	first = look(w, path);
	assert_string_equal(first, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
	put(path, "other\n");
	set_mtime(path, 1000);
	second = look(w, path);
	assert_string_equal(second, first);	/* it was not read again */
	free(second);
	set_mtime(path, 1001);
	second = look(w, path);
	assert_string_not_equal(second, first);
	free(second);
	put(path, "hello\n");
	second = look(w, path);
	assert_string_equal(second, first);
	free(second);
	free(first);
	free(path);
}

static void test_contents_just_changed(void **state)
{
	struct world *w = *state;
	char *path = xasprintf("%s/file", w->dir), *first, *second;
	time_t now = time(NULL);

	put(path, "one\n");
	set_mtime(path, now);
	first = look(w, path);
	put(path, "two\n");
	set_mtime(path, now);
	second = look(w, path);
	assert_string_not_equal(second, first);
	free(first);
	free(second);
	free(path);
}

static void test_contents_missing(void **state)
{
	struct world *w = *state;
	char *path = xasprintf("%s/none", w->dir), *result = look(w, path);

	assert_string_equal(result, "No such file or directory");
	free(result);
	result = look(w, w->dir);
	assert_string_equal(result, "not a regular file");
	free(result);
	free(path);
}

/* ---- the cache ---- */

static void build_cb(void *arg, struct cache_build *b)
{
	struct world *w = arg;

	assert_null(w->building);
	w->building = b;
	w->builds++;
	loop_stop(w->loop);
}

static void unwanted_cb(void *arg, struct cache_build *b)
{
	struct world *w = arg;

	assert_ptr_equal(w->building, b);
	w->unwanted++;
}

static void waiting_cb(void *arg)
{
	struct world *w = arg;

	w->waits++;
}

static const struct cache_builder builder = { build_cb, unwanted_cb, waiting_cb };

static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e)
{
	struct want *want = arg;

	assert_false(want->told);
	assert_true(!h == !!e);
	want->told = true;
	want->built = built;
	want->hold = h;
	if (e)
		err_copy(&want->err, e);
	loop_stop(want->w->loop);
}

static void ask(struct world *w, struct want *want, const char *key)
{
	memset(want, 0, sizeof(*want));
	want->w = w;
	want->request = cache_get(w->cache, key, &builder, w, got_cb, want);
}

static void end(struct want *want)
{
	cache_request_free(want->request);
	cache_hold_free(want->hold);
	err_release(&want->err);
}

static void await(struct world *w, struct want *want)
{
	while (!want->told)
		run(w);
}

static void await_build(struct world *w)
{
	while (!w->building)
		run(w);
}

/* Ends the build at hand with an entry that holds text. */
static void finish_build(struct world *w, const char *text)
{
	struct cache_build *b = w->building;
	const char *dir = cache_build_dir(b, NULL);
	char *path = xasprintf("%s/1", dir), *file = xasprintf("%s/ram", path);

	w->building = NULL;
	assert_int_equal(mkdir(path, 0755), 0);
	put(file, text);
	cache_build_done(b, path, false, text, NULL);
	free(path);
	free(file);
}

static void fail_build(struct world *w, int code, const char *text)
{
	struct cache_build *b = w->building;
	struct err e = ERR_INIT;

	w->building = NULL;
	err_set(&e, code, "%s", text);
	cache_build_done(b, NULL, false, NULL, &e);
	err_release(&e);
}

static const char *text_of(struct cache_hold *h)
{
	char *path = xasprintf("%s/ram", cache_hold_dir(h)), *text = get(path);

	free(path);
	return text;
}

/* An entry made and let go of. */
static void make_entry(struct world *w, const char *key, const char *text)
{
	struct want want;

	ask(w, &want, key);
	await_build(w);
	finish_build(w, text);
	await(w, &want);
	assert_true(want.built);
	end(&want);
}

static void test_build_then_hit(void **state)
{
	struct world *w = *state;
	struct want a, b;

	assert_false(cache_has(w->cache, KEY_A));
	make_entry(w, KEY_A, "one");
	assert_true(cache_has(w->cache, KEY_A));
	ask(w, &a, KEY_A);
	ask(w, &b, KEY_A);
	await(w, &a);
	await(w, &b);
	assert_int_equal(w->builds, 1);
	assert_false(a.built || b.built);
	assert_ptr_equal(a.hold, b.hold);
	assert_string_equal(text_of(a.hold), "one");
	assert_string_equal(cache_hold_key(a.hold), KEY_A);
	assert_false(cache_hold_is_lab(a.hold));
	end(&a);
	end(&b);
}

static void test_all_wait_for_one_build(void **state)
{
	struct world *w = *state;
	struct want wants[12];

	for (int i = 0; i < 12; i++)
		ask(w, &wants[i], KEY_A);
	await_build(w);
	settle(w);
	finish_build(w, "one");
	for (int i = 0; i < 12; i++) {
		await(w, &wants[i]);
		assert_true(wants[i].built);
		end(&wants[i]);
	}
	assert_int_equal(w->builds, 1);
}

static void test_failed_build(void **state)
{
	struct world *w = *state;
	struct want a, b;

	ask(w, &a, KEY_A);
	ask(w, &b, KEY_A);
	await_build(w);
	assert_non_null(cache_build_dir(w->building, NULL));
	fail_build(w, EIO, "it broke");
	await(w, &a);
	await(w, &b);
	assert_string_equal(a.err.msg, "it broke");
	assert_string_equal(b.err.msg, "it broke");
	end(&a);
	end(&b);
	make_entry(w, KEY_A, "two");
	assert_int_equal(w->builds, 2);
}

static void test_nobody_wants_it(void **state)
{
	struct world *w = *state;
	struct want a, b;

	ask(w, &a, KEY_A);
	await_build(w);
	end(&a);
	assert_int_equal(w->unwanted, 1);
	ask(w, &b, KEY_A);	/* comes while the build is being ended */
	settle(w);
	assert_int_equal(w->builds, 1);
	fail_build(w, ECANCELED, "cancelled");
	await_build(w);
	assert_int_equal(w->builds, 2);
	finish_build(w, "two");
	await(w, &b);
	assert_string_equal(text_of(b.hold), "two");
	end(&b);
}

static void test_cancelled_for_good(void **state)
{
	struct world *w = *state;
	struct want a;

	ask(w, &a, KEY_A);
	await_build(w);
	end(&a);
	fail_build(w, ECANCELED, "cancelled");
	assert_false(there(w, KEY_A ".snap"));
}

/* ---- other processes ---- */

/* A process that holds the lock of a key, as a builder does. */
static pid_t other_builder(struct world *w, const char *key, const char *text)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		char *lock = xasprintf("%s/%s.lock", w->dir, key), *temp = xasprintf("%s/%s.tmp-1-1", w->dir, key);
		int fd = open(lock, O_RDWR | O_CREAT, 0644);

		if (fd < 0 || flock(fd, LOCK_EX) < 0 || mkdir(temp, 0755) < 0)
			_exit(1);
		if (text) {
			char *file = xasprintf("%s/ram", temp), *name = xasprintf("%s/%s.snap", w->dir, key);

			put(file, text);
			if (rename(temp, name) < 0)
				_exit(1);
		}
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end_process(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void test_killed_builder_is_replaced(void **state)
{
	struct world *w = *state;
	pid_t pid = other_builder(w, KEY_A, NULL);
	struct want a, b;

	ask(w, &a, KEY_A);
	ask(w, &b, KEY_A);
	settle(w);
	assert_int_equal(w->waits, 2);
	assert_int_equal(w->builds, 0);
	end_process(pid);
	await_build(w);
	while (there(w, KEY_A ".tmp-1-1"))
		settle(w);		/* what it had begun is removed */
	finish_build(w, "ours");
	await(w, &a);
	await(w, &b);
	assert_string_equal(text_of(a.hold), "ours");
	end(&a);
	end(&b);
}

static void test_waiter_takes_what_another_built(void **state)
{
	struct world *w = *state;
	pid_t pid = other_builder(w, KEY_B, NULL);
	struct want a;
	char *name = xasprintf("%s/" KEY_B ".snap", w->dir), *file = xasprintf("%s/ram", name);

	ask(w, &a, KEY_B);
	settle(w);
	assert_int_equal(mkdir(name, 0755), 0);
	put(file, "theirs");
	end_process(pid);
	await(w, &a);
	assert_int_equal(w->builds, 0);
	assert_false(a.built);
	assert_string_equal(text_of(a.hold), "theirs");
	end(&a);
	free(name);
	free(file);
}

static void test_cancelled_while_waiting_for_a_lock(void **state)
{
	struct world *w = *state;
	pid_t pid = other_builder(w, KEY_A, NULL);
	struct want a;

	ask(w, &a, KEY_A);
	settle(w);
	end(&a);
	end_process(pid);
	settle(w);
	assert_int_equal(w->builds, 0);
}

static void test_removed_lock_file(void **state)
{
	struct world *w = *state;
	pid_t pid = other_builder(w, KEY_A, NULL), second;
	char *lock = xasprintf("%s/" KEY_A ".lock", w->dir), *temp;
	struct want a;

	ask(w, &a, KEY_A);
	settle(w);
	assert_int_equal(unlink(lock), 0);
	temp = xasprintf("%s/" KEY_A ".tmp-1-1", w->dir);
	assert_int_equal(rmdir(temp), 0);
	free(temp);
	second = other_builder(w, KEY_A, NULL);	/* of the new lock file */
	end_process(pid);
	for (int i = 0; i < 20; i++)
		settle(w);
	assert_int_equal(w->builds, 0);
	end_process(second);
	await_build(w);
	finish_build(w, "ours");
	await(w, &a);
	end(&a);
	free(lock);
}

/* ---- eviction ---- */

static void test_bad_entry(void **state)
{
	struct world *w = *state;
	struct want a, b, c;

	make_entry(w, KEY_A, "bad");
	ask(w, &a, KEY_A);
	ask(w, &b, KEY_A);
	await(w, &a);
	await(w, &b);
	assert_true(cache_evict(a.hold));
	assert_false(cache_evict(b.hold));
	ask(w, &c, KEY_A);
	await_build(w);
	finish_build(w, "good");
	await(w, &c);
	assert_string_equal(text_of(c.hold), "good");
	assert_false(cache_evict(b.hold));	/* of the old one: the new one stays */
	assert_true(cache_has(w->cache, KEY_A));
	end(&a);
	end(&b);
	end(&c);
}

/* Another process installs an entry where one is in use. */
static void test_exchange(void **state)
{
	struct world *w = *state;
	struct want a, b;
	struct cache *other = cache_new(w->loop, w->dir, (uint64_t)1 << 30), *ours = w->cache;
	char *aside;

	make_entry(w, KEY_A, "old");
	ask(w, &a, KEY_A);
	await(w, &a);
	/* A rebuild: as if the entry were not there. */
	aside = xasprintf("%s/aside", w->dir);
	assert_int_equal(rename(cache_hold_dir(a.hold), aside), 0);
	w->cache = other;
	ask(w, &b, KEY_A);
	await_build(w);
	assert_int_equal(rename(aside, cache_hold_dir(a.hold)), 0);
	free(aside);
	finish_build(w, "new");
	await(w, &b);
	assert_string_equal(text_of(b.hold), "new");
	end(&b);
	w->cache = ours;
	ask(w, &b, KEY_A);
	await(w, &b);
	assert_string_equal(text_of(b.hold), "new");
	assert_ptr_not_equal(a.hold, b.hold);
	end(&a);
	end(&b);
	cache_free(other);
}

static void age(struct world *w, const char *key, time_t sec)
{
	char *path = xasprintf("%s/%s.snap", w->dir, key);

	set_mtime(path, sec);
	free(path);
}

static void sweep(struct world *w, uint64_t max)
{
	char text[32];
	const char *argv[] = { "cache-sweep", w->dir, text, NULL };
	struct err e = ERR_INIT;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)max);
	assert_non_null(helper_start(w->loop, argv, looked_cb, w->loop, &e));
	run(w);
}

/* A sweep that an install has started may have a lock still, and what it has is left alone: so once more, then. */
static void sweep_until(struct world *w, uint64_t max, int left)
{
	for (int i = 0; i < 200; i++) {
		sweep(w, max);
		if (count(w, ".snap") == left)
			return;
		usleep(20000);
	}
	fail_msg("%d entries are left, not %d", count(w, ".snap"), left);
}

static void test_least_recently_used_goes(void **state)
{
	struct world *w = *state;
	struct cache_item *items;
	size_t n;
	uint64_t each, total;

	make_entry(w, KEY_A, "a");
	make_entry(w, KEY_B, "b");
	make_entry(w, KEY_C, "c");
	assert_int_equal(cache_list(w->dir, &items, &n, &total, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(items[0].origin, "a");
	assert_string_equal(items[2].key, KEY_C);
	each = items[0].bytes;
	assert_true(each > 0);
	assert_int_equal(total, 3 * each);
	cache_items_free(items, n);
	age(w, KEY_A, 3000);
	age(w, KEY_B, 1000);
	age(w, KEY_C, 2000);
	sweep(w, 3 * each);
	assert_int_equal(count(w, ".snap"), 3);
	sweep_until(w, 2 * each, 2);
	assert_false(there(w, KEY_B ".snap"));
	sweep_until(w, 0, 0);
}

/* A snapshot of a restored VM shares its memory with the one before. */
static void test_shared_files_count_once(void **state)
{
	struct world *w = *state;
	struct cache_item *items;
	uint64_t total;
	size_t n;
	char *from = xasprintf("%s/" KEY_A ".snap/ram", w->dir), *to = xasprintf("%s/" KEY_B ".snap/ram", w->dir);
	char *big = xasprintf("%065536d", 1);

	make_entry(w, KEY_A, "a");
	make_entry(w, KEY_B, "b");
	put(from, big);
	assert_int_equal(unlink(to), 0);
	assert_int_equal(link(from, to), 0);
	assert_int_equal(cache_list(w->dir, &items, &n, &total, NULL), 0);
	assert_true(items[0].bytes >= 65536 && items[1].bytes >= 65536);
	assert_true(total < 2 * 65536);
	cache_items_free(items, n);
	age(w, KEY_A, 1000);
	age(w, KEY_B, 2000);
	sweep_until(w, 60000, 0);	/* the first alone gives nothing back */
	free(from);
	free(to);
	free(big);
}

static void test_entry_in_use_stays(void **state)
{
	struct world *w = *state;
	struct want a;
	size_t removed, kept;

	make_entry(w, KEY_A, "a");
	make_entry(w, KEY_B, "b");
	ask(w, &a, KEY_A);
	await(w, &a);
	age(w, KEY_A, 1000);
	sweep_until(w, 0, 1);
	assert_true(there(w, KEY_A ".snap"));
	assert_false(there(w, KEY_B ".snap"));
	assert_int_equal(cache_wipe(w->dir, NULL, &removed, &kept, NULL), 0);
	assert_int_equal(removed, 0);
	assert_int_equal(kept, 1);
	end(&a);
	assert_int_equal(cache_wipe(w->dir, KEY_A, &removed, &kept, NULL), 0);
	assert_int_equal(removed, 1);
	assert_int_equal(count(w, ""), 0);
}

static void test_dead_builders_are_swept(void **state)
{
	struct world *w = *state;
	pid_t alive = other_builder(w, KEY_A, NULL), dead = other_builder(w, KEY_B, NULL);

	end_process(dead);
	sweep(w, (uint64_t)1 << 30);
	assert_true(there(w, KEY_A ".tmp-1-1"));
	assert_false(there(w, KEY_B ".tmp-1-1"));
	assert_false(there(w, KEY_B ".lock"));
	end_process(alive);
}

/* ---- a full disk ---- */

static void copied_cb(void *arg, const struct err *e)
{
	struct want *want = arg;

	assert_non_null(e);
	err_copy(&want->err, e);
	loop_stop(want->w->loop);
}

static void test_disk_full(void **state)
{
	struct world *w = *state;
	char *big = xstrdup("/tmp/provium-store-big-XXXXXX"), *file;
	struct want a, copy = { .w = w };
	struct err e = ERR_INIT;
	static char block[1 << 20];

	if (mount("tmpfs", w->dir, "tmpfs", 0, "size=1m") < 0)
		skip();
	assert_non_null(mkdtemp(big));
	file = xasprintf("%s/ram", big);
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 4; i++) {
		FILE *f = fopen(file, "a");

		fwrite(block, 1, sizeof(block), f);
		fclose(f);
	}
	make_entry(w, KEY_A, "a");
	ask(w, &a, KEY_B);
	await_build(w);
	char *to = xasprintf("%s/1", cache_build_dir(w->building, NULL));
	const char *argv[] = { "cache-copy", big, to, NULL };

	assert_non_null(helper_start(w->loop, argv, copied_cb, &copy, &e));
	run(w);
	assert_non_null(strstr(copy.err.msg, "No space left on device"));
	assert_non_null(strstr(copy.err.msg, to));
	fail_build(w, ENOSPC, copy.err.msg);
	await(w, &a);
	assert_non_null(a.err.msg);
	end(&a);
	while (count(w, ".tmp-") > 0)
		settle(w);
	assert_true(there(w, KEY_A ".snap/ram"));
	assert_false(there(w, KEY_B ".snap"));
	make_entry(w, KEY_C, "there is room again");
	err_release(&copy.err);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(big), 0);
	free(file);
	free(big);
	free(to);
	assert_int_equal(umount2(w->dir, MNT_DETACH), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--helper") == 0) {
		helper_register(store_helper_verbs);
		return helper_main(argc, argv);
	}
	const struct CMUnitTest tests[] = {
		CASE(test_key_parts), CASE(test_contents), CASE(test_contents_just_changed), CASE(test_contents_missing),
		CASE(test_build_then_hit), CASE(test_all_wait_for_one_build), CASE(test_failed_build),
		CASE(test_nobody_wants_it), CASE(test_cancelled_for_good), CASE(test_killed_builder_is_replaced),
		CASE(test_waiter_takes_what_another_built), CASE(test_cancelled_while_waiting_for_a_lock),
		CASE(test_removed_lock_file), CASE(test_bad_entry), CASE(test_exchange),
		CASE(test_least_recently_used_goes), CASE(test_shared_files_count_once),
		CASE(test_entry_in_use_stays), CASE(test_dead_builders_are_swept), CASE(test_disk_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
