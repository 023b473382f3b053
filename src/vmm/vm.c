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

#include "vmm/agent.h"
#include "vmm/console.h"
#include "vmm/host.h"
#include "vmm/nics.h"
#include "vmm/rundir.h"
#include "vmm/spares.h"
#include "vmm/vmpriv.h"

#define SECOND INT64_C(1000000000)
#define BOOT_TIMEOUT_KVM (30 * SECOND)
#define BOOT_TIMEOUT_TCG (120 * SECOND)
#define BOOT_CONSOLE ((size_t)16 << 10)		/* how much console an error shows */
#define TAIL_CONSOLE ((size_t)4 << 10)

static void stage_cb(void *arg, const char *doing);
static void started_cb(void *arg);
static void loaded_cb(void *arg);
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

static const struct machine_events machine_events;
static const struct link_events link_events;

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
	vm->eras.began = "";
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
	eras_release(&vm->eras);
	image_unref(vm->image);
	image_unref(vm->restored_from);
	free(vm->name);
	free(vm->dir);
	free(vm->reason);
	free(vm);
}

void vm_stop_timers(struct vm *vm)
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
	vm_stop_timers(vm);
	vm_snapshot_stop(vm, NULL);
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
	if (!vm_snapshot_forget(vm, cb, arg))
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

void vm_set_state(struct vm *vm, enum vm_state to)
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
	vm_stop_timers(vm);
	vm_set_state(vm, to);
	waiters_settle(vm->waiters, WANT_BOOT, &e);
	waiters_settle(vm->waiters, WANT_RESUME, &e);
	err_release(&e);
}

