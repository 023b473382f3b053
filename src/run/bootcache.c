/*
 * The boot cache.
 *
 * The first boot of a configuration is an ordinary one, and then the VM is saved, straight into the cache;
 * boots of the same configuration wait for that and restore. Nothing here can make a boot fail that would
 * work without: what goes wrong with the cache costs its advantage.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/bootcache.h"
#include "run/keyjob.h"
#include "run/testfile.h"

static void key_cb(void *arg, const char *key, const struct err *e);
static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e);
static void restored_cb(void *arg, const struct err *e);
static void booted_cb(void *arg, const struct err *e);
static void cold_cb(void *arg, const struct err *e);
static void saved_cb(void *arg, const struct err *e);
static void build(void *arg, struct cache_build *b);
static const struct cache_builder boot_builder;

struct cached_boot {
	struct session *session;
	struct vm *vm;
	const struct vm_options *options;
	struct key_job *job;
	char key[KEY_SIZE];
	struct cache_request *request;
	struct cache_hold *hold;	/* while it is restored */
	struct cache_build *build;	/* while this boot makes the entry */
	char *dir;			/* of the snapshot that is made */
	vm_done_fn *pending;		/* the VM's operation that is under way */
	bool again;			/* an entry was of no use */
	void (*done)(void *arg, const char *how, struct cache_hold *h, const struct err *e);
	void *arg;
};

/* A disk that outlives its VM may change between two boots; a snapshot would bring its old state back. */
static bool disks_allow(const struct disk_spec *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (d[i].path && !d[i].readonly)
			return false;
	return true;
}

static bool any_writable(const struct disk_spec *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!d[i].readonly)
			return true;
	return false;
}

/* The disks of a VM that was on before hold what its guest wrote: the first boot's would bring that back to where it
 * was, and these are no start for anybody else. */
static bool disks_are_used(struct vm *vm, const struct profile *p, const struct vm_options *o)
{
	return vm_state(vm) != VM_CREATED &&
		(any_writable(p->disks, p->ndisks) || any_writable(o->disks, o->ndisks));
}

static void count_nic(void *arg, const struct vm_nic_info *i)
{
	(void)i;
	*(bool *)arg = true;
}

bool boot_is_cached(struct vm *vm, const struct vm_options *o)
{
	const struct profile *p = vm_profile(vm);
	bool has_nic = false;

	if (!p->boot_cache || o->cold || o->expect || !disks_allow(p->disks, p->ndisks) ||
	    !disks_allow(o->disks, o->ndisks) || disks_are_used(vm, p, o))
		return false;
	vm_nic_each(vm, count_nic, &has_nic);
	return !has_nic;
}

static void over(struct cached_boot *b, const char *how, const struct err *e)
{
	struct cache_hold *h = b->hold;

	cache_request_free(b->request);
	b->request = NULL;
	b->hold = NULL;
	b->done(b->arg, how, h, e);
}

static void boot_cold(struct cached_boot *b)
{
	cache_request_free(b->request);
	b->request = NULL;
	b->pending = cold_cb;
	vm_boot(b->vm, b->options, cold_cb, b);
}

static void cold_cb(void *arg, const struct err *e)
{
	struct cached_boot *b = arg;

	b->pending = NULL;
	over(b, "boot", e);
}

struct cached_boot *cached_boot_start(struct session *s, struct vm *vm, const struct vm_options *o,
	void (*done)(void *arg, const char *how, struct cache_hold *h, const struct err *e), void *arg)
{
	struct cached_boot *b = xcalloc(1, sizeof(*b));

	b->session = s;
	b->vm = vm;
	b->options = o;
	b->done = done;
	b->arg = arg;
	b->job = key_job_new(s->vmm, fixtures_contents(s->fixtures), "boot");
	key_job_profile(b->job, vm_profile(vm), o);
	key_job_end(b->job, key_cb, b);
	return b;
}

void cached_boot_free(struct cached_boot *b)
{
	struct cache_build *build = b ? b->build : NULL;
	struct err e = ERR_INIT;

	if (!b)
		return;
	if (b->pending)
		vm_forget(b->vm, b->pending, b);
	key_job_free(b->job);
	b->build = NULL;
	cache_request_free(b->request);
	if (build) {		/* whoever waits for it makes it now */
		err_set(&e, ECANCELED, "the boot was cancelled");
		cache_build_done(build, NULL, false, NULL, &e);
		err_release(&e);
	}
	cache_hold_free(b->hold);
	free(b->dir);
	free(b);
}

