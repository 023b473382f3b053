/*
 * Whether this host can run guests with hardware virtualization, and what it has for those that are emulated.
 */
#ifndef PROVIUM_VMM_ACCEL_H
#define PROVIUM_VMM_ACCEL_H

#include "loop/loop.h"

/* 0 when KVM runs stock guests here; -errno and a one-line reason otherwise. The two paths are /dev/kvm and
 * /proc/cpuinfo outside of tests. */
int accel_probe_kvm(const char *device, const char *cpuinfo, struct err *e);

/* How fast the time stamp counter counts, in kHz: emulated x86 guests read this host's. 0 on a host that has none. It
 * is measured since the first call, for a millisecond at least: call it once well before it is needed. */
uint64_t accel_tsc_khz(void);

#endif
