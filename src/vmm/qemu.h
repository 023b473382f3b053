/*
 * The QEMU command line of a guest: a pure function of its profile, options and descriptors.
 *
 * Every device has an explicit address, so that a snapshot restores onto a command line that was made later:
 *
 *	pc      slot 2 virtio-serial, 3 vsock, 4 entropy, 5-7 free, 8-15 NICs, 16-31 disks; pvpanic on ISA
 *	q35,    the same slots 2-4; slot 8 functions 0-7 are root ports nic0..nic7, slots 9 and 10 root ports
 *	virt    disk0..disk15, each with one device behind it (hot-plug needs the ports)
 *	microvm virtio-mmio in the order of the command line, no hot-plug
 */
#ifndef PROVIUM_VMM_QEMU_H
#define PROVIUM_VMM_QEMU_H

#include <jansson.h>

#include "vmm/vmm.h"

#define QEMU_NIC_SLOT 8
#define QEMU_NICS VM_NICS
#define QEMU_DISK_SLOT 16
#define QEMU_DISKS 16
#define QEMU_AGENT_PORT_ID "agent"	/* the virtserialport's id in QMP events */
#define QEMU_CMDLINE_MAX 2047

/* Descriptors as QEMU sees them; vhost is -1 without vsock. ram is a memfd, or a snapshot's file when incoming. */
struct qemu_fds { int ram, qmp, serial, hvc, agent, vhost; };

struct qemu_disk {
	const char *id, *path, *format;
	bool readonly;
	bool temporary;			/* made for this run: host caches need not be flushed */
};

struct qemu_nic {
	unsigned slot;
	uint8_t mac[6];
	char *netdev;			/* the value of -netdev, id "netSLOT" */
};

struct qemu_spec {
	const char *program, *name;
	const struct profile *profile;
	const struct vm_options *options;
	enum accel accel;
	const char *initramfs;		/* NULL: none */
	bool incoming;			/* waits to be loaded with a snapshot, whose ram is fds.ram: no kernel */
	struct qemu_fds fds;
	uint32_t cid;
	const struct qemu_disk *disks;
	size_t ndisks;
	const struct qemu_nic *nics;
	size_t nnics;
};

/* malloc'ed, NULL-terminated; NULL and *e when the parts do not fit together. */
char **qemu_argv(const struct qemu_spec *s, struct err *e);
void qemu_argv_free(char **argv);
/* The kernel's command line with what we need of it added; malloc'ed, or NULL and *e. */
char *qemu_cmdline(const struct profile *p, const struct vm_options *o, enum accel accel, struct err *e);
/* Whether the machine takes devices while it runs. */
bool qemu_can_plug(const struct profile *p, const struct vm_options *o);
/* The value of -device for the card in a slot, id "ethSLOT"; malloc'ed, NULL for a machine that is not known. */
char *qemu_nic_device(const struct profile *p, const struct vm_options *o, unsigned slot, const uint8_t mac[6]);
/* The value of an option ("tap,id=net0,vhost=off") as the arguments of the QMP command for it; first is what its first
 * word is called there. `on` and `off` become booleans, a dot in a key an object. A new reference. */
json_t *qemu_option_args(const char *first, const char *text);
/* Bytes of guest RAM: what is asked for, in whole MiB. */
uint64_t qemu_memory(const struct profile *p, const struct vm_options *o);
const char *qemu_machine(const struct profile *p, const struct vm_options *o);

#endif
