/*
 * The disks that a guest is started with: checked, made or copied.
 */
#ifndef PROVIUM_VMM_DISKS_H
#define PROVIUM_VMM_DISKS_H

#include "vmm/image.h"
#include "vmm/qemu.h"

struct diskset;

/* The profile's disks, then the options'. What is made for the VM goes to dir, which need not exist yet,
 * and keeps its content when it is there already: a VM that boots again finds its disks. ready comes from
 * the loop, once. p and o are borrowed as long as the set lives. */
/* image: a snapshot, whose copies of the writable disks replace those in dir; or NULL. own: every writable disk is in dir,
 * also one with a path, since the VM was restored. */
struct diskset *diskset_new(struct loop *l, const char *dir, const struct profile *p,
	const struct vm_options *o, const struct image *image, bool own,
	void (*ready)(void *arg, const struct err *e), void *arg);
const struct qemu_disk *diskset_list(const struct diskset *d, size_t *n);
/* Safe from ready(). What is under way is stopped. */
void diskset_free(struct diskset *d);

#endif
