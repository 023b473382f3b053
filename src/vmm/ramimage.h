/*
 * A guest's memory, into a snapshot and out of it. Helper verbs: they block.
 *
 * Memory is a file that QEMU maps: shared when the guest was booted (a memfd), private when it was restored
 * (a snapshot's `ram`). A shared one is copied, while the
 * guest runs, and then once more what has changed meanwhile, while it stands still. Of a private one only the pages that the guest has written
 * since differ from the file: the kernel knows them (/proc/PID/pagemap), and they alone are written, beside a
 * hard link to the file. So a chain of snapshots of snapshots is never deeper than that.
 *
 * `changes` is, in the host's byte order:
 *
 *	char magic[8]		"PROVRAM1"
 *	uint64_t page, nranges, npages
 *	{ uint64_t first, count; } ranges[nranges]	in pages, ascending
 *	pages
 *
 *	ram-save DIR		RAM's file is descriptor 3; a private one's also /proc/PID/mem, pagemap, maps as 4, 5, 6
 *	ram-update DIR		a shared one once more: writes what has changed in it since ram-save
 *	ram-apply FILE		writes FILE's pages into the memory of a QEMU that maps descriptor 3 privately;
 *				4 and 5 are its mem and maps
 */
#ifndef PROVIUM_VMM_RAMIMAGE_H
#define PROVIUM_VMM_RAMIMAGE_H

#include "loop/loop.h"

enum { RAM_FD = 3, RAM_MEM_FD = 4, RAM_PAGEMAP_FD = 5, RAM_MAPS_FD = 6, RAM_APPLY_MAPS_FD = 5 };

/* Opens /proc/PID/WHAT of a QEMU of ours for a helper: we may as its parent, and a helper could not everywhere. -1 and
 * *e on failure. */
int ram_open_proc(pid_t pid, const char *what, int flags, struct err *e);

int ram_save_verb(int argc, char **argv, struct err *e);
int ram_update_verb(int argc, char **argv, struct err *e);
int ram_apply_verb(int argc, char **argv, struct err *e);

#endif
