/*
 * The disks that a guest is started with: existing files checked, scratch files made, templates copied.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/disks.h"

static void prepare_all(void *arg);
static void copied_cb(void *arg, const struct err *e);

/* Owned by one machine; freed at the end of the turn in which diskset_free was called. */
struct diskset {
	struct loop *loop;
	const char *dir;
	const struct profile *profile;
	const struct vm_options *options;
	const struct image *image;
	bool own;
	struct qemu_disk *list;
	size_t n, prepared;
	struct helper *copy;
	bool freed;
	void (*ready)(void *arg, const struct err *e);
	void *arg;
};

struct diskset *diskset_new(struct loop *l, const char *dir, const struct profile *p,
	const struct vm_options *o, const struct image *image, bool own,
	void (*ready)(void *arg, const struct err *e), void *arg)
{
	struct diskset *d = xcalloc(1, sizeof(*d));

	d->loop = l;
	d->dir = dir;
	d->profile = p;
	d->options = o;
	d->image = image;
	d->own = own || image;
	d->ready = ready;
	d->arg = arg;
	d->n = p->ndisks + o->ndisks;
	d->list = xcalloc(d->n + 1, sizeof(*d->list));
	loop_defer(l, prepare_all, d);
	return d;
}

static int make_scratch(const char *path, uint64_t size, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), r = 0;

	if (fd < 0)
		return err_set(e, errno, "cannot make `%s`: %s", path, strerror(errno));
	if (ftruncate(fd, (off_t)size) < 0)
		r = err_set(e, errno, "cannot make `%s` with %llu bytes: %s", path, (unsigned long long)size,
			strerror(errno));
	close(fd);
	return r;
}

static int check_access(const char *path, bool writable, struct err *e)
{
	if (access(path, writable ? R_OK | W_OK : R_OK) < 0)
		return err_set(e, errno, "cannot open `%s`%s: %s", path, writable ? " for writing" : "",
			strerror(errno));
	return 0;
}

static int copy(struct diskset *d, const char *from, const char *to, struct err *e)
{
	const char *argv[] = { "copy", from, to, NULL };

	if (check_access(from, false, e) < 0)
		return e->code;
	d->copy = helper_start(d->loop, argv, copied_cb, d, e);
	return d->copy ? 1 : e->code;
}

/* As it was when the snapshot was made. */
static int copy_saved(struct diskset *d, const char *id, const char *path, struct err *e)
{
	char *saved = xasprintf("%s/disk-%s", d->image->pub.dir, id);
	int r = copy(d, saved, path, e);

	free(saved);
	return r;
}

/* 0, 1 when a copy is under way, or -errno. */
static int make_temporary(struct diskset *d, const struct disk_spec *s, const struct qemu_disk *disk, struct err *e)
{
	if (mkdir(d->dir, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "cannot make `%s`: %s", d->dir, strerror(errno));
	if (d->image && !s->readonly)
		return copy_saved(d, disk->id, disk->path, e);
	if (access(disk->path, F_OK) == 0)
		return 0;
	if (!s->template)
		return make_scratch(disk->path, s->scratch, e);
	return copy(d, s->template, disk->path, e);
}

static int prepare(struct diskset *d, size_t i, struct err *e)
{
	const struct profile *p = d->profile;
	const struct disk_spec *s = i < p->ndisks ? &p->disks[i] : &d->options->disks[i - p->ndisks];
	struct qemu_disk *out = &d->list[i];
	int r;

	out->id = s->id ? xstrdup(s->id) : xasprintf("disk%zu", i);
	out->format = s->format;
	out->readonly = s->readonly;
	out->temporary = !s->path || (d->own && !s->readonly);
	out->path = out->temporary ? xasprintf("%s/%zu.img", d->dir, i) : xstrdup(s->path);
	r = out->temporary ? make_temporary(d, s, out, e) : check_access(s->path, !s->readonly, e);
	if (r < 0)
		err_prefix(e, "disk `%s`", out->id);
	return r;
}

static void prepare_all(void *arg)
{
	struct diskset *d = arg;
	struct err e = ERR_INIT;
	int r = 0;

	if (d->freed)
		return;
	while (r == 0 && d->prepared < d->n)
		r = prepare(d, d->prepared++, &e);
	if (r <= 0)
		d->ready(d->arg, r < 0 ? &e : NULL);
	err_release(&e);
}

static void copied_cb(void *arg, const struct err *e)
{
	struct diskset *d = arg;
	struct err full = ERR_INIT;

	d->copy = NULL;
	if (!e) {
		prepare_all(d);
		return;
	}
	err_copy(&full, e);
	err_prefix(&full, "disk `%s`", d->list[d->prepared - 1].id);
	d->ready(d->arg, &full);
	err_release(&full);
}

const struct qemu_disk *diskset_list(const struct diskset *d, size_t *n)
{
	*n = d->n;
	return d->list;
}

static void free_now(void *arg)
{
	struct diskset *d = arg;

	for (size_t i = 0; i < d->n; i++) {
		free((char *)d->list[i].id);
		free((char *)d->list[i].path);
	}
	free(d->list);
	free(d);
}

void diskset_free(struct diskset *d)
{
	if (!d)
		return;
	d->freed = true;
	if (d->copy)
		helper_cancel(d->copy);
	d->copy = NULL;
	loop_defer(d->loop, free_now, d);
}
