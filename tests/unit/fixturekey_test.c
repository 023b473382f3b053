/*
 * What changes a fixture's key, and what does not; names that are not there; circles.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/fixturekey.h"

struct world {
	struct loop *loop;
	char dir[64];
	char key[KEY_SIZE];
};

static void put(const char *dir, const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name), *slash = strrchr(path, '/');
	FILE *f;

	*slash = '\0';
	assert_int_equal(make_dirs(path, 0755, NULL), 0);
	*slash = '/';
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static void key_cb(void *arg, const char *key, const struct err *e)
{
	struct world *w = arg;

	assert_null(e);
	strcpy(w->key, key);
	loop_stop(w->loop);
}

/* The key of a fixture in the tree, as a fresh process tells it; "" and *e on failure. */
static const char *key_of(struct world *w, const char *name, struct err *e)
{
	char *toml = xasprintf("%s/provium.toml", w->dir), *memory = xasprintf("%s/memory", w->dir);
	struct config *c = config_load(toml, e);
	struct vmm_config vc = { .kind = VMM_QEMU, .accel = ACCEL_TCG, .cache_dir = w->dir, .qemu = getenv("FAKE_QEMU") };
	struct vmm *v = vmm_new(w->loop, &vc, e);
	struct contents *contents = contents_new(w->loop, memory);
	struct key_job *j = c && v ? fixture_key_new(c, v, contents, name, e) : NULL;

	w->key[0] = '\0';
	if (j) {
		key_job_end(j, key_cb, w);
		loop_run(w->loop);
	}
	key_job_free(j);
	contents_free(contents);
	vmm_free(v);
	config_free(c);
	free(toml);
	free(memory);
	return w->key;
}

static const char toml[] =
	"[provium]\nroots = ['tests']\n"
	"[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\ncmdline = 'quiet'\ninject_agent = false\n"
	"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n";

static const char base[] =
	"local h = require('helpers.setup')\n"
	"local vm = provium:vm('a', 'guest'):boot()\n"
	"vm:push_file('data.txt', '/data.txt')\n"
	"vm:push_file('volatile.txt', '/v', {auto_dep = false})\n"
	"provium:depends_on_file('listed.txt')\n"
	"-- vm:push_file('comment.txt', '/c')\n"
	"local s = [[ vm:push_file('string.txt', '/s') require('helpers.none') provium:vm('x', 'other') ]]\n"
	"h(vm)\n"
	"return vm:snapshot()\n";

