/*
 * The switches of a VM: shutdown, kill, pause, resume, reset, wakeup.
 */
#include <errno.h>
#include <string.h>

#include "agent/protocol.h"
#include "loop/pack.h"
#include "vmm/vmpriv.h"

#define FIRMWARE_RESETS 3	/* a PC's firmware resets once or twice more after a reset */

static void shutdown_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void shutdown_step_cb(evutil_socket_t fd, short what, void *arg);
static void paused_cb(void *arg, const json_t *result, const struct err *e);
static void system_reset_cb(void *arg, const json_t *result, const struct err *e);
static void wakeup_cb(void *arg, const json_t *result, const struct err *e);

static const struct agent_events shutdown_events = { .reply = shutdown_reply_cb };

/* ---- the end ---- */

/* The steps of a shutdown: the agent is asked; QEMU is asked; SIGKILL. */
static void shutdown_step_cb(evutil_socket_t fd, short what, void *arg)
{
	struct vm *vm = arg;

	(void)fd, (void)what;
	if (vm->down_ns <= 0) {
		vm->machine->kind->kill(vm->machine);
		return;
	}
	vm->machine->kind->quit(vm->machine);
	timer_start(vm->loop, &vm->down_timer, vm->down_ns, shutdown_step_cb, vm);
	vm->down_ns = 0;
}

static void shutdown_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct vm *vm = arg;

	(void)o;
	agent_call_free(vm->shutdown_call);
	vm->shutdown_call = NULL;
	if (e)		/* it cannot do it, or is gone: no use waiting */
		timer_start(vm->loop, &vm->down_timer, 0, shutdown_step_cb, vm);
}

static void ask_agent_to_shut_down(struct vm *vm, struct agent *a)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_str(&pk, "how", "poweroff");
	vm->shutdown_call = agent_call(a, WIRE_MUX, "shutdown", &b, false, &shutdown_events, vm);
	msgpack_sbuffer_destroy(&b);
}

void vm_shutdown(struct vm *vm, int64_t timeout_ns, vm_done_fn *cb, void *arg)
{
	struct agent *a = link_agent(vm->link);
	struct qmp *q;

	if (vm_is_off(vm)) {
		vm_set_state(vm, vm->state == VM_CREATED ? VM_SHUTDOWN : vm->state);
		waiters_answer(vm->waiters, cb, arg, NULL);
		return;
	}
	waiters_add(vm->waiters, WANT_DOWN, cb, arg);
	if (vm->going != NOWHERE)
		return;
	vm->going = SHUTTING_DOWN;
	if (vm->state == VM_BOOTING) {
		vm->machine->kind->kill(vm->machine);
		return;
	}
	q = vm->machine->kind->qmp(vm->machine);
	if (vm->state == VM_PAUSED && q)
		qmp_execute(q, "cont", NULL, NULL, NULL);
	if (a)
		ask_agent_to_shut_down(vm, a);
	/* 70 % of the time for the agent, 20 % for QEMU, and a rest to be reaped in. */
	vm->down_ns = a ? timeout_ns / 5 : timeout_ns * 9 / 10;
	timer_start(vm->loop, &vm->down_timer, a ? timeout_ns * 7 / 10 : 0, shutdown_step_cb, vm);
}

void vm_kill(struct vm *vm, vm_done_fn *cb, void *arg)
{
	if (vm_is_off(vm)) {
		vm_set_state(vm, vm->state == VM_CREATED ? VM_SHUTDOWN : vm->state);
		waiters_answer(vm->waiters, cb, arg, NULL);
		return;
	}
	waiters_add(vm->waiters, WANT_DOWN, cb, arg);
	if (vm->going == NOWHERE)
		vm->going = BEING_KILLED;
	vm->machine->kind->kill(vm->machine);
}

/* ---- pausing ---- */

static void paused_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm *vm = arg;
	bool pausing = waiters_any(vm->waiters, WANT_PAUSE);

	(void)result;
	vm->pause_call = NULL;
	if (!e && !pausing && vm->refresh_due && !vm->options.expect) {	/* it goes on, and becomes booted, when it was told */
		vm->stage = "waiting for the agent";
		link_pause(vm->link, false);
		vm_await_agent(vm);
		vm_set_state(vm, VM_BOOTING);
		return;
	}
	if (!e) {
		link_pause(vm->link, pausing);
		vm_set_state(vm, pausing ? VM_PAUSED : VM_BOOTED);
	}
	waiters_settle(vm->waiters, pausing ? WANT_PAUSE : WANT_RESUME, e);
}

