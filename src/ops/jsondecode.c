/*
 * json.decode.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/value.h"

struct decoder {
	lua_State *L;
	const char *start, *p, *end;
	struct out scratch;	/* strings with escapes */
	bool keep_null;
	int depth;
};

static void decode_value(struct decoder *d);

static void decode_fail(struct decoder *d, const char *what)
{
	size_t line = 1, column = 1;

	for (const char *p = d->start; p < d->p; p++) {
		if (*p == '\n') {
			line++;
			column = 1;
		} else if ((*p & 0xc0) != 0x80) {
			column++;
		}
	}
	lua_raise(d->L, "json.decode: line %zu, column %zu: %s", line, column, what);
}

static void decode_expected(struct decoder *d, const char *expected)
{
	unsigned char c = d->p < d->end ? (unsigned char)*d->p : 0;
	char what[120];

	if (d->p >= d->end)
		snprintf(what, sizeof(what), "expected %s, got the end of the text", expected);
	else if (c >= 0x20 && c < 0x7f)
		snprintf(what, sizeof(what), "expected %s, got '%c'", expected, c);
	else
		snprintf(what, sizeof(what), "expected %s, got byte 0x%02x", expected, c);
	decode_fail(d, what);
}

static void skip_space(struct decoder *d)
{
	while (d->p < d->end && (*d->p == ' ' || *d->p == '\n' || *d->p == '\t' || *d->p == '\r'))
		d->p++;
}

static bool next_is(struct decoder *d, char c)
{
	skip_space(d);
	if (d->p >= d->end || *d->p != c)
		return false;
	d->p++;
	return true;
}

static unsigned decode_hex4(struct decoder *d)
{
	unsigned code = 0;

	for (int i = 0; i < 4; i++, d->p++) {
		char c = d->p < d->end ? *d->p : 0;

		if (c >= '0' && c <= '9')
			code = code * 16 + (unsigned)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			code = code * 16 + (unsigned)((c | 32) - 'a') + 10;
		else
			decode_expected(d, "four hexadecimal digits after \\u");
	}
	return code;
}

static void write_utf8(struct out *o, unsigned code)
{
	char b[4];

	if (code < 0x80) {
		out_char(o, (char)code);
	} else if (code < 0x800) {
		b[0] = (char)(0xc0 | code >> 6);
		b[1] = (char)(0x80 | (code & 0x3f));
		out_write(o, b, 2);
	} else if (code < 0x10000) {
		b[0] = (char)(0xe0 | code >> 12);
		b[1] = (char)(0x80 | (code >> 6 & 0x3f));
		b[2] = (char)(0x80 | (code & 0x3f));
		out_write(o, b, 3);
	} else {
		b[0] = (char)(0xf0 | code >> 18);
		b[1] = (char)(0x80 | (code >> 12 & 0x3f));
		b[2] = (char)(0x80 | (code >> 6 & 0x3f));
		b[3] = (char)(0x80 | (code & 0x3f));
		out_write(o, b, 4);
	}
}

/* After "\u": one code, from two escapes when it is a surrogate pair. */
static void decode_unicode(struct decoder *d)
{
	const char *at = d->p - 2;
	unsigned code = decode_hex4(d), low;

	if (code >= 0xd800 && code <= 0xdbff && d->end - d->p >= 2 && d->p[0] == '\\' && d->p[1] == 'u') {
		d->p += 2;
		low = decode_hex4(d);
		if (low >= 0xdc00 && low <= 0xdfff)
			code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	}
	if (code >= 0xd800 && code <= 0xdfff) {
		d->p = at;
		decode_fail(d, "half of a surrogate pair");
	}
	write_utf8(&d->scratch, code);
}

static void decode_escape(struct decoder *d)
{
	static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
	const char *at;

	d->p++;
	at = d->p < d->end && *d->p ? strchr(letters, *d->p) : NULL;
	if (at) {
		d->p++;
		out_char(&d->scratch, bytes[at - letters]);
	} else if (d->p < d->end && *d->p == 'u') {
		d->p++;
		decode_unicode(d);
	} else {
		decode_expected(d, "one of \" \\ / b f n r t u after a backslash");
	}
}

/* Up to the next quote, backslash or bad byte. */
static void skip_plain(struct decoder *d)
{
	size_t n;

	while (d->p < d->end && *d->p != '"' && *d->p != '\\') {
		if ((unsigned char)*d->p < 0x20)
			decode_fail(d, "a control character in a string; write it as an escape");
		n = utf8_sequence((const unsigned char *)d->p, (const unsigned char *)d->end);
		if (n == 0)
			decode_fail(d, "a string that is not UTF-8");
		d->p += n;
	}
}

/* Pushes the string; d->p is behind the opening quote. */
static void decode_string(struct decoder *d)
{
	const char *from = d->p;

	skip_plain(d);
	if (d->p < d->end && *d->p == '"') {
		lua_pushlstring(d->L, from, (size_t)(d->p++ - from));
		return;
	}
	d->scratch.len = 0;
	for (;;) {
		out_write(&d->scratch, from, (size_t)(d->p - from));
		if (d->p >= d->end)
			decode_expected(d, "a closing '\"'");
		if (*d->p == '"')
			break;
		decode_escape(d);
		from = d->p;
		skip_plain(d);
	}
	d->p++;
	lua_pushlstring(d->L, d->scratch.p, d->scratch.len);
}

