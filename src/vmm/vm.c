/*
 * A VM: its states, and who waits for them.
 *
 * created -> booting -> booted <-> paused -> shutdown or dead, and from there booting again. What runs is
 * a struct machine, made anew for each boot; the agent behind it is a struct link. Callers' callbacks are
 * kept in one list and called from the loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/protocol.h"
#include "loop/pack.h"
#include "vmm/console.h"
#include "vmm/host.h"
#include "vmm/link.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include "vmm/rundir.h"
#include "vmm/vmpriv.h"
#include "vmm/waiters.h"

#define SECOND INT64_C(1000000000)
#define BOOT_TIMEOUT_KVM (30 * SECOND)
#define BOOT_TIMEOUT_TCG (120 * SECOND)
#define BOOT_CONSOLE ((size_t)16 << 10)		/* how much console an error shows */
#define TAIL_CONSOLE ((size_t)4 << 10)
#define RESETS_MAX 3
#define FIRMWARE_RESETS 3	/* a PC's firmware resets once or twice more after a reset */

static void stage_cb(void *arg, const char *doing);
static void started_cb(void *arg);
static void linked_cb(void *arg, int fd);
static void unlinked_cb(void *arg);
static void reset_cb(void *arg);
static void suspended_cb(void *arg, bool suspended);
static void over_cb(void *arg, enum machine_end end, const struct err *why);
static void up_cb(void *arg);
static void retry_cb(void *arg);
static void fatal_cb(void *arg, const struct err *e);
static void boot_timeout_cb(evutil_socket_t fd, short what, void *arg);
static void console_grew_cb(struct console_listener *l, struct console *c, size_t from);
static void shutdown_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void shutdown_step_cb(evutil_socket_t fd, short what, void *arg);
static void paused_cb(void *arg, const json_t *result, const struct err *e);
static void system_reset_cb(void *arg, const json_t *result, const struct err *e);
static void wakeup_cb(void *arg, const json_t *result, const struct err *e);

enum going { NOWHERE, SHUTTING_DOWN, BEING_KILLED };

/* Freed at the end of the turn in which vm_free was called. */
struct vm {
	struct vmm *vmm;
	struct loop *loop;
	char *name, *dir;
	const struct profile *profile;
	struct vm_options options;	/* of the current boot */
	enum vm_state state;
	enum accel accel;
	struct console *console;
	struct console_listener expecting;
	bool expects;
	size_t boot_offset;		/* where this boot's console output starts */
	struct machine *machine;	/* of the current or last boot */
	struct link *link;
	struct nics *nics;
	const char *stage;
	unsigned resets, resets_max;
	unsigned era;
	const char *era_began;
	bool resetting;			/* QEMU was told to, and has not done it yet */
	int64_t booted_ns, timeout_ns;
	struct event *boot_timer;
	enum going going;
	int64_t down_ns;		/* what is left of a shutdown's time after the polite request */
	struct event *down_timer;
	struct agent_call *shutdown_call;
	struct qmp_call *pause_call, *reset_call, *wakeup_call;
	struct waiters *waiters;
	bool freed;
	TAILQ_HEAD(, vm_listener) listeners;
	struct vm_listener *next;	/* in a walk: whom to tell next */
	char *reason;
};

static const struct machine_events machine_events;
static const struct link_events link_events;
static const struct agent_events shutdown_events;

/* ---- making and freeing ---- */

struct vm *vm_new(struct vmm *v, const char *name, const struct profile *p)
{
	struct vm *vm = xcalloc(1, sizeof(*vm));

	vm->vmm = v;
	vm->loop = vmm_loop(v);
	vm->name = xstrdup(name);
	vm->dir = xasprintf("%s/vm-%u", vmm_run_dir(v), vmm_next_serial(v));
	vm->profile = p;
	vm->console = console_new(vm->loop);
	vm->link = link_new(vm->loop, name, &link_events, vm);
	vm->nics = nics_new(vm->loop);
	vm->reason = xstrdup("");
	vm->stage = "nothing";
	vm->era_began = "";
	vm->waiters = waiters_new(vm->loop);
	TAILQ_INIT(&vm->listeners);
	return vm;
}