static void pause_or_resume(struct vm *vm, bool pause, vm_done_fn *cb, void *arg)
{
	const char *verb = pause ? "pause" : "resume";
	enum want want = pause ? WANT_PAUSE : WANT_RESUME;
	struct qmp *q;

	if (vmm_kind(vm->vmm) == VMM_LOCAL) {
		waiters_refuse(vm->waiters, cb, arg, ENOTSUP, "not supported by --vmm local");
	} else if (vm->state != VM_BOOTED && vm->state != VM_PAUSED) {
		waiters_refuse(vm->waiters, cb, arg, EINVAL, "VM not booted (cannot %s)", verb);
	} else if (waiters_any(vm->waiters, pause ? WANT_RESUME : WANT_PAUSE)) {
		waiters_refuse(vm->waiters, cb, arg, EBUSY, "VM is being %s (cannot %s)",
			pause ? "resumed" : "paused", verb);
	} else if (vm_is_saving(vm, verb, cb, arg)) {
		return;
	} else if (vm->state == (pause ? VM_PAUSED : VM_BOOTED)) {
		waiters_answer(vm->waiters, cb, arg, NULL);
	} else {
		waiters_add(vm->waiters, want, cb, arg);
		q = vm->machine->kind->qmp(vm->machine);
		if (!vm->pause_call)
			vm->pause_call = qmp_execute(q, pause ? "stop" : "cont", NULL, paused_cb, vm);
	}
}

void vm_pause(struct vm *vm, vm_done_fn *cb, void *arg)
{
	pause_or_resume(vm, true, cb, arg);
}

void vm_resume(struct vm *vm, vm_done_fn *cb, void *arg)
{
	pause_or_resume(vm, false, cb, arg);
}

/* ---- resetting, waking up ---- */

static void system_reset_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm *vm = arg;

	(void)result;
	vm->reset_call = NULL;
	if (e)
		vm->machine->kind->fail(vm->machine, e);
}

/* The old boot's agent is let go when QEMU tells that it has reset the guest: until then it still answers. */
void vm_reset(struct vm *vm, vm_done_fn *cb, void *arg)
{
	bool paused = vm->state == VM_PAUSED;
	struct err e = ERR_INIT;
	struct qmp *q;

	if (vmm_kind(vm->vmm) == VMM_LOCAL) {
		waiters_refuse(vm->waiters, cb, arg, ENOTSUP, "not supported by --vmm local");
		return;
	}
	if ((vm->state != VM_BOOTED && !paused) || vm->going != NOWHERE) {
		waiters_refuse(vm->waiters, cb, arg, EINVAL, "VM not booted (cannot reset)");
		return;
	}
	if (vm_is_saving(vm, "reset", cb, arg))
		return;
	waiters_add(vm->waiters, WANT_BOOT, cb, arg);
	vm_stop_timers(vm);
	err_set(&e, ECANCELED, "the VM was reset");
	waiters_settle(vm->waiters, WANT_PAUSE, &e);
	waiters_settle(vm->waiters, WANT_RESUME, &e);
	waiters_settle(vm->waiters, WANT_WAKEUP, &e);
	err_release(&e);
	vm->resets = 0;
	vm->resets_max = RESETS_MAX + FIRMWARE_RESETS;
	vm->resetting = true;
	vm->stage = "resetting";
	q = vm->machine->kind->qmp(vm->machine);
	vm->reset_call = qmp_execute(q, "system_reset", NULL, system_reset_cb, vm);
	if (paused)
		qmp_execute(q, "cont", NULL, NULL, NULL);
	link_pause(vm->link, false);
	vm_set_state(vm, VM_BOOTING);
}

static void wakeup_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm *vm = arg;

	(void)result;
	vm->wakeup_call = NULL;
	if (e || link_agent(vm->link))
		waiters_settle(vm->waiters, WANT_WAKEUP, e);
}

void vm_wakeup(struct vm *vm, vm_done_fn *cb, void *arg)
{
	struct qmp *q;

	if (vmm_kind(vm->vmm) == VMM_LOCAL) {
		waiters_refuse(vm->waiters, cb, arg, ENOTSUP, "not supported by --vmm local");
	} else if (vm->state != VM_BOOTED || vm->going != NOWHERE) {
		waiters_refuse(vm->waiters, cb, arg, EINVAL, "VM not booted (cannot wakeup)");
	} else {
		waiters_add(vm->waiters, WANT_WAKEUP, cb, arg);
		q = vm->machine->kind->qmp(vm->machine);
		if (!vm->wakeup_call)
			vm->wakeup_call = qmp_execute(q, "system_wakeup", NULL, wakeup_cb, vm);
	}
}
