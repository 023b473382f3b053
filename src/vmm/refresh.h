/*
 * What a restored guest is told: that time has passed, and new entropy.
 */
#ifndef PROVIUM_VMM_REFRESH_H
#define PROVIUM_VMM_REFRESH_H

#include "vmm/vmm.h"

struct refresh;

/* done comes from the loop, once: e when the agent cannot, or its connection ended. */
struct refresh *refresh_start(struct loop *l, struct agent *a, const struct vm_restore_options *o,
	void (*done)(void *arg, const struct err *e), void *arg);
/* At any time; NULL is fine. */
void refresh_free(struct refresh *r);

#endif
