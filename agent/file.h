/*
 * Open files with handles.
 */
#ifndef PROVIUM_AGENT_FILE_H
#define PROVIUM_AGENT_FILE_H

#include "call.h"

struct files;

struct files *files_new(void);
/* The descriptor of the call's `handle`; -1, and the call failed, when a parameter is bad or there is no
 * such file. */
int file_fd(struct call *c);
/* All bytes, or -errno. */
int file_write_all(int fd, const void *p, size_t n);

#endif
