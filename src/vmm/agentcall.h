/*
 * Private to src/vmm/: the outstanding calls of one agent connection, and what agent.c shares with them.
 */
#ifndef PROVIUM_VMM_AGENTCALL_H
#define PROVIUM_VMM_AGENTCALL_H

#include "vmm/vmm.h"

struct calls;

/* f is borrowed until calls_disconnect. broken(arg, e) comes from the loop when the guest left too many
 * cancelled calls unanswered. */
struct calls *calls_new(struct loop *l, struct framed *f, void (*broken)(void *arg, const struct err *e),
	void *arg);
/* No output from now on; what is pending stays so until calls_fail. */
void calls_disconnect(struct calls *cs);
/* Every pending and every later call fails with why, from the loop. The first reason stays. */
void calls_fail(struct calls *cs, const struct err *why);
/* After calls_fail. Calls of which the owner still holds a pointer live on. */
void calls_free(struct calls *cs);
/* How many have no reply yet. */
size_t calls_pending(const struct calls *cs);
/* See agent_call. */
struct agent_call *calls_start(struct calls *cs, unsigned channel, const char *op,
	const msgpack_sbuffer *params, bool keep_open, const struct agent_events *ev, void *arg);
/* One frame from the guest. Negative and *e ("a reply to id 7, which ...") when it breaks the protocol. */
int calls_frame(struct calls *cs, const msgpack_object *frame, struct err *e);

/* ---- bodies (agentbody.c) ---- */

/* A str or bin as a C string of at most max bytes, control characters replaced; NULL for anything else. */
char *body_text(const msgpack_object *o, size_t max);
/* An error's body as the failure its caller gets. Negative and *breach when it is none. */
int body_error(const msgpack_object *body, struct err *failure, struct err *breach);

#endif
