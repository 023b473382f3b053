/*
 * The pool: requests in order of arrival, smaller ones let past for a while, deadlocks decided.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "run/pool.h"

static void serve(void *arg);
static void tell(void *arg);
static void deadlock_cb(evutil_socket_t fd, short what, void *arg);

/* A request that does not fit is overtaken by later, smaller ones for no longer than this. */
#define OVERTAKE_NS (10 * INT64_C(1000000000))
#define DEADLOCK_CHECK_NS (INT64_C(500000000))

struct lease {
	TAILQ_ENTRY(lease) entry;	/* in pool->waiting, or owner->held */
	struct pool_owner *owner;
	struct amount amount;
	bool granted, told, freed;
	int64_t asked_ns;
	struct err err;
	void (*cb)(void *arg, const struct err *e);
	void *arg;
};

TAILQ_HEAD(lease_list, lease);

struct pool_owner {
	TAILQ_ENTRY(pool_owner) entry;
	struct pool *pool;
	char *name;
	struct lease_list held;
	bool awaited, depends;
	bool (*stuck)(void *arg);
	void *arg;
};

struct pool {
	struct loop *loop;
	struct amount total, used;
	struct lease_list waiting;	/* oldest first */
	TAILQ_HEAD(, pool_owner) owners;
	int64_t overtake_ns;
	struct event *deadlock_timer;
	bool serve_queued;
};

struct pool *pool_new(struct loop *l, struct amount total)
{
	struct pool *p = xcalloc(1, sizeof(*p));

	p->loop = l;
	p->total = total;
	p->overtake_ns = OVERTAKE_NS;
	TAILQ_INIT(&p->waiting);
	TAILQ_INIT(&p->owners);
	return p;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	INVARIANT(TAILQ_EMPTY(&p->owners) && !p->serve_queued);
	timer_stop(&p->deadlock_timer);
	free(p);
}

void pool_set_overtake(struct pool *p, int64_t ns)
{
	p->overtake_ns = ns;
}

struct amount pool_used(const struct pool *p)
{
	return p->used;
}

struct amount pool_left(const struct pool *p)
{
	return (struct amount){ .memory = p->total.memory - p->used.memory, .cpus = p->total.cpus - p->used.cpus };
}

struct pool_owner *pool_join(struct pool *p, const char *name, bool (*stuck)(void *arg), void *arg)
{
	struct pool_owner *o = xcalloc(1, sizeof(*o));

	o->pool = p;
	o->name = xstrdup(name);
	o->stuck = stuck;
	o->arg = arg;
	TAILQ_INIT(&o->held);
	TAILQ_INSERT_TAIL(&p->owners, o, entry);
	return o;
}

void pool_leave(struct pool_owner *o)
{
	INVARIANT(TAILQ_EMPTY(&o->held));
	TAILQ_REMOVE(&o->pool->owners, o, entry);
	free(o->name);
	free(o);
}

static bool fits(const struct pool *p, struct amount a)
{
	return a.memory <= p->total.memory - p->used.memory && a.cpus <= p->total.cpus - p->used.cpus;
}

static const char *amount_text(struct amount a, char *buf, size_t size)
{
	char memory[32];

	snprintf(buf, size, "%s and %u vCPU%s", units_format_size(a.memory, memory, sizeof(memory)), a.cpus,
		a.cpus == 1 ? "" : "s");
	return buf;
}

static void queue_serve(struct pool *p)
{
	if (p->serve_queued)
		return;
	p->serve_queued = true;
	loop_defer(p->loop, serve, p);
}

/* The callback comes from the loop, never from inside lease_new. */
static void tell(void *arg)
{
	struct lease *l = arg;

	l->told = true;
	if (l->freed) {
		err_release(&l->err);
		free(l);
		return;
	}
	l->cb(l->arg, l->err.code ? &l->err : NULL);
}

static void grant(struct pool *p, struct lease *l)
{
	TAILQ_REMOVE(&p->waiting, l, entry);
	TAILQ_INSERT_TAIL(&l->owner->held, l, entry);
	l->granted = true;
	p->used.memory += l->amount.memory;
	p->used.cpus += l->amount.cpus;
	loop_defer(p->loop, tell, l);
}

/* overtake: nobody else can move, so let whatever fits go first. */
static bool grant_what_fits(struct pool *p, bool overtake)
{
	struct lease *l, *next;
	bool any = false;

	for (l = TAILQ_FIRST(&p->waiting); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (fits(p, l->amount)) {
			grant(p, l);
			any = true;
		} else if (!overtake && now_ns() - l->asked_ns > p->overtake_ns) {
			break;
		}
	}
	return any;
}

static void serve(void *arg)
{
	struct pool *p = arg;

	p->serve_queued = false;
	grant_what_fits(p, false);
	if (TAILQ_EMPTY(&p->waiting))
		timer_stop(&p->deadlock_timer);
	else if (!p->deadlock_timer)
		timer_start(p->loop, &p->deadlock_timer, DEADLOCK_CHECK_NS, deadlock_cb, p);
}

static bool waits(const struct pool *p, const struct pool_owner *o)
{
	struct lease *l;

	TAILQ_FOREACH(l, &p->waiting, entry)
		if (l->owner == o)
			return true;
	return false;
}

bool pool_waits(const struct pool_owner *o)
{
	return waits(o->pool, o);
}

