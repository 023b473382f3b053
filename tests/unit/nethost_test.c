/*
 * The host's side of the kernel backend: gateways, routes between bridges, the way out, names; and that a
 * SIGKILL leaves nothing of it. The test lives in a namespace of its own, whose default route leads to
 * another that stands for the outside; nothing is sent anywhere else. Needs root.
 */
#include "netguest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#define SOON INT64_C(300000000)
#define LONG INT64_C(20000000000)
#define OUTSIDE "203.0.113.2"

/* Two bridges with gateways, a guest on each. */
struct world {
	struct netrig r;
	struct net_bridge *bridge[2];
	struct net_port *port;		/* of the first guest */
	struct netguest *guest[2];
};

static struct netns *outside;

static struct net_address gateway_of(unsigned net)
{
	struct net_address a = { .ip4 = { 10, 0, (uint8_t)net, 1 }, .prefix4 = 24, .has6 = true, .prefix6 = 64 };

	a.ip6[0] = 0xfd;
	a.ip6[3] = (uint8_t)net;
	a.ip6[15] = 1;
	return a;
}

static void build_net(struct netrig *r, struct net_bridge **bridge, unsigned net)
{
	struct net_address a = gateway_of(net);

	*bridge = netrig_bridge(r, net == 1 ? "lan" : "wan");
	net_bridge_set_gateway(*bridge, &a, netrig_done, r);
	netrig_ok(r);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct net_port *p;

	netrig_open(&w->r);
	for (unsigned i = 0; i < 2; i++) {
		build_net(&w->r, &w->bridge[i], i + 1);
		p = netrig_port(&w->r, w->bridge[i], i + 1);
		w->guest[i] = netguest_new(&w->r, p, i + 1, 2);
		if (i == 0)
			w->port = p;
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	netguest_free(w->guest[0]);
	netguest_free(w->guest[1]);
	netrig_close(&w->r);
	free(w);
	return 0;
}

/* Whether a datagram from the guest reaches a socket at `text`, port 9, in ns; the sender's address into
 * from. */
static bool reaches(struct world *w, struct netguest *g, struct netns *ns, const char *text, int64_t wait,
	struct sockaddr_in *from)
{
	int server = netguest_socket(ns, SOCK_DGRAM, text, 9);
	int client = netguest_socket(netguest_ns(g), SOCK_DGRAM, text, 0);
	socklen_t len = sizeof(*from);
	char text_back[8] = "";
	bool came;

	assert_int_equal(netguest_connect(client, text, 9), 0);
	assert_int_equal(send(client, "hello", 5, 0), 5);
	came = netguest_readable(&w->r, server, wait);
	if (came)
		assert_int_equal(recvfrom(server, text_back, sizeof(text_back), 0, (struct sockaddr *)from,
			from ? &len : NULL), 5);
	close(server);
	close(client);
	return came;
}

/* ---- gateways ---- */

/* Nobody listens there, so what comes back is that the port is closed. */
static void closed_port_answers(struct world *w, const char *text)
{
	int fd = netguest_socket(netguest_ns(w->guest[0]), SOCK_DGRAM, text, 0);
	char c;

	assert_int_equal(netguest_connect(fd, text, 9), 0);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	assert_true(netguest_readable(&w->r, fd, LONG));
	assert_true(recv(fd, &c, 1, 0) < 0);
	assert_int_equal(errno, ECONNREFUSED);
	close(fd);
}

static void the_gateway_answers(void **state)
{
	struct world *w = *state;

	closed_port_answers(w, "10.0.1.1");
	closed_port_answers(w, "fd00:1::1");
}

static void the_gateway_says_nothing_unasked(void **state)
{
	struct world *w = *state;
	struct net_port *p = netrig_port(&w->r, w->bridge[0], 9);
	struct net_address a = gateway_of(1);

	a.ip6[15] = 0x77;
	net_bridge_set_gateway(w->bridge[0], &a, netrig_done, &w->r);
	netrig_ok(&w->r);
	/* What the guest's own stack says is left out: this port has heard of the gateway alone if it is asked
	 * for. */
	netguest_free(w->guest[0]);
	w->guest[0] = NULL;
	while (read(net_port_fd(p), (char[2048]){ 0 }, 2048) > 0)
		;
	net_bridge_set_gateway(w->bridge[0], &a, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_false(netrig_receive_within(&w->r, net_port_fd(p), 5 * SOON, NULL));
}

static void a_gateway_changes_its_address(void **state)
{
	struct world *w = *state;
	struct net_address a = gateway_of(1);

	a.ip4[3] = 77;
	a.ip6[15] = 0x77;
	net_bridge_set_gateway(w->bridge[0], &a, netrig_done, &w->r);
	netrig_ok(&w->r);
	closed_port_answers(w, "10.0.1.77");
	closed_port_answers(w, "fd00:1::77");
}

static void a_bridge_is_made_again(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3; i++) {
		netguest_free(w->guest[0]);
		net_port_free(w->port);
		net_bridge_free(w->bridge[0]);
		build_net(&w->r, &w->bridge[0], 1);
		w->port = netrig_port(&w->r, w->bridge[0], 1);
		w->guest[0] = netguest_new(&w->r, w->port, 1, 2);
		closed_port_answers(w, "10.0.1.1");
		closed_port_answers(w, "fd00:1::1");
	}
}

static void loss_of_the_bridge_is_the_gateways_too(void **state)
{
	struct world *w = *state;
	struct net_impairment i = { .loss = 1 };
	int fd = netguest_socket(netguest_ns(w->guest[0]), SOCK_DGRAM, "10.0.1.1", 0);

	net_impair(w->bridge[0], NULL, NULL, &i, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_int_equal(netguest_connect(fd, "10.0.1.1", 9), 0);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	assert_false(netguest_readable(&w->r, fd, SOON));
	close(fd);
}

/* ---- routes ---- */

static void only_routed_bridges_reach_one_another(void **state)
{
	struct world *w = *state;
	struct netns *there = netguest_ns(w->guest[1]), *here = netguest_ns(w->guest[0]);

	assert_false(reaches(w, w->guest[0], there, "10.0.2.2", SOON, NULL));
	net_route(w->bridge[0], w->bridge[1], true, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_true(reaches(w, w->guest[0], there, "10.0.2.2", LONG, NULL));
	assert_true(reaches(w, w->guest[0], there, "fd00:2::2", LONG, NULL));
	assert_true(reaches(w, w->guest[1], here, "10.0.1.2", LONG, NULL));
	assert_true(reaches(w, w->guest[1], here, "fd00:1::2", LONG, NULL));
	net_route(w->bridge[1], w->bridge[0], false, netrig_done, &w->r);
	netrig_ok(&w->r);
	assert_false(reaches(w, w->guest[0], there, "10.0.2.2", SOON, NULL));
	assert_false(reaches(w, w->guest[1], here, "fd00:1::2", SOON, NULL));
}

static void an_uplink_routes_no_bridges(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < 2; i++) {
		net_uplink(w->bridge[i], true, netrig_done, &w->r);
		netrig_ok(&w->r);
	}
	assert_false(reaches(w, w->guest[0], netguest_ns(w->guest[1]), "10.0.2.2", SOON, NULL));
}

static void a_route_needs_gateways(void **state)
{
	struct world *w = *state;
	struct net_bridge *bare = netrig_bridge(&w->r, "bare");

	net_route(w->bridge[0], bare, true, netrig_done, &w->r);
	netrig_fails(&w->r, "`bare` has no gateway address");
	net_uplink(bare, true, netrig_done, &w->r);
	netrig_fails(&w->r, "it has no IPv4 gateway address");
	net_route(bare, bare, true, netrig_done, &w->r);
	netrig_fails(&w->r, "that is one bridge");
}

/* ---- the way out ---- */

static bool host_forwards(void)
{
	return netns_read_sysctl(NULL, "ipv4/conf/eth0/forwarding") == 1;
}

static bool veth_on_host(void)
{
	struct if_nameindex *links = if_nameindex();
	bool found = false;

	for (struct if_nameindex *l = links; l->if_index; l++)
		found |= !strncmp(l->if_name, "provium", 7);
	if_freenameindex(links);
	return found;
}

static void count_table(void *arg, const struct nlmsghdr *h)
{
	(void)h;
	++*(int *)arg;
}

static int tables_on_host(void)
{
	struct nfgenmsg *g;
	struct netlink_what what = { .text = "list tables" };
	struct nlbuf b = NLBUF_INIT;
	struct err e = ERR_INIT;
	int n = 0;
	struct nlmsghdr *h = nlbuf_begin(&b, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETTABLE, NLM_F_DUMP, &g,
		sizeof(*g));

	nlbuf_end(&b, h);
	assert_int_equal(netlink_ask(NETLINK_NETFILTER, &b, &what, count_table, &n, &e), 0);
	return n;
}

static void uplink(struct world *w, unsigned i, bool on)
{
	net_uplink(w->bridge[i], on, netrig_done, &w->r);
	netrig_ok(&w->r);
}

static void wait_gone(struct netrig *r)
{
	int64_t end = now_ns() + LONG;

	while ((veth_on_host() || tables_on_host()) && now_ns() < end)
		netrig_run_for(r, 1000000);
	assert_false(veth_on_host());
	assert_int_equal(tables_on_host(), 0);
}

static void guests_reach_the_outside_as_the_host(void **state)
{
	struct world *w = *state;
	struct sockaddr_in from = { 0 };

	assert_false(reaches(w, w->guest[0], outside, OUTSIDE, SOON, NULL));
	uplink(w, 0, true);
	assert_true(host_forwards());
	assert_true(reaches(w, w->guest[0], outside, OUTSIDE, LONG, &from));
	assert_string_equal(inet_ntoa(from.sin_addr), "203.0.113.1");
	assert_false(reaches(w, w->guest[1], outside, OUTSIDE, SOON, NULL));
	uplink(w, 1, true);
	assert_true(reaches(w, w->guest[1], outside, OUTSIDE, LONG, NULL));
	uplink(w, 0, false);
	assert_false(reaches(w, w->guest[0], outside, OUTSIDE, SOON, NULL));
	assert_true(reaches(w, w->guest[1], outside, OUTSIDE, LONG, NULL));
	uplink(w, 1, false);
	wait_gone(&w->r);
	assert_false(host_forwards());
	uplink(w, 0, true);
	assert_true(reaches(w, w->guest[0], outside, OUTSIDE, LONG, NULL));
	net_free(w->r.net);
	w->r.net = net_new(w->r.loop);
	wait_gone(&w->r);
	assert_false(host_forwards());
}

static void two_nets_with_uplinks(void **state)
{
	struct world *w = *state, *other;

	uplink(w, 0, true);
	assert_int_equal(setup((void **)&other), 0);
	uplink(other, 0, true);
	assert_true(reaches(other, other->guest[0], outside, OUTSIDE, LONG, NULL));
	assert_true(reaches(w, w->guest[0], outside, OUTSIDE, LONG, NULL));
	net_free(w->r.net);
	w->r.net = net_new(w->r.loop);
	assert_true(host_forwards());
	assert_true(reaches(other, other->guest[0], outside, OUTSIDE, LONG, NULL));
	assert_int_equal(teardown((void **)&other), 0);
	wait_gone(&w->r);
	assert_false(host_forwards());
}

static void a_page_is_fetched(void **state)
{
	struct world *w = *state;
	int server = netguest_socket(outside, SOCK_STREAM, OUTSIDE, 80), peer, client;
	int64_t end = now_ns() + LONG;
	char text[16] = "";

	uplink(w, 0, true);
	client = netguest_socket(netguest_ns(w->guest[0]), SOCK_STREAM, OUTSIDE, 0);
	assert_int_equal(netguest_connect(client, OUTSIDE, 80), 0);
	while ((peer = accept(server, NULL, NULL)) < 0 && now_ns() < end)
		netrig_run_for(&w->r, 1000000);
	assert_true(peer >= 0);
	assert_int_equal(send(peer, "a page", 6, 0), 6);
	assert_true(netguest_readable(&w->r, client, LONG));
	assert_int_equal(recv(client, text, sizeof(text), 0), 6);
	assert_string_equal(text, "a page");
	close(peer);
	close(client);
	close(server);
}

/* The "resolver" outside answers with what it was asked. */
static void names_are_asked_of_the_hosts_resolver(void **state)
{
	struct world *w = *state;
	const char *gateways[] = { "10.0.1.1", "fd00:1::1" };
	int server = netguest_socket(outside, SOCK_DGRAM, OUTSIDE, 53), client;
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char text[16];

	uplink(w, 0, true);
	for (unsigned i = 0; i < 2; i++) {
		client = netguest_socket(netguest_ns(w->guest[0]), SOCK_DGRAM, gateways[i], 0);
		assert_int_equal(netguest_connect(client, gateways[i], 53), 0);
		assert_int_equal(send(client, "question", 8, 0), 8);
		assert_true(netguest_readable(&w->r, server, LONG));
		assert_int_equal(recvfrom(server, text, sizeof(text), 0, (struct sockaddr *)&from, &len), 8);
		assert_int_equal(sendto(server, "answer", 6, 0, (struct sockaddr *)&from, len), 6);
		assert_true(netguest_readable(&w->r, client, LONG));
		assert_int_equal(recv(client, text, sizeof(text), 0), 6);
		assert_memory_equal(text, "answer", 6);
		close(client);
	}
	close(server);
}

static void names_by_tcp(void **state)
{
	struct world *w = *state;
	int server = netguest_socket(outside, SOCK_STREAM, OUTSIDE, 53), peer, client;
	int64_t end = now_ns() + LONG;
	char text[16];

	uplink(w, 0, true);
	client = netguest_socket(netguest_ns(w->guest[0]), SOCK_STREAM, "10.0.1.1", 0);
	assert_int_equal(netguest_connect(client, "10.0.1.1", 53), 0);
	while ((peer = accept(server, NULL, NULL)) < 0 && now_ns() < end)
		netrig_run_for(&w->r, 1000000);
	assert_true(peer >= 0);
	assert_int_equal(send(client, "question", 8, 0), 8);
	assert_true(netguest_readable(&w->r, peer, LONG));
	assert_int_equal(recv(peer, text, sizeof(text), 0), 8);
	assert_int_equal(send(peer, "answer", 6, 0), 6);
	assert_true(netguest_readable(&w->r, client, LONG));
	assert_int_equal(recv(client, text, sizeof(text), 0), 6);
	close(peer);
	close(client);
	close(server);
}

static void no_default_route_is_an_error(void **state)
{
	struct world *w = *state;
	struct nlbuf b = NLBUF_INIT;
	struct netlink_what what = { .text = "delete the default route" };
	struct rtmsg *rt;
	struct nlmsghdr *h = nlbuf_begin(&b, RTM_DELROUTE, 0, &rt, sizeof(*rt));
	struct err e = ERR_INIT;

	rt->rtm_family = AF_INET;
	rt->rtm_table = RT_TABLE_MAIN;
	nlbuf_end(&b, h);
	assert_int_equal(netlink_ask(NETLINK_ROUTE, &b, &what, NULL, NULL, &e), 0);
	net_uplink(w->bridge[0], true, netrig_done, &w->r);
	netrig_fails(&w->r, "no IPv4 default route");
}

/* ---- four files at once, and the end by SIGKILL ---- */

static void equal_names_in_four_nets(void **state)
{
	struct world *four[4];
	uint64_t number;
	int fd[4][2];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		four[i] = calloc(1, sizeof(struct world));
		netrig_open(&four[i]->r);
		build_net(&four[i]->r, &four[i]->bridge[0], 1);
		for (unsigned k = 0; k < 2; k++)
			fd[i][k] = net_port_fd(netrig_port(&four[i]->r, four[i]->bridge[0], k + 1));
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(netrig_send(fd[i][0], 1, 0, 100 + i, 60));
	for (unsigned i = 0; i < 4; i++) {
		assert_true(netrig_receive_within(&four[i]->r, fd[i][1], LONG, &number));
		assert_int_equal(number, 100 + i);
		assert_false(netrig_receive_within(&four[i]->r, fd[i][1], SOON / 10, NULL));
	}
	for (unsigned i = 0; i < 4; i++) {
		netrig_close(&four[i]->r);
		free(four[i]);
	}
}

/* Makes one of everything, says so on the pipe, and waits for its end. */
static void hold_everything(int ready)
{
	struct world *w;
	struct net_impairment i = { .loss = 0.1, .duplicate = 0.1, .rate_bps = 1000000 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setup((void **)&w))
		_exit(1);
	net_impair(w->bridge[0], NULL, NULL, &i, netrig_done, &w->r);
	netrig_ok(&w->r);
	net_route(w->bridge[0], w->bridge[1], true, netrig_done, &w->r);
	netrig_ok(&w->r);
	uplink(w, 0, true);
	if (write(ready, "r", 1) != 1)
		_exit(1);
	pause();
	_exit(1);
}

static void nothing_is_left_after_sigkill(void **state)
{
	struct netrig r;
	int ready[2];
	pid_t pid;
	char c;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid)
		hold_everything(ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	assert_true(veth_on_host());
	assert_int_equal(tables_on_host(), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	/* The veth goes only when the namespace does, and that takes every link, queue and rule in it along. */
	netrig_open(&r);
	wait_gone(&r);
	netrig_close(&r);
}

/* ---- the namespace the test lives in ---- */

static void move_away(void)
{
	static const char resolv[] = "nameserver " OUTSIDE "\n";
	const char *dir = getenv("TMPDIR");
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/provium-resolv-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, resolv, sizeof(resolv) - 1), sizeof(resolv) - 1);
	close(fd);
	assert_int_equal(unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL), 0);
	unlink(path);
	netns_sysctl(NULL, "ipv4/ip_forward", "0", NULL);
	outside = netguest_outside();
}

int main(void)
{
	struct err e = ERR_INIT;
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(the_gateway_answers),
		T(the_gateway_says_nothing_unasked),
		T(a_gateway_changes_its_address),
		T(a_bridge_is_made_again),
		T(loss_of_the_bridge_is_the_gateways_too),
		T(only_routed_bridges_reach_one_another),
		T(an_uplink_routes_no_bridges),
		T(a_route_needs_gateways),
		T(guests_reach_the_outside_as_the_host),
		T(two_nets_with_uplinks),
		T(a_page_is_fetched),
		T(names_are_asked_of_the_hosts_resolver),
		T(names_by_tcp),
		cmocka_unit_test(equal_names_in_four_nets),
		cmocka_unit_test(nothing_is_left_after_sigkill),
		T(no_default_route_is_an_error),	/* takes it away: the last */
	};

	log_open(getenv("PROVIUM_LOG"));
	if (access("/dev/net/tun", R_OK | W_OK) || unshare(CLONE_NEWNET)) {
		fprintf(stderr, "skipped: it takes /dev/net/tun and the right to make namespaces\n");
		return 77;
	}
	if (net_kernel_usable(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	move_away();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
