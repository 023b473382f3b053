/*
 * The pool: memory and vCPUs that VMs are admitted by.
 */
#ifndef PROVIUM_RUN_POOL_H
#define PROVIUM_RUN_POOL_H

#include "loop/loop.h"

struct amount {
	uint64_t memory;	/* bytes */
	unsigned cpus;
};

struct pool;
struct pool_owner;		/* a test file */
struct lease;

struct pool *pool_new(struct loop *l, struct amount total);
void pool_free(struct pool *p);		/* every owner must have left */
struct amount pool_used(const struct pool *p);
struct amount pool_left(const struct pool *p);
/* How long a request that does not fit lets later, smaller ones past, for unit tests (default: 10 s). */
void pool_set_overtake(struct pool *p, int64_t ns);

/*
 * stuck(arg) says whether nothing of the owner can go on before the pool grants it something: asked when every
 * owner that holds something also waits, to tell a deadlock from a long test.
 */
struct pool_owner *pool_join(struct pool *p, const char *name, bool (*stuck)(void *arg), void *arg);
/* An owner that others wait for, a fixture's build: when there is a deadlock, its request may have to go too. */
void pool_set_awaited(struct pool_owner *o);
/* Something of the owner waits for what another owner makes: for deadlocks it counts as waiting for the pool. */
void pool_set_depends(struct pool_owner *o, bool depends);
/* Whether a request of the owner is waiting. */
bool pool_waits(const struct pool_owner *o);
/* Every lease of the owner must be given back. */
void pool_leave(struct pool_owner *o);

/*
 * Asks for an amount. granted(arg, NULL) comes from the loop when it fits; granted(arg, e) when it never can: larger
 * than the pool, or every holder waits for others (e names them, and what to do). Either way the lease is the
 * caller's until lease_free.
 */
struct lease *lease_new(struct pool_owner *o, struct amount want, void (*granted)(void *arg, const struct err *e),
	void *arg);
/* Gives back, or withdraws. NULL is fine. */
void lease_free(struct lease *l);
/* A part of a granted lease as one of its own; the rest stays in from. */
struct lease *lease_split(struct lease *from, struct amount part);

#endif
