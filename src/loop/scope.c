/*
 * A scope: the clean-up stack of a test or a file.
 */
#include <stdlib.h>

#include "loop/loop.h"

TAILQ_HEAD(undo_list, undo);

/* Freed by its maker. Undos are embedded in what they undo and are borrowed. */
struct scope {
	struct loop *loop;
	char *name;
	struct undo_list stack[RANK_MAX];	/* last made first */
	struct undo_list started;		/* undone, not yet over */
	bool closing;
	bool step_queued;
	void (*done)(void *arg);
	void *arg;
};

static void close_step(void *arg);

struct scope *scope_new(struct loop *l, const char *name)
{
	struct scope *sc = xcalloc(1, sizeof(*sc));

	sc->loop = l;
	sc->name = xstrdup(name);
	for (int i = 0; i < RANK_MAX; i++)
		TAILQ_INIT(&sc->stack[i]);
	TAILQ_INIT(&sc->started);
	return sc;
}

void scope_free(struct scope *sc)
{
	if (!sc)
		return;
	for (int i = 0; i < RANK_MAX; i++)
		INVARIANT(TAILQ_EMPTY(&sc->stack[i]));
	INVARIANT(TAILQ_EMPTY(&sc->started));
	INVARIANT(!sc->step_queued);
	free(sc->name);
	free(sc);
}

const char *scope_name(const struct scope *sc)
{
	return sc->name;
}

void scope_add(struct scope *sc, struct undo *u, enum scope_rank rank, void (*start)(struct undo *u))
{
	INVARIANT(!u->scope);
	u->scope = sc;
	u->rank = rank;
	u->start = start;
	u->started = false;
	TAILQ_INSERT_HEAD(&sc->stack[rank], u, entry);
}

static void queue_step(struct scope *sc)
{
	if (sc->step_queued)
		return;
	sc->step_queued = true;
	loop_defer(sc->loop, close_step, sc);
}

static void take_out(struct undo *u)
{
	struct scope *sc = u->scope;

	TAILQ_REMOVE(u->started ? &sc->started : &sc->stack[u->rank], u, entry);
	u->scope = NULL;
	if (sc->closing)
		queue_step(sc);
}

void scope_remove(struct undo *u)
{
	if (u->scope)
		take_out(u);
}

void undo_done(struct undo *u)
{
	INVARIANT(u->scope && u->started);
	take_out(u);
}

/* Starts all undos of the first rank that has any, and goes on to the next when they are over. */
static void close_step(void *arg)
{
	struct scope *sc = arg;
	struct undo *u;
	void (*done)(void *arg) = sc->done;

	sc->step_queued = false;
	if (!TAILQ_EMPTY(&sc->started))
		return;
	for (int i = 0; i < RANK_MAX; i++) {
		if (TAILQ_EMPTY(&sc->stack[i]))
			continue;
		while ((u = TAILQ_FIRST(&sc->stack[i]))) {
			TAILQ_REMOVE(&sc->stack[i], u, entry);
			TAILQ_INSERT_TAIL(&sc->started, u, entry);
			u->started = true;
			log_debug("scope", "finish %s: undo of rank %d", sc->name, i);
			u->start(u);
		}
		return;
	}
	sc->closing = false;
	done(sc->arg);
}

void scope_close(struct scope *sc, void (*done)(void *arg), void *arg)
{
	INVARIANT(!sc->closing);
	sc->closing = true;
	sc->done = done;
	sc->arg = arg;
	queue_step(sc);
}