static void free_now(void *arg)
{
	struct vm *vm = arg;

	console_free(vm->console);
	rundir_remove(vm->dir);
	vm_options_release(&vm->options);
	free(vm->name);
	free(vm->dir);
	free(vm->reason);
	free(vm);
}

static void stop_timers(struct vm *vm)
{
	timer_stop(&vm->boot_timer);
	timer_stop(&vm->down_timer);
	if (vm->expects)
		console_unlisten(vm->console, &vm->expecting);
	vm->expects = false;
	agent_call_free(vm->shutdown_call);
	vm->shutdown_call = NULL;
	qmp_cancel(vm->pause_call);
	qmp_cancel(vm->reset_call);
	qmp_cancel(vm->wakeup_call);
	vm->pause_call = vm->reset_call = vm->wakeup_call = NULL;
	vm->resetting = false;
}

void vm_free(struct vm *vm)
{
	if (!vm || vm->freed)
		return;
	vm->freed = true;
	stop_timers(vm);
	nics_free(vm->nics);
	link_free(vm->link);
	if (vm->machine)
		vm->machine->kind->free(vm->machine);
	waiters_free(vm->waiters);
	loop_defer(vm->loop, free_now, vm);
}

/* ---- who waits, who listens ---- */

void vm_forget(struct vm *vm, vm_done_fn *cb, void *arg)
{
	waiters_forget(vm->waiters, cb, arg);
}

void vm_listen(struct vm *vm, struct vm_listener *l)
{
	TAILQ_INSERT_TAIL(&vm->listeners, l, entry);
}

void vm_unlisten(struct vm *vm, struct vm_listener *l)
{
	if (vm->next == l)
		vm->next = TAILQ_NEXT(l, entry);
	TAILQ_REMOVE(&vm->listeners, l, entry);
}

static void set_state(struct vm *vm, enum vm_state to)
{
	enum vm_state from = vm->state;
	struct vm_listener *l;

	if (from == to)
		return;
	log_debug("vm", "%s: %s", vm->name, vm_state_name(to));
	vm->state = to;
	for (l = TAILQ_FIRST(&vm->listeners); l && !vm->freed; l = vm->next) {
		vm->next = TAILQ_NEXT(l, entry);
		l->changed(l, vm, from, to);
	}
	vm->next = NULL;
}

static void tell_up(struct vm *vm)
{
	struct vm_listener *l;

	for (l = TAILQ_FIRST(&vm->listeners); l && !vm->freed; l = vm->next) {
		vm->next = TAILQ_NEXT(l, entry);
		if (l->up)
			l->up(l, vm);
	}
	vm->next = NULL;
}

static void set_reason(struct vm *vm, const char *text, size_t console)
{
	char *tail = console_tail(vm->console, console);

	free(vm->reason);
	if (*tail)
		vm->reason = xasprintf("%s\nconsole (last %zu KiB):\n%s", text, console >> 10, tail);
	else
		vm->reason = xstrdup(text);
	free(tail);
}

/* ---- booting ---- */

/* The boot is over without success: what the caller is told, complete with stage, cause and console. */
static void fail_boot(struct vm *vm, int code, const char *cause, enum vm_state to)
{
	char *tail = console_tail(vm->console, BOOT_CONSOLE);
	struct err e = ERR_INIT;

	err_set(&e, code, "failed while %s: %s", vm->stage, cause);
	if (*tail)
		err_append(&e, "\nconsole (last %zu KiB):\n%s", BOOT_CONSOLE >> 10, tail);
	free(tail);
	stop_timers(vm);
	set_state(vm, to);
	waiters_settle(vm->waiters, WANT_BOOT, &e);
	err_release(&e);
}

static void become_booted(struct vm *vm)
{
	stop_timers(vm);
	vm->booted_ns = now_ns();
	set_state(vm, VM_BOOTED);
	waiters_settle(vm->waiters, WANT_BOOT, NULL);
}

