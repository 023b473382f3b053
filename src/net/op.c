/*
 * What a caller asked of the kernel backend: many netlink requests, one reply.
 */
#include <stdlib.h>

#include "net/kernel.h"

static void answered_cb(void *arg, const struct err *e);

/* In kernel_net->ops until it is answered; frees itself then. */
struct kernel_op {
	TAILQ_ENTRY(kernel_op) entry;
	struct kernel_net *k;
	struct net_reply *reply;
	unsigned pending;
	struct err err;
};

struct kernel_op *op_begin(struct kernel_net *k, struct net_reply *r)
{
	struct kernel_op *op = xcalloc(1, sizeof(*op));

	op->k = k;
	op->reply = r;
	op->pending = 1;	/* op_end's */
	TAILQ_INSERT_TAIL(&k->ops, op, entry);
	return op;
}

static void op_free(struct kernel_op *op)
{
	TAILQ_REMOVE(&op->k->ops, op, entry);
	err_release(&op->err);
	free(op);
}

void op_fail(struct kernel_op *op, const struct err *e)
{
	if (err_is_set(e) && !err_is_set(&op->err))
		err_copy(&op->err, e);
}

void op_hold(struct kernel_op *op)
{
	op->pending++;
}

void op_release(struct kernel_op *op, const struct err *e)
{
	op_fail(op, e);
	if (--op->pending)
		return;
	if (op->reply)
		net_reply_done(op->reply, &op->err);
	else if (err_is_set(&op->err))
		log_debug("net", "nobody waits for: %s", op->err.msg);
	op_free(op);
}

void op_end(struct kernel_op *op)
{
	op_release(op, NULL);
}

static void answered_cb(void *arg, const struct err *e)
{
	op_release(arg, e);
}

void op_send(struct kernel_op *op, struct netlink *nl, struct nlbuf *b, const char *module, const char *fmt,
	...)
{
	struct netlink_what what = { .module = module };
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	what.text = text;
	op_hold(op);
	netlink_send(nl, b, &what, NULL, answered_cb, op);
	free(text);
}

void op_free_all(struct kernel_net *k)
{
	struct kernel_op *op;

	while ((op = TAILQ_FIRST(&k->ops)))
		op_free(op);
}
