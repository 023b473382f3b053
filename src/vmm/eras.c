/*
 * The eras of a guest: sets of numbers, one alive and one for each snapshot that was made of this VM.
 */
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "vmm/eras.h"

static void set_copy(struct era_set *to, const struct era_set *from)
{
	free(to->v);
	to->n = from ? from->n : 0;
	to->v = xcalloc(to->n + 1, sizeof(*to->v));
	if (to->n)
		memcpy(to->v, from->v, to->n * sizeof(*to->v));
}

static void begin(struct eras *e, const char *how)
{
	e->began = how;
	e->alive.v = xrealloc(e->alive.v, (e->alive.n + 1) * sizeof(*e->alive.v));
	e->alive.v[e->alive.n++] = ++e->current;
}

void eras_boot(struct eras *e, const char *how)
{
	e->alive.n = 0;
	begin(e, how);
}

static struct era_set *find(struct eras *e, const char *id)
{
	for (size_t i = 0; i < e->nsaved; i++)
		if (strcmp(e->saved[i].id, id) == 0)
			return &e->saved[i];
	return NULL;
}

void eras_save(struct eras *e, const char *id)
{
	e->saved = xrealloc(e->saved, (e->nsaved + 1) * sizeof(*e->saved));
	e->saved[e->nsaved] = (struct era_set){ .id = xstrdup(id) };
	set_copy(&e->saved[e->nsaved++], &e->alive);
	begin(e, e->began);
}

void eras_restore(struct eras *e, const char *id)
{
	set_copy(&e->alive, find(e, id));
	begin(e, "the VM was restored from a snapshot");
}

bool eras_alive(const struct eras *e, unsigned era)
{
	if (era == e->current)		/* also before the first boot */
		return true;
	for (size_t i = e->alive.n; i > 0; i--)
		if (e->alive.v[i - 1] == era)
			return true;
	return false;
}

void eras_release(struct eras *e)
{
	for (size_t i = 0; i < e->nsaved; i++) {
		free(e->saved[i].v);
		free(e->saved[i].id);
	}
	free(e->saved);
	free(e->alive.v);
}
