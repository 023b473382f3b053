/*
 * One power-on of a guest: from its preparation to the end of its process.
 *
 * Two kinds: QEMU (machine.c) and the agent on the host itself (local.c). vm.c drives either by this
 * interface and makes a new one for each boot.
 */
#ifndef PROVIUM_VMM_MACHINE_H
#define PROVIUM_VMM_MACHINE_H

#include "vmm/image.h"
#include "vmm/qmp.h"
#include "vmm/vmm.h"

enum machine_end {
	MACHINE_FAILED,			/* it never ran */
	MACHINE_DIED,			/* by itself, or given up by machine_fail */
	MACHINE_PANICKED, MACHINE_POWERED_OFF, MACHINE_HALTED,
	MACHINE_REBOOTED,		/* a restored one: it goes on in another machine, made without a snapshot */
	MACHINE_KILLED,			/* by machine_kill or machine_quit */
};

struct machine_events {
	/* What it does now: "preparing the initramfs". Static text. */
	void (*stage)(void *arg, const char *doing);
	/* The process runs. */
	void (*started)(void *arg);
	/* The snapshot is loaded; the guest runs unless it was paused. */
	void (*loaded)(void *arg);
	/* An agent can be spoken to; the receiver owns fd. */
	void (*linked)(void *arg, int fd);
	/* The guest closed its side of that connection. */
	void (*unlinked)(void *arg);
	/* The guest rebooted. */
	void (*reset)(void *arg);
	/* The guest went into S3, or came back from it. */
	void (*suspended)(void *arg, bool suspended);
	/* The process is gone and all its output is in the console; why is complete but for the console.
	 * Once, last. */
	void (*over)(void *arg, enum machine_end end, const struct err *why);
};

struct machine_spec {
	struct vmm *vmm;
	const char *name, *dir;		/* dir: for the disks of this VM; need not exist yet */
	const struct profile *profile;
	const struct vm_options *options;	/* borrowed as long as the machine lives */
	const struct image *image;	/* NULL: to be booted. The machine takes a reference */
	bool own_disks;			/* the VM was restored: its disks are its own, in dir */
	enum accel accel;
	struct console *console;
	struct nics *nics;		/* the VM's, borrowed */
	const struct machine_events *ev;
	void *arg;
};

struct machine {
	const struct machine_kind *kind;
};

struct machine_kind {
	/* SIGKILL; over() follows. Also what stops one that is being prepared. */
	void (*kill)(struct machine *m);
	/* Asks the process itself to end. */
	void (*quit)(struct machine *m);
	/* Gives it up: SIGKILL, and over(MACHINE_DIED) will say why. */
	void (*fail)(struct machine *m, const struct err *why);
	/* The connection that linked() gave is no more: look for the next. */
	void (*unlink)(struct machine *m);
	/* NULL when there is none (yet). */
	struct qmp *(*qmp)(struct machine *m);
	pid_t (*pid)(const struct machine *m);
	uint32_t (*cid)(const struct machine *m);
	const char *const *(*argv)(const struct machine *m);
	/* Starts to save it into dir, which owns image from now on (save.h); NULL and *e when it cannot begin. NULL
	 * where that is not possible. */
	struct save *(*save)(struct machine *m, const char *dir, struct image *image, bool running,
		void (*done)(void *arg, const struct vm_saved *s, const struct err *e), void *arg, struct err *e);
	/* No event any more; what runs is killed in the background. */
	void (*free)(struct machine *m);
};

/* Events come from the loop only, over() at the latest when it cannot be started. */
struct machine *machine_new(const struct machine_spec *s);
/* One with an image, that is started ahead: it waits, loaded and stopped, until it is given to a VM. The spec's name,
 * console, nics, events are those of its keeper until then; loaded() says that it can be given away. */
struct machine *machine_new_spare(const struct machine_spec *s);
/* Gives one that is loaded to a VM: from now on s is its spec, and its events are s's, started() and loaded() first among
 * them. */
void machine_adopt(struct machine *m, const struct machine_spec *s);
struct machine *local_new(const struct machine_spec *s);

#endif
