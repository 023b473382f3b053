/*
 * The command line and the per-test filters: what each flag sets, and each refusal's exact text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/args.h"
#include "run/filter.h"

/* Splits a line at spaces; the words live until the next call. Returns how many, "provium" included. */
static int split(const char *line, char **argv)
{
	static char *copy;
	int argc = 0;

	free(copy);
	copy = xstrdup(line);
	argv[argc++] = "provium";
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return argc;
}

static struct args parse(const char *line)
{
	char *argv[32];
	struct args a;
	struct err e = ERR_INIT;

	if (args_parse(split(line, argv), argv, &a, &e) < 0)
		fail_msg("%s", e.msg);
	return a;
}

static void test_defaults(void **state)
{
	struct args a = parse("");

	(void)state;
	assert_int_equal(a.command, CMD_RUN);
	assert_int_equal(a.paths.n, 0);
	assert_null(a.config);
	assert_int_equal(a.vmm, VMM_QEMU);
	assert_int_equal(a.accel, ACCEL_AUTO);
	assert_int_equal(a.mem, 0);
	assert_int_equal(a.cpus, 0);
	assert_int_equal(a.jobs, 0);
	assert_true(a.cpu_overcommit == 1.0);
	assert_true(a.timeout == 300 * (int64_t)1000000000);
	assert_null(a.note);
	args_release(&a);
}

static void test_every_flag(void **state)
{
	struct args a = parse("a --config=c.toml --filter net b --include-slow --tag x --tag=y --no-tag z "
		"--tag-meta k=v=w --no-tag-meta k= --test one --test two --rerun-failed");

	(void)state;
	assert_int_equal(a.paths.n, 2);
	assert_string_equal(a.paths.v[0], "a");
	assert_string_equal(a.paths.v[1], "b");
	assert_null(a.paths.v[2]);
	assert_string_equal(a.config, "c.toml");
	assert_string_equal(a.filter, "net");
	assert_true(a.include_slow);
	assert_string_equal(a.tags.v[1], "y");
	assert_string_equal(a.no_tags.v[0], "z");
	assert_string_equal(a.tag_meta.v[0], "k=v=w");
	assert_string_equal(a.no_tag_meta.v[0], "k=");
	assert_int_equal(a.tests.n, 2);
	assert_true(a.rerun_failed);
	args_release(&a);

	a = parse("--vmm local --accel tcg --mem 2G --cpus 3 --cpu-overcommit 2.5 --jobs 4 --no-build --no-color "
		"--timeout 1.5m --fail-fast -v --json");
	assert_int_equal(a.vmm, VMM_LOCAL);
	assert_int_equal(a.accel, ACCEL_TCG);
	assert_true(a.mem == (uint64_t)2 << 30);
	assert_int_equal(a.cpus, 3);
	assert_true(a.cpu_overcommit == 2.5);
	assert_int_equal(a.jobs, 4);
	assert_true(a.no_build && a.no_color && a.fail_fast && a.verbose && a.json && !a.quiet);
	assert_true(a.timeout == 90 * (int64_t)1000000000);
	args_release(&a);
}

static void test_forms(void **state)
{
	struct args a;

	(void)state;
	a = parse("-p4");
	assert_int_equal(a.jobs, 4);
	a = parse("-p 5");
	assert_int_equal(a.jobs, 5);
	a = parse("-vp6");
	assert_true(a.verbose && a.jobs == 6);
	a = parse("-p=7 --jobs=8");
	assert_int_equal(a.jobs, 8);
	a = parse("--timeout 0");
	assert_int_equal(a.timeout, 0);
	a = parse("--tag=--odd --tag -x");
	assert_string_equal(a.tags.v[0], "--odd");
	assert_string_equal(a.tags.v[1], "-x");
	args_release(&a);
	a = parse("-- --tag list");
	assert_int_equal(a.command, CMD_RUN);
	assert_string_equal(a.paths.v[0], "--tag");
	assert_string_equal(a.paths.v[1], "list");
	args_release(&a);
	a = parse("-");
	assert_string_equal(a.paths.v[0], "-");
	args_release(&a);
}

