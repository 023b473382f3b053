/*
 * Whether this host can run guests with hardware virtualization.
 */
#ifndef PROVIUM_VMM_ACCEL_H
#define PROVIUM_VMM_ACCEL_H

#include "loop/loop.h"

/* 0 when KVM runs stock guests here; -errno and a one-line reason otherwise. The two paths are /dev/kvm and
 * /proc/cpuinfo outside of tests. */
int accel_probe_kvm(const char *device, const char *cpuinfo, struct err *e);

#endif
