/*
 * A VM's link to its agent over the guest's whole life: connected, lost, connected again.
 */
#ifndef PROVIUM_VMM_LINK_H
#define PROVIUM_VMM_LINK_H

#include "vmm/vmm.h"

struct link;

struct link_events {
	/* An agent answered the handshake: link_agent() is it. */
	void (*up)(void *arg);
	/* The transport is to look for another connection. */
	void (*retry)(void *arg);
	/* The guest cannot be trusted or reached any more: e says why. */
	void (*fatal)(void *arg, const struct err *e);
};

struct link *link_new(struct loop *l, const char *vm_name, const struct link_events *ev, void *arg);
/* How long an agent that was there may be away (a reboot, a restarted agent) before that is fatal. */
void link_set_patience(struct link *k, int64_t ns);
/* While paused, the guest cannot come back and time does not count. */
void link_pause(struct link *k, bool paused);
/* The transport has a connection; owns fd. */
void link_connect(struct link *k, int fd);
/* The guest closed its side. What was asked fails unless its reason becomes known shortly (link_end). */
void link_closed(struct link *k);
/* The guest boots anew; why: "the VM was reset". What was asked fails now. */
void link_reset(struct link *k, const char *why);
/* The guest is gone: what was asked fails with why. The link is then as new. */
void link_end(struct link *k, const struct err *why);
/* NULL while none answers. */
struct agent *link_agent(struct link *k);
/* Whether an agent was connected that has not answered yet. */
bool link_in_handshake(const struct link *k);
void link_free(struct link *k);

#endif