static void get(struct cached_boot *b)
{
	b->request = cache_get(fixtures_cache(b->session->fixtures), b->key, &boot_builder, b, got_cb, b);
}

static void key_cb(void *arg, const char *key, const struct err *e)
{
	struct cached_boot *b = arg;

	key_job_free(b->job);
	b->job = NULL;
	if (e) {
		boot_cold(b);
		return;
	}
	memcpy(b->key, key, KEY_SIZE);
	get(b);
}

/* ---- an entry is there ---- */

static void evict(struct cached_boot *b, const struct err *e)
{
	char *what = xasprintf("a boot of profile `%s`", vm_profile(b->vm)->name);

	fixtures_evict(b->session->fixtures, what, b->hold, e->msg);
	free(what);
}

/* The entry is of no use: the next one who asks makes it anew; when that was us already, the cache is left
 * alone. */
static void entry_is_bad(struct cached_boot *b, const struct err *e)
{
	evict(b, e);
	cache_hold_free(b->hold);
	b->hold = NULL;
	if (b->again)
		boot_cold(b);
	else
		get(b);
	b->again = true;
}

static void restore(struct cached_boot *b)
{
	struct vm_restore_options o = {
		.profile = vm_profile(b->vm), .has_time = b->options->has_initial_time,
		.time = b->options->initial_time,
	};
	struct err e = ERR_INIT;
	struct vm_image *i = vm_image_open(b->session->vmm, cache_hold_dir(b->hold), &e);

	if (i) {
		b->pending = restored_cb;
		vm_restore(b->vm, i, &o, restored_cb, b);
	} else {
		entry_is_bad(b, &e);
	}
	vm_image_free(i);
	err_release(&e);
}

static void restored_cb(void *arg, const struct err *e)
{
	struct cached_boot *b = arg;

	b->pending = NULL;
	if (!e) {
		over(b, "boot_cache", NULL);
	} else if (e->code == -ECANCELED) {	/* it was stopped meanwhile: that says nothing of the entry */
		cache_hold_free(b->hold);
		b->hold = NULL;
		over(b, "boot", e);
	} else if (e->code == -ETIMEDOUT && vm_state(b->vm) == VM_BOOTED) {	/* it stays up, to be looked at */
		evict(b, e);
		over(b, "boot_cache", e);
	} else {
		entry_is_bad(b, e);
	}
}

static void got_cb(void *arg, struct cache_hold *h, bool built, const struct err *e)
{
	struct cached_boot *b = arg;

	(void)built, (void)e;
	cache_request_free(b->request);
	b->request = NULL;
	b->hold = h;
	if (h)
		restore(b);
	else
		boot_cold(b);
}

/* ---- this boot makes it ---- */

/* Ends the build before the boot: who waits is told, this boot is not. */
static void end_build(struct cached_boot *b, const struct err *e)
{
	struct cache_build *build = b->build;
	char *origin = xasprintf("(boot of %s)", vm_profile(b->vm)->name);

	b->build = NULL;
	cache_request_free(b->request);
	b->request = NULL;
	cache_build_done(build, b->dir, false, origin, e);
	free(origin);
}

static void build(void *arg, struct cache_build *build)
{
	struct cached_boot *b = arg;

	b->build = build;
	b->pending = booted_cb;
	vm_boot(b->vm, b->options, booted_cb, b);
}

static void booted_cb(void *arg, const struct err *e)
{
	struct cached_boot *b = arg;
	struct err failure = ERR_INIT;
	const char *dir;

	b->pending = NULL;
	dir = e ? NULL : cache_build_dir(b->build, &failure);
	if (dir) {
		b->dir = xasprintf("%s/1", dir);
		b->pending = saved_cb;
		vm_save(b->vm, b->dir, NULL, saved_cb, b);
		return;
	}
	end_build(b, e ? e : &failure);
	err_release(&failure);
	over(b, "boot", e);
}

/* The guest runs on, saved or not. Said once in a run: it will be the same with the next boot. */
static void saved_cb(void *arg, const struct err *e)
{
	struct cached_boot *b = arg;

	b->pending = NULL;
	if (e && !b->session->told_no_boot_cache) {
		b->session->told_no_boot_cache = true;
		fprintf(stderr, "provium: a boot of profile `%s` cannot be kept for later boots: %s\n",
			vm_profile(b->vm)->name, e->msg);
	}
	end_build(b, e);
	over(b, "boot", NULL);
}

static const struct cache_builder boot_builder = { build, NULL, NULL };
