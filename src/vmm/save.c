/*
 * Saving a running machine: its memory is copied while it runs, then it is stopped, its device state and what has changed
 * in memory are written, and it runs on.
 *
 * Device state is written by QEMU itself without memory (`xen-save-devices-state`, which for all its name is
 * not about Xen: the same sections as in a migration, and no conditions on how memory is mapped). Memory and disks
 * are copied by helpers meanwhile. Everything goes into a directory beside the wanted one, which gets its name when
 * it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vmm/console.h"
#include "vmm/ramimage.h"
#include "vmm/rundir.h"
#include "vmm/save.h"

static void version_cb(void *arg, const json_t *result, const struct err *e);
static void precopied_cb(void *arg, const struct err *e);
static void stopped_cb(void *arg, const json_t *result, const struct err *e);
static void state_cb(void *arg, const json_t *result, const struct err *e);
static void copied_cb(void *arg, const struct err *e);
static void continued_cb(void *arg, const json_t *result, const struct err *e);

#define STATE_ROOM ((uint64_t)1 << 20)	/* more than the state of any guest's devices */

/* One helper of a save: memory, or a disk. */
struct part {
	struct save *save;
	struct helper *helper;		/* NULL when it is done */
};

/* Owned by its VM. */
struct save {
	struct save_spec spec;
	struct image *image;
	char *dir, *temp;
	struct qmp_call *version, *stop, *state, *cont;
	struct helper *precopy;		/* of memory, while the guest still runs */
	bool precopied;
	struct part *parts;		/* memory first, then disks */
	size_t nparts;
	int64_t stopped_ns;		/* when the guest stood still; 0: it does not because of us */
	struct vm_saved saved;
	struct err err;			/* the first that went wrong */
	bool named, over;
};

static void fail(struct save *s, const struct err *e)
{
	if (!err_is_set(&s->err))
		err_copy(&s->err, e);
}

static bool copying(const struct save *s)
{
	for (size_t i = 0; i < s->nparts; i++)
		if (s->parts[i].helper)
			return true;
	return false;
}

static void finish(void *arg)
{
	struct save *s = arg;

	if (err_is_set(&s->err))
		rundir_remove(s->temp);
	s->over = true;
	s->spec.done(s->spec.arg, &s->saved, err_is_set(&s->err) ? &s->err : NULL);
}

static void stop_parts(struct save *s)
{
	for (size_t i = 0; i < s->nparts; i++) {
		helper_cancel(s->parts[i].helper);
		s->parts[i].helper = NULL;
	}
}

/* ---- the end: what is there is described and gets its name ---- */

static int write_console(struct save *s, struct err *e)
{
	char *path = image_path(s->temp, "console");
	struct outfile *o;
	size_t len;
	const char *log = console_log(s->spec.console, &len);
	int r;

	o = outfile_open(path, len, e);
	s->image->consumed = *console_consumed(s->spec.console);
	r = o ? outfile_write(o, log, len, e) : e->code;
	if (r == 0)
		r = outfile_commit(o, false, e);
	outfile_free(o);
	free(path);
	return r;
}

/* Bytes that this snapshot takes and none other does. */
static uint64_t bytes_of(const char *dir, const char *file)
{
	char *path = image_path(dir, file);
	struct stat st;
	uint64_t n = stat(path, &st) == 0 && st.st_nlink == 1 ? (uint64_t)st.st_blocks * 512 : 0;

	free(path);
	return n;
}

static void count_bytes(struct save *s)
{
	static const char *const files[] = { "ram", "changes", "state", "console", "meta.json" };

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		s->saved.bytes += bytes_of(s->temp, files[i]);
	for (char **id = s->image->disks; *id; id++) {
		char *file = xasprintf("disk-%s", *id);

		s->saved.bytes += bytes_of(s->temp, file);
		free(file);
	}
}

static int complete(struct save *s, struct err *e)
{
	if (write_console(s, e) < 0 || image_measure(s->image, s->temp, e) < 0 ||
	    image_write(s->image, s->temp, e) < 0)
		return e->code;
	count_bytes(s);
	if (rename(s->temp, s->dir) < 0)
		return err_set(e, errno, "cannot make `%s`: %s", s->dir, strerror(errno));
	s->named = true;
	return 0;
}

