/*
 * Whether this host can do what the kernel backend needs: asked by trying it, in a namespace that is thrown
 * away.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/kernel.h"
#include "net/links.h"
#include "net/nft.h"
#include "net/qdisc.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>

#define LO 1
#define BRIDGE 2
#define VETH 3
#define PEER 4
#define IFB 5

static int try_bridge(void *arg, struct err *e)
{
	struct netlink_what bridge = { "make a bridge", "bridge" };
	struct nlbuf b = NLBUF_INIT;

	(void)arg;
	link_new_bridge(&b, BRIDGE, "br");
	return netlink_ask(NETLINK_ROUTE, &b, &bridge, NULL, NULL, e);
}

static int try_links(struct err *e)
{
	struct netlink_what veth = { "make a veth pair", "veth" }, ifb = { "make an ifb", "ifb" };
	struct nlbuf b = NLBUF_INIT;
	int rc = try_bridge(NULL, e);

	if (rc)
		return rc;
	link_new_veth(&b, VETH, "a", PEER, "b", -1, NULL);
	rc = netlink_ask(NETLINK_ROUTE, &b, &veth, NULL, NULL, e);
	if (rc)
		return rc;
	link_new_ifb(&b, IFB, "ifb");
	return netlink_ask(NETLINK_ROUTE, &b, &ifb, NULL, NULL, e);
}

static int ask_netem(void *arg, struct err *e)
{
	struct netlink_what netem = { "delay frames", "sch_netem" };
	struct net_impairment i = { .latency_ns = 1 };
	struct nlbuf b = NLBUF_INIT;
	int *rc = arg;

	qdisc_set_netem(&b, LO, 0, &i, 1);
	*rc = netlink_ask(NETLINK_ROUTE, &b, &netem, NULL, NULL, e);
	return *rc;
}

static int try_queues(struct err *e)
{
	struct netlink_what htb = { "limit rates", "sch_htb" }, tbf = { "limit rates", "sch_tbf" },
		clsact = { "redirect frames", "sch_ingress" }, mirred = { "redirect frames", "cls_u32 act_mirred" };
	struct nlbuf b = NLBUF_INIT;
	int rc;

	qdisc_new_htb(&b, VETH, 1);
	rc = netlink_ask(NETLINK_ROUTE, &b, &htb, NULL, NULL, e);
	if (rc)
		return rc;
	qdisc_set_tbf(&b, IFB, 1000000, qdisc_burst(1000000, 0), 100000);
	rc = netlink_ask(NETLINK_ROUTE, &b, &tbf, NULL, NULL, e);
	if (rc)
		return rc;
	qdisc_new_clsact(&b, VETH);
	rc = netlink_ask(NETLINK_ROUTE, &b, &clsact, NULL, NULL, e);
	if (rc)
		return rc;
	qdisc_redirect(&b, VETH, true, IFB);
	return netlink_ask(NETLINK_ROUTE, &b, &mirred, NULL, NULL, e);
}

static int try_rules(struct err *e)
{
	struct netlink_what bridge = { "drop frames on a bridge",
		"nf_tables nft_meta_bridge nft_numgen nft_objref" },
		copy = { "duplicate frames", "nft_dup_netdev" };
	struct nftnl_rule *r;
	struct nft_batch t;
	int rc;

	nft_begin(&t, NFPROTO_BRIDGE, "probe");
	nft_new_table(&t, false);
	nft_new_base(&t, "forward", "filter", 2, 0, NF_ACCEPT, NULL);
	nft_new_counter(&t, "drops");
	r = nft_rule(&t, "forward");
	nft_chance(r, 0.5);
	nft_count(r, "drops");
	nft_set_priority(r, 1);
	nft_verdict(r, NF_DROP, NULL);
	nft_add(&t, r);
	nft_end(&t);
	rc = netlink_ask(NETLINK_NETFILTER, &t.msg, &bridge, NULL, NULL, e);
	if (rc)
		return rc;
	nft_begin(&t, NFPROTO_NETDEV, "probe");
	nft_new_table(&t, false);
	nft_new_base(&t, "out", "filter", 1, 0, NF_ACCEPT, "a");
	r = nft_rule(&t, "out");
	nft_copy_to(r, VETH);
	nft_add(&t, r);
	nft_end(&t);
	return netlink_ask(NETLINK_NETFILTER, &t.msg, &copy, NULL, NULL, e);
}

static int try_all(void *arg, struct err *e)
{
	int rc = ask_netem(arg, e);

	if (rc == -ENOENT || rc == -EOPNOTSUPP)
		return err_set(e, rc, "this host's kernel has no sch_netem, which latency, jitter, reordering and corruption "
			"need (`modprobe sch_netem`)");
	if (!rc)
		rc = try_links(e);
	if (!rc)
		rc = try_queues(e);
	if (!rc)
		rc = try_rules(e);
	return rc;
}

/* ---- what others ask ---- */

bool kernel_has_netem(struct netns *ns)
{
	static int cached = 1;		/* 1: not asked yet */
	struct err e = ERR_INIT;

	if (cached > 0)
		netns_run(ns, ask_netem, &cached, &e);
	log_debug("net", "sch_netem: %s", e.msg ? e.msg : "there");
	err_release(&e);
	return cached == 0;
}

static int try_usable(struct err *e)
{
	int rc, fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct netns *ns;

	if (fd < 0)
		return err_set(e, errno, "open /dev/net/tun: %s; guests' NICs on a kernel bridge need it: %s, or take "
			"backend = \"user\"", strerror(errno),
			errno == EACCES || errno == EPERM ? "run as root" : "`modprobe tun`");
	close(fd);
	ns = netns_new(e);
	rc = ns ? netns_run(ns, try_bridge, NULL, e) : e->code;
	netns_free(ns);
	return rc;
}

int net_kernel_usable(struct err *e)
{
	static struct err cached;
	static bool asked;

	if (!asked)
		try_usable(&cached);
	asked = true;
	if (err_is_set(&cached))
		err_copy(e, &cached);
	return cached.code;
}

enum net_backend net_auto(struct loop *l, char **why)
{
	static struct err cached;
	static bool asked;
	struct netns *ns;
	int netem;

	(void)l;
	if (!asked && !net_kernel_usable(&cached)) {
		ns = netns_new(&cached);
		if (ns)
			netns_run(ns, try_all, &netem, &cached);
		netns_free(ns);
	}
	asked = true;
	if (why)
		*why = cached.msg ? xstrdup(cached.msg) : NULL;
	return err_is_set(&cached) ? NET_USER : NET_KERNEL;
}
