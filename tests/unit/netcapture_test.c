/*
 * Captures on the kernel backend: complete, filtered, paused, ended. Needs root; frames of the user backend's are in
 * usernet_test.c.
 */
#include "netrig.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOON INT64_C(300000000)
#define LONG INT64_C(20000000000)

struct world {
	struct netrig r;
	struct net_bridge *lan;
	struct net_port *p[2];
	int fd[2];
};

struct taken {
	struct evbuffer *bytes;
	struct net_capture *capture;
	unsigned ended;
	bool failed;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	netrig_open(&w->r);
	w->lan = netrig_bridge(&w->r, "lan");
	for (unsigned i = 0; i < 2; i++) {
		w->p[i] = netrig_port(&w->r, w->lan, i + 1);
		w->fd[i] = net_port_fd(w->p[i]);
	}
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	netrig_close(&w->r);
	free(w);
	return 0;
}

static void data_cb(void *arg, const void *data, size_t len)
{
	struct taken *t = arg;

	evbuffer_add(t->bytes, data, len);
}

static void ended_cb(void *arg, const struct err *e)
{
	struct taken *t = arg;

	t->ended++;
	t->failed = e != NULL;
}

static const struct net_capture_events events = { .data = data_cb, .ended = ended_cb };

static void start(struct taken *t, struct net_bridge *b, struct net_port *p, const char *filter, unsigned snaplen)
{
	struct err e = ERR_INIT;

	*t = (struct taken){ .bytes = evbuffer_new() };
	t->capture = net_capture_new(b, p, filter, snaplen, &events, t, &e);
	if (!t->capture)
		fail_msg("%s", e.msg);
}

static void end(struct taken *t)
{
	net_capture_free(t->capture);
	evbuffer_free(t->bytes);
}

/* How many of our frames libpcap finds in it, each with a number one higher than the last when `ordered`. */
static unsigned count(struct taken *t, bool ordered, unsigned caplen)
{
	char text[PCAP_ERRBUF_SIZE] = "";
	struct pcap_pkthdr *h;
	const u_char *data;
	FILE *f = tmpfile();
	unsigned n = 0;
	pcap_t *p;
	int rc;

	assert_non_null(f);
	while (evbuffer_get_length(t->bytes) > 0)
		assert_true(evbuffer_write(t->bytes, fileno(f)) > 0);
	rewind(f);
	p = pcap_fopen_offline(f, text);
	if (!p)
		fail_msg("%s", text);
	while ((rc = pcap_next_ex(p, &h, &data)) == 1) {
		uint64_t number = 0;

		if (caplen)
			assert_int_equal(h->caplen, caplen);
		assert_int_equal(h->len, 100);
		if (h->caplen >= NETRIG_HEADER)
			memcpy(&number, data + 14, 8);
		if (ordered)
			assert_int_equal(number, n);
		n++;
	}
	assert_int_equal(rc, PCAP_ERROR_BREAK);
	pcap_close(p);
	return n;
}

static void wait_for_bytes(struct world *w, struct taken *t, size_t bytes)
{
	int64_t limit = now_ns() + LONG;

	while (evbuffer_get_length(t->bytes) < bytes && now_ns() < limit)
		netrig_run_for(&w->r, 5000000);
}

static void ten_thousand_are_all_there(void **state)
{
	struct world *w = *state;
	struct taken all, port;

	start(&all, w->lan, NULL, NULL, 0);
	start(&port, w->lan, w->p[1], NULL, 0);
	assert_true(netrig_pass(&w->r, w->fd[0], 1, w->fd[1], 2, 10000, SOON) > 0);
	wait_for_bytes(w, &all, 24 + 10000 * 116);
	wait_for_bytes(w, &port, 24 + 10000 * 116);
	assert_int_equal(count(&all, true, 0), 10000);
	assert_int_equal(count(&port, true, 0), 10000);
	assert_int_equal(net_capture_dropped(all.capture), 0);
	assert_int_equal(net_capture_dropped(port.capture), 0);
	end(&all);
	end(&port);
}

static void filter_and_snaplen(void **state)
{
	struct world *w = *state;
	struct net_capture *c;
	struct err e = ERR_INIT;
	struct taken t;

	start(&t, w->lan, NULL, "ether src 02:00:00:00:00:02", 40);
	netrig_pass(&w->r, w->fd[0], 1, w->fd[1], 2, 10, SOON);
	netrig_pass(&w->r, w->fd[1], 2, w->fd[0], 1, 3, SOON);
	wait_for_bytes(w, &t, 24 + 3 * 56);
	assert_int_equal(count(&t, true, 40), 3);
	end(&t);
	c = net_capture_new(w->lan, NULL, "tcp prot 80", 0, &events, NULL, &e);
	assert_null(c);
	assert_non_null(strstr(e.msg, "capture filter `tcp prot 80`: "));
	err_release(&e);
}

static void paused(void **state)
{
	struct world *w = *state;
	struct taken t;

	start(&t, w->lan, NULL, NULL, 0);
	netrig_run_for(&w->r, SOON);
	assert_int_equal(evbuffer_get_length(t.bytes), 24);
	net_capture_pause(t.capture, true);
	netrig_pass(&w->r, w->fd[0], 1, w->fd[1], 2, 100, SOON);
	assert_int_equal(evbuffer_get_length(t.bytes), 24);
	net_capture_pause(t.capture, false);
	wait_for_bytes(w, &t, 24 + 100 * 116);
	assert_int_equal(count(&t, true, 0), 100);
	end(&t);
}

static void it_ends_with_its_port(void **state)
{
	struct world *w = *state;
	struct taken port, lan;

	start(&port, w->lan, w->p[1], NULL, 0);
	start(&lan, w->lan, NULL, NULL, 0);
	netrig_pass(&w->r, w->fd[0], 1, w->fd[1], 2, 5, 0);
	/* What has arrived by then is not lost. */
	net_port_free(w->p[1]);
	netrig_run_for(&w->r, SOON);
	assert_int_equal(port.ended, 1);
	assert_false(port.failed);
	assert_int_equal(count(&port, true, 0), 5);
	assert_int_equal(lan.ended, 0);
	net_port_free(w->p[0]);
	net_bridge_free(w->lan);
	netrig_run_for(&w->r, SOON);
	assert_int_equal(lan.ended, 1);
	end(&port);
	end(&lan);
}

int main(void)
{
	struct err e = ERR_INIT;
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(ten_thousand_are_all_there),
		T(filter_and_snaplen),
		T(paused),
		T(it_ends_with_its_port),
	};

	if (net_kernel_usable(&e)) {
		fprintf(stderr, "skipped: %s\n", e.msg);
		err_release(&e);
		return 77;
	}
	return cmocka_run_group_tests_name("netcapture", tests, NULL, NULL);
}