static void test_commands(void **state)
{
	struct args a;

	(void)state;
	a = parse("--config x list a --filter b --json");
	assert_int_equal(a.command, CMD_LIST);
	assert_string_equal(a.paths.v[0], "a");
	assert_string_equal(a.filter, "b");
	assert_true(a.json);
	args_release(&a);
	a = parse("a list");
	assert_int_equal(a.command, CMD_RUN);
	assert_int_equal(a.paths.n, 2);
	args_release(&a);
	a = parse("./list");
	assert_int_equal(a.command, CMD_RUN);
	args_release(&a);
	a = parse("prepare guest");
	assert_int_equal(a.command, CMD_PREPARE);
	assert_string_equal(a.paths.v[0], "guest");
	args_release(&a);
	a = parse("fixture rebuild --accel tcg net/base");
	assert_int_equal(a.command, CMD_FIXTURE);
	assert_string_equal(a.paths.v[0], "rebuild");
	assert_string_equal(a.paths.v[1], "net/base");
	assert_int_equal(a.accel, ACCEL_TCG);
	args_release(&a);
	a = parse("list --fixtures");
	assert_true(a.command == CMD_LIST && a.fixtures);
	args_release(&a);
	assert_int_equal(parse("version").command, CMD_VERSION);
	assert_int_equal(parse("--version").command, CMD_VERSION);
	assert_int_equal(parse("list --version").command, CMD_VERSION);
	a = parse("help");
	assert_int_equal(a.command, CMD_HELP);
	assert_int_equal(a.topic, CMD_RUN);
	args_release(&a);
	a = parse("help prepare");
	assert_int_equal(a.topic, CMD_PREPARE);
	args_release(&a);
	a = parse("list -h");
	assert_int_equal(a.command, CMD_HELP);
	assert_int_equal(a.topic, CMD_LIST);
	args_release(&a);
}

static void test_clamped(void **state)
{
	struct args a = parse("--cpu-overcommit 100");

	(void)state;
	assert_true(a.cpu_overcommit == 8.0);
	assert_string_equal(a.note, "--cpu-overcommit 100 is outside 0.5-8, using 8");
	args_release(&a);
	a = parse("--cpu-overcommit 0");
	assert_true(a.cpu_overcommit == 0.5);
	args_release(&a);
}

static void test_usage(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	(void)state;
	args_usage(f, CMD_RUN);
	fclose(f);
	assert_non_null(strstr(text, "usage: provium [PATH]... [FLAGS]\n"));
	assert_non_null(strstr(text, "  provium prepare [PROFILE]\n"));
	assert_non_null(strstr(text, "-p, --jobs N"));
	assert_non_null(strstr(text, "--no-tag-meta K=V"));
	assert_non_null(strstr(text, "--vmm qemu|local"));
	free(text);
	f = open_memstream(&text, &len);
	args_usage(f, CMD_LIST);
	fclose(f);
	assert_non_null(strstr(text, "--filter STR"));
	assert_null(strstr(text, "--vmm"));
	free(text);
}

struct refusal {
	const char *line, *message;
};

static const struct refusal refusals[];

static void test_refusal(void **state)
{
	const struct refusal *r = *state;
	struct err e = ERR_INIT;
	char *argv[32];
	struct args a;

	assert_true(args_parse(split(r->line, argv), argv, &a, &e) < 0);
	assert_string_equal(e.msg, r->message);
	err_release(&e);
	args_release(&a);
}

/* ---- filters ---- */

struct selection {
	const char *line;	/* the command line */
	const char *meta;	/* a Lua expression */
	const char *reason;	/* NULL: the test runs */
};

static const struct selection selections[];

/* The test is called "boots". */
static void test_selection(void **state)
{
	const struct selection *s = *state;
	struct args a = parse(s->line);
	struct filter *f = filter_new(&a);
	lua_State *L = luaL_newstate();
	char *chunk = xasprintf("return %s", s->meta);
	const char *reason;

	assert_int_equal(luaL_loadstring(L, chunk), 0);
	lua_call(L, 0, 1);
	reason = filter_reason(f, L, "boots", -1);
	if (s->reason) {
		assert_non_null(reason);
		assert_string_equal(reason, s->reason);
	} else {
		assert_ptr_equal(reason, NULL);
	}
	assert_int_equal(lua_gettop(L), 1);
	free(chunk);
	lua_close(L);
	filter_free(f);
	args_release(&a);
}

