/*
 * A QMP connection: commands in flight, each with a deadline, and events.
 */
#ifndef PROVIUM_VMM_QMP_H
#define PROVIUM_VMM_QMP_H

#include <jansson.h>

#include "loop/loop.h"

#define QMP_DEADLINE_NS (30 * INT64_C(1000000000))
#define QMP_LINE_MAX ((size_t)16 << 20)

struct qmp;
struct qmp_call;

struct qmp_events {
	/* The handshake is over; events come from now on. May be NULL. */
	void (*ready)(void *arg);
	/* data is borrowed and may be NULL. */
	void (*event)(void *arg, const char *name, const json_t *data);
	/* EOF, I/O error, garbage or a command without an answer: nothing more will come. Calls in flight
	 * stay pending, so that the owner can end them by qmp_fail with what it knows (QEMU's exit
	 * status). */
	void (*broken)(void *arg, const struct err *e);
};

/* Either result (borrowed) or e. */
typedef void qmp_fn(void *arg, const json_t *result, const struct err *e);

/* Owns fd. Negotiates on its own; commands queued before that wait for it. */
struct qmp *qmp_new(struct loop *l, int fd, const struct qmp_events *ev, void *arg);
/* Takes over the reference to args (NULL: none). cb comes from the loop, once. */
struct qmp_call *qmp_execute(struct qmp *q, const char *command, json_t *args, qmp_fn *cb, void *arg);
/* The same with a descriptor, for `getfd`; fd stays the caller's and may be closed at once. */
struct qmp_call *qmp_execute_fd(struct qmp *q, const char *command, json_t *args, int fd, qmp_fn *cb, void *arg);
/* Forgets a pending call: no callback any more. */
void qmp_cancel(struct qmp_call *c);
/* Handles what has arrived but was not read yet: after QEMU's exit, its last events. */
void qmp_drain(struct qmp *q);
/* Ends the connection and every pending call with the reason. Calls made later fail with it, too. */
void qmp_fail(struct qmp *q, const struct err *e);
/* For tests: another deadline than 30 s. */
void qmp_set_deadline(struct qmp *q, int64_t ns);
/* Safe from its own callbacks. Pending calls fail from the loop. */
void qmp_free(struct qmp *q);

#endif
