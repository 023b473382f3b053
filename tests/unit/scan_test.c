/*
 * The Lua lexer, and which profiles test files name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/scan.h"

/* One line for a source's tokens: kind letter and text, strings by value. */
static char *show(const char *text)
{
	struct scan *s = scan_new(text, strlen(text));
	const struct scan_token *t;
	char *line = xstrdup(""), *longer;

	while ((t = scan_next(s))->kind != SCAN_END) {
		longer = xasprintf("%s%s%c:%.*s", line, *line ? " " : "", " NS#."[t->kind],
			(int)(t->kind == SCAN_STRING ? t->string_len : t->len),
			t->kind == SCAN_STRING ? t->string : t->text);
		free(line);
		line = longer;
	}
	scan_free(s);
	return line;
}

struct lexed {
	const char *text, *tokens;
};

static const struct lexed lexed[] = {
	{ "", "" },
	{ "local x = 1", "N:local N:x .:= #:1" },
	{ "a.b:c()", "N:a .:. N:b .:: N:c .:( .:)" },
	{ "'x' \"y\"", "S:x S:y" },
	{ "'a\"b' \"a'b\"", "S:a\"b S:a'b" },
	{ "'\\n\\t\\\\\\'\\65\\x42\\u{43}\\z  \n D'", "S:\n\t\\'ABCD" },
	{ "'\\0651'", "S:A1" },
	{ "'\\u{20AC}'", "S:€" },
	{ "[[x]] [==[a]]b]=]c]==]", "S:x S:a]]b]=]c" },
	{ "[[\nx\n]]", "S:x\n" },
	{ "[[\r\nx]]", "S:x" },
	{ "a[b[1]]", "N:a .:[ N:b .:[ #:1 .:] .:]" },
	{ "-- 'x'\ny", "N:y" },
	{ "--[[ 'x'\n ]] y", "N:y" },
	{ "--[==[ ]] ]==] y", "N:y" },
	{ "--[= 'x'\ny", "N:y" },
	{ "a - -b", "N:a .:- .:- N:b" },
	{ "1.5e-3 0x1p+4 3..4", "#:1.5e-3 #:0x1p+4 #:3..4" },
	{ "'a'..'b'", "S:a .:. .:. S:b" },
	{ "#!/usr/bin/env provium\nx", "N:x" },
	{ "#t", "" },
	{ "x #t", "N:x .:# N:t" },
	{ "'open", "S:open" },
	{ "'open\nx", "S:open N:x" },
	{ "[[open", "S:open" },
	{ "--[[open", "" },
	{ "'\\", "S:\\" },
	{ "\xff", ".:\xff" },
	{ "'a\\\nb'", "S:a\nb" },
};

static void test_lexer(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(lexed) / sizeof(*lexed); i++) {
		char *got = show(lexed[i].text);

		assert_string_equal(got, lexed[i].tokens);
		free(got);
	}
}

static void test_lines(void **state)
{
	const char *text = "a\n--[[\n\n]] b [[\n]] c '\\\n' d\n'\\z\n' e";
	struct scan *s = scan_new(text, strlen(text));
	static const int lines[] = { 1, 4, 4, 5, 5, 6, 7, 8 };

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		assert_int_equal(scan_next(s)->line, lines[i]);
	assert_int_equal(scan_next(s)->kind, SCAN_END);
	scan_free(s);
}

/* ---- profiles ---- */

static void put(const char *dir, const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	struct err e = ERR_INIT;
	char *slash = strrchr(path, '/');
	FILE *f;

	*slash = '\0';
	assert_int_equal(make_dirs(path, 0755, &e), 0);
	*slash = '/';
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

struct naming {
	const char *source, *profiles;	/* profiles: joined by spaces, "?" when it cannot be told */
};

static const struct naming namings[] = {
	{ "", "" },
	{ "provium:vm('a', 'guest'):boot()", "guest" },
	{ "provium:vm('a', \"guest\", {memory='1G'}) provium.vm('b', [[tiny]])", "guest tiny" },
	{ "local vm = provium:vm('a', 'unknown')", "" },
	{ "provium:vm('guest')", "" },
	{ "provium:vm'guest'", "" },
	{ "-- provium:vm('a', 'guest')\nprint('provium:vm(\"a\", \"tiny\")')", "" },
	{ "local p = 'guest' provium:vm('a', p)", "?" },
	{ "provium:vm('a', 'gu' .. 'est')", "?" },
	{ "provium:vm(('x'):rep(2), 'guest')", "guest" },
	{ "provium:vm(name(1, 2), 'guest')", "guest" },
	{ "provium.create('guest')", "guest" },
	{ "provium.create 'guest'", "guest" },
	{ "provium.create(profile)", "?" },
	{ "coroutine.create(function() end)", "" },
	{ "local vm = f() vm:run('x') self.vm:run('x') self.vm.x = 1 self.vm = nil", "" },
	{ "local make = provium.vm make('a', 'guest')", "?" },
	{ "provium['vm'](provium, 'a', 'guest')", "?" },
	{ "print('x' .. vm)", "" },
	{ "require('helpers.boot')", "tiny" },
	{ "require 'helpers.dir'", "guest" },
	{ "require('no.such.module')", "" },
	{ "require(x)", "?" },
	{ "pcall(require, 'helpers.boot')", "?" },
	{ "dofile('nowhere.lua')", "?" },
	{ "dofile('helpers/boot.lua')", "tiny" },
	{ "load('return 1')()", "?" },
	{ "package.loaded.x = nil t.load = 1", "" },
	{ "provium:vm_fixture('base')", "guest" },
	{ "provium.lab_fixture('base')", "guest" },
	{ "provium:vm_fixture('none')", "" },
	{ "provium:vm_fixture(x)", "?" },
	{ "require 'helpers.loop'", "tiny" },
};

static char *named(const char *dir)
{
	static const char *const known[] = { "guest", "other", "tiny", NULL };
	char *file = xasprintf("%s/x.test.lua", dir), *line = xstrdup(""), *longer;
	const char **names = scan_profiles((const char *const []){ file, NULL },
		(const char *const []){ dir, NULL }, known);

	for (const char **n = names; n && *n; n++) {
		longer = xasprintf("%s%s%s", line, *line ? " " : "", *n);
		free(line);
		line = longer;
	}
	if (!names) {
		free(line);
		line = xstrdup("?");
	}
	free(names);
	free(file);
	return line;
}

static void test_profiles(void **state)
{
	char dir[] = "/tmp/provium-scan-XXXXXX", *command, *got;

	(void)state;
	assert_non_null(mkdtemp(dir));
	put(dir, "helpers/boot.lua", "return function() return provium:vm('x', 'tiny') end");
	put(dir, "helpers/dir/init.lua", "provium:vm('x', 'guest')");
	put(dir, "helpers/loop.lua", "require 'helpers.loop' require 'helpers.boot'");
	put(dir, "base.fixture.lua", "local vm = provium:vm('x', 'guest') return vm:snapshot()");
	for (size_t i = 0; i < sizeof(namings) / sizeof(*namings); i++) {
		put(dir, "x.test.lua", namings[i].source);
		got = named(dir);
		if (strcmp(got, namings[i].profiles))
			fail_msg("%s: expected %s, got %s", namings[i].source, namings[i].profiles, got);
		free(got);
	}
	command = xasprintf("rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
	got = named(dir);
	assert_string_equal(got, "?");		/* a file that cannot be read */
	free(got);
	free(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lexer), cmocka_unit_test(test_lines), cmocka_unit_test(test_profiles),
	};

	return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
