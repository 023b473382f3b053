/*
 * A guest's NIC on a kernel bridge: a TAP whose other end QEMU holds.
 *
 * The TAP is persistent, so it stays a port of its bridge, with its queues, while one QEMU is replaced by the
 * next; with nobody at its other end it has no carrier, and frames for it are dropped as for a guest that is
 * off. There is no vnet header: what crosses the bridge are the frames of the wire, each of them to be
 * delayed, lost or captured by itself, with checksums that are right.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/kernel.h"
#include "net/links.h"

/* For errors: the bridge may have failed to come about. */
static struct kernel_bridge *bridge_of(const struct kernel_port *p)
{
	return (struct kernel_bridge *)p->base.bridge;
}

static int tun_failed(int code, struct err *e)
{
	if (code == ENOENT || code == ENODEV || code == ENXIO)
		return err_set(e, code, "open /dev/net/tun: %s; a guest's NIC on a kernel bridge needs the TUN driver: "
			"`modprobe tun`, or take backend = \"user\"", strerror(code));
	if (code == EPERM || code == EACCES)
		return err_set(e, code, "open /dev/net/tun: %s; this needs access to the device and the right "
			"CAP_NET_ADMIN: run as root, or take backend = \"user\"", strerror(code));
	return err_set(e, code, "open /dev/net/tun: %s", strerror(code));
}

/* In the namespace: takes the TAP's one queue, making the TAP when there is none of that name. */
static int open_tap(void *arg, struct err *e)
{
	struct kernel_port *p = arg;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	unsigned index = (unsigned)p->index;
	int rc = 0;

	p->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (p->fd < 0)
		return tun_failed(errno, e);
	memcpy(ifr.ifr_name, p->ifname, IFNAMSIZ);
	if (ioctl(p->fd, TUNSETIFINDEX, &index) || ioctl(p->fd, TUNSETIFF, &ifr) || ioctl(p->fd, TUNSETPERSIST, 1)) {
		rc = errno == EBUSY ?
			err_set(e, EBUSY, "open the TAP: the hypervisor before still holds it") : tun_failed(errno, e);
		close(p->fd);
		p->fd = -1;
	}
	return rc;
}

void kernel_port_init(struct net_port *base, struct net_reply *r)
{
	struct kernel_port *p = (struct kernel_port *)base;
	struct kernel_bridge *b = bridge_of(p);
	struct nlbuf msg = NLBUF_INIT;
	struct err e = ERR_INIT;
	struct kernel_op *op;

	p->fd = -1;
	TAILQ_INIT(&p->classes);
	if (!b->k) {
		net_reply_done(r, &b->why);
		return;
	}
	p->index = kernel_new_index(b->k, p->ifname, "tap");
	if (netns_run(b->k->ns, open_tap, p, &e)) {
		p->index = 0;
		err_prefix(&e, "attach `%s` to bridge `%s`", base->name, b->base.name);
		net_reply_done(r, &e);
		err_release(&e);
		return;
	}
	TAILQ_INSERT_TAIL(&b->ports, p, entry);
	op = op_begin(b->k, r);
	link_up(&msg, p->index, b->index);
	op_send(op, b->k->rt, &msg, NULL, "attach `%s` to bridge `%s`", base->name, b->base.name);
	shape_sync(b, op);
	rules_sync(b->k, op);
	op_end(op);
}

void kernel_port_release(struct kernel_port *p)
{
	struct kernel_class *c;

	while ((c = TAILQ_FIRST(&p->classes))) {
		TAILQ_REMOVE(&p->classes, c, entry);
		free(c);
	}
	if (p->fd >= 0)
		close(p->fd);
	net_port_base_free(&p->base);
}

void kernel_port_free(struct net_port *base)
{
	struct kernel_port *p = (struct kernel_port *)base;
	struct kernel_bridge *b = bridge_of(p);
	struct kernel_op *op;

	if (p->index) {
		TAILQ_REMOVE(&b->ports, p, entry);
		kernel_forget_port(p);
	}
	if (p->index && !b->base.net->closing) {
		kernel_port_given(base);
		op = op_begin(b->k, NULL);
		rules_forget(p, op);
		shape_forget(p, op);
		kernel_discard(b->k, op, p->index);
		op_end(op);
	}
	kernel_port_release(p);
}

int kernel_port_fd(const struct net_port *base)
{
	return ((const struct kernel_port *)base)->fd;
}

void kernel_port_given(struct net_port *base)
{
	struct kernel_port *p = (struct kernel_port *)base;

	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

char *kernel_port_netdev(const struct net_port *base, const char *id, const char *fd)
{
	(void)base;
	return xasprintf("tap,id=%s,fd=%s", id, fd);
}

void kernel_port_renew(struct net_port *base, struct net_reply *r)
{
	struct kernel_port *p = (struct kernel_port *)base;
	struct kernel_bridge *b = bridge_of(p);
	struct err e = ERR_INIT;

	if (!p->index) {
		net_reply_fail(r, ENODEV, "bridge `%s` has no port for `%s`: it could not be attached", b->base.name,
			base->name);
		return;
	}
	kernel_port_given(base);
	if (netns_run(b->k->ns, open_tap, p, &e))
		err_prefix(&e, "attach `%s` to bridge `%s` again", base->name, b->base.name);
	net_reply_done(r, &e);
	err_release(&e);
}
