/*
 * A snapshot's directory: what it says of itself (meta.json), and its files.
 *
 *	meta.json	everything below; written last
 *	ram		the guest's memory, whole and sparse
 *	changes		pages that differ from ram (ramimage.h); only when ram is shared with another snapshot
 *	state		QEMU's device state, without memory
 *	console		the console's log up to then
 *	disk-ID		of each writable disk
 */
#ifndef PROVIUM_VMM_IMAGE_H
#define PROVIUM_VMM_IMAGE_H

#include <jansson.h>

#include "vmm/vmm.h"

#define IMAGE_FORMAT 1

/* Shared by whoever needs it. */
struct image {
	struct vm_image pub;		/* first: what others see */
	unsigned refs;
	char *id;			/* of this one snapshot: 32 hexadecimal digits */
	char *cpu, *arch, *agent_version;
	struct vm_options options;	/* of the boot it goes back to */
	enum accel accel;
	bool paused;			/* the VM was, when it was saved */
	uint64_t ram, changes, state, console;	/* bytes of the files; changes 0: none */
	uint64_t consumed;		/* how much of the console's log expectations have matched */
	char **disks;			/* ids of the disks that have a file, NULL-terminated */
	struct image_card { unsigned slot; uint8_t mac[6]; char *bridge; } *cards;	/* network cards, by slot */
	size_t ncards;
};

static inline const struct image *image_of(const struct vm_image *i)
{
	return (const struct image *)i;
}

struct image *image_new(void);
const struct image *image_ref(const struct image *i);
void image_unref(const struct image *i);
/* "7.2.17 (Debian ...)", of the answer to QMP's query-version; malloc'ed. */
char *image_qemu_version(const json_t *version);
/* The path of one of its files; malloc'ed. */
char *image_path(const char *dir, const char *file);
/* Sizes of the files in dir, as they are now. */
int image_measure(struct image *i, const char *dir, struct err *e);
/* Writes dir/meta.json. */
int image_write(const struct image *i, const char *dir, struct err *e);
int image_remove_verb(int argc, char **argv, struct err *e);	/* remove DIR, with all in it */
/* The console's log; malloc'ed, NULL and *e on failure. */
char *image_console(const struct image *i, size_t *len, struct err *e);

#endif
