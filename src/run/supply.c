/*
 * What a test file gets from the run's cache.
 */
#include <stdlib.h>

#include "run/bootcache.h"
#include "run/supply.h"
#include "run/testfile.h"

static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e);
static void started_cb(void *arg, const char *how, struct cache_hold *hold, const struct err *e);

/* A fixture asked for. */
struct fixture_wish {
	struct supply *supply;
	struct fixture_request *request;
	void (*got)(void *garg, struct cache_hold *h, const struct err *e);
	void *garg;
};

/* A boot that may come from the cache. */
struct vm_start {
	struct supply *supply;
	struct vm *vm;
	struct cached_boot *boot;
	void (*done)(void *garg, const char *how, const struct err *e);
	void *garg;
};

/* An entry of the boot cache that a VM was restored from, and runs on. */
struct vm_hold {
	LIST_ENTRY(vm_hold) entry;
	const struct vm *vm;
	struct cache_hold *hold;
};

/* ---- fixtures ---- */

struct fixture_wish *supply_fixture_get(struct supply *s, const char *name,
	void (*got)(void *garg, struct cache_hold *h, const struct err *e), void *garg)
{
	struct fixture_wish *w = xcalloc(1, sizeof(*w));

	w->supply = s;
	w->got = got;
	w->garg = garg;
	w->request = fixtures_get(s->session->fixtures, name, s->fixture, got_cb, w);
	s->wishes++;
	pool_set_depends(s->owner, true);
	return w;
}

static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e)
{
	struct fixture_wish *w = arg;

	(void)built;
	w->got(w->garg, h, e);
}

void supply_fixture_free(struct fixture_wish *w)
{
	fixture_request_free(w->request);
	if (--w->supply->wishes == 0)
		pool_set_depends(w->supply->owner, false);
	free(w);
}

bool supply_fixture_stuck(const struct fixture_wish *w)
{
	return fixture_request_is_stuck(w->request);
}

void supply_fixture_bad(struct supply *s, const char *name, struct cache_hold *h, const char *why)
{
	char *what = xasprintf("fixture `%s`", name);

	fixtures_evict(s->session->fixtures, what, h, why);
	free(what);
}

/* ---- boots ---- */

struct vm_start *supply_boot_start(struct supply *s, struct vm *vm, const struct vm_options *o,
	void (*done)(void *garg, const char *how, const struct err *e), void *garg)
{
	struct vm_start *b;

	/* Nothing can be saved with --vmm local. */
	if (!s->session->fixtures || vmm_kind(s->session->vmm) == VMM_LOCAL || !boot_is_cached(vm, o))
		return NULL;
	b = xcalloc(1, sizeof(*b));
	b->supply = s;
	b->vm = vm;
	b->done = done;
	b->garg = garg;
	b->boot = cached_boot_start(s->session, vm, o, started_cb, b);
	return b;
}

static void started_cb(void *arg, const char *how, struct cache_hold *hold, const struct err *e)
{
	struct vm_start *b = arg;
	struct vm_hold *h;

	if (hold) {
		h = xcalloc(1, sizeof(*h));
		h->vm = b->vm;
		h->hold = hold;
		LIST_INSERT_HEAD(&b->supply->holds, h, entry);
	}
	b->done(b->garg, how, e);
}

void supply_boot_free(struct vm_start *b)
{
	cached_boot_free(b->boot);
	free(b);
}

/* vm NULL: all of them. */
static void drop_holds(struct supply *s, const struct vm *vm)
{
	struct vm_hold *h, *next;

	for (h = LIST_FIRST(&s->holds); h; h = next) {
		next = LIST_NEXT(h, entry);
		if (vm && h->vm != vm)
			continue;
		LIST_REMOVE(h, entry);
		cache_hold_free(h->hold);
		free(h);
	}
}

void supply_vm_gone(struct supply *s, const struct vm *vm)
{
	drop_holds(s, vm);
}

void supply_release(struct supply *s)
{
	drop_holds(s, NULL);
}
