/*
 * Durations, sizes and nearest names (src/loop/units.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <string.h>

#include "loop/loop.h"

#define MS INT64_C(1000000)

static void durations_are_parsed(void **state)
{
	static const struct { const char *text; int64_t ns; } cases[] = {
		{ "0", 0 }, { "1", 1000 * MS }, { "1.5", 1500 * MS }, { ".5", 500 * MS }, { "2.", 2000 * MS },
		{ "500ms", 500 * MS }, { "0.5ms", MS / 2 }, { "30s", 30000 * MS }, { "1.5s", 1500 * MS },
		{ "2m", 120000 * MS }, { "2h", 7200000 * MS }, { "1e3", 1000000 * MS }, { "1e-3s", MS },
		{ "0.1", 100 * MS },
	};
	struct err e = ERR_INIT;
	int64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ns = -1;
		assert_int_equal(units_parse_duration(cases[i].text, &ns, &e), 0);
		assert_int_equal(ns, cases[i].ns);
	}
}

static void bad_durations_name_the_value(void **state)
{
	static const struct { const char *text; int code; const char *message; } cases[] = {
		{ "", -EINVAL, "`` is no valid duration: it is empty" },
		{ "abc", -EINVAL, "`abc` is no valid duration: it does not begin with a number" },
		{ "-1s", -EINVAL, "`-1s` is no valid duration: it is negative" },
		{ "5x", -EINVAL, "`5x` is no valid duration: unknown suffix" },
		{ "5 s", -EINVAL, "`5 s` is no valid duration: unknown suffix" },
		{ "5M", -EINVAL, "unknown suffix" }, { "5sec", -EINVAL, "unknown suffix" },
		{ "0x10", -EINVAL, "unknown suffix" }, { "nan", -EINVAL, "does not begin" },
		{ "inf", -EINVAL, "does not begin" }, { "+1", -EINVAL, "does not begin" },
		{ ".", -EINVAL, "does not begin" }, { "1e", -EINVAL, "unknown suffix" },
		{ "1e999", -ERANGE, "`1e999` is no valid duration: it is too large" },
		{ "999999999h", -ERANGE, "too large" },
	};
	struct err e = ERR_INIT;
	int64_t ns = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(units_parse_duration(cases[i].text, &ns, &e), cases[i].code);
		assert_non_null(strstr(e.msg, cases[i].message));
		assert_non_null(strstr(e.msg, "(seconds, or a number with ms, s, m or h)"));
		assert_int_equal(ns, 7);
	}
	err_release(&e);
}

static void numbers_are_seconds(void **state)
{
	struct err e = ERR_INIT;
	int64_t ns = 0;

	(void)state;
	assert_int_equal(units_duration_from_seconds(0.25, &ns, &e), 0);
	assert_int_equal(ns, 250 * MS);
	assert_int_equal(units_duration_from_seconds(-0.0, &ns, &e), 0);
	assert_int_equal(units_duration_from_seconds(NAN, &ns, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "it is not a number"));
	assert_int_equal(units_duration_from_seconds(INFINITY, &ns, &e), -ERANGE);
	assert_non_null(strstr(e.msg, "`inf` is no valid duration: it is infinite"));
	assert_int_equal(units_duration_from_seconds(-1.5, &ns, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "`-1.5` is no valid duration: it is negative"));
	assert_int_equal(units_duration_from_seconds(1e300, &ns, &e), -ERANGE);
	err_release(&e);
}

static void sizes_are_parsed(void **state)
{
	static const struct { const char *text; uint64_t bytes; } cases[] = {
		{ "0", 0 }, { "512", 512 }, { "1K", 1024 }, { "1k", 1024 }, { "512M", UINT64_C(512) << 20 },
		{ "1.5G", UINT64_C(1536) << 20 }, { "2t", UINT64_C(2) << 40 }, { "0.1K", 102 },
		{ "9007199254740993", UINT64_C(9007199254740993) },	/* no double holds it */
		{ "9223372036854774784", UINT64_C(9223372036854774784) },
	};
	struct err e = ERR_INIT;
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bytes = 1;
		assert_int_equal(units_parse_size(cases[i].text, &bytes, &e), 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void bad_sizes_name_the_value(void **state)
{
	static const struct { const char *text; int code; const char *message; } cases[] = {
		{ "", -EINVAL, "it is empty" }, { "-1", -EINVAL, "`-1` is no valid size: it is negative" },
		{ "12MiB", -EINVAL, "`12MiB` is no valid size: unknown suffix" },
		{ "1.5", -EINVAL, "`1.5` is no valid size: it is no whole number of bytes" },
		{ "9223372036854775808", -ERANGE, "it is too large" },
		{ "99999999T", -ERANGE, "it is too large" },
		{ "G", -EINVAL, "does not begin" },
	};
	struct err e = ERR_INIT;
	uint64_t bytes = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(units_parse_size(cases[i].text, &bytes, &e), cases[i].code);
		assert_non_null(strstr(e.msg, cases[i].message));
		assert_int_equal(bytes, 7);
	}
	assert_int_equal(units_size_from_number(4096, &bytes, &e), 0);
	assert_int_equal(bytes, 4096);
	assert_int_equal(units_size_from_number(1.5, &bytes, &e), -EINVAL);
	assert_int_equal(units_size_from_number(NAN, &bytes, &e), -EINVAL);
	assert_int_equal(units_size_from_number(-1, &bytes, &e), -EINVAL);
	assert_int_equal(units_size_from_number(1e19, &bytes, &e), -ERANGE);
	err_release(&e);
}

static void sizes_are_formatted(void **state)
{
	static const struct { uint64_t bytes; const char *text; } cases[] = {
		{ 0, "0 B" }, { 1023, "1023 B" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" },
		{ (1u << 20) - 1, "1 MiB" }, { 512u << 20, "512 MiB" }, { UINT64_C(1536) << 20, "1.5 GiB" },
		{ UINT64_C(3) << 40, "3 TiB" }, { UINT64_MAX, "16 EiB" },
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(units_format_size(cases[i].bytes, buf, sizeof(buf)), cases[i].text);
}

static void the_nearest_name_is_found(void **state)
{
	static const char long_word[] =
		"a-word-that-is-much-longer-than-any-name-could-ever-be-in-any-of-the-lists";
	static const char *const names[] = { "timeout", "fail-fast", "filter", "jobs", "cwd", "env", NULL };
	static const char *const empty[] = { NULL };

	(void)state;
	assert_string_equal(nearest_name("timout", names), "timeout");
	assert_string_equal(nearest_name("tiemout", names), "timeout");
	assert_string_equal(nearest_name("TIMEOUT", names), "timeout");
	assert_string_equal(nearest_name("fail_fast", names), "fail-fast");
	assert_string_equal(nearest_name("fail", names), "fail-fast");
	assert_string_equal(nearest_name("job", names), "jobs");
	assert_string_equal(nearest_name("evn", names), "env");
	assert_null(nearest_name("colour", names));
	assert_null(nearest_name("x", names));
	assert_null(nearest_name("", names));
	assert_null(nearest_name("timeout", empty));
	assert_null(nearest_name(long_word, names));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations_are_parsed),
		cmocka_unit_test(bad_durations_name_the_value),
		cmocka_unit_test(numbers_are_seconds),
		cmocka_unit_test(sizes_are_parsed),
		cmocka_unit_test(bad_sizes_name_the_value),
		cmocka_unit_test(sizes_are_formatted),
		cmocka_unit_test(the_nearest_name_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
