/*
 * A network namespace of our own, held by a descriptor and nothing else: when the last holder is gone, so is
 * all that is in it, whatever ended us.
 */
#ifndef PROVIUM_NET_NETNS_H
#define PROVIUM_NET_NETNS_H

#include "loop/loop.h"

struct netns;

/* A new, empty one. NULL and *e. Takes a millisecond. */
struct netns *netns_new(struct err *e);
/* Our reference goes; sockets and TAPs that were opened inside keep it alive until they are closed. */
void netns_free(struct netns *ns);

/* Runs fn(arg, e) with the thread inside and comes back. fn must not block, spawn or call Lua. What fn
 * returned, or -errno and *e when there is no way in. ns NULL: stays where we are. */
int netns_run(struct netns *ns, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);

/* Writes a setting below /proc/sys/net/ of that namespace (NULL: ours). What the kernel does not have is
 * -ENOENT. */
int netns_sysctl(struct netns *ns, const char *name, const char *value, struct err *e);
/* Reads one: a number, or -errno. */
int netns_read_sysctl(struct netns *ns, const char *name);

/* A descriptor of the namespace we live in ourselves; -1 without /proc. Borrowed. */
int netns_home(void);

#endif
