/*
 * Private to src/vmm/: the life of a connection to the guest's agent, as vm.c and local.c drive it. What
 * others may do with a connection is in vmm.h.
 */
#ifndef PROVIUM_VMM_AGENT_H
#define PROVIUM_VMM_AGENT_H

#include "vmm/vmm.h"

typedef void agent_event_fn(void *arg, const struct err *e);

/*
 * Owns fd. Sends the sync mark, then hello; requests may be sent from ready() on. From the loop comes either
 * ready(e), and nothing after it, when the handshake failed; or ready(NULL), and later broken(e) when the
 * connection was lost or the guest broke the protocol. The handshake has no deadline here.
 *
 * After broken() pending calls still wait: a closed socket mostly means that QEMU died, and its owner
 * finds out why and then calls agent_fail() or agent_free().
 */
struct agent *agent_new(struct loop *l, int fd, const char *vm_name, agent_event_fn *ready,
	agent_event_fn *broken, void *arg);
/* Closes the connection; every pending call, and every later one, fails with why, from the loop. Neither
 * ready() nor broken() is called any more. The first reason stays. */
void agent_fail(struct agent *a, const struct err *why);
/* Requests that are not answered yet. */
size_t agent_pending(const struct agent *a);
/* agent_fail, when it was not called, and frees. Safe from every callback. NULL is fine. */
void agent_free(struct agent *a);

#endif