/* Everything is written, or something went wrong and nothing runs any more. */
static void wrap_up(struct save *s)
{
	struct err e = ERR_INIT;

	if (!err_is_set(&s->err) && complete(s, &e) < 0)
		fail(s, &e);
	err_release(&e);
	loop_defer(s->spec.loop, finish, s);
}

static void continued_cb(void *arg, const json_t *result, const struct err *e)
{
	struct save *s = arg;

	(void)result;
	s->cont = NULL;
	s->saved.pause_ns = now_ns() - s->stopped_ns;
	s->stopped_ns = 0;
	if (e)
		fail(s, e);
	wrap_up(s);
}

/* When both QEMU and the helpers are through. */
static void check_written(struct save *s)
{
	if (err_is_set(&s->err))
		stop_parts(s);
	if (s->state || copying(s) || s->cont)
		return;
	if (s->stopped_ns)
		s->cont = qmp_execute(s->spec.qmp, "cont", NULL, continued_cb, s);
	else
		wrap_up(s);
}

/* QEMU does not say why it could not write. */
static void fail_state(struct save *s, const struct err *e)
{
	struct err mine = ERR_INIT;
	struct statvfs fs;

	if (statvfs(s->temp, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < STATE_ROOM)
		err_set(&mine, ENOSPC, "write `%s/state`: No space left on device: it needs up to %llu bytes, %llu are free; "
			"make room there or point it elsewhere", s->temp, (unsigned long long)STATE_ROOM,
			(unsigned long long)fs.f_bavail * fs.f_frsize);
	else
		err_copy(&mine, e);
	fail(s, &mine);
	err_release(&mine);
}

static void state_cb(void *arg, const json_t *result, const struct err *e)
{
	struct save *s = arg;

	(void)result;
	s->state = NULL;
	if (e)
		fail_state(s, e);
	check_written(s);
}

static void copied_cb(void *arg, const struct err *e)
{
	struct part *p = arg;

	p->helper = NULL;
	if (e)
		fail(p->save, e);
	check_written(p->save);
}

/* ---- the guest stands still ---- */

static struct helper *copy_ram(struct save *s, const char *verb, void (*cb)(void *arg, const struct err *e), void *arg,
	struct err *e)
{
	const char *argv[] = { verb, s->temp, NULL };
	struct child_fd fds[] = { { -1, RAM_FD }, { -1, RAM_MEM_FD }, { -1, RAM_PAGEMAP_FD }, { -1, RAM_MAPS_FD } };
	char ram[32];
	const char *const names[] = { ram, "mem", "pagemap", "maps" };
	size_t n = s->spec.private_ram ? 4 : 1, opened = 0;
	struct helper *h = NULL;

	snprintf(ram, sizeof(ram), "fd/%d", s->spec.ram_fd);
	while (opened < n && (fds[opened].fd = ram_open_proc(s->spec.pid, names[opened], O_RDONLY, e)) >= 0)
		opened++;
	if (opened == n)
		h = helper_start_fds(s->spec.loop, argv, fds, n, cb, arg, e);
	while (opened > 0)
		close(fds[--opened].fd);
	return h;
}

static int copy_disk(struct save *s, struct part *p, const struct qemu_disk *d, struct err *e)
{
	char *path = xasprintf("%s/disk-%s", s->temp, d->id);
	const char *argv[] = { "copy", d->path, path, NULL };

	p->helper = helper_start(s->spec.loop, argv, copied_cb, p, e);
	free(path);
	return p->helper ? 0 : e->code;
}

static int start_copies(struct save *s, struct err *e)
{
	struct part *p = s->parts;

	s->nparts = 1;
	for (size_t i = 0; i < s->spec.ndisks; i++)
		s->nparts += !s->spec.disks[i].readonly;
	p->helper = copy_ram(s, s->precopied ? "ram-update" : "ram-save", copied_cb, p, e);
	if (!p++->helper)
		return e->code;
	for (size_t i = 0; i < s->spec.ndisks; i++)
		if (!s->spec.disks[i].readonly && copy_disk(s, p++, &s->spec.disks[i], e) < 0)
			return e->code;
	return 0;
}

static void stopped_cb(void *arg, const json_t *result, const struct err *e)
{
	struct save *s = arg;
	struct err mine = ERR_INIT;
	char *path;

	(void)result;
	s->stop = NULL;
	if (e) {
		fail(s, e);
		wrap_up(s);
		return;
	}
	path = image_path(s->temp, "state");
	/* live would make a stopped QEMU give its disks away. */
	s->state = qmp_execute(s->spec.qmp, "xen-save-devices-state",
		json_pack("{s:s s:b}", "filename", path, "live", 0), state_cb, s);
	free(path);
	if (start_copies(s, &mine) < 0) {
		fail(s, &mine);
		stop_parts(s);
	}
	err_release(&mine);
}

static void stop(struct save *s)
{
	s->stopped_ns = now_ns();
	s->stop = qmp_execute(s->spec.qmp, "stop", NULL, stopped_cb, s);
}

static void precopied_cb(void *arg, const struct err *e)
{
	struct save *s = arg;

	s->precopy = NULL;
	s->precopied = true;
	if (e) {
		fail(s, e);
		wrap_up(s);
		return;
	}
	stop(s);
}

static void version_cb(void *arg, const json_t *result, const struct err *e)
{
	struct save *s = arg;
	struct err mine = ERR_INIT;
	char *text = e ? NULL : image_qemu_version(result);

	s->version = NULL;
	if (text) {
		free(s->image->pub.qemu_version);
		s->image->pub.qemu_version = text;
	} else if (e) {
		fail(s, e);
		wrap_up(s);
		return;
	}
	if (!s->spec.running) {
		stopped_cb(s, NULL, NULL);
		return;
	}
	if (s->spec.private_ram) {
		stop(s);
		return;
	}
	s->precopy = copy_ram(s, "ram-save", precopied_cb, s, &mine);
	if (!s->precopy) {
		fail(s, &mine);
		wrap_up(s);
	}
	err_release(&mine);
}

/* ---- from outside ---- */

static int make_temp(struct save *s, struct err *e)
{
	char *parent = xstrdup(s->dir), *slash = strrchr(parent, '/');
	struct stat st;
	int r = 0;

	if (lstat(s->dir, &st) == 0)
		r = err_set(e, EEXIST, "`%s` exists already", s->dir);
	if (slash && slash > parent && r == 0) {
		*slash = 0;
		r = make_dirs(parent, 0777, e);
	}
	free(parent);
	if (r == 0 && !mkdtemp(s->temp))
		r = err_set(e, errno, "cannot make `%s`: %s", s->dir, strerror(errno));
	return r;
}

struct save *save_start(const struct save_spec *spec, struct err *e)
{
	struct save *s = xcalloc(1, sizeof(*s));

	s->spec = *spec;
	s->image = spec->image;
	s->dir = *spec->dir == '/' ? xstrdup(spec->dir) : xasprintf("./%s", spec->dir);
	s->temp = xasprintf("%s.XXXXXX", s->dir);
	s->image->disks = xcalloc(spec->ndisks + 1, sizeof(*s->image->disks));
	for (size_t i = 0, n = 0; i < spec->ndisks; i++)
		if (!spec->disks[i].readonly)
			s->image->disks[n++] = xstrdup(spec->disks[i].id);
	s->parts = xcalloc(spec->ndisks + 1, sizeof(*s->parts));
	for (size_t i = 0; i <= spec->ndisks; i++)
		s->parts[i].save = s;
	if (make_temp(s, e) < 0) {
		free(s->temp);
		s->temp = NULL;
		save_free(s);
		return NULL;
	}
	s->version = qmp_execute(spec->qmp, "query-version", NULL, version_cb, s);
	return s;
}

static void free_now(void *arg)
{
	struct save *s = arg;

	image_unref(s->image);
	err_release(&s->err);
	free(s->parts);
	free(s->dir);
	free(s->temp);
	free(s);
}

static void ignore_done(void *arg, const struct vm_saved *saved, const struct err *e)
{
	(void)arg, (void)saved, (void)e;
}

void save_free(struct save *s)
{
	if (!s)
		return;
	s->spec.done = ignore_done;	/* one that is deferred already */
	qmp_cancel(s->version);
	qmp_cancel(s->stop);
	qmp_cancel(s->state);
	qmp_cancel(s->cont);
	helper_cancel(s->precopy);
	stop_parts(s);
	if (!s->over && s->temp) {
		if (s->stopped_ns && !s->cont)
			qmp_execute(s->spec.qmp, "cont", NULL, NULL, NULL);
		rundir_remove(s->named ? s->dir : s->temp);
	}
	loop_defer(s->spec.loop, free_now, s);
}
