/*
 * Durations, sizes and names as users write them, and names that nobody has.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <strings.h>

#include "loop/loop.h"

#define QUOTE_MAX 60		/* bytes of a bad value that an error repeats */
#define NAME_MAX_LEN 64

struct unit {
	const char *suffix;
	double factor;
};

/* What one kind of value is called, and what it may look like. */
struct quantity {
	const char *noun;
	const char *hint;
	const struct unit *units;	/* ends with a NULL suffix */
	bool any_case;			/* of the suffix */
	double max;
};

static const struct quantity duration, size;

static int refuse(const struct quantity *q, int code, const char *text, const char *why, struct err *e)
{
	return err_set(e, code, "`%.*s` is no valid %s: %s (%s)", QUOTE_MAX, text, q->noun, why, q->hint);
}

/* The factor of a suffix, 0 when it is unknown. */
static double unit_factor(const struct quantity *q, const char *suffix)
{
	if (!*suffix)
		return 1;
	for (const struct unit *u = q->units; u->suffix; u++)
		if ((q->any_case ? strcasecmp : strcmp)(u->suffix, suffix) == 0)
			return u->factor;
	return 0;
}

/* The end of the decimal number text begins with, text itself when it begins with none. Stricter than
 * strtod, which also takes hexadecimal, "inf" and "nan". */
static const char *number_end(const char *text)
{
	const char *p = text, *digits;
	size_t n = strspn(p, "0123456789");

	p += n;
	if (*p == '.') {
		digits = p + 1;
		n += strspn(digits, "0123456789");
		p = digits + strspn(digits, "0123456789");
	}
	if (n == 0)
		return text;
	if (*p == 'e' || *p == 'E') {
		digits = p[1] == '+' || p[1] == '-' ? p + 2 : p + 1;
		if (isdigit((unsigned char)*digits))
			p = digits + strspn(digits, "0123456789");
	}
	return p;
}

static int parse_quantity(const struct quantity *q, const char *text, double *value, struct err *e)
{
	const char *end = number_end(text);
	double factor;

	if (*text == '-')
		return refuse(q, EINVAL, text, "it is negative", e);
	if (end == text)
		return refuse(q, EINVAL, text, *text ? "it does not begin with a number" : "it is empty", e);
	factor = unit_factor(q, end);
	if (factor == 0)
		return refuse(q, EINVAL, text, "unknown suffix", e);
	*value = strtod(text, NULL) * factor;
	if (!(*value < q->max))
		return refuse(q, ERANGE, text, "it is too large", e);
	return 0;
}

static int check_number(const struct quantity *q, double n, double factor, struct err *e)
{
	char text[32];

	snprintf(text, sizeof(text), "%.14g", n);
	if (isnan(n))
		return refuse(q, EINVAL, "nan", "it is not a number", e);
	if (n < 0)
		return refuse(q, EINVAL, text, "it is negative", e);
	if (!(n * factor < q->max))
		return refuse(q, ERANGE, text, isinf(n) ? "it is infinite" : "it is too large", e);
	return 0;
}

int units_parse_duration(const char *text, int64_t *ns, struct err *e)
{
	double seconds;
	int r = parse_quantity(&duration, text, &seconds, e);

	if (r == 0)
		*ns = llround(seconds * 1e9);
	return r;
}

int units_duration_from_seconds(double seconds, int64_t *ns, struct err *e)
{
	int r = check_number(&duration, seconds, 1, e);

	if (r == 0)
		*ns = llround(seconds * 1e9);
	return r;
}

int units_parse_size(const char *text, uint64_t *bytes, struct err *e)
{
	const char *end = number_end(text);
	double n;
	int r = parse_quantity(&size, text, &n, e);

	if (r < 0)
		return r;
	/* Whole bytes are exact beyond what a double holds. */
	if (!*end && strspn(text, "0123456789") == (size_t)(end - text)) {
		*bytes = strtoull(text, NULL, 10);
		return 0;
	}
	if (!*end && n != floor(n))
		return refuse(&size, EINVAL, text, "it is no whole number of bytes", e);
	*bytes = (uint64_t)llround(n);
	return 0;
}

int units_size_from_number(double n, uint64_t *bytes, struct err *e)
{
	char text[32];
	int r = check_number(&size, n, 1, e);

	if (r < 0)
		return r;
	if (n != floor(n)) {
		snprintf(text, sizeof(text), "%.14g", n);
		return refuse(&size, EINVAL, text, "it is no whole number of bytes", e);
	}
	*bytes = (uint64_t)n;
	return 0;
}

const char *units_format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double n = (double)bytes;
	size_t unit = 0;

	/* 1023.95 would be printed as 1024.0. */
	while (n >= (unit ? 1023.95 : 1024) && unit + 1 < sizeof(names) / sizeof(*names)) {
		n /= 1024;
		unit++;
	}
	n = round(n * 10) / 10;
	snprintf(buf, len, n == floor(n) ? "%.0f %s" : "%.1f %s", n, names[unit]);
	return buf;
}

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* How many letters must be changed, added, left out or swapped with their neighbour, ignoring case. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t rows[3][NAME_MAX_LEN + 1], *before = rows[0], *above = rows[1], *row = rows[2], *t;
	size_t la = strlen(a), lb = strlen(b);

	for (size_t j = 0; j <= lb; j++)
		above[j] = j;
	for (size_t i = 1; i <= la; i++) {
		int ca = tolower((unsigned char)a[i - 1]);

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			int cb = tolower((unsigned char)b[j - 1]);

			row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (ca != cb));
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
			    cb == tolower((unsigned char)a[i - 2]) && before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}
		t = before;
		before = above;
		above = row;
		row = t;
	}
	return above[lb];
}

const char *nearest_name(const char *word, const char *const *names)
{
	size_t len = strlen(word), best = (len + 2) / 3 + 1, d;
	const char *nearest = NULL;

	if (len > NAME_MAX_LEN)
		return NULL;
	for (; *names; names++) {
		if (strlen(*names) > NAME_MAX_LEN)
			continue;
		d = edit_distance(word, *names);
		/* The beginning of a name is close to it, however long the rest. */
		if (len >= 3 && d > 1 && strncasecmp(word, *names, len) == 0)
			d = 1;
		if (d < best && d < strlen(*names)) {
			best = d;
			nearest = *names;
		}
	}
	return nearest;
}

static const struct unit duration_units[] = {
	{ "ms", 1e-3 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { NULL, 0 }
};

static const struct unit size_units[] = {
	{ "K", 1024.0 }, { "M", 1048576.0 }, { "G", 1073741824.0 }, { "T", 1099511627776.0 }, { NULL, 0 }
};

/* A hundred years: now plus that still fits. */
static const struct quantity duration = {
	"duration", "seconds, or a number with ms, s, m or h", duration_units, false,
	100 * 365.25 * 86400
};

/* Lua's integers end there. */
static const struct quantity size = {
	"size", "bytes, or a number with K, M, G or T", size_units, true, 9223372036854775808.0
};

char *units_new_id(void)
{
	unsigned char raw[16];
	char text[33];

	INVARIANT(getrandom(raw, sizeof(raw), 0) == sizeof(raw));
	for (size_t i = 0; i < sizeof(raw); i++)
		snprintf(text + 2 * i, 3, "%02x", raw[i]);
	return xstrdup(text);
}
