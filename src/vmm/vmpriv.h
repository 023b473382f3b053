/*
 * What vmqmp.c needs of a VM.
 */
#ifndef PROVIUM_VMM_VMPRIV_H
#define PROVIUM_VMM_VMPRIV_H

#include "vmm/qmp.h"
#include "vmm/vmm.h"

/* NULL and *e when nothing runs or it has none. */
struct qmp *vm_qmp_connection(struct vm *vm, struct err *e);

struct nics *vm_nics(struct vm *vm);

#endif
