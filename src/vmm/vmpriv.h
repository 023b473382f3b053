/*
 * A VM from the inside, for the files that make it up: vm.c (life), vmpower.c (its switches), vmsnapshot.c, vmqmp.c.
 */
#ifndef PROVIUM_VMM_VMPRIV_H
#define PROVIUM_VMM_VMPRIV_H

#include "vmm/eras.h"
#include "vmm/link.h"
#include "vmm/machine.h"
#include "vmm/refresh.h"
#include "vmm/save.h"
#include "vmm/vmm.h"
#include "vmm/waiters.h"

#define RESETS_MAX 3		/* reboots before an agent answers */

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
	struct eras eras;
	unsigned restores;
	bool resetting;			/* QEMU was told to, and has not done it yet */
	int64_t booted_ns, timeout_ns;
	struct event *boot_timer;
	enum going going;
	int64_t down_ns;		/* what is left of a shutdown's time after the polite request */
	struct event *down_timer;
	struct agent_call *shutdown_call;
	struct qmp_call *pause_call, *reset_call, *wakeup_call;
	const struct image *image;	/* while it is restored */
	const struct image *restored_from;	/* until it is up again */
	bool ahead;			/* its machine was started before it was wanted */
	bool again;			/* one that was has died: not another one */
	bool own_disks;			/* it was restored */
	bool refresh_due;		/* and has not been told so yet */
	struct vm_restore_options restoring;
	struct refresh *refresh;
	struct save *save;
	struct saver { struct vm_saved *out; vm_done_fn *cb; void *arg; char *id; } saver;	/* who waits for it */
	struct waiters *waiters;
	bool freed;
	TAILQ_HEAD(, vm_listener) listeners;
	struct vm_listener *next;	/* in a walk: whom to tell next */
	char *reason;
};

/* ---- vm.c ---- */

/* Tells the listeners. */
void vm_set_state(struct vm *vm, enum vm_state to);
bool vm_is_off(const struct vm *vm);
/* Leaves off what was begun by timers and QMP. */
void vm_stop_timers(struct vm *vm);
/* A new machine for what vm holds: its options, its image. */
void vm_start_machine(struct vm *vm);
/* The preparations of every start: stage, counters, patience, reason. */
void vm_begin_start(struct vm *vm);
void vm_become_booted(struct vm *vm);
/* Starts the time that the agent has to answer in. */
void vm_await_agent(struct vm *vm);
/* The agent answers, and knows of everything. */
void vm_up(struct vm *vm);
/* NULL and *e when nothing runs or it has none. */
struct qmp *vm_qmp_connection(struct vm *vm, struct err *e);
struct nics *vm_nics(struct vm *vm);

/* ---- vmsnapshot.c ---- */

/* The snapshot is loaded. */
void vm_loaded(struct vm *vm);
/* The agent answers. Whether a restored guest is to be told of it first: it is up when vm_up comes again. */
bool vm_refresh_first(struct vm *vm);
/* Stops what is under way; who waits for it is told why, unless e is NULL. */
void vm_snapshot_stop(struct vm *vm, const struct err *e);
bool vm_snapshot_forget(struct vm *vm, vm_done_fn *cb, void *arg);
/* Says why, and returns true, when op has to wait for a snapshot to be complete. */
bool vm_is_saving(struct vm *vm, const char *op, vm_done_fn *cb, void *arg);

#endif
