/*
 * Loading a snapshot into a QEMU that was started for it and waits.
 */
#ifndef PROVIUM_VMM_INCOMING_H
#define PROVIUM_VMM_INCOMING_H

#include "vmm/image.h"
#include "vmm/qmp.h"

struct incoming;

struct incoming_spec {
	struct loop *loop;
	struct qmp *qmp;
	pid_t pid;			/* QEMU's, which maps the snapshot's ram privately as its descriptor ram_fd */
	int ram_fd, state_fd;		/* QEMU's numbers; state_fd: the snapshot's `state`, open for reading */
	const struct image *image;	/* borrowed until done */
	bool hold;			/* leave it stopped */
	/* The guest is as it was, and runs unless it was paused or is held. -ESTALE: it does not fit; -EIO: QEMU has refused it,
	 * and ends with the reason. From the loop, once. */
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

/* QMP must be usable already. */
struct incoming *incoming_start(const struct incoming_spec *s);
/* An event of QEMU's. */
void incoming_event(struct incoming *i, const char *name, const json_t *data);
/* At any time: nothing is called any more. NULL is fine. */
void incoming_free(struct incoming *i);

#endif
