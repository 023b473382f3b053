/*
 * Snapshots of a VM: it is saved while it lives, and put back from what was saved, then or later.
 *
 * A restore is a start like a boot, with another machine: what ran before is let go of at once, and the guest is told
 * of it (refresh.c) before anybody else can ask it anything.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/console.h"
#include "vmm/host.h"
#include "vmm/nics.h"
#include "vmm/rundir.h"
#include "vmm/spares.h"
#include "vmm/vmpriv.h"

static void saved_cb(void *arg, const struct vm_saved *s, const struct err *e);
static void refreshed_cb(void *arg, const struct err *e);

/* ---- saving ---- */

static void describe_card(void *arg, const struct vm_nic_info *n)
{
	struct image *i = arg;
	struct image_card *c;

	i->cards = xrealloc(i->cards, (i->ncards + 1) * sizeof(*i->cards));
	c = &i->cards[i->ncards++];
	c->slot = n->slot;
	memcpy(c->mac, n->mac, sizeof(c->mac));
	c->bridge = xstrdup(n->bridge ? n->bridge : "");
}

/* What the snapshot will say of the VM; sizes, disks and QEMU's version come later. */
static struct image *describe(struct vm *vm)
{
	struct agent *a = link_agent(vm->link);
	const struct profile *p = vm->profile;
	struct image *i = image_new();

	i->id = units_new_id();
	i->pub.vm_name = xstrdup(vm->name);
	i->pub.profile = xstrdup(p->name);
	i->pub.qemu_version = xstrdup("");
	i->pub.machine = xstrdup(qemu_machine(p, &vm->options));
	i->pub.accel = xstrdup(vm->accel == ACCEL_KVM ? "kvm" : "tcg");
	i->pub.memory = qemu_memory(p, &vm->options);
	i->pub.cpus = vm_cpus(vm, &vm->options);
	i->arch = xstrdup(p->arch ? p->arch : host_arch());
	i->cpu = xstrdup(host_cpu());
	i->agent_version = xstrdup(a && agent_info(a)->agent_version ? agent_info(a)->agent_version : "");
	i->paused = vm->state == VM_PAUSED;
	vm_options_merge(&i->options, &vm->options);
	vm_nic_each(vm, describe_card, i);
	return i;
}

bool vm_is_saving(struct vm *vm, const char *op, vm_done_fn *cb, void *arg)
{
	if (vm->save)
		waiters_refuse(vm->waiters, cb, arg, EBUSY, "a snapshot of it is being made (cannot %s)", op);
	return vm->save != NULL;
}

void vm_save(struct vm *vm, const char *dir, struct vm_saved *out, vm_done_fn *cb, void *arg)
{
	struct err e = ERR_INIT;
	struct image *i;

	if (vmm_kind(vm->vmm) == VMM_LOCAL) {
		waiters_refuse(vm->waiters, cb, arg, ENOTSUP, "not supported by --vmm local");
		return;
	}
	if ((vm->state != VM_BOOTED && vm->state != VM_PAUSED) || vm->going != NOWHERE || vm->pause_call ||
	    vm->resetting) {
		waiters_refuse(vm->waiters, cb, arg, EINVAL, "VM not booted (cannot snapshot)");
		return;
	}
	if (vm_is_saving(vm, "snapshot", cb, arg))
		return;
	i = describe(vm);
	vm->saver = (struct saver){ .out = out, .cb = cb, .arg = arg, .id = xstrdup(i->id) };
	vm->save = vm->machine->kind->save(vm->machine, dir, i, vm->state == VM_BOOTED, saved_cb, vm, &e);
	if (vm->save)
		link_pause(vm->link, true);
	else
		vm_snapshot_stop(vm, &e);
	err_release(&e);
}

static void saved_cb(void *arg, const struct vm_saved *s, const struct err *e)
{
	struct vm *vm = arg;

	if (!e) {
		eras_save(&vm->eras, vm->saver.id);
		if (vm->saver.out)
			*vm->saver.out = *s;
	}
	vm_snapshot_stop(vm, e);
}

/* Ends the save; who waits is answered in any case when cb is still set. */
static void end_save(struct vm *vm, const struct err *e)
{
	struct saver was = vm->saver;

	save_free(vm->save);
	vm->save = NULL;
	memset(&vm->saver, 0, sizeof(vm->saver));
	link_pause(vm->link, vm->state == VM_PAUSED);
	if (was.cb)
		waiters_answer(vm->waiters, was.cb, was.arg, e);
	free(was.id);
}

void vm_snapshot_stop(struct vm *vm, const struct err *e)
{
	if (vm->save || vm->saver.cb)
		end_save(vm, e);
	refresh_free(vm->refresh);
	vm->refresh = NULL;
}

bool vm_snapshot_forget(struct vm *vm, vm_done_fn *cb, void *arg)
{
	if (!vm->save || vm->saver.cb != cb || vm->saver.arg != arg)
		return false;
	vm->saver.cb = NULL;
	end_save(vm, NULL);
	return true;
}

/* ---- restoring ---- */

/* What runs is dropped: its machine goes when the next one is made. */
static void discard(struct vm *vm)
{
	struct err e = ERR_INIT;

	err_set(&e, ECANCELED, "the VM was restored from a snapshot");
	vm_stop_timers(vm);
	waiters_settle(vm->waiters, WANT_PAUSE, &e);
	waiters_settle(vm->waiters, WANT_RESUME, &e);
	waiters_settle(vm->waiters, WANT_WAKEUP, &e);
	vm_snapshot_stop(vm, &e);
	link_end(vm->link, &e);
	nics_over(vm->nics, &e);
	err_release(&e);
}

