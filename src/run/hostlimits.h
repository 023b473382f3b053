/*
 * What the host has to offer: memory, processors, descriptors.
 */
#ifndef PROVIUM_RUN_HOSTLIMITS_H
#define PROVIUM_RUN_HOSTLIMITS_H

#include "run/args.h"
#include "run/pool.h"

/* The pool's size: --mem, --cpus and --cpu-overcommit, or 80 % of the host's memory and its online processors. */
struct amount host_pool(const struct args *a);
/* Raises the soft limit of open descriptors to the hard one: each VM takes some ten. */
void host_raise_descriptors(void);
/* The agent's program for --vmm local, beside this one or where it is installed; malloc'ed, NULL when there is none. */
char *host_agent_path(void);

#endif
