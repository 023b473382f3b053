/*
 * QEMUs started ahead. One waits for each snapshot that is in demand, as long as there are few of them; one that
 * nobody takes for a while is ended.
 *
 * Only guests that are nothing but their snapshot can have one: with disks or network cards of its own a QEMU is made
 * for one VM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/console.h"
#include "vmm/host.h"
#include "vmm/nics.h"
#include "vmm/spares.h"

#define UNUSED_NS (20 * INT64_C(1000000000))
#define REMEMBERED 64			/* snapshots whose restores are counted */

static void stage_cb(void *arg, const char *doing);
static void nothing_cb(void *arg);
static void loaded_cb(void *arg);
static void linked_cb(void *arg, int fd);
static void suspended_cb(void *arg, bool suspended);
static void over_cb(void *arg, enum machine_end end, const struct err *why);
static void unused_cb(evutil_socket_t fd, short what, void *arg);

/* Freed when it is taken or ended. */
struct spare {
	TAILQ_ENTRY(spare) entry;
	struct spares *spares;
	struct machine *machine;
	const struct image *image;
	const struct profile *profile;
	struct console *console;	/* of no VM: nothing is ever said there */
	struct nics *nics;		/* none */
	struct event *unused;
	bool ready;
};

/* Owned by the process-wide context. */
struct spares {
	struct vmm *vmm;
	struct loop *loop;
	unsigned max, n;
	TAILQ_HEAD(, spare) list;
	struct { char *id; unsigned count; } noted[REMEMBERED];
	unsigned next;			/* of noted: the one to forget next */
};

static const struct machine_events spare_events;

struct spares *spares_new(struct vmm *v, unsigned max)
{
	struct spares *s = xcalloc(1, sizeof(*s));

	s->vmm = v;
	s->loop = vmm_loop(v);
	s->max = max;
	TAILQ_INIT(&s->list);
	return s;
}

/* Everything but the machine, which somebody else has now, or which is freed. */
static void forget(struct spare *p)
{
	TAILQ_REMOVE(&p->spares->list, p, entry);
	p->spares->n--;
	timer_stop(&p->unused);
	console_free(p->console);
	nics_free(p->nics);
	image_unref(p->image);
	free(p);
}

static void end_spare(void *arg)
{
	struct spare *p = arg;

	p->machine->kind->free(p->machine);
	forget(p);
}

static void unused_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	end_spare(arg);
}

/* How often it was restored, this time included. */
static unsigned count(struct spares *s, const char *id)
{
	for (unsigned i = 0; i < REMEMBERED; i++)
		if (s->noted[i].id && strcmp(s->noted[i].id, id) == 0)
			return ++s->noted[i].count;
	free(s->noted[s->next].id);
	s->noted[s->next].id = xstrdup(id);
	s->noted[s->next].count = 1;
	s->next = (s->next + 1) % REMEMBERED;
	return 1;
}

static struct spare *find(struct spares *s, const struct image *i, const struct profile *profile)
{
	struct spare *p;

	TAILQ_FOREACH(p, &s->list, entry)
		if (p->profile == profile && strcmp(p->image->id, i->id) == 0)
			return p;
	return NULL;
}

static void start(struct spares *s, const struct image *i, const struct profile *profile)
{
	struct spare *p = xcalloc(1, sizeof(*p));

	p->spares = s;
	p->image = image_ref(i);
	p->profile = profile;
	p->console = console_new(s->loop);
	p->nics = nics_new(s->loop);
	TAILQ_INSERT_TAIL(&s->list, p, entry);
	s->n++;
	timer_start(s->loop, &p->unused, UNUSED_NS, unused_cb, p);
	p->machine = machine_new_spare(&(struct machine_spec){
		.vmm = s->vmm, .name = i->pub.vm_name, .dir = "", .profile = profile, .options = &i->options,
		.image = i, .accel = i->accel, .console = p->console, .nics = p->nics, .ev = &spare_events, .arg = p });
	log_debug("spares", "arm %s", i->pub.dir);
}

void spares_note(struct spares *s, const struct image *i, const struct profile *profile)
{
	if (count(s, i->id) < 2 || s->n >= s->max || *i->disks || i->ncards > 0 || find(s, i, profile) ||
	    !vmm_spare_room(s->vmm, i->pub.memory, i->pub.cpus))
		return;
	start(s, i, profile);
}

struct machine *spares_take(struct spares *s, const struct image *i, const struct profile *profile)
{
	struct spare *p = find(s, i, profile);
	struct machine *m;

	if (!p || !p->ready)
		return NULL;
	log_debug("spares", "finish %s", i->pub.dir);
	m = p->machine;
	forget(p);
	return m;
}

void spares_free(struct spares *s)
{
	struct spare *p;

	if (!s)
		return;
	while ((p = TAILQ_FIRST(&s->list)))
		end_spare(p);
	for (unsigned i = 0; i < REMEMBERED; i++)
		free(s->noted[i].id);
	free(s);
}

static void stage_cb(void *arg, const char *doing)
{
	(void)arg, (void)doing;
}

static void nothing_cb(void *arg)
{
	(void)arg;
}

static void loaded_cb(void *arg)
{
	struct spare *p = arg;

	p->ready = true;
}

static void linked_cb(void *arg, int fd)
{
	(void)arg, (void)fd;
	INVARIANT(!"a stopped guest spoke");
}

static void suspended_cb(void *arg, bool suspended)
{
	(void)arg, (void)suspended;
}

static void over_cb(void *arg, enum machine_end end, const struct err *why)
{
	(void)end;
	log_debug("spares", "cancel: %s", why->msg);
	end_spare(arg);
}

static const struct machine_events spare_events = {
	.stage = stage_cb, .started = nothing_cb, .loaded = loaded_cb, .linked = linked_cb, .unlinked = nothing_cb,
	.reset = nothing_cb, .suspended = suspended_cb, .over = over_cb,
};