static const struct file { const char *name, *text; } tree[] = {
	{ "provium.toml", toml },
	{ "k/vmlinuz", "kernel" }, { "k/initrd", "initrd" }, { "k/other", "other kernel" },
	{ "qemu", "#!/bin/sh\n" },
	{ "tests/base.fixture.lua", base },
	{ "tests/helpers/setup.lua", "local deep = require 'helpers.deep' return function() end" },
	{ "tests/helpers/deep.lua", "return 1" },
	{ "tests/helpers/none.lua", "return 2" },
	{ "tests/data.txt", "data" }, { "tests/volatile.txt", "volatile" }, { "tests/listed.txt", "listed" },
	{ "tests/comment.txt", "comment" }, { "tests/string.txt", "string" }, { "tests/unrelated.txt", "unrelated" },
	{ "tests/child.fixture.lua", "local vm = provium:vm_fixture('base') return vm:snapshot()" },
	{ "tests/computed.fixture.lua", "local p = 'guest' return provium:vm('a', p):boot():snapshot()" },
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	char *qemu;

	strcpy(w->dir, "/tmp/provium-fixturekey-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->loop = loop_new();
	for (size_t i = 0; i < sizeof(tree) / sizeof(*tree); i++)
		put(w->dir, tree[i].name, tree[i].text);
	qemu = xasprintf("%s/qemu", w->dir);
	setenv("FAKE_QEMU", qemu, 1);
	free(qemu);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char *command = xasprintf("rm -rf '%s'", w->dir);

	assert_int_equal(system(command), 0);
	free(command);
	loop_free(w->loop);
	free(w);
	return 0;
}

struct change {
	const char *what, *file, *text;		/* text NULL: the file is removed */
	const char *changed;			/* of "base", "child", "computed": those whose key changes */
};

static const struct change changes[] = {
	{ "nothing", "tests/base.fixture.lua", base, "" },
	{ "the source", "tests/base.fixture.lua", "return provium:vm('a', 'guest'):boot():snapshot()", "base child" },
	{ "a comment in the source", "tests/helpers/setup.lua", "-- hi\nlocal deep = require 'helpers.deep' return function() end",
		"base child" },
	{ "a module of a module", "tests/helpers/deep.lua", "return 2", "base child" },
	{ "a module named in a long string", "tests/helpers/none.lua", "return 3", "" },
	{ "a pushed file", "tests/data.txt", "more", "base child" },
	{ "a pushed file that goes", "tests/data.txt", NULL, "base child" },
	{ "a file with auto_dep = false", "tests/volatile.txt", "more", "" },
	{ "a file depended on", "tests/listed.txt", "more", "base child" },
	{ "a file named in a comment", "tests/comment.txt", "more", "" },
	{ "a file named in a string", "tests/string.txt", "more", "" },
	{ "an unrelated file", "tests/unrelated.txt", "more", "" },
	{ "a new file", "tests/new.txt", "more", "" },
	{ "a module that shadows nothing", "tests/helpers/extra.lua", "return 1", "" },
	{ "the kernel", "k/vmlinuz", "newer", "base child computed" },
	{ "the initrd", "k/initrd", "newer", "base child computed" },
	{ "the kernel of another profile", "k/other", "newer", "computed" },
	{ "QEMU", "qemu", "#!/bin/sh\n# newer\n", "base child computed" },
	{ "the fixture above", "tests/child.fixture.lua", "return provium:vm_fixture('base'):snapshot()", "child" },
	{ "the configuration's comments", "provium.toml",
		"# hello\n[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'quiet'\ninject_agent = false\nagent_boot_timeout = '99s'\nboot_cache = true\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "" },
	{ "the command line", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'debug'\ninject_agent = false\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "base child computed" },
	{ "the command line, from a file", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline_file = 'k/initrd'\ninject_agent = false\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "base child computed" },
	{ "memory", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'quiet'\ninject_agent = false\nmemory = '1G'\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "base child computed" },
	{ "another profile's machine", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'quiet'\ninject_agent = false\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\nmachine = 'q35'\n", "computed" },
	{ "a disk", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'quiet'\ninject_agent = false\ndisks = [{scratch = '1M'}]\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "base child computed" },
	{ "QEMU's arguments", "provium.toml",
		"[provium]\nroots = ['tests']\n[profiles.guest]\nkernel = 'k/vmlinuz'\ninitrd = 'k/initrd'\n"
		"cmdline = 'quiet'\ninject_agent = false\nqemu_args = ['-snapshot']\n"
		"[profiles.other]\nkernel = 'k/other'\ncmdline = 'quiet'\ninject_agent = false\n", "base child computed" },
};

static const char *const fixtures[] = { "base", "child", "computed" };

static void all_keys(struct world *w, char keys[3][KEY_SIZE])
{
	struct err e = ERR_INIT;

	for (int i = 0; i < 3; i++) {
		strcpy(keys[i], key_of(w, fixtures[i], &e));
		if (err_is_set(&e))
			fail_msg("%s: %s", fixtures[i], e.msg);
	}
}

static void undo(struct world *w, const char *file)
{
	char *path = xasprintf("%s/%s", w->dir, file);

	unlink(path);
	free(path);
	for (size_t i = 0; i < sizeof(tree) / sizeof(*tree); i++)
		if (strcmp(tree[i].name, file) == 0)
			put(w->dir, file, tree[i].text);
}

static void test_changes(void **state)
{
	struct world *w = *state;
	char before[3][KEY_SIZE], after[3][KEY_SIZE];

	all_keys(w, before);
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		const struct change *c = &changes[i];
		char *path = xasprintf("%s/%s", w->dir, c->file);

		if (c->text)
			put(w->dir, c->file, c->text);
		else
			unlink(path);
		free(path);
		all_keys(w, after);
		for (int f = 0; f < 3; f++)
			if (!strcmp(before[f], after[f]) == !!strstr(c->changed, fixtures[f]))
				fail_msg("%s: the key of %s %s", c->what, fixtures[f],
					strcmp(before[f], after[f]) ? "changed" : "did not change");
		undo(w, c->file);
	}
	all_keys(w, after);
	for (int f = 0; f < 3; f++)
		assert_string_equal(before[f], after[f]);
}

/* Times and places are no part of it. */
static void test_moved_and_touched(void **state)
{
	struct world *w = *state;
	struct timespec old[2] = { { 1000, 0 }, { 1000, 0 } };
	char before[KEY_SIZE], *path = xasprintf("%s/k/vmlinuz", w->dir), *to = xasprintf("%s-moved", w->dir), *qemu;
	struct err e = ERR_INIT;

	strcpy(before, key_of(w, "base", &e));
	utimensat(AT_FDCWD, path, old, 0);
	assert_string_equal(key_of(w, "base", &e), before);
	assert_int_equal(rename(w->dir, to), 0);
	strcpy(w->dir, to);
	qemu = xasprintf("%s/qemu", w->dir);
	setenv("FAKE_QEMU", qemu, 1);
	assert_string_equal(key_of(w, "base", &e), before);
	free(path);
	free(to);
	free(qemu);
}

/* A guest gets a pushed file's mode with it, but not the kernel's. */
static void test_mode(void **state)
{
	struct world *w = *state;
	char before[KEY_SIZE], *kernel = xasprintf("%s/k/vmlinuz", w->dir), *data = xasprintf("%s/tests/data.txt", w->dir);
	struct err e = ERR_INIT;

	strcpy(before, key_of(w, "base", &e));
	assert_int_equal(chmod(kernel, 0755), 0);
	assert_string_equal(key_of(w, "base", &e), before);
	assert_int_equal(chmod(data, 0755), 0);
	assert_string_not_equal(key_of(w, "base", &e), before);
	free(kernel);
	free(data);
}

static void expect_error(struct world *w, const char *name, int code, const char *text)
{
	struct err e = ERR_INIT;

	assert_string_equal(key_of(w, name, &e), "");
	assert_int_equal(e.code, -code);
	if (strcmp(e.msg, text))
		fail_msg("expected: %s\ngot: %s", text, e.msg);
	err_release(&e);
}

static void test_not_found(void **state)
{
	struct world *w = *state;

	expect_error(w, "bse", ENOENT, "fixture `bse` not found in any test root; did you mean `base`?");
	expect_error(w, "postgres", ENOENT,
		"fixture `postgres` not found in any test root; there is `base`, `child`, `computed`");
	put(w->dir, "tests/bad.fixture.lua", "return provium:vm_fixture('chidl'):snapshot()");
	expect_error(w, "bad", ENOENT, "fixture `chidl` not found in any test root; did you mean `child`?");
}

static void test_circles(void **state)
{
	struct world *w = *state;
	struct err e = ERR_INIT;

	put(w->dir, "tests/x/one.fixture.lua", "return provium:vm_fixture('x/two'):snapshot()");
	put(w->dir, "tests/x/two.fixture.lua", "return provium.lab_fixture 'x/three'");
	put(w->dir, "tests/x/three.fixture.lua", "-- the circle\nreturn provium:vm_fixture [[x/one]]");
	put(w->dir, "tests/self.fixture.lua", "return provium:vm_fixture('self'):snapshot()");
	expect_error(w, "x/one", ELOOP, "fixtures need one another in a circle: x/one -> x/two -> x/three -> x/one");
	expect_error(w, "self", ELOOP, "fixtures need one another in a circle: self -> self");
	/* A module that has a use for the fixture that requires it is none. */
	put(w->dir, "tests/helpers/setup.lua", "return { base = function() return provium:vm_fixture('base') end }");
	assert_int_equal(strlen(key_of(w, "base", &e)), KEY_SIZE - 1);
	assert_false(err_is_set(&e));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--helper") == 0) {
		helper_register(store_helper_verbs);
		return helper_main(argc, argv);
	}
	const struct CMUnitTest tests[] = {
		CASE(test_changes), CASE(test_moved_and_touched), CASE(test_mode), CASE(test_not_found), CASE(test_circles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