static bool skip_digits(struct decoder *d)
{
	const char *from = d->p;

	while (d->p < d->end && *d->p >= '0' && *d->p <= '9')
		d->p++;
	return d->p > from;
}

/* Exact in 64 bits, above 2^63 wrapping to negative; on LuaJIT a double. False when it does not fit. */
static bool push_integer(lua_State *L, const char *p, const char *end)
{
	bool negative = *p == '-';
	uint64_t n = 0;

	for (p += negative; p < end; p++) {
		if (__builtin_mul_overflow(n, (uint64_t)10, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return false;
	}
	if (negative && n > (uint64_t)1 << 63)
		return false;
#if LUA_VERSION_NUM < 504
	lua_pushnumber(L, negative ? -(lua_Number)n : (lua_Number)n);
#else
	lua_pushinteger(L, (lua_Integer)(negative ? -n : n));
#endif
	return true;
}

static void decode_number(struct decoder *d)
{
	const char *from = d->p;
	bool integer = true;
	double n;

	if (*d->p == '-')
		d->p++;
	if (d->p < d->end && *d->p == '0')
		d->p++;
	else if (!skip_digits(d))
		decode_expected(d, "a digit");
	if (d->p < d->end && *d->p == '.') {
		integer = false;
		d->p++;
		if (!skip_digits(d))
			decode_expected(d, "a digit after the decimal point");
	}
	if (d->p < d->end && (*d->p | 32) == 'e') {
		integer = false;
		d->p++;
		if (d->p < d->end && (*d->p == '+' || *d->p == '-'))
			d->p++;
		if (!skip_digits(d))
			decode_expected(d, "a digit in the exponent");
	}
	if (integer && push_integer(d->L, from, d->p))
		return;
	n = strtod(from, NULL);
	if (!isfinite(n)) {
		d->p = from;
		decode_fail(d, "a number too large for a double");
	}
	lua_pushnumber(d->L, n);
}

static void decode_word(struct decoder *d, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(d->end - d->p) < n || memcmp(d->p, word, n))
		decode_expected(d, "a value");
	d->p += n;
	if (*word == 'n' && d->keep_null)
		value_push_null(d->L);
	else if (*word == 'n')
		lua_pushnil(d->L);
	else
		lua_pushboolean(d->L, *word == 't');
}

static void decode_array(struct decoder *d)
{
	lua_State *L = d->L;
	int n = 0;
	bool any = false;

	lua_newtable(L);
	if (next_is(d, ']')) {
		value_mark_array(L, -1);
		return;
	}
	do {
		decode_value(d);
		any |= !lua_isnil(L, -1);
		lua_rawseti(L, -2, ++n);
	} while (next_is(d, ','));
	if (!next_is(d, ']'))
		decode_expected(d, "',' or ']'");
	if (!any)
		value_mark_array(L, -1);
}

static void decode_object(struct decoder *d)
{
	lua_State *L = d->L;

	lua_newtable(L);
	if (next_is(d, '}'))
		return;
	do {
		if (!next_is(d, '"'))
			decode_expected(d, "a key in double quotes");
		decode_string(d);
		if (!next_is(d, ':'))
			decode_expected(d, "':'");
		decode_value(d);
		lua_rawset(L, -3);
	} while (next_is(d, ','));
	if (!next_is(d, '}'))
		decode_expected(d, "',' or '}'");
}

static void decode_nested(struct decoder *d, void (*decode)(struct decoder *d))
{
	char what[60];

	if (d->depth == JSON_DEPTH_MAX) {
		snprintf(what, sizeof(what), "nested deeper than %d levels", JSON_DEPTH_MAX);
		decode_fail(d, what);
	}
	luaL_checkstack(d->L, 8, "json.decode");
	d->p++;
	d->depth++;
	decode(d);
	d->depth--;
}

/* Pushes the next value. */
static void decode_value(struct decoder *d)
{
	skip_space(d);
	switch (d->p < d->end ? *d->p : 0) {
	case '{':
		decode_nested(d, decode_object);
		break;
	case '[':
		decode_nested(d, decode_array);
		break;
	case '"':
		d->p++;
		decode_string(d);
		break;
	case 't':
		decode_word(d, "true");
		break;
	case 'f':
		decode_word(d, "false");
		break;
	case 'n':
		decode_word(d, "null");
		break;
	case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
		decode_number(d);
		break;
	default:
		decode_expected(d, "a value");
	}
}

int json_decode(lua_State *L)
{
	static const char *const options[] = { "null", NULL };
	struct decoder d = { .L = L };
	size_t len;

	if (lua_type(L, 1) != LUA_TSTRING)
		lua_raise(L, "expected json.decode(string [, {null=}]), got a %s", luaL_typename(L, 1));
	if (opt_check(L, 2, "json.decode", options))
		opt_bool(L, 2, "json.decode", "null", &d.keep_null);
	lua_settop(L, 2);
	d.start = d.p = lua_tolstring(L, 1, &len);
	d.end = d.start + len;
	out_open(&d.scratch, L);
	decode_value(&d);
	skip_space(&d);
	if (d.p < d.end)
		decode_expected(&d, "the end of the text");
	return 1;
}
