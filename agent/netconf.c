/*
 * One network card as the host wants it, net_configure, and what the guest knows of others, net_names.
 *
 * A card that was plugged in a moment ago may not be there yet, or not be connected: the call waits for it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "hosts.h"
#include "ops.h"
#include "rtnl.h"

#define WAIT_MAX 15000000000	/* ns for the card to appear: an emulated guest on a busy host takes its time */
#define RUNNING_MAX 3000000000	/* ns for it to be connected */

static void link_changed(void *arg, uint32_t events);
static void waited(void *arg);
static void wait_cancel(struct call *c);

static const struct call_cbs wait_cbs;

struct address {
	int family;
	uint8_t bytes[16];
	unsigned prefix;
};

struct wanted {
	uint8_t mac[6];
	const char *name;	/* NULL: whatever it has */
	bool up, running;
	struct address *addrs;
	uint32_t naddrs;
};

/* Freed with its call. */
struct waiting {
	struct call *c;
	bool found;		/* it is there and set up, but not connected yet */
	struct wanted w;
	struct ev_io io;
	struct ev_timer limit;
};

/* ---- parameters ---- */

static void parse_mac(struct args *a, uint8_t mac[6])
{
	const char *s = args_text(a, "mac");
	unsigned v[6];
	char more;

	if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%c", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &more) != 6) {
		args_refuse(a, "`mac` should look like 52:54:00:12:34:56");
		return;
	}
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)v[i];
}

static void parse_address(struct args *a, const char *s, struct address *out)
{
	const char *slash = strchr(s, '/');
	char host[64], *end;
	unsigned long prefix;

	out->family = strchr(s, ':') ? AF_INET6 : AF_INET;
	snprintf(host, sizeof(host), "%.*s", (int)(slash ? slash - s : 0), s);
	prefix = slash ? strtoul(slash + 1, &end, 10) : 999;
	if (!slash || end == slash + 1 || *end || prefix > (out->family == AF_INET ? 32 : 128) ||
	    inet_pton(out->family, host, out->bytes) != 1)
		args_refuse(a, "`addrs`: `%.64s` is no address like 10.0.0.2/24", s);
	out->prefix = (unsigned)prefix;
}

static void parse(struct args *a, struct wanted *w)
{
	const msgpack_object_array *addrs = args_opt_array(a, "addrs");

	parse_mac(a, w->mac);
	w->name = args_opt_text(a, "name");
	if (w->name && (!*w->name || strlen(w->name) >= IF_NAMESIZE || strchr(w->name, '/')))
		args_refuse(a, "`name`: `%.64s` cannot be an interface's name (at most %d bytes)", w->name,
			IF_NAMESIZE - 1);
	w->up = args_flag(a, "up");
	w->running = w->up && args_flag(a, "running");
	w->naddrs = addrs ? addrs->size : 0;
	w->addrs = msgpack_zone_malloc(a->zone, (w->naddrs + 1) * sizeof(*w->addrs));
	if (!w->addrs)
		agent_die("out of memory");
	for (uint32_t i = 0; i < w->naddrs; i++)
		parse_address(a, args_as_text(a, &addrs->ptr[i], "addrs"), &w->addrs[i]);
}

/* ---- work ---- */

/* Another card may have the name by the order of probing: it gets out of the way, and its own in its turn. */
static int free_name(int fd, const char *name, int except)
{
	struct rtnl_link other;
	char away[IF_NAMESIZE];
	int err = rtnl_find(fd, NULL, name, &other);

	if (err == -ENODEV || (!err && other.index == except))
		return 0;
	if (err)
		return err;
	snprintf(away, sizeof(away), "pv%d", other.index);
	if (other.up)
		rtnl_set_up(fd, other.index, false);
	err = rtnl_rename(fd, other.index, away);
	if (other.up)
		rtnl_set_up(fd, other.index, true);
	return err;
}

static int set_name(int fd, struct rtnl_link *l, const char *name)
{
	int err;

	if (!name || strcmp(l->name, name) == 0)
		return 0;
	err = free_name(fd, name, l->index);
	if (!err && l->up)
		err = rtnl_set_up(fd, l->index, false);
	if (!err)
		err = rtnl_rename(fd, l->index, name);
	if (!err && l->up)
		err = rtnl_set_up(fd, l->index, true);
	if (!err)
		snprintf(l->name, sizeof(l->name), "%s", name);
	return err;
}

/* -ENODEV: it is not there; -ENETDOWN: it is set up but not connected, and should be. */
static int apply(const struct wanted *w, char name[IF_NAMESIZE])
{
	int fd = rtnl_open(), err;
	struct rtnl_link l, lo;

	if (fd < 0)
		return fd;
	err = rtnl_find(fd, w->mac, NULL, &l);
	if (!err)
		err = set_name(fd, &l, w->name);
	if (!err)
		err = rtnl_set_up(fd, l.index, w->up);
	for (uint32_t i = 0; i < w->naddrs && !err; i++)
		err = rtnl_add_address(fd, l.index, w->addrs[i].family, w->addrs[i].bytes,
			w->addrs[i].prefix);
	if (!err && w->up && rtnl_find(fd, NULL, "lo", &lo) == 0 && !lo.up)
		rtnl_set_up(fd, lo.index, true);
	if (!err)
		memcpy(name, l.name, IF_NAMESIZE);
	if (!err && w->running && rtnl_find(fd, w->mac, NULL, &l) == 0 && !l.running)
		err = -ENETDOWN;
	close(fd);
	return err;
}