static int64_t boot_timeout(const struct vm *vm)
{
	if (vm->options.agent_timeout)
		return vm->options.agent_timeout;
	if (vm->profile->agent_boot_timeout)
		return vm->profile->agent_boot_timeout;
	return vm->accel == ACCEL_TCG ? BOOT_TIMEOUT_TCG : BOOT_TIMEOUT_KVM;
}

static enum accel choose_accel(struct vm *vm, struct err *e)
{
	enum accel want = vm->options.accel != ACCEL_AUTO ? vm->options.accel : vm->profile->accel;

	if (vmm_kind(vm->vmm) == VMM_LOCAL)
		return ACCEL_KVM;
	return vmm_guest_accel(vm->vmm, want, vm->profile->arch, e);
}

static void start_machine(struct vm *vm)
{
	struct machine_spec s = {
		.vmm = vm->vmm, .name = vm->name, .dir = vm->dir, .profile = vm->profile,
		.options = &vm->options, .accel = vm->accel, .console = vm->console,
		.nics = vm->nics, .ev = &machine_events, .arg = vm,
	};

	if (vm->machine)
		vm->machine->kind->free(vm->machine);
	vm->machine = vmm_kind(vm->vmm) == VMM_LOCAL ? local_new(&s) : machine_new(&s);
}

static void begin_era(struct vm *vm, const char *how)
{
	vm->era++;
	vm->era_began = how;
}

void vm_boot(struct vm *vm, const struct vm_options *o, vm_done_fn *cb, void *arg)
{
	struct err e = ERR_INIT;

	if (vm->state == VM_BOOTING || vm->state == VM_BOOTED || vm->state == VM_PAUSED) {
		waiters_refuse(vm->waiters, cb, arg, EBUSY, "VM is %s already",
			vm->state == VM_BOOTING ? "booting" : vm_state_name(vm->state));
		return;
	}
	vm_options_release(&vm->options);
	if (o)
		vm_options_merge(&vm->options, o);
	vm->accel = choose_accel(vm, &e);
	if (vm->accel == ACCEL_AUTO) {
		waiters_answer(vm->waiters, cb, arg, &e);
		err_release(&e);
		return;
	}
	waiters_add(vm->waiters, WANT_BOOT, cb, arg);
	vm->stage = "starting";
	vm->resets = 0;
	vm->resets_max = RESETS_MAX;
	vm->going = NOWHERE;
	begin_era(vm, "the VM was booted again");
	vm->booted_ns = 0;
	vm->timeout_ns = boot_timeout(vm);
	free(vm->reason);
	vm->reason = xstrdup("");
	console_log(vm->console, &vm->boot_offset);
	link_set_patience(vm->link, vm->timeout_ns);
	start_machine(vm);
	set_state(vm, VM_BOOTING);
}

static void stage_cb(void *arg, const char *doing)
{
	struct vm *vm = arg;

	vm->stage = doing;
	log_debug("vm", "%s: %s", vm->name, doing);
}

static void started_cb(void *arg)
{
	struct vm *vm = arg;

	timer_start(vm->loop, &vm->boot_timer, vm->timeout_ns, boot_timeout_cb, vm);
	if (vm->options.expect) {
		vm->expects = true;
		vm->expecting.grew = console_grew_cb;
		console_listen(vm->console, &vm->expecting);
	}
}

static void console_grew_cb(struct console_listener *l, struct console *c, size_t from)
{
	struct vm *vm = (struct vm *)((char *)l - offsetof(struct vm, expecting));
	const char *text = vm->options.expect;
	size_t n = strlen(text), len;
	const char *log = console_log(c, &len);

	/* The text may straddle pieces, but must be of this boot. */
	from = from > vm->boot_offset + n ? from - n : vm->boot_offset;
	if (memmem(log + from, len - from, text, n))
		become_booted(vm);
}