struct comparison {
	const struct image *image;
	size_t n;			/* cards of the VM so far */
	bool differs;
};

static void compare_card(void *arg, const struct vm_nic_info *n)
{
	struct comparison *c = arg;
	const struct image_card *was = c->n < c->image->ncards ? &c->image->cards[c->n] : NULL;

	c->n++;
	if (!was || was->slot != n->slot || memcmp(was->mac, n->mac, sizeof(was->mac)) != 0)
		c->differs = true;
}

/* A restored guest goes on with the very cards it had. */
static int check_cards(struct vm *vm, const struct image *i, struct err *e)
{
	struct comparison c = { .image = i };

	vm_nic_each(vm, compare_card, &c);
	if (!c.differs && c.n == i->ncards)
		return 0;
	return err_set(e, EINVAL, "snapshot `%s` was made with %zu network card%s%s%s%s, and the VM has %s%zu: attach and "
		"detach it as it was then, or use a snapshot of the whole lab", i->pub.dir, i->ncards,
		i->ncards == 1 ? "" : "s", i->ncards ? " (on bridge `" : "", i->ncards ? i->cards[0].bridge : "",
		i->ncards ? "`)" : "", c.n == i->ncards ? "other ones, " : "", c.n);
}

static void become(struct vm *vm, const struct image *i, const struct vm_restore_options *o)
{
	vm_options_release(&vm->options);
	vm_options_merge(&vm->options, &i->options);
	vm->accel = i->accel;
	vm->restoring = *o;
	if (o->profile)
		vm->profile = o->profile;
	vm->own_disks = true;
	vm->refresh_due = true;
	eras_restore(&vm->eras, i->id);
	vm->restores++;
	image_unref(vm->image);
	vm->image = image_ref(i);
}

void vm_restore(struct vm *vm, const struct vm_image *pub, const struct vm_restore_options *o, vm_done_fn *cb, void *arg)
{
	const struct image *i = image_of(pub);
	struct err e = ERR_INIT;
	size_t len;
	char *log;

	if (vmm_kind(vm->vmm) == VMM_LOCAL) {
		waiters_refuse(vm->waiters, cb, arg, ENOTSUP, "not supported by --vmm local");
		return;
	}
	if (vm->state == VM_BOOTING || (!vm_is_off(vm) && vm->going != NOWHERE)) {
		waiters_refuse(vm->waiters, cb, arg, EBUSY, "VM is being %s (cannot restore)",
			vm->going == NOWHERE ? "booted" : "stopped");
		return;
	}
	if (vm_is_saving(vm, "restore", cb, arg))
		return;
	log = check_cards(vm, i, &e) < 0 ? NULL : image_console(i, &len, &e);
	if (!log) {
		waiters_answer(vm->waiters, cb, arg, &e);
		err_release(&e);
		return;
	}
	discard(vm);
	become(vm, i, o);
	console_restore(vm->console, log, len, i->consumed);
	free(log);
	waiters_add(vm->waiters, WANT_BOOT, cb, arg);
	vm_begin_start(vm);
	link_pause(vm->link, false);
	vm_start_machine(vm);
	vm_set_state(vm, VM_BOOTING);
}

void vm_renew(struct vm *vm)
{
	INVARIANT(vm_is_off(vm));
	console_restore(vm->console, "", 0, 0);
	rundir_remove(vm->dir);
	free(vm->reason);
	vm->reason = xstrdup("");
	vm->own_disks = vm->refresh_due = false;
	eras_boot(&vm->eras, "the VM was put back to where it had not been booted");
	vm_set_state(vm, VM_CREATED);
}

void vm_loaded(struct vm *vm)
{
	bool paused = vm->image->paused;

	image_unref(vm->restored_from);
	vm->restored_from = vm->image;
	vm->image = NULL;
	if (paused) {
		vm_stop_timers(vm);
		link_pause(vm->link, true);
		vm->booted_ns = now_ns();
		vm_set_state(vm, VM_PAUSED);
		waiters_settle(vm->waiters, WANT_BOOT, NULL);
	} else if (vm->options.expect) {
		vm_become_booted(vm);
	}
}

/* ---- telling the guest ---- */

bool vm_refresh_first(struct vm *vm)
{
	if (!vm->refresh_due)
		return false;
	refresh_free(vm->refresh);
	vm->refresh = refresh_start(vm->loop, link_agent(vm->link), &vm->restoring, refreshed_cb, vm);
	return true;
}

static void refreshed_cb(void *arg, const struct err *e)
{
	struct vm *vm = arg;

	refresh_free(vm->refresh);
	vm->refresh = NULL;
	if (e && !link_agent(vm->link))
		return;		/* lost once more: it is told when the agent is back */
	if (e) {
		vm->machine->kind->fail(vm->machine, e);
		return;
	}
	vm->refresh_due = false;
	vm_up(vm);
	/* Not before: another QEMU's start would be in this one's way. */
	if (vm->restored_from)
		spares_note(vmm_spares(vm->vmm), vm->restored_from, vm->profile);
	image_unref(vm->restored_from);
	vm->restored_from = NULL;
}
