/*
 * Where a guest operation goes: a VM's main executor or a worker. Private to src/ops/.
 */
#ifndef PROVIUM_TARGET_H
#define PROVIUM_TARGET_H

#include "ops/openers.h"

/* Embedded first in what a VM's and a worker's userdata point to. */
struct target {
	struct vm *vm;
	unsigned channel;
};

/* The target at stack index arg, ready for `op` ("run"): raises ``vm `a`: VM not booted (cannot run)`` and
 * the like when its agent cannot be asked. */
struct target *check_target(lua_State *L, int arg, const char *op);
/* The VM userdata's VM, in whatever state. */
struct vm *check_vm(lua_State *L, int arg);

/* Options of vm() and boot() at stack index arg; pushes a userdata that owns them. */
struct vm_options *vmopts_push(lua_State *L, int arg, const char *what);

#endif
