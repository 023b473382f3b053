/*
 * The boot cache: the state right after the first boot of a configuration, restored by later boots.
 */
#ifndef PROVIUM_RUN_BOOTCACHE_H
#define PROVIUM_RUN_BOOTCACHE_H

#include "run/fixtures.h"
#include "vmm/vmm.h"

struct cached_boot;

/* Whether a boot of vm with o can come from the cache at all; else vm_boot is the way. */
bool boot_is_cached(struct vm *vm, const struct vm_options *o);
/* Boots a VM. done comes from the loop, once: how is "boot" or "boot_cache"; h, when there is one, is the
 * receiver's and wants to be held as long as the VM runs; an error is as vm_boot gives it. vm and o are
 * borrowed until then. The caller frees it, also in done. */
struct cached_boot *cached_boot_start(struct session *s, struct vm *vm, const struct vm_options *o,
	void (*done)(void *arg, const char *how, struct cache_hold *h, const struct err *e), void *arg);
/* Forgets it; what was started in the VM is the caller's to kill. NULL is fine. */
void cached_boot_free(struct cached_boot *b);

#endif
