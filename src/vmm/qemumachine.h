/*
 * A guest in QEMU, for the two files that it is made of: machine.c (its life and end), launch.c (from nothing to a
 * running QEMU).
 */
#ifndef PROVIUM_VMM_QEMUMACHINE_H
#define PROVIUM_VMM_QEMUMACHINE_H

#include "vmm/disks.h"
#include "vmm/incoming.h"
#include "vmm/initramfs.h"
#include "vmm/machine.h"
#include "vmm/qemu.h"
#include "vmm/transport.h"
#include "vmm/verdict.h"

#define QEMU_STDERR_MAX 4096

/* Descriptors as QEMU sees them. */
enum { FD_RAM = 3, FD_QMP, FD_SERIAL, FD_HVC, FD_AGENT, FD_VHOST, FD_STATE, FD_NICS, FD_MAX = FD_NICS + VM_NICS };

/* One power-on. Owned by its VM, freed at the end of the turn in which free was called. */
struct qemu_machine {
	struct machine m;		/* first: what vm.c holds */
	struct machine_spec spec;
	struct loop *loop;
	struct initramfs_job *job;
	char *initramfs;
	struct diskset *disks;
	int ram, state;			/* until QEMU has them */
	int serial, hvc;		/* of a spare: our ends, until it has a VM */
	struct incoming *incoming;	/* while the snapshot is loaded */
	bool restored;
	bool spare;			/* it has no VM yet */
	bool held;			/* it has stopped there */
	bool paused;			/* the snapshot is of a paused VM */
	struct transport *transport;
	struct qmp *qmp;
	struct child *child;
	char **argv;
	uint32_t cid;
	struct event *linger;
	int64_t linger_until;
	size_t console_seen;
	bool fated, quitting, ended, told, freed;
	enum machine_end end;
	struct err why;
};

/* launch.c; called from the loop, arg is the struct qemu_machine. */
void machine_begin(void *arg);

/* machine.c */
void machine_attach_consoles(struct qemu_machine *q);
/* Something could not be prepared. */
void machine_give_up(struct qemu_machine *q, const struct err *e);
void machine_linked_cb(void *arg, int fd);
void machine_verdict_cb(void *arg, enum verdict v, const char *line);
void machine_child_cb(void *arg, const struct child_result *r);
extern const struct qmp_events machine_qmp_events;

#endif
