/*
 * Who waits for a VM: callbacks by what they wait for, called from the loop, once, or forgotten.
 */
#ifndef PROVIUM_VMM_WAITERS_H
#define PROVIUM_VMM_WAITERS_H

#include "vmm/vmm.h"

enum want { WANT_BOOT, WANT_DOWN, WANT_PAUSE, WANT_RESUME, WANT_WAKEUP };

struct waiters;

struct waiters *waiters_new(struct loop *l);
void waiters_add(struct waiters *w, enum want want, vm_done_fn *cb, void *arg);
/* What they wait for has happened, or with e cannot happen. */
void waiters_settle(struct waiters *w, enum want want, const struct err *e);
bool waiters_any(const struct waiters *w, enum want want);
/* For a question that needs no waiting. */
void waiters_answer(struct waiters *w, vm_done_fn *cb, void *arg, const struct err *e);
void waiters_refuse(struct waiters *w, vm_done_fn *cb, void *arg, int code, const char *fmt,
	...) PRINTF_LIKE(5, 6);
void waiters_forget(struct waiters *w, vm_done_fn *cb, void *arg);
/* Forgets all. Safe from a callback. */
void waiters_free(struct waiters *w);

#endif
