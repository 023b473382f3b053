/*
 * The fixtures of a run: asked for by test files and by one another, taken from the cache or built.
 */
#ifndef PROVIUM_RUN_FIXTURES_H
#define PROVIUM_RUN_FIXTURES_H

#include "run/config.h"
#include "store/store.h"

struct session;
struct fixtures;
struct fixture;
struct fixture_request;

/* s is borrowed; its loop, vmm and config must be there. */
struct fixtures *fixtures_new(struct session *s);
void fixtures_free(struct fixtures *f);		/* nothing may be asked for or built any more */
/* Calls done(arg), from the loop, once no fixture is being built and what the cache gave up is gone. */
void fixtures_end(struct fixtures *f, void (*done)(void *arg), void *arg);

struct cache *fixtures_cache(struct fixtures *f);
struct contents *fixtures_contents(struct fixtures *f);

/* Asks for a fixture by name; requester: the fixture whose build asks, NULL for others. got comes from the
 * loop, once: the entry is then the receiver's, or e says why there is none. */
struct fixture_request *fixtures_get(struct fixtures *f, const char *name, struct fixture *requester,
	void (*got)(void *arg, struct cache_hold *h, bool built, const struct err *e), void *arg);
/* Withdraws, or frees after got. NULL is fine. */
void fixture_request_free(struct fixture_request *r);
/* Whether what it waits for is a build of this process that waits for the pool. */
bool fixture_request_is_stuck(const struct fixture_request *r);
/* Whether it waits for a build of this process. */
bool fixture_request_is_building(const struct fixture_request *r);

/* An entry that could not be restored: reported once, evicted. */
void fixtures_evict(struct fixtures *f, const char *what, struct cache_hold *h, const char *why);

/* ---- for the test file that builds one ---- */

/* A fresh path in the cache for a snapshot; malloc'ed, NULL and *e when there can be none. */
char *fixture_snapshot_path(struct fixture *x, struct err *e);
const char *fixture_name(const struct fixture *x);

#endif