static void answer(struct call *c, int err, const char *name)
{
	msgpack_packer *pk;

	if (err) {
		call_errno(c, err);
		return;
	}
	pk = call_reply(c, 1);
	pack_str(pk, "name");
	pack_str(pk, name);
	call_reply_end(c);
}

/* ---- waiting for the card ---- */

static void wait_free(struct waiting *w)
{
	ev_io_set(call_ev(w->c), &w->io, 0);
	ev_timer_clear(&w->limit);
	close(w->io.fd);
	free(w);
}

static void try_again(struct waiting *w, bool last)
{
	char name[IF_NAMESIZE];
	struct call *c = w->c;
	int err = apply(&w->w, name);

	if (err == -ENETDOWN && !w->found) {
		w->found = true;
		ev_timer_set(call_ev(c), &w->limit, RUNNING_MAX);
		return;
	}
	if ((err == -ENODEV || err == -ENETDOWN) && !last)
		return;
	wait_free(w);
	/* A link that is down is the test's business: everything is set up. */
	answer(c, err == -ENETDOWN ? 0 : err, name);
}

static void link_changed(void *arg, uint32_t events)
{
	struct waiting *w = arg;
	char scratch[8192];

	(void)events;
	while (recv(w->io.fd, scratch, sizeof(scratch), MSG_DONTWAIT) > 0)
		;
	try_again(w, false);
}

static void waited(void *arg)
{
	try_again(arg, true);
}

static void wait_cancel(struct call *c)
{
	wait_free(c->state);
}

static int wait_for_card(struct call *c, const struct wanted *wanted)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	struct waiting *w;
	int fd = rtnl_open(), err;

	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	w = xcalloc(1, sizeof(*w));
	w->c = c;
	w->w = *wanted;
	ev_io_init(&w->io, fd, link_changed, w);
	ev_timer_init(&w->limit, waited, w);
	ev_io_set(call_ev(c), &w->io, EPOLLIN);
	ev_timer_set(call_ev(c), &w->limit, WAIT_MAX);
	c->state = w;
	c->cbs = &wait_cbs;
	return 0;
}

void op_net_configure(struct call *c)
{
	char name[IF_NAMESIZE] = "";
	struct wanted w = {0};
	int err;

	parse(&c->args, &w);
	if (call_refused(c))
		return;
	if (agent_env.local) {
		call_fail(c, WIRE_UNSUPPORTED, "net_configure: not supported by --vmm local");
		return;
	}
	err = apply(&w, name);
	if (err == -ENODEV || err == -ENETDOWN) {
		err = wait_for_card(c, &w);
		if (!err) {
			try_again(c->state, false);	/* it may have come before we listened */
			return;
		}
	}
	answer(c, err, name);
}

/* ---- names and routes ---- */

static void parse_route(struct args *a, const msgpack_object *o, struct rtnl_route *r)
{
	struct address dst = {0};
	const char *via;

	if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != 2) {
		args_refuse(a, "`routes`: each should be [\"a.b.c.d/n\", \"gateway\"]");
		return;
	}
	parse_address(a, args_as_text(a, &o->via.array.ptr[0], "routes"), &dst);
	via = args_as_text(a, &o->via.array.ptr[1], "routes");
	r->family = dst.family;
	r->prefix = dst.prefix;
	memcpy(r->dst, dst.bytes, sizeof(r->dst));
	if (inet_pton(r->family, via, r->via) != 1)
		args_refuse(a, "`routes`: `%.64s` is no gateway's address", via);
}

void op_net_names(struct call *c)
{
	const char *hosts = args_text(&c->args, "hosts"), *dns = args_text(&c->args, "dns");
	const msgpack_object_array *list = args_opt_array(&c->args, "routes");
	uint32_t n = list ? list->size : 0;
	struct rtnl_route *routes = xcalloc(n + 1, sizeof(*routes));
	int err = 0, fd;

	for (uint32_t i = 0; i < n; i++)
		parse_route(&c->args, &list->ptr[i], &routes[i]);
	if (call_refused(c))
		goto out;
	if (agent_env.local) {
		call_fail(c, WIRE_UNSUPPORTED, "net_names: not supported by --vmm local");
		goto out;
	}
	fd = rtnl_open();
	err = fd < 0 ? fd : rtnl_set_routes(fd, routes, n);
	if (fd >= 0)
		close(fd);
	if (!err)
		err = hosts_write(hosts);
	if (!err)
		err = resolv_write(dns);
	if (err)
		call_errno(c, err);
	else
		call_reply_empty(c);
out:
	free(routes);
}

static const struct call_cbs wait_cbs = {.cancel = wait_cancel};
