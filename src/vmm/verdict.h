/*
 * What a guest kernel's console says about the guest's fate.
 */
#ifndef PROVIUM_VMM_VERDICT_H
#define PROVIUM_VMM_VERDICT_H

#include <stddef.h>

enum verdict { VERDICT_NONE, VERDICT_INIT, VERDICT_PANIC, VERDICT_POWERED_OFF, VERDICT_HALTED };

/* Collects the current line of one port; embedded, needs no release. Zeroed at each power-on. */
struct verdict_scanner {
	char line[256];		/* its start; always terminated */
	size_t len;
};

/* Feeds output until a line says something. Returns how many bytes were taken (all of them unless *v is set);
 * the text of the telling line is then in s->line, without time stamps. */
size_t verdict_scan(struct verdict_scanner *s, const char *data, size_t len, enum verdict *v);

#endif