void vm_become_booted(struct vm *vm)
{
	vm_stop_timers(vm);
	vm->booted_ns = now_ns();
	vm_set_state(vm, VM_BOOTED);
	waiters_settle(vm->waiters, WANT_BOOT, NULL);
	waiters_settle(vm->waiters, WANT_RESUME, NULL);
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

void vm_start_machine(struct vm *vm)
{
	struct machine_spec s = {
		.vmm = vm->vmm, .name = vm->name, .dir = vm->dir, .profile = vm->profile,
		.options = &vm->options, .image = vm->image, .own_disks = vm->own_disks, .accel = vm->accel, .console = vm->console,
		.nics = vm->nics, .ev = &machine_events, .arg = vm,
	};

	if (vm->machine)
		vm->machine->kind->free(vm->machine);
	vm->machine = vm->image && nics_count(vm->nics) == 0 && !vm->again ?
		spares_take(vmm_spares(vm->vmm), vm->image, vm->profile) : NULL;
	vm->ahead = vm->machine != NULL;
	vm->again = false;
	if (vm->machine)
		machine_adopt(vm->machine, &s);
	else
		vm->machine = vmm_kind(vm->vmm) == VMM_LOCAL ? local_new(&s) : machine_new(&s);
}

void vm_begin_start(struct vm *vm)
{
	vm->stage = "starting";
	vm->resets = 0;
	vm->resets_max = RESETS_MAX;
	vm->going = NOWHERE;
	vm->booted_ns = 0;
	vm->timeout_ns = boot_timeout(vm);
	free(vm->reason);
	vm->reason = xstrdup("");
	console_log(vm->console, &vm->boot_offset);
	link_set_patience(vm->link, vm->timeout_ns);
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
	image_unref(vm->image);
	vm->image = NULL;
	vm->refresh_due = false;
	eras_boot(&vm->eras, "the VM was booted again");
	vm_begin_start(vm);
	vm_start_machine(vm);
	vm_set_state(vm, VM_BOOTING);
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

	if (vm->state != VM_BOOTING)
		return;		/* a restored guest has rebooted by itself */
	vm_await_agent(vm);
	if (vm->options.expect && !vm->image) {
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
		vm_become_booted(vm);
}

void vm_await_agent(struct vm *vm)
{
	timer_start(vm->loop, &vm->boot_timer, vm->timeout_ns, boot_timeout_cb, vm);
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

static void loaded_cb(void *arg)
{
	vm_loaded(arg);
}

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

	if (!vm_refresh_first(vm))
		vm_up(vm);
}

void vm_up(struct vm *vm)
{
	if (vm->state == VM_BOOTING && !vm->options.expect && !vm->resetting)
		vm_become_booted(vm);
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

static void reset_cb(void *arg)
{
	struct vm *vm = arg;
	struct err e = ERR_INIT;

	if (vm->resetting || vm->state != VM_BOOTING)
		eras_boot(&vm->eras, vm->resetting ? "the VM was reset" : "the guest rebooted");
	link_reset(vm->link, vm->eras.began);
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

/* A restored machine cannot boot its kernel again: a new one goes on as if it had. False when that was once too often. */
static bool reboot_anew(struct vm *vm, const struct err *why)
{
	if (vm->state == VM_BOOTING && !vm->resetting && ++vm->resets >= vm->resets_max)
		return false;
	eras_boot(&vm->eras, vm->resetting ? "the VM was reset" : "the guest rebooted");
	link_reset(vm->link, vm->eras.began);
	vm_snapshot_stop(vm, why);
	nics_over(vm->nics, why);
	waiters_settle(vm->waiters, WANT_PAUSE, why);
	waiters_settle(vm->waiters, WANT_WAKEUP, why);
	vm->resetting = vm->refresh_due = false;
	vm->stage = "booting the guest kernel";
	console_log(vm->console, &vm->boot_offset);
	vm_start_machine(vm);
	return true;
}

/* One that was started ahead and dies before the guest is up may have been dying when it was taken, which says nothing
 * of the snapshot: once more, with one of the VM's own. */
static bool restore_again(struct vm *vm, const struct err *why)
{
	const struct image *i = vm->image ? vm->image : vm->restored_from;

	if (!vm->ahead || !i || i->paused || vm->state != VM_BOOTING || vm->going != NOWHERE || vm->resetting)
		return false;
	log_debug("vm", "%s: restored again: %s", vm->name, why->msg);
	if (!vm->image) {
		vm->image = vm->restored_from;
		vm->restored_from = NULL;
	}
	vm->again = true;
	vm_stop_timers(vm);
	vm_snapshot_stop(vm, why);
	link_reset(vm->link, why->msg);
	vm_start_machine(vm);
	return true;
}

static void over_cb(void *arg, enum machine_end end, const struct err *why)
{
	struct vm *vm = arg;
	struct err full = ERR_INIT;

	if (restore_again(vm, why))
		return;
	if (end == MACHINE_REBOOTED && vm->going == NOWHERE && reboot_anew(vm, why))
		return;
	set_reason(vm, why->msg, TAIL_CONSOLE);
	err_set(&full, why->code, "%s", vm->reason);
	link_end(vm->link, &full);
	nics_over(vm->nics, &full);
	if (vm->state == VM_BOOTING) {
		fail_boot(vm, why->code, vm->going == NOWHERE ? why->msg : "cancelled: the VM was stopped",
			vm->going == SHUTTING_DOWN ? VM_SHUTDOWN : VM_DEAD);
	} else {
		vm_stop_timers(vm);
		vm_set_state(vm, state_after(vm, end));
	}
	vm_snapshot_stop(vm, &full);
	waiters_settle(vm->waiters, WANT_PAUSE, &full);
	waiters_settle(vm->waiters, WANT_RESUME, &full);
	waiters_settle(vm->waiters, WANT_WAKEUP, &full);
	waiters_settle(vm->waiters, WANT_DOWN, NULL);
	err_release(&full);
}

bool vm_is_off(const struct vm *vm)
{
	return vm->state == VM_CREATED || vm->state == VM_SHUTDOWN || vm->state == VM_DEAD;
}

/* ---- what it is ---- */

unsigned vm_era(const struct vm *vm)
{
	return vm->eras.current;
}

bool vm_era_alive(const struct vm *vm, unsigned era)
{
	return eras_alive(&vm->eras, era);
}

const char *vm_era_began(const struct vm *vm)
{
	return vm->eras.began;
}

unsigned vm_restores(const struct vm *vm)
{
	return vm->restores;
}

struct nics *vm_nics(struct vm *vm)
{
	return vm->nics;
}

struct qmp *vm_qmp_connection(struct vm *vm, struct err *e)
{
	struct qmp *q = vm->machine && !vm_is_off(vm) ? vm->machine->kind->qmp(vm->machine) : NULL;

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

size_t vm_pending(const struct vm *vm)
{
	struct agent *a = link_agent(vm->link);

	return a ? agent_pending(a) : 0;
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
	.stage = stage_cb, .started = started_cb, .loaded = loaded_cb, .linked = linked_cb, .unlinked = unlinked_cb,
	.reset = reset_cb, .suspended = suspended_cb, .over = over_cb,
};

static const struct link_events link_events = { .up = up_cb, .retry = retry_cb, .fatal = fatal_cb };