/* Silence: the guest runs on and can be looked at. */
static void boot_timeout_cb(evutil_socket_t fd, short what, void *arg)
{
	struct vm *vm = arg;
	double seconds = (double)vm->timeout_ns / 1e9;
	char *cause;

	(void)fd, (void)what;
	if (vm->options.expect) {
		vm->stage = "waiting for text on the console";
		cause = xasprintf("`%s` not seen for %g s", vm->options.expect, seconds);
	} else if (link_in_handshake(vm->link)) {
		vm->stage = "waiting for the agent's handshake";
		cause = xasprintf("agent silent for %g s: it opened its connection but did not answer",
			seconds);
	} else {
		vm->stage = "waiting for the agent";
		cause = xasprintf("agent silent for %g s: it never opened its connection (is the agent in "
			"the image, and has the kernel virtio_console or vsock?)", seconds);
	}
	vm->booted_ns = now_ns();
	fail_boot(vm, ETIMEDOUT, cause, VM_BOOTED);
	free(cause);
}

/* ---- the link to the agent ---- */

static void linked_cb(void *arg, int fd)
{
	struct vm *vm = arg;

	link_connect(vm->link, fd);
}

static void unlinked_cb(void *arg)
{
	struct vm *vm = arg;

	link_closed(vm->link);
}

static void up_cb(void *arg)
{
	struct vm *vm = arg;

	if (vm->state == VM_BOOTING && !vm->options.expect && !vm->resetting)
		become_booted(vm);
	if (!vm->wakeup_call)
		waiters_settle(vm->waiters, WANT_WAKEUP, NULL);
	tell_up(vm);
}

static void retry_cb(void *arg)
{
	struct vm *vm = arg;

	vm->machine->kind->unlink(vm->machine);
}

static void fatal_cb(void *arg, const struct err *e)
{
	struct vm *vm = arg;

	if (vm->state == VM_BOOTING)
		vm->stage = "shaking hands with the agent";
	vm->machine->kind->fail(vm->machine, e);
}

static void reset_cb(void *arg)
{
	struct vm *vm = arg;
	struct err e = ERR_INIT;

	if (vm->resetting || vm->state != VM_BOOTING)
		begin_era(vm, vm->resetting ? "the VM was reset" : "the guest rebooted");
	link_reset(vm->link, vm->era_began);
	if (vm->resetting) {
		vm->resetting = false;
		vm->stage = "booting the guest kernel";
		console_log(vm->console, &vm->boot_offset);
		started_cb(vm);
		return;
	}
	if (vm->state != VM_BOOTING || ++vm->resets < vm->resets_max)
		return;
	err_set(&e, ECONNRESET, "guest rebooted %u times before its agent answered", vm->resets);
	vm->machine->kind->fail(vm->machine, &e);
	err_release(&e);
}

/* ---- the end ---- */

static enum vm_state state_after(const struct vm *vm, enum machine_end end)
{
	if (vm->going == SHUTTING_DOWN)
		return VM_SHUTDOWN;
	return end == MACHINE_POWERED_OFF || end == MACHINE_HALTED ? VM_SHUTDOWN : VM_DEAD;
}

static void over_cb(void *arg, enum machine_end end, const struct err *why)
{
	struct vm *vm = arg;
	struct err full = ERR_INIT;

	set_reason(vm, why->msg, TAIL_CONSOLE);
	err_set(&full, why->code, "%s", vm->reason);
	link_end(vm->link, &full);
	nics_over(vm->nics, &full);
	if (vm->state == VM_BOOTING) {
		fail_boot(vm, why->code, vm->going == NOWHERE ? why->msg : "cancelled: the VM was stopped",
			vm->going == SHUTTING_DOWN ? VM_SHUTDOWN : VM_DEAD);
	} else {
		stop_timers(vm);
		set_state(vm, state_after(vm, end));
	}
	waiters_settle(vm->waiters, WANT_PAUSE, &full);
	waiters_settle(vm->waiters, WANT_RESUME, &full);
	waiters_settle(vm->waiters, WANT_WAKEUP, &full);
	waiters_settle(vm->waiters, WANT_DOWN, NULL);
	err_release(&full);
}

