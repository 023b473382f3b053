/*
 * What the other files of src/vmm need of the process-wide context.
 */
#ifndef PROVIUM_VMM_HOST_H
#define PROVIUM_VMM_HOST_H

#include "vmm/vmm.h"

/* The QEMU program for an architecture (NULL: the host's): as configured, else
 * "qemu-system-ARCH". Borrowed. */
const char *vmm_qemu_program(struct vmm *v, const char *arch);
/* The agent's binary for VMM_LOCAL, or NULL. */
const char *vmm_agent_program(struct vmm *v);
/* vmm_resolve_accel for a guest's architecture: a foreign one is always emulated. */
enum accel vmm_guest_accel(struct vmm *v, enum accel want, const char *arch, struct err *e);
/* QEMUs started ahead (spares.h). */
struct spares *vmm_spares(struct vmm *v);
bool vmm_spare_room(struct vmm *v, uint64_t memory, unsigned cpus);
/* A number that no other VM of this process has. */
unsigned vmm_next_serial(struct vmm *v);

#endif
