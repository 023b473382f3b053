/*
 * What a test file gets from the run's cache: fixtures, and boots that were made before.
 */
#ifndef PROVIUM_RUN_SUPPLY_H
#define PROVIUM_RUN_SUPPLY_H

#include "run/fixtures.h"
#include "run/pool.h"
#include "vmm/vmm.h"

/* Embedded in a test file; release with supply_release. All but holds and wishes is borrowed. */
struct supply {
	struct session *session;
	struct fixture *fixture;	/* that the file builds; NULL for test files */
	struct pool_owner *owner;
	unsigned wishes;		/* fixtures it waits for */
	LIST_HEAD(, vm_hold) holds;	/* entries that its VMs run on */
};

/* These are what struct ops_env says of the functions of these names. */
struct fixture_wish *supply_fixture_get(struct supply *s, const char *name,
	void (*got)(void *garg, struct cache_hold *h, const struct err *e), void *garg);
void supply_fixture_free(struct fixture_wish *w);
bool supply_fixture_stuck(const struct fixture_wish *w);
void supply_fixture_bad(struct supply *s, const char *name, struct cache_hold *h, const char *why);
struct vm_start *supply_boot_start(struct supply *s, struct vm *vm, const struct vm_options *o,
	void (*done)(void *garg, const char *how, const struct err *e), void *garg);
void supply_boot_free(struct vm_start *b);

/* The VM runs no more: what it was restored from may go. */
void supply_vm_gone(struct supply *s, const struct vm *vm);
void supply_release(struct supply *s);

#endif
