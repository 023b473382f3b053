/*
 * QEMUs started ahead: for a snapshot that is restored again and again, the next one waits already.
 */
#ifndef PROVIUM_VMM_SPARES_H
#define PROVIUM_VMM_SPARES_H

#include "vmm/machine.h"

struct spares;

/* At most max at a time; 0: none ever. */
struct spares *spares_new(struct vmm *v, unsigned max);
/* One that was started for this snapshot, NULL when there is none. The caller adopts it (machine_adopt). */
struct machine *spares_take(struct spares *s, const struct image *i, const struct profile *p);
/* A VM was restored from it: at the second time it counts as in demand, and another is started ahead. */
void spares_note(struct spares *s, const struct image *i, const struct profile *p);
/* Ends all of them. NULL is fine. */
void spares_free(struct spares *s);

#endif