void pool_set_awaited(struct pool_owner *o)
{
	o->awaited = true;
}

void pool_set_depends(struct pool_owner *o, bool depends)
{
	o->depends = depends;
}

/* Whoever has been granted something and does not know it yet can go on. */
static bool hears_soon(const struct pool_owner *o)
{
	struct lease *l;

	TAILQ_FOREACH(l, &o->held, entry)
		if (!l->told)
			return true;
	return false;
}

static bool every_holder_is_stuck(struct pool *p)
{
	struct pool_owner *o;

	TAILQ_FOREACH(o, &p->owners, entry)
		if (!TAILQ_EMPTY(&o->held) && ((!waits(p, o) && !o->depends) || hears_soon(o) || !o->stuck(o->arg)))
			return false;
	return true;
}

/* "a.test.lua holds 576 MiB and 1 vCPU and waits for 576 MiB and 1 vCPU; ..." */
static void describe_holders(struct pool *p, struct err *e)
{
	struct pool_owner *o;
	struct lease *l;
	char text[64];

	TAILQ_FOREACH(o, &p->owners, entry) {
		struct amount held = { 0, 0 };

		if (TAILQ_EMPTY(&o->held))
			continue;
		TAILQ_FOREACH(l, &o->held, entry) {
			held.memory += l->amount.memory;
			held.cpus += l->amount.cpus;
		}
		err_append(e, "\n  %s holds %s", o->name, amount_text(held, text, sizeof(text)));
		TAILQ_FOREACH(l, &p->waiting, entry)
			if (l->owner == o)
				err_append(e, ", waits for %s", amount_text(l->amount, text, sizeof(text)));
	}
}

static void refuse(struct pool *p, struct lease *l)
{
	TAILQ_REMOVE(&p->waiting, l, entry);
	TAILQ_INSERT_TAIL(&l->owner->held, l, entry);
	l->amount = (struct amount){ 0, 0 };
	l->granted = true;
	loop_defer(p->loop, tell, l);
}

/* Failing the request of one that holds nothing would free nothing, unless one that holds something waits for it. */
static struct lease *youngest_of_holders(struct pool *p)
{
	struct lease *l;

	TAILQ_FOREACH_REVERSE(l, &p->waiting, lease_list, entry)
		if (!TAILQ_EMPTY(&l->owner->held) || l->owner->awaited)
			return l;
	return TAILQ_LAST(&p->waiting, lease_list);
}

static void break_deadlock(struct pool *p)
{
	struct lease *l = youngest_of_holders(p);
	char want[64], total[64];

	err_set(&l->err, EDEADLK, "the pool of %s is deadlocked: every file that holds a part of it waits for more, and "
		"this request for %s is the youngest of theirs:", amount_text(p->total, total, sizeof(total)),
		amount_text(l->amount, want, sizeof(want)));
	describe_holders(p, &l->err);
	err_append(&l->err, "\nboot the VMs that are needed together with lab:boot(), which acquires for all at once, "
		"or run with a larger --mem or --cpus, or fewer --jobs");
	refuse(p, l);
}

static void deadlock_cb(evutil_socket_t fd, short what, void *arg)
{
	struct pool *p = arg;

	(void)fd, (void)what;
	timer_stop(&p->deadlock_timer);
	if (!TAILQ_EMPTY(&p->waiting) && every_holder_is_stuck(p) && !grant_what_fits(p, true))
		break_deadlock(p);
	queue_serve(p);
}

struct lease *lease_new(struct pool_owner *o, struct amount want, void (*granted)(void *arg, const struct err *e),
	void *arg)
{
	struct pool *p = o->pool;
	struct lease *l = xcalloc(1, sizeof(*l));
	char wanted[64], total[64];

	l->owner = o;
	l->amount = want;
	l->asked_ns = now_ns();
	l->cb = granted;
	l->arg = arg;
	TAILQ_INSERT_TAIL(&p->waiting, l, entry);
	if (want.memory > p->total.memory || want.cpus > p->total.cpus) {
		err_set(&l->err, ENOMEM, "%s asked for, but the whole pool is %s; raise %s, or ask for less",
			amount_text(want, wanted, sizeof(wanted)), amount_text(p->total, total, sizeof(total)),
			want.memory > p->total.memory ? "--mem" : "--cpus or --cpu-overcommit");
		refuse(p, l);
	} else {
		queue_serve(p);
	}
	return l;
}

void lease_free(struct lease *l)
{
	struct pool *p;

	if (!l)
		return;
	p = l->owner->pool;
	if (l->granted) {
		TAILQ_REMOVE(&l->owner->held, l, entry);
		p->used.memory -= l->amount.memory;
		p->used.cpus -= l->amount.cpus;
	} else {
		TAILQ_REMOVE(&p->waiting, l, entry);
	}
	queue_serve(p);
	if (l->granted && !l->told) {
		l->freed = true;	/* tell() frees it */
		return;
	}
	err_release(&l->err);
	free(l);
}

struct lease *lease_split(struct lease *from, struct amount part)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	INVARIANT(from->granted && part.memory <= from->amount.memory && part.cpus <= from->amount.cpus);
	l->owner = from->owner;
	l->amount = part;
	l->granted = l->told = true;
	from->amount.memory -= part.memory;
	from->amount.cpus -= part.cpus;
	TAILQ_INSERT_TAIL(&l->owner->held, l, entry);
	return l;
}
