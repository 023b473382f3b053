/*
 * The network cards of a VM, as machine.c and vm.c see them: in a command line, in a running QEMU, gone.
 */
#ifndef PROVIUM_VMM_NICS_H
#define PROVIUM_VMM_NICS_H

#include "vmm/qemu.h"
#include "vmm/qmp.h"
#include "vmm/vmm.h"

struct nics;

struct nics *nics_new(struct loop *l);
/* Frees every card; no callback any more. */
void nics_free(struct nics *s);
size_t nics_count(const struct nics *s);
/* Gets a descriptor for every card; cb comes from the loop, once, unless nics_forget. */
void nics_open(struct nics *s, void (*cb)(void *arg, const struct err *e), void *arg);
void nics_forget(struct nics *s);
/* Fills in what QEMU inherits, as descriptors first_fd, first_fd + 1 ...; returns how many. Both arrays take
 * VM_NICS; nics_list_free releases what out owns. */
size_t nics_list(struct nics *s, int first_fd, struct qemu_nic *out, struct child_fd *fds);
void nics_list_free(struct qemu_nic *list, size_t n);
/* QEMU runs with all of them. p and o are borrowed until nics_over. */
void nics_started(struct nics *s, struct qmp *q, const struct profile *p, const struct vm_options *o);
void nics_event(struct nics *s, const char *name, const json_t *data);
/* QEMU is gone, or its QMP connection is about to be freed. */
void nics_over(struct nics *s, const struct err *why);

#endif