static void test_export(void **state)
{
	struct args a = parse("--include-slow --tag a --tag b --no-tag c --tag-meta k=1 --tag-meta k=2 --tag-meta l= "
		"--no-tag-meta m=n=o --test x");

	(void)state;
	filter_export(&a);
	assert_string_equal(getenv("PROVIUM_TEST_FILTER"), "{\"include_slow\":true,\"tags\":[\"a\",\"b\"],"
		"\"no_tags\":[\"c\"],\"tag_meta\":{\"k\":[\"1\",\"2\"],\"l\":[\"\"]},\"no_tag_meta\":{\"m\":[\"n=o\"]},"
		"\"tests\":[\"x\"]}");
	args_release(&a);
	a = parse("--tag \xff");
	filter_export(&a);
	assert_non_null(strstr(getenv("PROVIUM_TEST_FILTER"), "\"tags\":[\"?\"]"));
	args_release(&a);
}

int main(void)
{
	const struct CMUnitTest fixed[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_every_flag), cmocka_unit_test(test_forms),
		cmocka_unit_test(test_commands), cmocka_unit_test(test_clamped), cmocka_unit_test(test_usage),
		cmocka_unit_test(test_export),
	};
	size_t n = sizeof(fixed) / sizeof(*fixed);
	struct CMUnitTest tests[128];
	int r;

	memcpy(tests, fixed, sizeof(fixed));
	for (const struct refusal *c = refusals; c->line; c++)
		tests[n++] = (struct CMUnitTest){ .name = c->message, .test_func = test_refusal,
			.initial_state = (void *)c };
	for (const struct selection *s = selections; s->line; s++)
		tests[n++] = (struct CMUnitTest){ .name = xasprintf("%s: %s", s->line, s->meta),
			.test_func = test_selection, .initial_state = (void *)s };
	INVARIANT(n <= sizeof(tests) / sizeof(*tests));
	r = _cmocka_run_group_tests("args", tests, n, NULL, NULL);
	for (size_t i = 0; i < n; i++)
		if (tests[i].test_func == test_selection)
			free((char *)tests[i].name);
	return r;
}

static const struct refusal refusals[] = {
	{ "--fitler x", "unknown flag `--fitler`; did you mean `--filter`?" },
	{ "--fitler=x", "unknown flag `--fitler`; did you mean `--filter`?" },
	{ "--xyzzy-plugh", "unknown flag `--xyzzy-plugh`; `provium --help` lists the flags" },
	{ "-z", "unknown flag `-z`; `provium --help` lists the flags" },
	{ "-vz", "unknown flag `-vz`; `provium --help` lists the flags" },
	{ "--tag", "--tag needs a value: --tag TAG" },
	{ "-p", "--jobs needs a value: --jobs N" },
	{ "--tag --json", "--tag needs a value, found `--json`; if that is the value, write --tag=--json" },
	{ "--json=1", "--json takes no value, found `--json=1`" },
	{ "-v -q", "-v and -q exclude each other: keep one" },
	{ "--verbose --quiet", "-v and -q exclude each other: keep one" },
	{ "--tag-meta k", "--tag-meta: `k` has no key; write --tag-meta KEY=VALUE" },
	{ "--no-tag-meta =v", "--no-tag-meta: `=v` has no key; write --no-tag-meta KEY=VALUE" },
	{ "--vmm qmeu", "--vmm: `qmeu` is not known, use qemu or local; did you mean `qemu`?" },
	{ "--accel hvf", "--accel: `hvf` is not known, use auto, kvm or tcg" },
	{ "--cpus 0", "--cpus: `0` is not a count; write a whole number from 1 to 65536" },
	{ "--cpus -1", "--cpus: `-1` is not a count; write a whole number from 1 to 65536" },
	{ "--jobs 2x", "--jobs: `2x` is not a count; write a whole number from 1 to 65536" },
	{ "--jobs 99999999999999999999", "--jobs: `99999999999999999999` is not a count; write a whole number from 1 to "
	  "65536" },
	{ "--cpu-overcommit nan", "--cpu-overcommit: `nan` is not a factor; write a number between 0.5 and 8" },
	{ "--cpu-overcommit two", "--cpu-overcommit: `two` is not a factor; write a number between 0.5 and 8" },
	{ "--mem 0", "--mem: `0` leaves no memory for any VM; write a size such as 4G" },
	{ "list --tests", "unknown flag `--tests`; did you mean `--test`?" },
	{ "list --fail-fast", "--fail-fast does not belong to provium list; `provium help list` lists its flags" },
	{ "--fail-fast prepare", "--fail-fast does not belong to provium prepare; `provium help prepare` lists its flags" },
	{ "prepare a b", "provium prepare takes one profile, found `b` after `a`" },
	{ "version x", "provium version takes no argument, found `x`" },
	{ "help lst", "there is no command `lst`; did you mean `list`?" },
	{ "help frobnicate", "there is no command `frobnicate`; `provium --help` lists them" },
	{ "fixture", "provium fixture needs a verb: list, build, rebuild, clean or stale" },
	{ "fixture buld x", "provium fixture: `buld` is not known, use list, build, rebuild, clean or stale; did you mean "
	  "`build`?" },
	{ "fixture build", "provium fixture build needs a fixture: its file below a root, without .fixture.lua" },
	{ "fixture rebuild a b", "provium fixture rebuild takes one fixture, found `b`" },
	{ "fixture list a", "provium fixture list takes no argument, found `a`" },
	{ "fixture list --tag x", "--tag does not belong to provium fixture; `provium help fixture` lists its flags" },
	{ "prepare --fixtures", "--fixtures does not belong to provium prepare; `provium help prepare` lists its flags" },
	{ "help list prepare", "provium help takes one command, found `prepare`" },
	{ NULL, NULL },
};

