/*
 * The options of vm() and boot(): copied, merged, released.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/vmm.h"

static void strings_free(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

static char **strings_copy(char *const *list)
{
	size_t n = 0;
	char **copy;

	while (list[n])
		n++;
	copy = xcalloc(n + 1, sizeof(*copy));
	for (size_t i = 0; i < n; i++)
		copy[i] = xstrdup(list[i]);
	return copy;
}

static void files_free(struct file_spec *files, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(files[i].path);
		free(files[i].content);
		free(files[i].host);
	}
	free(files);
}

static struct file_spec *files_copy(const struct file_spec *files, size_t n)
{
	struct file_spec *copy = xcalloc(n, sizeof(*copy));

	for (size_t i = 0; i < n; i++) {
		copy[i] = files[i];
		copy[i].path = xstrdup(files[i].path);
		copy[i].host = xstrdup(files[i].host);
		if (files[i].content) {
			copy[i].content = xmalloc(files[i].content_len + 1);
			memcpy(copy[i].content, files[i].content, files[i].content_len);
			copy[i].content[files[i].content_len] = 0;
		}
	}
	return copy;
}

static void disks_free(struct disk_spec *disks, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(disks[i].id);
		free(disks[i].path);
		free(disks[i].template);
		free(disks[i].format);
	}
	free(disks);
}

static struct disk_spec *disks_copy(const struct disk_spec *disks, size_t n)
{
	struct disk_spec *copy = xcalloc(n, sizeof(*copy));

	for (size_t i = 0; i < n; i++) {
		copy[i] = disks[i];
		copy[i].id = xstrdup(disks[i].id);
		copy[i].path = xstrdup(disks[i].path);
		copy[i].template = xstrdup(disks[i].template);
		copy[i].format = xstrdup(disks[i].format);
	}
	return copy;
}

void vm_options_release(struct vm_options *o)
{
	free(o->cmdline);
	free(o->cmdline_append);
	files_free(o->files, o->nfiles);
	disks_free(o->disks, o->ndisks);
	free(o->expect);
	free(o->machine);
	strings_free(o->qemu_args);
	memset(o, 0, sizeof(*o));
}

static void set_string(char **dst, const char *src)
{
	if (!src)
		return;
	free(*dst);
	*dst = xstrdup(src);
}

static void merge_lists(struct vm_options *dst, const struct vm_options *src)
{
	if (src->files) {
		files_free(dst->files, dst->nfiles);
		dst->files = files_copy(src->files, src->nfiles);
		dst->nfiles = src->nfiles;
	}
	if (src->disks) {
		disks_free(dst->disks, dst->ndisks);
		dst->disks = disks_copy(src->disks, src->ndisks);
		dst->ndisks = src->ndisks;
	}
	if (src->qemu_args) {
		strings_free(dst->qemu_args);
		dst->qemu_args = strings_copy(src->qemu_args);
	}
}

void vm_options_merge(struct vm_options *dst, const struct vm_options *src)
{
	if (src->memory)
		dst->memory = src->memory;
	if (src->cpus)
		dst->cpus = src->cpus;
	if (src->has_rng_seed) {
		dst->has_rng_seed = true;
		dst->rng_seed = src->rng_seed;
	}
	if (src->has_initial_time) {
		dst->has_initial_time = true;
		dst->initial_time = src->initial_time;
	}
	if (src->agent_timeout)
		dst->agent_timeout = src->agent_timeout;
	if (src->cold)
		dst->cold = true;
	if (src->accel != ACCEL_AUTO)
		dst->accel = src->accel;
	set_string(&dst->cmdline, src->cmdline);
	set_string(&dst->cmdline_append, src->cmdline_append);
	set_string(&dst->expect, src->expect);
	set_string(&dst->machine, src->machine);
	merge_lists(dst, src);
}
