/*
 * Who waits for a VM: callbacks by what they wait for, called from the loop, once, or forgotten.
 */
#include <stdlib.h>

#include "vmm/waiters.h"

static void deliver(void *arg);

/* Freed when told or forgotten. */
struct waiter {
	TAILQ_ENTRY(waiter) entry;
	enum want want;
	bool due;
	struct err err;			/* what to tell */
	vm_done_fn *cb;			/* NULL: nobody wants to know */
	void *arg;
};

/* Owned by its VM; freed at the end of the turn in which waiters_free was called. */
struct waiters {
	struct loop *loop;
	TAILQ_HEAD(, waiter) list;
	bool deferred;
};

struct waiters *waiters_new(struct loop *l)
{
	struct waiters *w = xcalloc(1, sizeof(*w));

	w->loop = l;
	TAILQ_INIT(&w->list);
	return w;
}

static struct waiter *first_due(struct waiters *w)
{
	struct waiter *x;

	TAILQ_FOREACH(x, &w->list, entry)
		if (x->due)
			break;
	return x;
}

static void deliver(void *arg)
{
	struct waiters *w = arg;
	struct waiter *x;

	w->deferred = false;
	while ((x = first_due(w))) {
		TAILQ_REMOVE(&w->list, x, entry);
		if (x->cb)
			x->cb(x->arg, err_is_set(&x->err) ? &x->err : NULL);
		err_release(&x->err);
		free(x);
	}
}

static void make_due(struct waiters *w, struct waiter *x, const struct err *e)
{
	x->due = true;
	if (e)
		err_copy(&x->err, e);
	if (w->deferred)
		return;
	w->deferred = true;
	loop_defer(w->loop, deliver, w);
}

static struct waiter *add(struct waiters *w, enum want want, vm_done_fn *cb, void *arg)
{
	struct waiter *x = xcalloc(1, sizeof(*x));

	x->want = want;
	x->cb = cb;
	x->arg = arg;
	TAILQ_INSERT_TAIL(&w->list, x, entry);
	return x;
}

void waiters_add(struct waiters *w, enum want want, vm_done_fn *cb, void *arg)
{
	add(w, want, cb, arg);
}

void waiters_settle(struct waiters *w, enum want want, const struct err *e)
{
	struct waiter *x;

	TAILQ_FOREACH(x, &w->list, entry)
		if (x->want == want && !x->due)
			make_due(w, x, e);
}

bool waiters_any(const struct waiters *w, enum want want)
{
	struct waiter *x;

	TAILQ_FOREACH(x, &w->list, entry)
		if (x->want == want && !x->due)
			return true;
	return false;
}

void waiters_answer(struct waiters *w, vm_done_fn *cb, void *arg, const struct err *e)
{
	make_due(w, add(w, WANT_DOWN, cb, arg), e);
}

void waiters_refuse(struct waiters *w, vm_done_fn *cb, void *arg, int code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&e, code, "%s", text);
	free(text);
	waiters_answer(w, cb, arg, &e);
	err_release(&e);
}

static void remove_waiter(struct waiters *w, struct waiter *x)
{
	TAILQ_REMOVE(&w->list, x, entry);
	err_release(&x->err);
	free(x);
}

void waiters_forget(struct waiters *w, vm_done_fn *cb, void *arg)
{
	struct waiter *x, *next;

	for (x = TAILQ_FIRST(&w->list); x; x = next) {
		next = TAILQ_NEXT(x, entry);
		if (x->cb == cb && x->arg == arg)
			remove_waiter(w, x);
	}
}

void waiters_free(struct waiters *w)
{
	struct waiter *x;

	while ((x = TAILQ_FIRST(&w->list)))
		remove_waiter(w, x);
	/* After a delivery that is under way or deferred already. */
	loop_defer(w->loop, free, w);
}
