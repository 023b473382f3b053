/*
 * A Lua lexer, as much of one as is needed to tell literals from comments and strings.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "run/scan.h"

/* Owned by the caller of scan_new. */
struct scan {
	const char *at, *end;
	int line;
	struct scan_token token;
};

struct scan *scan_new(const char *text, size_t len)
{
	struct scan *s = xcalloc(1, sizeof(*s));

	s->at = text;
	s->end = text + len;
	s->line = 1;
	if (len > 0 && *text == '#')	/* "#!/usr/bin/env provium" */
		while (s->at < s->end && *s->at != '\n')
			s->at++;
	return s;
}

void scan_free(struct scan *s)
{
	if (s)
		free(s->token.string);
	free(s);
}

static bool name_char(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static void count_lines(struct scan *s, const char *from, const char *to)
{
	for (; from < to; from++)
		s->line += *from == '\n';
}

/* The level of a long bracket ("[[" is 0, "[=[" 1, ...), -1 when none opens here. */
static int long_level(const struct scan *s)
{
	const char *p = s->at + 1;

	if (s->at >= s->end || *s->at != '[')
		return -1;
	while (p < s->end && *p == '=')
		p++;
	return p < s->end && *p == '[' ? (int)(p - s->at - 1) : -1;
}

/* Moves past a long bracket; *body and *len are what it holds. An unclosed one reaches to the end. */
static void take_long(struct scan *s, int level, const char **body, size_t *len)
{
	const char *start = s->at + level + 2, *p = start, *q;

	for (; p < s->end; p++) {
		for (q = p + 1; *p == ']' && q < s->end && *q == '='; q++)
			;
		if (*p == ']' && q < s->end && *q == ']' && q - p - 1 == level)
			break;
	}
	*body = start;
	*len = p - start;
	count_lines(s, s->at, p);
	s->at = p < s->end ? p + level + 2 : s->end;
}

static void skip_comment(struct scan *s)
{
	const char *body;
	size_t len;
	int level;

	s->at += 2;
	level = long_level(s);
	if (level >= 0) {
		take_long(s, level, &body, &len);
		return;
	}
	while (s->at < s->end && *s->at != '\n')
		s->at++;
}

static void skip_space(struct scan *s)
{
	while (s->at < s->end) {
		if (isspace((unsigned char)*s->at))
			s->line += *s->at++ == '\n';
		else if (s->end - s->at >= 2 && s->at[0] == '-' && s->at[1] == '-')
			skip_comment(s);
		else
			return;
	}
}

static size_t put_utf8(char *out, unsigned long code)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xC0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xE0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3F));
		out[2] = (char)(0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | (code >> 18 & 0x07));
	out[1] = (char)(0x80 | (code >> 12 & 0x3F));
	out[2] = (char)(0x80 | (code >> 6 & 0x3F));
	out[3] = (char)(0x80 | (code & 0x3F));
	return 4;
}

/* Decodes the escape at s->at (past the backslash) into out, which has room for 4 bytes. */
static size_t take_escape(struct scan *s, char *out)
{
	static const char letters[] = "abfnrtv", values[] = "\a\b\f\n\r\t\v";
	const char *p = s->at, *letter;
	unsigned long code = 0;
	int n;

	if (*p == 'z') {
		for (p++; p < s->end && isspace((unsigned char)*p); p++)
			s->line += *p == '\n';
		s->at = p;
		return 0;
	}
	if (*p == 'x' && s->end - p > 2 && isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2])) {
		char digits[] = { p[1], p[2], '\0' };

		out[0] = (char)strtoul(digits, NULL, 16);
		s->at = p + 3;
		return 1;
	}
	if (*p == 'u' && s->end - p > 2 && p[1] == '{') {
		for (p += 2; p < s->end && isxdigit((unsigned char)*p) && code < 0x110000; p++)
			code = code * 16 + (isdigit((unsigned char)*p) ? *p - '0' : (*p | 32) - 'a' + 10);
		s->at = p < s->end && *p == '}' ? p + 1 : p;
		return put_utf8(out, code);
	}
	if (isdigit((unsigned char)*p)) {
		for (n = 0; n < 3 && p < s->end && isdigit((unsigned char)*p); n++)
			code = code * 10 + (unsigned long)(*p++ - '0');
		out[0] = (char)code;
		s->at = p;
		return 1;
	}
	letter = memchr(letters, *p, sizeof(letters) - 1);
	out[0] = letter ? values[letter - letters] : *p;
	s->line += *p == '\n';
	s->at = p + 1;
	return 1;
}

static void take_quoted(struct scan *s)
{
	struct scan_token *t = &s->token;
	char quote = *s->at++;
	size_t size = 64;

	t->string = xmalloc(size);
	while (s->at < s->end && *s->at != quote && *s->at != '\n') {
		if (t->string_len + 4 >= size)
			t->string = xrealloc(t->string, size *= 2);
		if (*s->at != '\\' || s->at + 1 == s->end) {
			t->string[t->string_len++] = *s->at++;
			continue;
		}
		s->at++;
		t->string_len += take_escape(s, t->string + t->string_len);
	}
	if (s->at < s->end && *s->at == quote)
		s->at++;
	t->string[t->string_len] = '\0';
}

static void take_long_string(struct scan *s, int level)
{
	struct scan_token *t = &s->token;
	const char *body;
	size_t len;

	take_long(s, level, &body, &len);
	if (len > 0 && *body == '\r')
		body++, len--;
	if (len > 0 && *body == '\n')
		body++, len--;
	t->string = xmalloc(len + 1);
	memcpy(t->string, body, len);
	t->string[len] = '\0';
	t->string_len = len;
}

/* A number or a name; "1e-5" and "0x1p+3" are one token. */
static void take_word(struct scan *s)
{
	bool number = isdigit((unsigned char)*s->at) || *s->at == '.';

	for (s->at++; s->at < s->end; s->at++) {
		if (name_char(*s->at) || (number && *s->at == '.'))
			continue;
		if (!number || (*s->at != '+' && *s->at != '-') || !strchr("eEpP", s->at[-1]))
			break;
	}
	s->token.kind = number ? SCAN_NUMBER : SCAN_NAME;
}

const struct scan_token *scan_next(struct scan *s)
{
	struct scan_token *t = &s->token;
	int level;

	free(t->string);
	memset(t, 0, sizeof(*t));
	skip_space(s);
	t->text = s->at;
	t->line = s->line;
	if (s->at == s->end)
		return t;
	level = long_level(s);
	t->kind = SCAN_STRING;
	if (*s->at == '"' || *s->at == '\'') {
		take_quoted(s);
	} else if (level >= 0) {
		take_long_string(s, level);
	} else if (name_char(*s->at) ||
		   (*s->at == '.' && s->end - s->at > 1 && isdigit((unsigned char)s->at[1]))) {
		take_word(s);
	} else {
		t->kind = SCAN_SYMBOL;
		s->at++;
	}
	t->len = s->at - t->text;
	return t;
}
