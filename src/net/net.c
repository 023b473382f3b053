/*
 * A test file's network, whatever the backend: lists of bridges and ports, replies, and the way to the
 * backend.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/backend.h"

static void deliver_cb(void *arg);

/* In net->replies until it was delivered. Freed by deliver_cb, or by net_free while it is not answered. */
struct net_reply {
	TAILQ_ENTRY(net_reply) entry;
	struct net *net;		/* NULL: gone */
	net_done_fn *done;		/* one of the two, or NULL: forgotten */
	net_counters_fn *counted;
	void *arg;
	bool answered;
	struct err err;
	struct net_counters counters;
};

/* ---- replies ---- */

static struct net_reply *reply_new(struct net *n, net_done_fn *done, net_counters_fn *counted, void *arg)
{
	struct net_reply *r = xcalloc(1, sizeof(*r));

	r->net = n;
	r->done = done;
	r->counted = counted;
	r->arg = arg;
	TAILQ_INSERT_TAIL(&n->replies, r, entry);
	return r;
}

static void deliver_cb(void *arg)
{
	struct net_reply *r = arg;
	const struct err *e = err_is_set(&r->err) ? &r->err : NULL;

	if (r->net)
		TAILQ_REMOVE(&r->net->replies, r, entry);
	if (r->net && r->done)
		r->done(r->arg, e);
	else if (r->net && r->counted)
		r->counted(r->arg, e ? NULL : &r->counters, e);
	err_release(&r->err);
	free(r);
}

static void answer(struct net_reply *r)
{
	INVARIANT(!r->answered);
	r->answered = true;
	loop_defer(r->net->loop, deliver_cb, r);
}

void net_reply_done(struct net_reply *r, const struct err *e)
{
	if (err_is_set(e))
		err_copy(&r->err, e);
	answer(r);
}

void net_reply_fail(struct net_reply *r, int code, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&r->err, code, "%s", text);
	free(text);
	answer(r);
}

void net_reply_counters(struct net_reply *r, const struct net_counters *c, const struct err *e)
{
	if (c)
		r->counters = *c;
	net_reply_done(r, e);
}

void net_forget(struct net *n, net_done_fn *cb, void *arg)
{
	struct net_reply *r;

	TAILQ_FOREACH(r, &n->replies, entry)
		if (r->done == cb && r->arg == arg)
			r->done = NULL;
}

void net_forget_counters(struct net *n, net_counters_fn *cb, void *arg)
{
	struct net_reply *r;

	TAILQ_FOREACH(r, &n->replies, entry)
		if (r->counted == cb && r->arg == arg)
			r->counted = NULL;
}

/* ---- the net ---- */

struct net *net_new(struct loop *l)
{
	struct net *n = xcalloc(1, sizeof(*n));

	n->loop = l;
	TAILQ_INIT(&n->bridges);
	TAILQ_INIT(&n->replies);
	return n;
}

void net_free(struct net *n)
{
	struct net_bridge *b;
	struct net_port *p;
	struct net_reply *r;

	if (!n)
		return;
	n->closing = true;
	while ((b = TAILQ_FIRST(&n->bridges))) {
		while ((p = TAILQ_FIRST(&b->ports)))
			net_port_free(p);
		net_bridge_free(b);
	}
	if (n->kernel)
		net_kernel_ops.net_free(n);
	if (n->user)
		net_user_ops.net_free(n);
	while ((r = TAILQ_FIRST(&n->replies))) {
		TAILQ_REMOVE(&n->replies, r, entry);
		r->net = NULL;
		if (!r->answered)
			free(r);
	}
	free(n);
}

/* ---- bridges ---- */

struct net_bridge *net_bridge_new(struct net *n, enum net_backend backend, const char *name, uint64_t seed,
	net_done_fn *cb, void *arg)
{
	const struct net_backend_ops *ops = backend == NET_KERNEL ? &net_kernel_ops : &net_user_ops;
	struct net_bridge *b = xcalloc(1, ops->bridge_size);

	INVARIANT(backend != NET_AUTO);
	b->net = n;
	b->ops = ops;
	b->name = xstrdup(name);
	TAILQ_INIT(&b->ports);
	TAILQ_INSERT_TAIL(&n->bridges, b, entry);
	log_debug("net", "arm bridge %s, %s", name, ops->name);
	ops->bridge_init(b, seed, reply_new(n, cb, NULL, arg));
	return b;
}

void net_bridge_free(struct net_bridge *b)
{
	if (!b)
		return;
	INVARIANT(TAILQ_EMPTY(&b->ports));
	log_debug("net", "finish bridge %s", b->name);
	net_captures_end(b, NULL);
	TAILQ_REMOVE(&b->net->bridges, b, entry);
	b->ops->bridge_free(b);
}

