/*
 * Netlink in the loop, on a namespace of its own: acks, dumps, errors with the kernel's words, transactions,
 * order, and requests that nobody waits for any more. Needs root.
 */
#include "netguest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/links.h"
#include "net/nft.h"
#include "net/qdisc.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#define MANY 1000

struct world {
	struct netrig r;
	struct netns *ns;
	struct netlink *rt, *nft;
	unsigned answers, dones;
};

static int open_both(void *arg, struct err *e)
{
	struct world *w = arg;

	w->rt = netlink_new(w->r.loop, NETLINK_ROUTE, "rtnetlink", e);
	w->nft = netlink_new(w->r.loop, NETLINK_NETFILTER, "nfnetlink", e);
	return 0;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err e = ERR_INIT;

	netrig_open(&w->r);
	w->ns = netns_new(&e);
	assert_non_null(w->ns);
	netns_run(w->ns, open_both, w, &e);
	assert_non_null(w->rt);
	assert_non_null(w->nft);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	netlink_free(w->rt);
	netlink_free(w->nft);
	netns_free(w->ns);
	netrig_close(&w->r);
	free(w);
	return 0;
}

static void send_text(struct world *w, struct netlink *nl, struct nlbuf *b, const char *text,
	const char *module)
{
	struct netlink_what what = { .text = text, .module = module };

	netlink_send(nl, b, &what, NULL, netrig_done, &w->r);
}

static void new_bridge(struct world *w, int index, const char *name)
{
	struct nlbuf b = NLBUF_INIT;

	link_new_bridge(&b, index, name);
	send_text(w, w->rt, &b, "create it", "bridge");
}

static void count_cb(void *arg, const struct nlmsghdr *h)
{
	(void)h;
	((struct world *)arg)->answers++;
}

static void count_done_cb(void *arg, const struct err *e)
{
	struct world *w = arg;

	w->dones++;
	netrig_done(&w->r, e);
}

static void requests_are_acknowledged(void **state)
{
	struct world *w = *state;

	new_bridge(w, 2, "one");
	assert_false(w->r.replied);	/* never from inside the call */
	netrig_ok(&w->r);
}

static void errors_say_what_and_why(void **state)
{
	struct world *w = *state;
	struct nlbuf b = NLBUF_INIT;

	new_bridge(w, 2, "one");
	netrig_ok(&w->r);
	new_bridge(w, 3, "one");
	netrig_fails(&w->r, "create it: File exists");
	assert_int_equal(w->r.err.code, -EEXIST);
	/* The kernel's own sentence, which errno does not have. */
	link_up(&b, 2, 2);
	send_text(w, w->rt, &b, "enslave it to itself", NULL);
	netrig_fails(&w->r, "enslave it to itself: Too many levels of symbolic links (");
	link_delete(&b, 77);
	send_text(w, w->rt, &b, "delete nothing", NULL);
	netrig_fails(&w->r, "delete nothing: No such device");
}

static void a_missing_module_is_named(void **state)
{
	struct world *w = *state;
	struct nlbuf b = NLBUF_INIT;
	struct tcmsg *tc;
	struct nlmsghdr *h = nlbuf_begin(&b, RTM_NEWQDISC, NLM_F_CREATE, &tc, sizeof(*tc));

	tc->tcm_ifindex = 1;
	tc->tcm_parent = 0xffffffff;
	mnl_attr_put_strz(h, TCA_KIND, "nosuch");
	nlbuf_end(&b, h);
	send_text(w, w->rt, &b, "queue", "sch_nosuch");
	netrig_fails(&w->r, "the kernel lacks sch_nosuch: `modprobe sch_nosuch`, or take backend = \"user\"");
}

static void a_missing_right_is_named(void **state)
{
	struct world *w = *state;
	struct nlbuf b = NLBUF_INIT;
	uid_t nobody = 65534;

	/* The kernel asks what the sender may do when it sends, and when the socket was opened. */
	assert_int_equal(seteuid(nobody), 0);
	link_new_bridge(&b, 2, "one");
	send_text(w, w->rt, &b, "create it", "bridge");
	assert_int_equal(seteuid(0), 0);
	netrig_fails(&w->r, "create it: Operation not permitted; this needs the right CAP_NET_ADMIN: run as root");
}

static void dumps_bring_everything(void **state)
{
	struct world *w = *state;
	struct netlink_what what = { .text = "dump" };
	struct nlbuf b = NLBUF_INIT;
	struct ifinfomsg *ifi;

	new_bridge(w, 2, "one");
	netrig_ok(&w->r);
	/* Two at a time, which one socket cannot do: the second waits. */
	for (int i = 0; i < 2; i++) {
		struct nlmsghdr *h = nlbuf_begin(&b, RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(*ifi));

		nlbuf_end(&b, h);
		netlink_send(w->rt, &b, &what, count_cb, count_done_cb, w);
	}
	while (w->dones < 2)
		netrig_ok(&w->r);
	assert_int_equal(w->answers, 4);
}

static void many_requests_keep_their_order(void **state)
{
	struct world *w = *state;
	struct netlink_what what = { .text = "change it" };
	struct nlbuf b = NLBUF_INIT;

	new_bridge(w, 2, "one");
	netrig_ok(&w->r);
	/* Each works only if the one before did. */
	for (int i = 0; i < MANY; i++) {
		uint8_t a[4] = { 10, 9, (uint8_t)(i / 2 / 250), (uint8_t)(i / 2 % 250 + 1) };

		if (i % 2)
			address_delete(&b, 2, AF_INET, a, 32);
		else
			address_add(&b, 2, AF_INET, a, 32);
		netlink_send(w->rt, &b, &what, NULL, count_done_cb, w);
	}
	while (w->dones < MANY)
		netrig_ok(&w->r);
}