static const struct selection selections[] = {
	{ "", "nil", NULL },
	{ "", "{}", NULL },
	{ "", "{skip = false}", NULL },
	{ "", "{skip = true}", "skipped by meta.skip" },
	{ "", "{skip = 'later'}", "later" },
	{ "--include-slow", "{skip = 'first', slow = true}", "first" },
	{ "", "{slow = true}", "filtered: slow (run with --include-slow)" },
	{ "", "{slow = false}", NULL },
	{ "--include-slow", "{slow = true}", NULL },
	{ "--tag smoke", "{tags = 'smoke'}", NULL },
	{ "--tag smoke", "{tags = {'x', 'smoke'}}", NULL },
	{ "--tag smoke", "{tags = 'smoke2'}", "filtered: did not match --tag (smoke)" },
	{ "--tag smoke", "nil", "filtered: did not match --tag (smoke)" },
	{ "--tag smoke --tag net", "{tags = {}}", "filtered: did not match --tag (smoke, net)" },
	{ "--tag smoke --tag net", "{tags = {'net'}}", NULL },
	{ "--tag 1", "{tags = {1}}", "filtered: did not match --tag (1)" },
	{ "--no-tag net", "{tags = {'a', 'net'}}", "filtered: matched --no-tag (net)" },
	{ "--no-tag net", "{tags = 'a'}", NULL },
	{ "--tag a --no-tag b", "{tags = {'a', 'b'}}", "filtered: matched --no-tag (b)" },
	{ "--tag a --no-tag b", "{tags = {'c'}}", "filtered: did not match --tag (a)" },
	{ "--tag-meta spec=4.2", "{spec = '4.2'}", NULL },
	{ "--tag-meta spec=4.2", "{spec = {'1', '4.2'}}", NULL },
	{ "--tag-meta spec=4.2", "{spec = '4.3'}", "filtered: did not match --tag-meta (spec=4.2)" },
	{ "--tag-meta n=5", "{n = 5}", "filtered: did not match --tag-meta (n=5)" },
	{ "--tag-meta a=1 --tag-meta a=2", "{a = '2'}", NULL },
	{ "--tag-meta a=1 --tag-meta b=2", "{a = '1'}", "filtered: did not match --tag-meta (b=2)" },
	{ "--tag-meta a=1 --tag-meta b=2 --tag-meta a=3", "{b = '2'}", "filtered: did not match --tag-meta (a=1, a=3)" },
	{ "--tag-meta a=1 --tag-meta b=2", "{a = '1', b = {'2'}}", NULL },
	{ "--tag-meta a=x=y", "{a = 'x=y'}", NULL },
	{ "--tag-meta a= ", "{a = ''}", NULL },
	{ "--no-tag-meta a=1", "{a = {'0', '1'}}", "filtered: matched --no-tag-meta (a=1)" },
	{ "--no-tag-meta a=1", "{}", NULL },
	{ "--tag-meta b=2 --no-tag-meta a=1", "{a = '1', b = '2'}", "filtered: matched --no-tag-meta (a=1)" },
	{ "--test boots", "{}", NULL },
	{ "--test boot", "{}", "filtered: did not match --test (boot)" },
	{ "--test a --test boots", "nil", NULL },
	{ "--test boots --tag x", "{}", "filtered: did not match --tag (x)" },
	{ NULL, NULL, NULL },
};
