/*
 * The initramfs of a boot: the profile's initrd with one overlay behind it, cached by content.
 *
 * The overlay is a plain cpio archive (nothing for a slow guest to decompress) with the kernel modules,
 * the agent and the option `files`, in this order, so that `files` win.
 */
#ifndef PROVIUM_INITRAMFS_H
#define PROVIUM_INITRAMFS_H

#include "vmm/vmm.h"

/* ---- the job (initramfs.c) ---- */

struct initramfs_job;

/* Makes, or finds, what p and o come to. cb comes from the loop, once: path is valid during the call, its
 * file for an hour at least; NULL when nothing is to be loaded, or e is set. p and o are not needed after
 * the call. NULL and *e when something is wrong with them. The caller frees the job, also after cb. */
struct initramfs_job *initramfs_build(struct vmm *v, const struct profile *p, const struct vm_options *o,
	void (*cb)(void *arg, const char *path, const struct err *e), void *arg, struct err *e);
/* Safe at any time, in cb too; what no other job waits for is stopped. */
void initramfs_job_free(struct initramfs_job *job);

/* ---- which modules (modules.c) ---- */

/* The modules that the devices we give a guest need, with what they depend on, in load order: paths below
 * dir, NULL-terminated, malloc'ed. Those the kernel does not have as modules are left out. NULL and *e on
 * failure. */
char **modules_select(const char *dir, const char *machine, struct err *e);
void modules_free(char **paths);

/* ---- keeping the cache small (sweep.c) ---- */

/* Blocks: for helpers. Files say when they were last used by their mtime. */
void cache_sweep(const char *dir);
int cache_sweep_verb(int argc, char **argv, struct err *e);	/* sweep DIR */

/* ---- what goes in (describe.c) ---- */

/* Release with initramfs_plan_release, also after a failure. */
struct initramfs_plan {
	struct vmm *vmm;
	bool as_is;			/* nothing to make: path is the initrd's, or NULL */
	char *path;			/* the result */
	char *initrd, *names;		/* names: the cache file with what the initrd holds; or both NULL */
	msgpack_sbuffer description;	/* for the verb `initramfs` */
	uint64_t need;			/* bytes the result will about take */
};

int initramfs_describe(struct initramfs_plan *plan, struct vmm *v, const struct profile *p,
	const struct vm_options *o, struct err *e);
void initramfs_plan_release(struct initramfs_plan *plan);
/* Where the agent's overlay is (config.md, `agent_overlay_path`); malloc'ed, or NULL and *e. exe: ours. */
char *initramfs_find_agent(const struct profile *p, const char *exe, struct err *e);

/* ---- a description (overlay.c reads it) ----
 *
 * Packed msgpack arrays, one after the other:
 *
 *   ["need", bytes]                           what it will about take, for errors
 *   ["initrd", path, names, identity]         comes first; names: its tree, as `initrd-names` made it
 *   ["modules", dir, version]                 where the next ones are, here and below /lib/modules there
 *   ["module", path, identity]                below dir
 *   ["agent", path, identity]                 an archive whose members are taken
 *   ["file", path, mode, host, content, identity]   one of host and content is nil; mode 0: the host file's
 *
 * An identity is what tells one state of a host file from another. Its SHA-256 names the result.
 */
#define INITRAMFS_MODULES_LIST "provium/modules.list"

#endif