void net_bridge_base_free(struct net_bridge *b)
{
	free(b->name);
	free(b);
}

const char *net_bridge_name(const struct net_bridge *b)
{
	return b->name;
}

enum net_backend net_bridge_backend(const struct net_bridge *b)
{
	return b->ops->kind;
}

void net_bridge_counters(struct net_bridge *b, net_counters_fn *cb, void *arg)
{
	b->ops->bridge_counters(b, reply_new(b->net, NULL, cb, arg));
}

/* ---- ports ---- */

struct net_port *net_port_new(struct net_bridge *b, const char *name, const uint8_t mac[6], net_done_fn *cb,
	void *arg)
{
	struct net_port *p = xcalloc(1, b->ops->port_size);

	p->bridge = b;
	p->name = xstrdup(name);
	memcpy(p->mac, mac, 6);
	TAILQ_INSERT_TAIL(&b->ports, p, entry);
	b->ops->port_init(p, reply_new(b->net, cb, NULL, arg));
	return p;
}

void net_port_free(struct net_port *p)
{
	if (!p)
		return;
	net_captures_end(p->bridge, p);
	TAILQ_REMOVE(&p->bridge->ports, p, entry);
	p->bridge->ops->port_free(p);
}

void net_port_base_free(struct net_port *p)
{
	free(p->name);
	free(p);
}

int net_port_fd(const struct net_port *p)
{
	return p->bridge->ops->port_fd(p);
}

void net_port_given(struct net_port *p)
{
	p->bridge->ops->port_given(p);
}

char *net_port_netdev(const struct net_port *p, const char *id, const char *fd)
{
	return p->bridge->ops->port_netdev(p, id, fd);
}

void net_port_renew(struct net_port *p, net_done_fn *cb, void *arg)
{
	p->bridge->ops->port_renew(p, reply_new(p->bridge->net, cb, NULL, arg));
}

void net_port_counters(struct net_port *p, net_counters_fn *cb, void *arg)
{
	p->bridge->ops->port_counters(p, reply_new(p->bridge->net, NULL, cb, arg));
}

void net_port_set_rate(struct net_port *p, uint64_t bps, net_done_fn *cb, void *arg)
{
	p->bridge->ops->port_set_rate(p, bps, reply_new(p->bridge->net, cb, NULL, arg));
}

/* ---- what goes wrong ---- */

static bool fraction(double x)
{
	return x >= 0 && x <= 1;
}

static bool impairment_valid(const struct net_impairment *i)
{
	return i->latency_ns >= 0 && i->jitter_ns >= 0 && fraction(i->latency_correlation) && fraction(i->loss) &&
		fraction(i->loss_correlation) && fraction(i->duplicate) && fraction(i->reorder) && fraction(i->corrupt);
}

void net_impair(struct net_bridge *b, struct net_port *from, struct net_port *to,
	const struct net_impairment *i, net_done_fn *cb, void *arg)
{
	struct net_reply *r = reply_new(b->net, cb, NULL, arg);

	INVARIANT((!from || from->bridge == b) && (!to || to->bridge == b));
	if (!impairment_valid(i))
		net_reply_fail(r, EINVAL, "bridge `%s`: an impairment out of range: probabilities and correlations are "
			"0 to 1, times not negative", b->name);
	else
		b->ops->impair(b, from, to, i, r);
}

void net_set_blocks(struct net_bridge *b, const struct net_block *blocks, size_t n, net_done_fn *cb,
	void *arg)
{
	b->ops->set_blocks(b, blocks, n, reply_new(b->net, cb, NULL, arg));
}

/* ---- the host's side ---- */

void net_bridge_set_gateway(struct net_bridge *b, const struct net_address *a, net_done_fn *cb, void *arg)
{
	b->ops->set_gateway(b, a, reply_new(b->net, cb, NULL, arg));
}

void net_route(struct net_bridge *a, struct net_bridge *b, bool on, net_done_fn *cb, void *arg)
{
	struct net_reply *r = reply_new(a->net, cb, NULL, arg);

	if (a->net != b->net || a->ops != b->ops || a == b)
		net_reply_fail(r, EINVAL, "route between bridges `%s` and `%s`: %s", a->name, b->name,
			a == b ? "that is one bridge" :
			a->net != b->net ? "they belong to different test files" :
			"one is of the kernel backend and one of the user backend; give both the same `backend`");
	else
		a->ops->route(a, b, on, r);
}

void net_uplink(struct net_bridge *b, bool on, net_done_fn *cb, void *arg)
{
	b->ops->uplink(b, on, reply_new(b->net, cb, NULL, arg));
}
