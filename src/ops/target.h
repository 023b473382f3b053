/*
 * Where a guest operation goes: a VM's main executor or a worker. Private to src/ops/.
 */
#ifndef PROVIUM_TARGET_H
#define PROVIUM_TARGET_H

#include <sys/queue.h>

#include "ops/openers.h"

/* Embedded first in what a VM's and a worker's userdata point to. */
struct target {
	struct vm *vm;
	unsigned channel;
	struct target *mux;		/* the VM's channel 0; NULL for channel 0 itself */
	LIST_HEAD(, remote) files;	/* open ones (remote.c) */
	unsigned open_streams;		/* in a VM's mux: of the VM and its workers */
	unsigned unheeded;		/* in a VM's mux: requests on their way that nobody waits for */
	unsigned era;			/* a worker's: when it was made; a VM's: the current one */
};

/* How many open files of it are there in the guest as it is now. */
unsigned target_open_files(const struct target *t);

/* Whether what was made in that era of the guest is gone: it was reset, booted again or restored since. */
static inline bool target_gone(const struct target *t, unsigned era)
{
	return !vm_era_alive(t->vm, era);
}

static inline struct target *target_mux(struct target *t)
{
	return t->mux ? t->mux : t;
}

/* The target at stack index arg, ready for `op` ("run"): raises ``vm `a`: VM not booted (cannot run)`` and
 * the like when its agent cannot be asked. */
struct target *check_target(lua_State *L, int arg, const char *op);
/* Raises when t's agent cannot be asked, or when `what` ("process"), made in that era, is gone. */
void target_require(lua_State *L, const struct target *t, unsigned era, const char *what, const char *op);
/* The target of a Worker userdata, NULL when it is something else (worker.c). */
struct target *worker_target(lua_State *L, int arg);
/* Raises what is wrong with a VM's state for op. */
int vm_raise_state(lua_State *L, struct vm *vm, const char *op);
/* Raises when there is no hypervisor that could do op, because the agent runs on the host. */
void vm_require_qemu(lua_State *L, struct vm *vm, const char *op);

/* Fails the wait as ``vm `a`: OP `ARG`: MESSAGE``, with the time waited unless the guest's system answered. */
void target_fail(struct wait *w, const struct target *t, const char *op, const char *arg, const struct err *e);

/* The VM userdata's VM, or its target, in whatever state (vm.c). */
struct vm *check_vm(lua_State *L, int arg);
struct target *vm_target(lua_State *L, int arg);
/* How many streams of the VM are open: where they are counted (vm.c). */
const unsigned *vm_streams(lua_State *L, int arg);
/* Where a VM keeps how far console:expect has matched, and how many streams are open (vm.c). */
void vm_console_counters(lua_State *L, int arg, size_t **consumed, unsigned **streams);

/* Options of vm() and boot() at stack index arg; pushes a userdata that owns them (vmopts.c). */
struct vm_options *vmopts_push(lua_State *L, int arg, const char *what);

#endif
