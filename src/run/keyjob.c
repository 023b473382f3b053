/*
 * Making a key.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "run/keyjob.h"

static void looked_cb(void *arg, const struct err *e);

/* Freed by its owner. */
struct key_job {
	struct vmm *vmm;
	struct contents *contents;
	struct key *key;		/* NULL once it is made */
	char **names, **paths;		/* of files */
	size_t n;
	struct contents_job *look;
	void (*cb)(void *arg, const char *key, const struct err *e);
	void *arg;
};

struct key_job *key_job_new(struct vmm *v, struct contents *c, const char *kind)
{
	struct key_job *j = xcalloc(1, sizeof(*j));

	j->vmm = v;
	j->contents = c;
	j->key = key_new();
	key_text(j->key, "kind", kind);
	key_text(j->key, "provium", PACKAGE_VERSION);
	key_text(j->key, "host", host_arch());
	key_text(j->key, "processor", host_cpu());
	return j;
}

void key_job_text(struct key_job *j, const char *name, const char *text)
{
	key_text(j->key, name, text);
}

void key_job_bytes(struct key_job *j, const char *name, const void *data, size_t len)
{
	key_add(j->key, name, data, len);
}

void key_job_number(struct key_job *j, const char *name, uint64_t n)
{
	key_number(j->key, name, n);
}

void key_job_file(struct key_job *j, const char *name, const char *path)
{
	j->names = xrealloc(j->names, (j->n + 1) * sizeof(*j->names));
	j->paths = xrealloc(j->paths, (j->n + 1) * sizeof(*j->paths));
	j->names[j->n] = xstrdup(name);
	j->paths[j->n++] = xstrdup(path);
}

void key_job_file_and_mode(struct key_job *j, const char *name, const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		key_number(j->key, "mode", st.st_mode & 07777);
	key_job_file(j, name, path);
}

/* ---- what a guest is made of ---- */

static void add_disk(struct key_job *j, const struct disk_spec *d)
{
	key_job_text(j, "disk", d->id);
	key_job_text(j, "disk path", d->path);
	key_job_number(j, "disk scratch", d->scratch);
	key_job_text(j, "disk template", d->template);
	key_job_text(j, "disk format", d->format);
	key_job_number(j, "disk flags", d->readonly | d->direct << 1);
	if (d->template)
		key_job_file(j, "template", d->template);
	if (d->path && d->readonly)	/* others change with their use */
		key_job_file(j, "image", d->path);
}

static void add_strings(struct key_job *j, const char *name, char **list)
{
	for (; list && *list; list++)
		key_job_text(j, name, *list);
}

static void add_options(struct key_job *j, const struct vm_options *o)
{
	key_job_number(j, "option memory", o->memory);
	key_job_number(j, "option cpus", o->cpus);
	key_job_text(j, "option kernel_cmdline", o->cmdline);
	key_job_text(j, "option kernel_cmdline_append", o->cmdline_append);
	if (o->has_rng_seed)
		key_job_number(j, "option rng_seed", o->rng_seed);
	key_job_text(j, "option machine", o->machine);
	add_strings(j, "option qemu_args", o->qemu_args);
	for (size_t i = 0; i < o->ndisks; i++)
		add_disk(j, &o->disks[i]);
	for (size_t i = 0; i < o->nfiles; i++) {
		const struct file_spec *f = &o->files[i];

		key_job_text(j, "file", f->path);
		key_job_number(j, "file mode", f->mode);
		if (f->host && !f->mode)
			key_job_file_and_mode(j, "file host", f->host);
		else if (f->host)
			key_job_file(j, "file host", f->host);
		else
			key_job_bytes(j, "file content", f->content, f->content_len);
	}
}

static void add_accel(struct key_job *j, const struct profile *p, const struct vm_options *o)
{
	enum accel accel = vmm_resolve_accel(j->vmm, o && o->accel != ACCEL_AUTO ? o->accel : p->accel, NULL);

	key_job_text(j, "accel", accel == ACCEL_KVM ? "kvm" : accel == ACCEL_TCG ? "tcg" : "none");
}

void key_job_profile(struct key_job *j, const struct profile *p, const struct vm_options *o)
{
	char **sources = vmm_sources(j->vmm, p, o ? o->machine : NULL);

	key_job_text(j, "profile", p->name);
	key_job_text(j, "cmdline", p->cmdline);
	key_job_text(j, "arch", p->arch);
	key_job_text(j, "machine", p->machine);
	key_job_number(j, "memory", p->memory);
	key_job_number(j, "cpus", p->cpus);
	key_job_number(j, "inject_agent", p->inject_agent);
	key_job_number(j, "initrd", p->initrd != NULL);
	add_accel(j, p, o);
	add_strings(j, "qemu_args", p->qemu_args);
	for (size_t i = 0; i < p->ndisks; i++)
		add_disk(j, &p->disks[i]);
	if (o)
		add_options(j, o);
	for (char **s = sources; *s; s++) {
		key_job_file(j, "source", *s);
		free(*s);
	}
	free(sources);
}

/* ---- the end ---- */

void key_job_end(struct key_job *j, void (*cb)(void *arg, const char *key, const struct err *e), void *arg)
{
	j->cb = cb;
	j->arg = arg;
	j->look = contents_look(j->contents, (const char *const *)j->paths, j->n, looked_cb, j);
}

static void looked_cb(void *arg, const struct err *e)
{
	struct key_job *j = arg;
	char key[KEY_SIZE];

	for (size_t i = 0; i < j->n; i++)
		key_text(j->key, j->names[i], contents_of(j->look, i));
	key_end(j->key, key);
	j->key = NULL;
	j->cb(j->arg, e ? NULL : key, e);
}

void key_job_free(struct key_job *j)
{
	char unused[KEY_SIZE];

	if (!j)
		return;
	contents_job_free(j->look);
	if (j->key)
		key_end(j->key, unused);
	for (size_t i = 0; i < j->n; i++) {
		free(j->names[i]);
		free(j->paths[i]);
	}
	free(j->names);
	free(j->paths);
	free(j);
}
