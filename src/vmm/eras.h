/*
 * The eras of a guest: which of the things that were made in it are still there.
 *
 * An era begins with each boot, reset, snapshot and restore. A boot ends all eras before it. A snapshot ends none, and
 * a restore brings back those that the snapshot had seen: a file opened before the snapshot is open again, one
 * opened after it never was.
 */
#ifndef PROVIUM_VMM_ERAS_H
#define PROVIUM_VMM_ERAS_H

#include <stdbool.h>
#include <stddef.h>

/* Embedded; all zero is a guest that was never booted. */
struct eras {
	unsigned current;
	const char *began;		/* how, for errors; static text */
	struct era_set { unsigned *v; size_t n; char *id; } alive, *saved;
	size_t nsaved;
};

void eras_release(struct eras *e);
void eras_boot(struct eras *e, const char *how);
/* id: the snapshot's. */
void eras_save(struct eras *e, const char *id);
/* A snapshot that is of another VM has seen nothing of this one's. */
void eras_restore(struct eras *e, const char *id);
bool eras_alive(const struct eras *e, unsigned era);

#endif