static void a_transaction_is_taken_as_a_whole(void **state)
{
	struct world *w = *state;
	struct nft_batch t;
	struct nftnl_rule *r;
	struct nlbuf b = NLBUF_INIT;

	nft_begin(&t, NFPROTO_BRIDGE, "test");
	nft_new_table(&t, false);
	nft_new_base(&t, "forward", "filter", 2, 0, NF_ACCEPT, NULL);
	nft_new_counter(&t, "drops");
	r = nft_rule(&t, "forward");
	nft_verdict(r, NFT_JUMP, "nowhere");
	nft_add(&t, r);
	nft_end(&t);
	send_text(w, w->nft, &t.msg, "write rules", "nf_tables");
	netrig_fails(&w->r, "write rules: No such file or directory");
	nft_ask_counter(&b, NFPROTO_BRIDGE, "test", "drops");
	send_text(w, w->nft, &b, "read", NULL);
	netrig_fails(&w->r, "read: No such file or directory");

	nft_begin(&t, NFPROTO_BRIDGE, "test");
	nft_new_table(&t, false);
	nft_new_counter(&t, "drops");
	nft_end(&t);
	send_text(w, w->nft, &t.msg, "write rules", "nf_tables");
	netrig_ok(&w->r);
	nft_ask_counter(&b, NFPROTO_BRIDGE, "test", "drops");
	send_text(w, w->nft, &b, "read", NULL);
	netrig_ok(&w->r);
}

static void a_forgotten_request_is_done_without_a_word(void **state)
{
	struct world *w = *state;

	new_bridge(w, 2, "one");
	netlink_forget(w->rt, &w->r);
	netrig_run_for(&w->r, 20000000);
	assert_false(w->r.replied);
	new_bridge(w, 3, "one");
	netrig_fails(&w->r, "File exists");
}

static void a_socket_goes_with_its_requests(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < MANY; i++)
		new_bridge(w, 2, "one");
	netlink_free(w->rt);
	w->rt = NULL;
	netrig_run_for(&w->r, 20000000);
	assert_false(w->r.replied);
}

static void free_cb(void *arg, const struct err *e)
{
	struct world *w = arg;

	(void)e;
	netlink_free(w->rt);
	w->rt = NULL;
}

static void a_callback_may_free_its_socket(void **state)
{
	struct world *w = *state;
	struct netlink_what what = { .text = "create" };
	struct nlbuf b = NLBUF_INIT;

	link_new_bridge(&b, 2, "one");
	netlink_send(w->rt, &b, &what, NULL, free_cb, w);
	new_bridge(w, 3, "two");
	netrig_run_for(&w->r, 20000000);
	assert_null(w->rt);
	assert_false(w->r.replied);
}

static int ask_inside(void *arg, struct err *e)
{
	struct netlink_what what = { .text = "ask", .module = "bridge" };
	struct nlbuf b = NLBUF_INIT;

	link_new_bridge(&b, 2, arg);
	return netlink_ask(NETLINK_ROUTE, &b, &what, NULL, NULL, e);
}

static void asking_waits_for_the_answer(void **state)
{
	struct world *w = *state;
	struct err e = ERR_INIT;

	assert_int_equal(netns_run(w->ns, ask_inside, "one", &e), 0);
	assert_int_equal(netns_run(w->ns, ask_inside, "one", &e), -EEXIST);
	assert_non_null(strstr(e.msg, "ask: File exists"));
	err_release(&e);
}

static void settings_are_those_of_the_namespace(void **state)
{
	struct world *w = *state;
	struct err e = ERR_INIT;
	int ours = netns_read_sysctl(NULL, "ipv4/ip_default_ttl");

	assert_int_equal(netns_sysctl(w->ns, "ipv4/ip_default_ttl", "33", &e), 0);
	assert_int_equal(netns_read_sysctl(w->ns, "ipv4/ip_default_ttl"), 33);
	assert_int_equal(netns_read_sysctl(NULL, "ipv4/ip_default_ttl"), ours);
	assert_int_equal(netns_sysctl(w->ns, "ipv4/nosuch", "1", &e), -ENOENT);
	assert_non_null(strstr(e.msg, "write 1 to /proc/sys/net/ipv4/nosuch: No such file or directory"));
	err_release(&e);
}

int main(void)
{
	struct err e = ERR_INIT;
	struct netns *ns;
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(requests_are_acknowledged),
		T(errors_say_what_and_why),
		T(a_missing_module_is_named),
		T(a_missing_right_is_named),
		T(dumps_bring_everything),
		T(many_requests_keep_their_order),
		T(a_transaction_is_taken_as_a_whole),
		T(a_forgotten_request_is_done_without_a_word),
		T(a_socket_goes_with_its_requests),
		T(a_callback_may_free_its_socket),
		T(asking_waits_for_the_answer),
		T(settings_are_those_of_the_namespace),
	};

	log_open(getenv("PROVIUM_LOG"));
	ns = netns_new(&e);
	if (!ns) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	netns_free(ns);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
