/*
 * provium.toml: defaults, everything a profile may hold, the search upwards, and each refusal's exact text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/config.h"

static char dir[64], start[4096];

static void put(const char *path, const char *text)
{
	struct err e = ERR_INIT;
	char *parent = xstrdup(path);
	FILE *f;

	if (strrchr(parent, '/')) {
		*strrchr(parent, '/') = '\0';
		assert_int_equal(make_dirs(parent, 0755, &e), 0);
	}
	free(parent);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* Every test runs in an empty directory of its own. */
static int setup(void **state)
{
	(void)state;
	assert_non_null(getcwd(start, sizeof(start)));
	strcpy(dir, "/tmp/provium-config-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	setenv("HOME", dir, 1);
	unsetenv("XDG_CACHE_HOME");
	unsetenv("PROVIUM_BUILD_DIR");
	unsetenv("PROVIUM_FIXTURE_CACHE");
	return 0;
}

static int teardown(void **state)
{
	char *command = xasprintf("rm -rf '%s'", dir);

	(void)state;
	assert_int_equal(chdir(start), 0);
	assert_int_equal(system(command), 0);
	free(command);
	return 0;
}

static struct config *load(const char *text)
{
	struct err e = ERR_INIT;
	struct config *c;

	put("provium.toml", text);
	c = config_load(NULL, &e);
	if (!c)
		fail_msg("%s", e.msg);
	return c;
}

static void assert_message(struct err *e, char *expected)
{
	assert_string_equal(e->msg, expected);
	free(expected);
	err_release(e);
}

/* A path below the test's directory; valid until the next call. */
static const char *at(const char *path)
{
	static char *full;

	free(full);
	full = xasprintf("%s/%s", dir, path);
	return full;
}

static void test_defaults(void **state)
{
	struct err e = ERR_INIT;
	struct config *c = config_load(NULL, &e);

	(void)state;
	assert_non_null(c);
	assert_null(config_path(c));
	assert_string_equal(config_roots(c)[0], dir);
	assert_null(config_roots(c)[1]);
	assert_string_equal(config_cache_dir(c), at(".cache/provium/fixtures"));
	assert_int_equal(config_cache_max_size(c), CONFIG_CACHE_MAX_SIZE);
	assert_null(config_profile_names(c)[0]);
	assert_null(config_profile(c, "x"));
	config_free(c);
}

static void test_cache_places(void **state)
{
	struct config *c;

	(void)state;
	setenv("XDG_CACHE_HOME", "/xdg", 1);
	c = load("");
	assert_string_equal(config_cache_dir(c), "/xdg/provium/fixtures");
	config_free(c);
	c = load("provium.cache_dir = 'own'\nprovium.cache_max_size = '1G'");
	assert_string_equal(config_cache_dir(c), at("own"));
	assert_int_equal(config_cache_max_size(c), 1 << 30);
	config_free(c);
	setenv("PROVIUM_FIXTURE_CACHE", "/env", 1);
	c = load("provium.cache_dir = 'own'\nprovium.cache_max_size = 4096");
	assert_string_equal(config_cache_dir(c), "/env");
	assert_int_equal(config_cache_max_size(c), 4096);
	config_free(c);
}

static void test_roots(void **state)
{
	struct config *c = load("[provium]\nroots = ['tests', './a//b/', '/abs']");

	(void)state;
	assert_string_equal(config_roots(c)[0], at("tests"));
	assert_string_equal(config_roots(c)[1], at("a/b"));
	assert_string_equal(config_roots(c)[2], "/abs");
	assert_null(config_roots(c)[3]);
	config_free(c);
}

static void test_found_upwards(void **state)
{
	struct config *c;
	struct err e = ERR_INIT;

	(void)state;
	put("provium.toml", "provium.roots = ['tests']");
	put("a/b/file", "");
	assert_int_equal(chdir("a/b"), 0);
	c = config_load(NULL, &e);
	assert_non_null(c);
	assert_string_equal(config_path(c), at("provium.toml"));
	assert_string_equal(config_roots(c)[0], at("tests"));
	config_free(c);
	c = config_load("../../provium.toml", &e);
	assert_non_null(c);
	assert_string_equal(config_roots(c)[0], at("tests"));
	config_free(c);
}

static void test_profile_defaults(void **state)
{
	struct config *c = load("[profiles.a]\ncmdline = ''");
	const struct profile *p = config_profile(c, "a");
	struct utsname u;

	(void)state;
	uname(&u);
	assert_string_equal(p->name, "a");
	assert_null(p->kernel);
	assert_null(p->initrd);
	assert_null(p->modules);
	assert_string_equal(p->cmdline, "console=ttyS0");
	assert_string_equal(p->arch, u.machine);
	assert_string_equal(p->machine, strcmp(u.machine, "x86_64") ? "virt" : "pc");
	assert_int_equal(p->accel, ACCEL_AUTO);
	assert_int_equal(p->memory, 512 << 20);
	assert_int_equal(p->cpus, 1);
	assert_true(p->inject_agent);
	assert_null(p->agent_overlay_path);
	assert_int_equal(p->agent_boot_timeout, 0);
	assert_int_equal(p->ndisks, 0);
	assert_false(p->boot_cache);
	assert_null(p->qemu_args);
	assert_null(config_build(c, "a"));
	config_free(c);
}

static void test_profile_values(void **state)
{
	struct config *c;
	const struct profile *p;

	(void)state;
	put("cmd.txt", "  root=/dev/vda\n\n\tro \n");
	c = load(
		"[profile.full]\n"
		"kernel = 'k/vmlinuz'\ninitrd = '/i.gz'\nmodules = 'm'\n"
		"cmdline_file = 'cmd.txt'\ncmdline = \"quiet  x=1\"\n"
		"guest_os = 'peios'\narch = 'x86_64'\nmachine = 'q35'\naccel = 'tcg'\n"
		"memory = '1G'\ncpus = 4\ninject_agent = false\nagent_overlay_path = 'o.cpio'\n"
		"agent_boot_timeout = '90s'\nboot_cache = true\nqemu_args = ['-device', 'x']\n"
		"disks = [{scratch = '10M', id = 'data'}, {path = 'd.img', format = 'qcow2', readonly = true},"
		" {template = 't.img', direct = true}]\n");
	p = config_profile(c, "full");
	assert_string_equal(p->kernel, at("k/vmlinuz"));
	assert_string_equal(p->initrd, "/i.gz");
	assert_string_equal(p->modules, at("m"));
	assert_string_equal(p->cmdline, "root=/dev/vda ro quiet  x=1 console=ttyS0");
	assert_string_equal(p->machine, "q35");
	assert_int_equal(p->accel, ACCEL_TCG);
	assert_int_equal(p->memory, 1 << 30);
	assert_int_equal(p->cpus, 4);
	assert_false(p->inject_agent);
	assert_string_equal(p->agent_overlay_path, at("o.cpio"));
	assert_true(p->agent_boot_timeout == 90 * (int64_t)1000000000);
	assert_true(p->boot_cache);
	assert_string_equal(p->qemu_args[1], "x");
	assert_null(p->qemu_args[2]);
	assert_int_equal(p->ndisks, 3);
	assert_string_equal(p->disks[0].id, "data");
	assert_int_equal(p->disks[0].scratch, 10 << 20);
	assert_string_equal(p->disks[0].format, "raw");
	assert_string_equal(p->disks[1].id, "disk1");
	assert_string_equal(p->disks[1].path, at("d.img"));
	assert_string_equal(p->disks[1].format, "qcow2");
	assert_true(p->disks[1].readonly);
	assert_string_equal(p->disks[2].template, at("t.img"));
	assert_true(p->disks[2].direct);
	config_free(c);
}

static void test_console_present(void **state)
{
	struct config *c = load("[profiles.a]\ncmdline = 'console=ttyS0,115200 x'\n"
		"[profiles.b]\ncmdline = 'console=ttyS0'\n[profiles.c]\ncmdline = 'console=ttyS01'\n");

	(void)state;
	assert_string_equal(config_profile(c, "a")->cmdline, "console=ttyS0,115200 x");
	assert_string_equal(config_profile(c, "b")->cmdline, "console=ttyS0");
	assert_string_equal(config_profile(c, "c")->cmdline, "console=ttyS01 console=ttyS0");
	config_free(c);
}

static void test_names_sorted(void **state)
{
	struct config *c = load("[profiles.b]\ncmdline=''\n[profile.c]\ncmdline=''\n[profiles.a]\ncmdline=''\n");
	const char *const *names = config_profile_names(c);

	(void)state;
	assert_string_equal(names[0], "a");
	assert_string_equal(names[1], "b");
	assert_string_equal(names[2], "c");
	assert_null(names[3]);
	config_free(c);
}

static void test_build(void **state)
{
	struct config *c;
	const struct build_info *b;

	(void)state;
	c = load("[profiles.a]\ncmdline = ''\nbuild = 'make O={out} && ls {out}'\nkernel = '{out}/vmlinuz'\n"
		"build_inputs = ['Makefile', 'src/**/*.c']\n[profiles.b]\ncmdline=''\nbuild='x'\nbuild_out='o'\n");
	b = config_build(c, "a");
	assert_string_equal(b->out, at(".cache/provium/builds/a"));
	assert_string_equal(config_profile(c, "a")->kernel, at(".cache/provium/builds/a/vmlinuz"));
	assert_non_null(strstr(b->command, "make O=/tmp/provium-config-"));
	assert_null(strstr(b->command, "{out}"));
	assert_string_equal(b->dir, dir);
	assert_string_equal(b->inputs[1], "src/**/*.c");
	assert_null(b->inputs[2]);
	b = config_build(c, "b");
	assert_string_equal(b->out, at("o/b"));
	assert_null(b->inputs);
	config_free(c);

	setenv("PROVIUM_BUILD_DIR", "/builds%1", 1);
	c = load("[profiles.a]\ncmdline = ''\nbuild = 'x {out}'\n");
	assert_string_equal(config_build(c, "a")->command, "x /builds%1/a");
	config_free(c);
}

static void test_from_dir(void **state)
{
	struct config *c;
	const struct profile *p;

	(void)state;
	put("profiles/one/profile.provium.toml", "kernel = 'vmlinuz'\ncmdline = 'x'\nbuild = 'make'\n");
	put("profiles/two/profile.provium.toml", "cmdline_file = 'c'\n");
	put("profiles/two/c", "from the file\n");
	put("profiles/none/readme", "");
	put("profiles/.hidden/profile.provium.toml", "broken");
	c = load("[profiles]\nfrom_dir = 'profiles'\n[profiles.three]\ncmdline=''\n");
	p = config_profile(c, "one");
	assert_string_equal(p->kernel, at("profiles/one/vmlinuz"));
	assert_string_equal(config_build(c, "one")->dir, at("profiles/one"));
	assert_string_equal(config_profile(c, "two")->cmdline, "from the file console=ttyS0");
	assert_non_null(config_profile(c, "three"));
	assert_null(config_profile(c, "none"));
	config_free(c);
}

static void test_root(void **state)
{
	struct config *c;

	(void)state;
	put("deb/boot/vmlinuz-6.1", "k");
	put("deb/boot/config-6.1", "");
	put("fed/boot/vmlinuz-6.2", "k");
	put("fed/usr/lib/modules/6.2/vmlinuz", "k");
	put("deb/usr/lib/modules/6.1/modules.dep", "");
	c = load("[profiles.deb]\ncmdline=''\nroot='deb'\n[profiles.fed]\ncmdline=''\nroot='fed'\n");
	assert_string_equal(config_profile(c, "deb")->kernel, at("deb/boot/vmlinuz-6.1"));
	assert_string_equal(config_profile(c, "fed")->kernel, at("fed/usr/lib/modules/6.2/vmlinuz"));
	config_free(c);
}

/* What a build makes is looked at when it is over. */
static void test_resolve(void **state)
{
	struct config *c;
	struct err e = ERR_INIT;

	(void)state;
	c = load("[profiles.a]\ncmdline_file = '{out}/cmdline'\nroot = '{out}/tree'\nbuild = 'x'\nbuild_out = 'o'\n");
	assert_null(config_profile(c, "a")->kernel);
	assert_string_equal(config_profile(c, "a")->cmdline, "console=ttyS0");
	assert_true(config_resolve(c, "a", &e) < 0);
	assert_message(&e, xasprintf("invalid config in `provium.toml`: line 3, column 1: `profiles.a.root`: "
		"`%s/o/a/tree` is not a directory", dir));
	err_release(&e);
	put("o/a/tree/boot/vmlinuz-1", "k");
	put("o/a/cmdline", "made");
	assert_int_equal(config_resolve(c, "a", &e), 0);
	assert_string_equal(config_profile(c, "a")->kernel, at("o/a/tree/boot/vmlinuz-1"));
	assert_string_equal(config_profile(c, "a")->cmdline, "made console=ttyS0");
	config_free(c);
}

/* ---- refusals: the text of a config, and the whole message; DIR stands for the test's directory ---- */

struct refusal {
	const char *name, *text, *message;
};

static const struct refusal refusals[];

static char *with_dir(const char *message)
{
	const char *at_dir = strstr(message, "DIR");

	if (!at_dir)
		return xstrdup(message);
	return xasprintf("%.*s%s%s", (int)(at_dir - message), message, dir, at_dir + 3);
}

static void test_refusal(void **state)
{
	const struct refusal *r = *state;
	struct err e = ERR_INIT;
	char *expected;

	setup(state);
	put("two/boot/vmlinuz-1", "");
	put("two/boot/vmlinuz-2", "");
	put("binary", "");
	put("empty/file", "");
	put("provium.toml", r->text);
	assert_null(config_load(NULL, &e));
	expected = with_dir(r->message);
	assert_string_equal(e.msg, expected);
	free(expected);
	err_release(&e);
	teardown(state);
}

static void test_missing_file(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(config_load("no.toml", &e));
	assert_string_equal(e.msg, "read `no.toml`: No such file or directory");
	assert_int_equal(mkdir("d", 0755), 0);
	assert_null(config_load("d", &e));
	assert_string_equal(e.msg, "read `d`: Is a directory");
	err_release(&e);
}

static void test_from_dir_errors(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	put("p/x/profile.provium.toml", "kernl = 'a'\ncmdline = ''\n");
	put("provium.toml", "profiles.from_dir = 'p'\n");
	assert_null(config_load(NULL, &e));
	assert_message(&e, xasprintf("invalid config in `%s/p/x/profile.provium.toml`: line 1, column 1: "
		"unknown key `kernl`; did you mean `kernel`?", dir));
	put("p/x/profile.provium.toml", "a =\n");
	assert_null(config_load(NULL, &e));
	assert_message(&e, xasprintf("parse `%s/p/x/profile.provium.toml`: line 1, column 4: "
		"expected a value, found the end of the line", dir));
	put("p/x/profile.provium.toml", "cmdline = ''\n");
	put("provium.toml", "profiles.from_dir = 'p'\n[profiles.x]\ncmdline = ''\n");
	assert_null(config_load(NULL, &e));
	err_release(&e);
	put("provium.toml", "[profiles]\nfrom_dir = 'p'\n[profiles.x]\ncmdline = ''\n");
	assert_null(config_load(NULL, &e));
	assert_message(&e, xasprintf("invalid config in `provium.toml`: line 3, column 11: the profile `x` is "
		"already defined in `%s/p/x/profile.provium.toml`", dir));
	err_release(&e);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest fixed[] = {
		CASE(test_defaults), CASE(test_cache_places), CASE(test_roots), CASE(test_found_upwards),
		CASE(test_profile_defaults), CASE(test_profile_values), CASE(test_console_present),
		CASE(test_names_sorted), CASE(test_build), CASE(test_from_dir), CASE(test_root), CASE(test_resolve),
		CASE(test_missing_file), CASE(test_from_dir_errors),
	};
	size_t nfixed = sizeof(fixed) / sizeof(*fixed), n;
	struct CMUnitTest *tests;
	int r;

	for (n = 0; refusals[n].name; n++)
		;
	tests = xcalloc(nfixed + n, sizeof(*tests));
	memcpy(tests, fixed, sizeof(fixed));
	for (size_t i = 0; i < n; i++)
		tests[nfixed + i] = (struct CMUnitTest){ .name = refusals[i].name, .test_func = test_refusal,
			.initial_state = (void *)&refusals[i] };
	r = _cmocka_run_group_tests("config", tests, nfixed + n, NULL, NULL);
	free(tests);
	return r;
}

#define INVALID "invalid config in `provium.toml`: "
#define P "[profiles.p]\ncmdline = ''\n"

static const struct refusal refusals[] = {
	{ "TOML", "[provium\n",
	  "parse `provium.toml`: line 1, column 9: expected `]`, found the end of the line" },
	{ "unknown table", "[profils.a]\n",
	  INVALID "line 1, column 2: unknown key `profils`; did you mean `profile`?" },
	{ "unknown key, nothing near", "[provium]\nwhatever = 1\n",
	  INVALID "line 2, column 1: unknown key `whatever` in `provium`; the known ones are cache_dir, cache_max_size, "
	  "roots" },
	{ "unknown key, near", "[provium]\nrots = []\n",
	  INVALID "line 2, column 1: unknown key `rots` in `provium`; did you mean `roots`?" },
	{ "unknown profile key", P "  memry = 1\n",
	  INVALID "line 3, column 3: unknown key `memry` in `profiles.p`; did you mean `memory`?" },
	{ "unknown disk key", P "disks = [{pth = 'x'}]\n",
	  INVALID "line 3, column 11: unknown key `pth` in `profiles.p.disks[1]`; did you mean `path`?" },
	{ "first mistake in the file wins", "[provium]\nzzz = 1\naaa = 1\n",
	  INVALID "line 2, column 1: unknown key `zzz` in `provium`; the known ones are cache_dir, cache_max_size, roots" },
	{ "provium is no table", "provium = 1\n",
	  INVALID "line 1, column 1: `provium` must be a table, not an integer" },
	{ "roots is a string", "provium.roots = 'tests'\n",
	  INVALID "line 1, column 9: `provium.roots` must be an array of strings, not a string" },
	{ "roots is empty", "provium.roots = []\n",
	  INVALID "line 1, column 9: `provium.roots` is empty: name a directory or leave it out" },
	{ "a root is a number", "provium.roots = ['a', 1]\n",
	  INVALID "line 1, column 23: `provium.roots[2]` must be a string, not an integer" },
	{ "a root is empty", "provium.roots = ['']\n",
	  INVALID "line 1, column 18: `provium.roots[1]` must not be empty" },
	{ "cache_dir is a boolean", "provium.cache_dir = true\n",
	  INVALID "line 1, column 9: `provium.cache_dir` must be a string, not a boolean" },
	{ "size is a float", "provium.cache_max_size = 1.5\n",
	  INVALID "line 1, column 9: `provium.cache_max_size` must be a size such as \"512M\" or a number of bytes, "
	  "not a float" },
	{ "profiles is no table", "profiles = []\n",
	  INVALID "line 1, column 1: `profiles` must be a table, not an array" },
	{ "a profile is no table", "profiles.a = 1\n",
	  INVALID "line 1, column 10: `profiles.a` must be a table, not an integer" },
	{ "bad profile name", "[profiles.'a b']\ncmdline = ''\n",
	  INVALID "line 1, column 11: the profile name `a b` is refused: use up to 64 letters, digits, `_`, `-` and `.`, "
	  "and no `.` in front" },
	{ "profile twice", "[profile.a]\ncmdline = ''\n[profiles.a]\ncmdline = ''\n",
	  INVALID "line 3, column 11: the profile `a` is already defined in `provium.toml`, line 1" },
	{ "no cmdline", "[profiles.a]\nkernel = 'k'\n",
	  INVALID "line 1, column 11: the profile `a` needs `cmdline` or `cmdline_file`: write, for instance, "
	  "cmdline = \"quiet\"" },
	{ "kernel and root", P "kernel = 'k'\nroot = 'r'\n",
	  INVALID "line 1, column 11: the profile `p` has both `kernel` and `root`: keep one" },
	{ "root is missing", P "root = 'r'\n",
	  INVALID "line 3, column 1: `profiles.p.root`: `DIR/r` is not a directory" },
	{ "root has no kernel", P "root = 'empty'\n",
	  INVALID "line 3, column 1: `profiles.p.root`: no kernel in `DIR/empty`: there is neither "
	  "usr/lib/modules/*/vmlinuz* nor boot/vmlinuz-*; set `kernel` instead" },
	{ "cmdline_file is missing", "[profiles.p]\ncmdline_file = 'f'\n",
	  INVALID "line 2, column 1: `profiles.p.cmdline_file`: read `DIR/f`: No such file or directory" },
	{ "kernel is a number", P "kernel = 1\n",
	  INVALID "line 3, column 1: `profiles.p.kernel` must be a string, not an integer" },
	{ "guest_os", P "guest_os = 'linx'\n",
	  INVALID "line 3, column 1: `profiles.p.guest_os`: `linx` is not known; did you mean `linux`?" },
	{ "arch", P "arch = 'mips'\n",
	  INVALID "line 3, column 1: `profiles.p.arch`: `mips` is not known; the known ones are x86_64, aarch64" },
	{ "machine", P "machine = 'q36'\n",
	  INVALID "line 3, column 1: `profiles.p.machine`: `q36` is not known; did you mean `q35`?" },
	{ "machine of another arch", P "arch = 'x86_64'\nmachine = 'virt'\n",
	  INVALID "line 1, column 11: the profile `p`: the machine `virt` does not exist for x86_64; use microvm, pc, q35" },
	{ "accel", P "accel = 'hvf'\n",
	  INVALID "line 3, column 1: `profiles.p.accel`: `hvf` is not known; the known ones are auto, kvm, tcg" },
	{ "memory is too small", P "memory = 512\n",
	  INVALID "line 3, column 1: `profiles.p.memory` is 512 bytes, a guest needs at least 1M: write a size such as "
	  "\"512M\"" },
	{ "cpus is a float", P "cpus = 1.0\n",
	  INVALID "line 3, column 1: `profiles.p.cpus` must be an integer, not a float" },
	{ "cpus is zero", P "cpus = 0\n",
	  INVALID "line 3, column 1: `profiles.p.cpus` must be between 1 and 1024, not 0" },
	{ "inject_agent is a string", P "inject_agent = 'no'\n",
	  INVALID "line 3, column 1: `profiles.p.inject_agent` must be true or false, not a string" },
	{ "timeout is zero", P "agent_boot_timeout = 0\n",
	  INVALID "line 3, column 1: `profiles.p.agent_boot_timeout` must be longer than 0" },
	{ "timeout is a date", P "agent_boot_timeout = 1979-05-27\n",
	  INVALID "line 3, column 1: `profiles.p.agent_boot_timeout` must be a duration such as \"30s\" or a number of "
	  "seconds, not a local date" },
	{ "disk without a source", P "disks = [{id = 'x'}]\n",
	  INVALID "line 3, column 10: `profiles.p.disks[1]` must have exactly one of `path`, `scratch` and `template`, "
	  "it has none" },
	{ "disk with two sources", P "disks = [{path = 'x', scratch = 512}]\n",
	  INVALID "line 3, column 10: `profiles.p.disks[1]` must have exactly one of `path`, `scratch` and `template`, "
	  "it has 2" },
	{ "disk id twice", P "disks = [{scratch = 512, id = 'disk1'}, {scratch = 512}]\n",
	  INVALID "line 3, column 41: the disk id `disk1` is used twice" },
	{ "disk id too long", P "disks = [{scratch = 512, id = 'a23456789012345678901'}]\n",
	  INVALID "line 3, column 10: the disk id `a23456789012345678901` is too long for a virtio serial: use up to 20 "
	  "characters" },
	{ "disk format", P "disks = [{scratch = 512, format = 'raww'}]\n",
	  INVALID "line 3, column 26: `profiles.p.disks[1].format`: `raww` is not known; did you mean `raw`?" },
	{ "disk is a string", P "disks = ['x']\n",
	  INVALID "line 3, column 10: `profiles.p.disks[1]` must be a table, not a string" },
	{ "inputs without a build", P "build_inputs = ['x']\n",
	  INVALID "line 1, column 11: the profile `p` has `build_inputs` without `build`, the command that uses it" },
	{ "qemu_args is a string", P "qemu_args = '-s'\n",
	  INVALID "line 3, column 1: `profiles.p.qemu_args` must be an array of strings, not a string" },
	{ "from_dir is missing", "profiles.from_dir = 'nowhere'\n",
	  INVALID "line 1, column 10: `profiles.from_dir`: read `DIR/nowhere`: No such file or directory" },
	{ "from_dir is a number", "profiles.from_dir = 1\n",
	  INVALID "line 1, column 10: `profiles.from_dir` must be a string, not an integer" },
	{ "NUL in a string", P "kernel = \"a\\u0000b\"\n",
	  INVALID "line 3, column 1: `profiles.p.kernel` must not hold a NUL character" },
	{ NULL, NULL, NULL },
};
