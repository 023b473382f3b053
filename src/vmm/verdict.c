/*
 * The guest's fate as its kernel's last words on the console tell it.
 *
 * Only what stands at the start of a line or behind printk's "[   1.234567] " counts, so that a program that
 * talks about panics causes none.
 */
#include <stdbool.h>
#include <string.h>

#include "vmm/verdict.h"

#define TELLINGS 4

struct telling {
	const char *text;
	enum verdict verdict;
};

static const struct telling tellings[TELLINGS];

/* Whether what ends right before p is one of printk's stamps: "[    1.234567] ", "[   T12] ". */
static bool after_stamp(const char *line, const char *p)
{
	if (p - line < 3 || p[-1] != ' ' || p[-2] != ']')
		return false;
	for (p -= 3; p > line && (strchr(" .TC", *p) || (*p >= '0' && *p <= '9')); p--)
		;
	return *p == '[';
}

static enum verdict judge(struct verdict_scanner *s)
{
	for (const struct telling *t = tellings; t < tellings + TELLINGS; t++) {
		const char *p = strstr(s->line, t->text);

		/* A stamp may follow output of a program that ended without a newline. */
		if (!p || (p != s->line && !after_stamp(s->line, p)))
			continue;
		memmove(s->line, p, strlen(p) + 1);
		return t->verdict;
	}
	return VERDICT_NONE;
}

size_t verdict_scan(struct verdict_scanner *s, const char *data, size_t len, enum verdict *v)
{
	*v = VERDICT_NONE;
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n') {
			*v = judge(s);
			s->len = 0;
			if (*v != VERDICT_NONE)
				return i + 1;
			s->line[0] = 0;
			continue;
		}
		if (data[i] == '\r' || data[i] == 0 || s->len + 1 >= sizeof(s->line))
			continue;
		s->line[s->len++] = data[i];
		s->line[s->len] = 0;
	}
	return len;
}

static const struct telling tellings[TELLINGS] = {
	{ "Kernel panic - not syncing", VERDICT_PANIC },
	{ "reboot: Power down", VERDICT_POWERED_OFF },
	{ "reboot: System halted", VERDICT_HALTED },
	{ "Run /", VERDICT_INIT },
};
