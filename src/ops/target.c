/*
 * Where a guest operation goes: whether it can be done there now, and what is raised when it cannot.
 */
#include <stdio.h>
#include <string.h>

#include "ops/target.h"

int vm_raise_state(lua_State *L, struct vm *vm, const char *op)
{
	switch (vm_state(vm)) {
	case VM_BOOTED:
		if (strcmp(op, "boot") == 0 || strcmp(op, "resume") == 0)
			return lua_raise(L, "vm `%s`: VM already %s (cannot %s)", vm_name(vm),
				strcmp(op, "boot") ? "running" : "booted", op);
		return lua_raise(L, "vm `%s`: VM has no agent (cannot %s)", vm_name(vm), op);
	case VM_PAUSED:
		return lua_raise(L, "vm `%s`: VM is paused (cannot %s)", vm_name(vm), op);
	case VM_DEAD:
	case VM_SHUTDOWN:
		return lua_raise(L, "vm `%s`: VM is %s (cannot %s)%s%s", vm_name(vm),
			vm_state(vm) == VM_DEAD ? "dead" : "shut down", op, *vm_reason(vm) ? ": " : "", vm_reason(vm));
	default:
		return lua_raise(L, "vm `%s`: VM not booted (cannot %s)", vm_name(vm), op);
	}
}

void target_require(lua_State *L, const struct target *t, unsigned era, const char *what, const char *op)
{
	if (target_gone(t, era))
		lua_raise(L, "vm `%s`: %s is gone: %s (cannot %s)", vm_name(t->vm), what, vm_era_began(t->vm), op);
	if (vm_state(t->vm) != VM_BOOTED || !vm_agent(t->vm))
		vm_raise_state(L, t->vm, op);
}

struct target *check_target(lua_State *L, int arg, const char *op)
{
	struct target *t = worker_target(L, arg);

	if (!t)
		t = vm_target(L, arg);
	target_require(L, t, t->era, "worker", op);
	return t;
}

void vm_require_qemu(lua_State *L, struct vm *vm, const char *op)
{
	if (vmm_kind(ops_file(L)->env->vmm) == VMM_LOCAL)
		lua_raise(L, "vm `%s`: %s: not supported by --vmm local", vm_name(vm), op);
}

void target_fail(struct wait *w, const struct target *t, const char *op, const char *arg, const struct err *e)
{
	char waited[32] = "";

	if (strncmp(e->msg, "os: ", 4) != 0)
		snprintf(waited, sizeof(waited), " after %.1fs", wait_elapsed(w));
	wait_fail(w, e->code, "vm `%s`: %s `%s`%s: %s", vm_name(t->vm), op, arg, waited, e->msg);
}
