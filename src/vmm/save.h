/*
 * Saving a running machine into a snapshot's directory.
 */
#ifndef PROVIUM_VMM_SAVE_H
#define PROVIUM_VMM_SAVE_H

#include "vmm/image.h"
#include "vmm/qemu.h"
#include "vmm/qmp.h"

struct save;

struct save_spec {
	struct loop *loop;
	struct qmp *qmp;
	pid_t pid;			/* QEMU's */
	int ram_fd;			/* its number for the guest's memory */
	const char *dir;		/* must not exist */
	/* What the snapshot says of the VM; its files are measured here. Owned by the save from now on. */
	struct image *image;
	bool private_ram;		/* QEMU maps a snapshot's ram, else a memfd */
	const struct qemu_disk *disks;	/* borrowed until the end */
	size_t ndisks;
	struct console *console;
	bool running;			/* let the guest run again afterwards */
	/* The directory is complete (e NULL) or gone. The save is freed by save_free, also from here. */
	void (*done)(void *arg, const struct vm_saved *s, const struct err *e);
	void *arg;
};

/* NULL and *e when it cannot begin; the image is freed then, too. */
struct save *save_start(const struct save_spec *s, struct err *e);
/* Stops one that is under way, too: the guest runs on and nothing is left. */
void save_free(struct save *s);

#endif
