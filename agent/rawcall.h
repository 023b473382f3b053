/*
 * One system call by number, as the kernel takes and answers it.
 */
#ifndef PROVIUM_AGENT_RAWCALL_H
#define PROVIUM_AGENT_RAWCALL_H

/* -errno between -4095 and -1. A call that makes a process or a thread returns in the parent only: the new
 * one ends at once with status 0, because there must not be two agents on one connection. */
long raw_call(long nr, const long args[6]);

#endif