static bool is_off(const struct vm *vm)
{
	return vm->state == VM_CREATED || vm->state == VM_SHUTDOWN || vm->state == VM_DEAD;
}

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

	if (is_off(vm)) {
		set_state(vm, vm->state == VM_CREATED ? VM_SHUTDOWN : vm->state);
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
	if (is_off(vm)) {
		set_state(vm, vm->state == VM_CREATED ? VM_SHUTDOWN : vm->state);
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
	if (!e) {
		link_pause(vm->link, pausing);
		set_state(vm, pausing ? VM_PAUSED : VM_BOOTED);
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
	waiters_add(vm->waiters, WANT_BOOT, cb, arg);
	stop_timers(vm);
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
	set_state(vm, VM_BOOTING);
}

/* On the way into S3 the guest's drivers drop what was in transit: the connection must begin anew. The agent
 * and what it has made live on. */
static void suspended_cb(void *arg, bool suspended)
{
	struct vm *vm = arg;

	log_debug("vm", "%s: %s", vm->name, suspended ? "suspended" : "woken up");
	if (suspended)
		link_reset(vm->link, "the guest was suspended");
	link_pause(vm->link, suspended);
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

/* ---- what it is ---- */

unsigned vm_era(const struct vm *vm)
{
	return vm->era;
}

const char *vm_era_began(const struct vm *vm)
{
	return vm->era_began;
}

struct nics *vm_nics(struct vm *vm)
{
	return vm->nics;
}

struct qmp *vm_qmp_connection(struct vm *vm, struct err *e)
{
	struct qmp *q = vm->machine && !is_off(vm) ? vm->machine->kind->qmp(vm->machine) : NULL;

	if (vmm_kind(vm->vmm) == VMM_LOCAL)
		err_set(e, ENOTSUP, "not supported by --vmm local");
	else if (!q)
		err_set(e, ENOTCONN, "VM not booted (cannot qmp)");
	return q;
}

const char *vm_name(const struct vm *vm)
{
	return vm->name;
}

const struct profile *vm_profile(const struct vm *vm)
{
	return vm->profile;
}

enum vm_state vm_state(const struct vm *vm)
{
	return vm->state;
}

const char *vm_state_name(enum vm_state s)
{
	static const char *const names[] = {
		[VM_CREATED] = "created", [VM_BOOTING] = "created", [VM_BOOTED] = "booted",
		[VM_PAUSED] = "paused", [VM_SHUTDOWN] = "shutdown", [VM_DEAD] = "dead",
	};

	return names[s];
}

pid_t vm_pid(const struct vm *vm)
{
	return vm->machine ? vm->machine->kind->pid(vm->machine) : 0;
}

uint32_t vm_cid(const struct vm *vm)
{
	return vm->machine ? vm->machine->kind->cid(vm->machine) : 0;
}

int64_t vm_booted_ns(const struct vm *vm)
{
	return vm->booted_ns;
}

struct console *vm_console(struct vm *vm)
{
	return vm->console;
}

struct agent *vm_agent(struct vm *vm)
{
	return link_agent(vm->link);
}

uint64_t vm_memory(const struct vm *vm, const struct vm_options *o)
{
	return o && o->memory ? o->memory : vm->profile->memory;
}

unsigned vm_cpus(const struct vm *vm, const struct vm_options *o)
{
	return o && o->cpus ? o->cpus : vm->profile->cpus ? vm->profile->cpus : 1;
}

const char *const *vm_qemu_argv(const struct vm *vm)
{
	return vm->machine ? vm->machine->kind->argv(vm->machine) : NULL;
}

const char *vm_reason(const struct vm *vm)
{
	return vm->reason;
}

static const struct machine_events machine_events = {
	.stage = stage_cb, .started = started_cb, .linked = linked_cb, .unlinked = unlinked_cb,
	.reset = reset_cb, .suspended = suspended_cb, .over = over_cb,
};

static const struct link_events link_events = { .up = up_cb, .retry = retry_cb, .fatal = fatal_cb };

static const struct agent_events shutdown_events = { .reply = shutdown_reply_cb };
