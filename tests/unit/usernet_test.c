/*
 * The user backend behind net.h: frames through sockets as QEMU has them, settings on live traffic, captures as pcap
 * files that libpcap reads, routes, and the way out to a server that stands for the outside.
 */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pcap/pcap.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/ip.h"
#include "net/net.h"

#define MS INT64_C(1000000)
#define GUESTS 3

struct bench {
	struct loop *loop;
	struct net *net;
	struct net_bridge *lan, *wan;
	struct net_port *ports[GUESTS];
	int guests[GUESTS];		/* QEMU's ends */
	unsigned answers;
	char *error;
	struct net_counters counters;
};

/* ---- running ---- */

static void done_cb(void *arg, const struct err *e)
{
	struct bench *b = arg;

	b->answers++;
	if (e) {
		free(b->error);
		b->error = xstrdup(e->msg);
	}
	loop_stop(b->loop);
}

static void counted_cb(void *arg, const struct net_counters *c, const struct err *e)
{
	struct bench *b = arg;

	b->counters = *c;
	done_cb(b, e);
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

/* Lets the loop run until something stops it, for a time. */
static void run_for(struct bench *b, int64_t ns)
{
	struct event *timer = NULL;

	timer_start(b->loop, &timer, ns, stop_cb, b->loop);
	loop_run(b->loop);
	timer_stop(&timer);
}

/* One op's answer; *error is the message or NULL. */
static const char *await(struct bench *b)
{
	b->answers = 0;
	free(b->error);
	b->error = NULL;
	for (int i = 0; i < 300 && b->answers == 0; i++)
		run_for(b, 100 * MS);
	assert_int_equal(b->answers, 1);
	return b->error;
}

static int open_bench(void **state)
{
	static const char *const names[] = { "a", "b", "c" };
	struct bench *b = xcalloc(1, sizeof(*b));

	b->loop = loop_new();
	b->net = net_new(b->loop);
	b->lan = net_bridge_new(b->net, NET_USER, "lan", 42, done_cb, b);
	assert_null(await(b));
	for (unsigned i = 0; i < GUESTS; i++) {
		uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, (uint8_t)(i + 1) };

		b->ports[i] = net_port_new(b->lan, names[i], mac, done_cb, b);
		assert_null(await(b));
		b->guests[i] = fcntl(net_port_fd(b->ports[i]), F_DUPFD_CLOEXEC, 3);
		net_port_given(b->ports[i]);
		assert_int_equal(net_port_fd(b->ports[i]), -1);
	}
	*state = b;
	return 0;
}

static int close_bench(void **state)
{
	struct bench *b = *state;

	for (unsigned i = 0; i < GUESTS; i++)
		close(b->guests[i]);
	net_free(b->net);
	loop_free(b->loop);
	free(b->error);
	free(b);
	return 0;
}

/* ---- frames of guests ---- */

/* What the guest sends: addresses by their last byte (255: everyone), an id, len bytes. */
static void put(struct bench *b, unsigned from, unsigned to, uint32_t id, size_t len)
{
	uint8_t data[65536] = { 0x52, 0x54, 0, 0, 0, (uint8_t)(to + 1), 0x52, 0x54, 0, 0, 0, (uint8_t)(from + 1), 0x88,
		0xb5 };

	if (to == 255)
		memset(data, 255, 6);
	memcpy(data + FRAME_HEADER, &id, sizeof(id));
	assert_int_equal(send(b->guests[from], data, len, MSG_DONTWAIT), len);
}

static int64_t get_frame(struct bench *b, unsigned guest, void *data, size_t size)
{
	return recv(b->guests[guest], data, size, MSG_DONTWAIT);
}

/* The id of the next frame this guest has got, or -1. */
static int64_t get(struct bench *b, unsigned guest)
{
	uint8_t data[65536];
	uint32_t id;

	if (get_frame(b, guest, data, sizeof(data)) < 0)
		return -1;
	memcpy(&id, data + FRAME_HEADER, sizeof(id));
	return id;
}

/* Runs the loop until the guest gets something, and returns its id; -1 after a while. */
static int64_t wait_frame(struct bench *b, unsigned guest, int64_t ns)
{
	int64_t end = now_ns() + ns, id = get(b, guest);

	for (; id < 0 && now_ns() < end; id = get(b, guest))
		run_for(b, MS);
	return id;
}

/* So many turns that whatever need not wait has gone through. */
static void settle(struct bench *b)
{
	run_for(b, 20 * MS);
}

static void learn_all(struct bench *b)
{
	for (unsigned i = 0; i < GUESTS; i++)
		put(b, i, 255, 0, 60);
	settle(b);
	for (unsigned i = 0; i < GUESTS; i++)
		while (get(b, i) >= 0)
			;
}

static void set(struct bench *b, int from, int to, struct net_impairment i)
{
	net_impair(b->lan, from < 0 ? NULL : b->ports[from], to < 0 ? NULL : b->ports[to], &i, done_cb, b);
	assert_null(await(b));
}

/* ---- tests ---- */

static void test_frames(void **state)
{
	struct bench *b = *state;

	put(b, 0, 1, 11, 60);
	settle(b);
	assert_int_equal(get(b, 1), 11);	/* flooded */
	assert_int_equal(get(b, 2), 11);
	assert_int_equal(get(b, 0), -1);
	put(b, 1, 0, 12, 1514);
	put(b, 1, 0, 13, 9014);			/* more than the usual */
	put(b, 1, 0, 14, 65000);
	settle(b);
	assert_int_equal(get(b, 0), 12);
	{
		uint8_t data[65536];

		assert_int_equal(get_frame(b, 0, data, sizeof(data)), 9014);
		assert_int_equal(get_frame(b, 0, data, sizeof(data)), 65000);
	}
	assert_int_equal(get(b, 2), -1);	/* 0 was learned */
	net_port_counters(b->ports[1], counted_cb, b);
	await(b);
	assert_int_equal(b->counters.rx_packets, 3);
	assert_int_equal(b->counters.rx_bytes, 1514 + 9014 + 65000);
	assert_int_equal(b->counters.tx_packets, 1);
	net_bridge_counters(b->lan, counted_cb, b);
	await(b);
	assert_int_equal(b->counters.rx_packets, 4);
	assert_int_equal(b->counters.tx_packets, 5);
}

static void test_netdev(void **state)
{
	struct bench *b = *state;
	char *text = net_port_netdev(b->ports[0], "nic0", "7");

	assert_string_equal(text, "dgram,id=nic0,local.type=fd,local.str=7");
	free(text);
	assert_int_equal(net_bridge_backend(b->lan), NET_USER);
}

static void test_burst_in_order(void **state)
{
	struct bench *b = *state;
	unsigned expected = 1;

	learn_all(b);
	for (uint32_t i = 1; i <= 2000; i++) {
		put(b, 0, 1, i, 1514);
		if (i % 100 == 0) {
			settle(b);
			for (int64_t id; (id = get(b, 1)) >= 0; expected++)
				assert_int_equal(id, expected);
		}
	}
	assert_int_equal(expected, 2001);
}

/* A guest that takes nothing: what waits for it is bounded, and the others do not notice. */
static void test_slow_guest(void **state)
{
	struct bench *b = *state;
	unsigned got = 0, sent = 0;

	learn_all(b);
	for (unsigned i = 0; i < 200; i++) {
		for (unsigned k = 0; k < 50; k++, sent++)
			put(b, 0, 1, sent, 1514);
		put(b, 2, 0, i, 60);
		run_for(b, MS);
		if (i >= 100)
			assert_int_equal(wait_frame(b, 0, 10000 * MS), i);
		else
			wait_frame(b, 0, 10000 * MS);
	}
	net_port_counters(b->ports[1], counted_cb, b);
	await(b);
	assert_true(b->counters.dropped > 0);
	for (;;) {
		while (get(b, 1) >= 0)
			got++;
		settle(b);
		if (get(b, 1) < 0)
			break;
		got++;
	}
	assert_int_equal(got + b->counters.dropped, sent);
	/* It goes on. */
	put(b, 0, 1, 99999, 60);
	assert_int_equal(wait_frame(b, 1, 10000 * MS), 99999);
}

static void test_blocks(void **state)
{
	struct bench *b = *state;
	struct net_block both[2] = { { b->ports[0], b->ports[1] }, { b->ports[1], b->ports[0] } };

	learn_all(b);
	put(b, 0, 1, 1, 60);
	settle(b);
	assert_int_equal(get(b, 1), 1);
	net_set_blocks(b->lan, both, 2, done_cb, b);
	assert_null(await(b));
	put(b, 0, 1, 2, 60);
	put(b, 0, 255, 3, 60);
	put(b, 1, 0, 4, 60);
	put(b, 2, 1, 5, 60);
	settle(b);
	assert_int_equal(get(b, 1), 5);
	assert_int_equal(get(b, 1), -1);
	assert_int_equal(get(b, 0), -1);
	assert_int_equal(get(b, 2), 3);
	/* One direction. */
	net_set_blocks(b->lan, both, 1, done_cb, b);
	assert_null(await(b));
	put(b, 0, 1, 6, 60);
	put(b, 1, 0, 7, 60);
	settle(b);
	assert_int_equal(get(b, 1), -1);
	assert_int_equal(get(b, 0), 7);
	net_set_blocks(b->lan, NULL, 0, done_cb, b);
	assert_null(await(b));
	put(b, 0, 1, 8, 60);
	settle(b);
	assert_int_equal(get(b, 1), 8);
	/* Made while a frame is on its way. */
	set(b, -1, -1, (struct net_impairment){ .latency_ns = 50 * MS });
	put(b, 0, 1, 9, 60);
	settle(b);
	net_set_blocks(b->lan, both, 2, done_cb, b);
	assert_null(await(b));
	assert_int_equal(wait_frame(b, 1, 200 * MS), -1);
}

static void test_latency(void **state)
{
	struct bench *b = *state;

	learn_all(b);
	set(b, 0, 1, (struct net_impairment){ .latency_ns = 50 * MS });
	for (uint32_t i = 1; i <= 20; i++) {
		int64_t start = now_ns(), took;

		put(b, 0, 1, i, 60);
		assert_int_equal(wait_frame(b, 1, 30000 * MS), i);
		took = now_ns() - start;
		assert_true(took >= 50 * MS);	/* never early; how late is the machine's affair */
	}
	/* The way back has none: an answer is there before one that started 50 ms earlier in the other direction. */
	put(b, 0, 1, 100, 60);
	put(b, 1, 0, 101, 60);
	assert_int_equal(wait_frame(b, 0, 30000 * MS), 101);
	assert_int_equal(wait_frame(b, 1, 30000 * MS), 100);
}

static uint64_t loss_pattern(struct bench *b)
{
	uint64_t bits = 0;

	learn_all(b);
	set(b, 0, 1, (struct net_impairment){ .loss = 0.5 });
	for (uint32_t i = 0; i < 64; i++)
		put(b, 0, 1, i, 60);
	settle(b);
	settle(b);
	for (int64_t id; (id = get(b, 1)) >= 0;)
		bits |= UINT64_C(1) << id;
	return bits;
}

static void test_replay(void **state)
{
	void *again;
	uint64_t first = loss_pattern(*state);

	assert_true(first != 0 && first != UINT64_MAX);
	open_bench(&again);
	assert_true(loss_pattern(again) == first);
	close_bench(&again);
}

static void test_port_rate(void **state)
{
	static const struct net_address address = {
		.ip4 = { 10, 0, 1, 1 }, .prefix4 = 24,
	};
	struct bench *b = *state;
	unsigned got = 0;
	int64_t start;

	learn_all(b);
	net_port_set_rate(b->ports[0], 800000, done_cb, b);	/* 100 bytes a millisecond */
	assert_null(await(b));
	/* Another port that comes changes nothing. */
	net_bridge_set_gateway(b->lan, &address, done_cb, b);
	assert_null(await(b));
	start = now_ns();
	for (unsigned i = 0; i < 20; i++)
		put(b, 0, 1 + i % 2, i, 1000);
	while (got < 20 && now_ns() - start < 30000 * MS) {
		run_for(b, MS);
		got += (get(b, 1) >= 0) + (get(b, 2) >= 0);
	}
	assert_int_equal(got, 20);
	/* 20,000 bytes less the burst of two frames. */
	assert_true(now_ns() - start >= 160 * MS);
}

static void test_renew(void **state)
{
	struct bench *b = *state;

	learn_all(b);
	close(b->guests[1]);
	put(b, 0, 1, 1, 60);
	put(b, 0, 1, 2, 60);
	settle(b);
	net_port_renew(b->ports[1], done_cb, b);
	assert_null(await(b));
	b->guests[1] = fcntl(net_port_fd(b->ports[1]), F_DUPFD_CLOEXEC, 3);
	net_port_given(b->ports[1]);
	put(b, 0, 1, 3, 60);
	assert_int_equal(wait_frame(b, 1, 10000 * MS), 3);
	put(b, 1, 0, 4, 60);
	assert_int_equal(wait_frame(b, 0, 10000 * MS), 4);
}

/* No descriptors left: one line that says so, and the others go on. */
static void test_no_descriptors(void **state)
{
	struct bench *b = *state;
	uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, 9 };
	struct rlimit before, none;
	struct net_port *p;

	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	p = net_port_new(b->lan, "late", mac, done_cb, b);
	assert_string_equal(await(b), "NIC of vm `late` on bridge `lan`: a socket pair for a NIC: Too many open files");
	put(b, 0, 255, 1, 60);
	settle(b);
	assert_int_equal(get(b, 1), 1);
	setrlimit(RLIMIT_NOFILE, &before);
	net_port_renew(p, done_cb, b);
	assert_null(await(b));
	put(b, 0, 255, 2, 60);
	settle(b);
	{
		uint8_t data[2048];

		assert_int_equal(recv(net_port_fd(p), data, sizeof(data), MSG_DONTWAIT), 60);
	}
	net_port_free(p);
}

static void test_port_goes(void **state)
{
	struct bench *b = *state;
	uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, 2 };

	learn_all(b);
	set(b, 0, 1, (struct net_impairment){ .latency_ns = 20 * MS });
	set(b, -1, -1, (struct net_impairment){ .latency_ns = 10 * MS });
	put(b, 0, 1, 1, 60);
	put(b, 0, 255, 2, 60);
	settle(b);
	net_port_free(b->ports[1]);
	settle(b);
	assert_int_equal(get(b, 2), 2);
	close(b->guests[1]);
	b->ports[1] = net_port_new(b->lan, "b", mac, done_cb, b);
	assert_null(await(b));
	b->guests[1] = fcntl(net_port_fd(b->ports[1]), F_DUPFD_CLOEXEC, 3);
	put(b, 0, 1, 3, 60);
	assert_int_equal(wait_frame(b, 1, 10000 * MS), 3);
}

/* ---- captures ---- */

struct taken {
	struct evbuffer *bytes;
	struct net_capture *capture;
	unsigned ended, pause_after;
	bool failed;
};

static void capture_data_cb(void *arg, const void *data, size_t len)
{
	struct taken *t = arg;

	evbuffer_add(t->bytes, data, len);
	if (t->pause_after && --t->pause_after == 0)
		net_capture_pause(t->capture, true);
}

static void capture_ended_cb(void *arg, const struct err *e)
{
	struct taken *t = arg;

	t->ended++;
	t->failed = e != NULL;
}

static const struct net_capture_events capture_events = { .data = capture_data_cb, .ended = capture_ended_cb };

static void start_capture(struct bench *b, struct taken *t, struct net_port *port, const char *filter,
	unsigned snaplen)
{
	struct err e = ERR_INIT;

	*t = (struct taken){ .bytes = evbuffer_new() };
	t->capture = net_capture_new(b->lan, port, filter, snaplen, &capture_events, t, &e);
	if (!t->capture)
		fail_msg("%s", e.msg);
}

/* Opens what was captured with libpcap's own reader. */
static pcap_t *open_capture(struct taken *t, FILE **f)
{
	char text[PCAP_ERRBUF_SIZE] = "";
	pcap_t *p;

	*f = tmpfile();
	assert_non_null(*f);
	assert_true(evbuffer_write(t->bytes, fileno(*f)) >= 0);
	while (evbuffer_get_length(t->bytes) > 0)
		assert_true(evbuffer_write(t->bytes, fileno(*f)) > 0);
	rewind(*f);
	p = pcap_fopen_offline_with_tstamp_precision(*f, PCAP_TSTAMP_PRECISION_NANO, text);
	if (!p)
		fail_msg("%s", text);
	assert_int_equal(pcap_datalink(p), DLT_EN10MB);
	return p;
}

/* How many frames are in it; *ids is a text of their ids, while they fit. */
static unsigned read_capture(struct taken *t, char *ids, size_t size, unsigned caplen)
{
	struct pcap_pkthdr *h;
	const u_char *data;
	struct timeval last = { 0, 0 };
	unsigned n = 0;
	FILE *f;
	pcap_t *p = open_capture(t, &f);
	int rc;

	*ids = 0;
	for (; (rc = pcap_next_ex(p, &h, &data)) == 1; n++) {
		uint32_t id = 0;

		assert_false(timercmp(&h->ts, &last, <));
		last = h->ts;
		if (caplen)
			assert_int_equal(h->caplen, caplen < h->len ? caplen : h->len);
		if (h->caplen >= FRAME_HEADER + 4)
			memcpy(&id, data + FRAME_HEADER, 4);
		if (strlen(ids) + 12 < size)
			sprintf(ids + strlen(ids), "%s%u", n ? " " : "", id);
	}
	assert_int_equal(rc, PCAP_ERROR_BREAK);	/* its end, and nothing torn */
	pcap_close(p);
	return n;
}

static void end_capture(struct taken *t)
{
	net_capture_free(t->capture);
	evbuffer_free(t->bytes);
}

static void test_capture(void **state)
{
	struct bench *b = *state;
	struct taken all, one;
	char ids[200];

	start_capture(b, &all, NULL, NULL, 0);
	start_capture(b, &one, b->ports[2], NULL, 0);
	settle(b);
	assert_int_equal(evbuffer_get_length(all.bytes), 24);	/* the header is there at once */
	put(b, 0, 255, 1, 60);
	settle(b);
	put(b, 1, 0, 2, 60);
	settle(b);
	put(b, 2, 0, 3, 60);
	settle(b);
	assert_int_equal(read_capture(&all, ids, sizeof(ids), 0), 3);
	assert_string_equal(ids, "1 2 3");
	assert_int_equal(read_capture(&one, ids, sizeof(ids), 0), 2);
	assert_string_equal(ids, "1 3");
	assert_int_equal(net_capture_dropped(all.capture), 0);
	end_capture(&all);
	/* The port goes. */
	net_port_free(b->ports[2]);
	b->ports[2] = NULL;
	settle(b);
	assert_int_equal(one.ended, 1);
	assert_false(one.failed);
	end_capture(&one);
}

static void test_capture_filter(void **state)
{
	struct bench *b = *state;
	struct net_capture *c;
	struct err e = ERR_INIT;
	struct taken t;
	char ids[200];

	start_capture(b, &t, NULL, "ether src 52:54:00:00:00:02", 40);
	put(b, 0, 1, 1, 60);
	put(b, 1, 0, 2, 60);
	put(b, 1, 0, 3, 1514);
	put(b, 2, 0, 4, 60);
	settle(b);
	assert_int_equal(read_capture(&t, ids, sizeof(ids), 40), 2);
	assert_string_equal(ids, "2 3");
	end_capture(&t);
	c = net_capture_new(b->lan, NULL, "tcp prot 80", 0, &capture_events, NULL, &e);
	assert_null(c);
	assert_non_null(strstr(e.msg, "capture filter `tcp prot 80`: "));
	err_release(&e);
}

static void test_capture_complete(void **state)
{
	struct bench *b = *state;
	struct taken t;
	char ids[20];

	learn_all(b);
	start_capture(b, &t, NULL, NULL, 0);
	for (unsigned i = 0; i < 10000; i++) {
		put(b, 0, 1, i, 100 + i % 1400);
		if (i % 50 == 49)
			for (unsigned got = 0; got < 50; got++)
				assert_true(wait_frame(b, 1, 10000 * MS) >= 0);
	}
	settle(b);
	assert_int_equal(read_capture(&t, ids, sizeof(ids), 0), 10000);
	assert_int_equal(net_capture_dropped(t.capture), 0);
	end_capture(&t);
}

static void test_capture_paused(void **state)
{
	struct bench *b = *state;
	struct taken t;
	uint64_t dropped;
	char ids[20];

	learn_all(b);
	start_capture(b, &t, NULL, NULL, 0);
	t.pause_after = 1;
	settle(b);
	for (unsigned i = 0; i < 400; i++) {
		put(b, 0, 1, i, 60000);
		assert_int_equal(wait_frame(b, 1, 10000 * MS), i);
	}
	assert_int_equal(evbuffer_get_length(t.bytes), 24);
	dropped = net_capture_dropped(t.capture);
	assert_in_range(400 - dropped, (16 << 20) / 60016 - 1, (16 << 20) / 60016);
	net_capture_pause(t.capture, false);
	settle(b);
	put(b, 0, 1, 1000, 60);
	settle(b);
	assert_int_equal(read_capture(&t, ids, sizeof(ids), 0), 400 - dropped + 1);
	/* Ended while paused: what was kept comes first. */
	net_capture_pause(t.capture, true);
	put(b, 0, 1, 1001, 60);
	settle(b);
	for (unsigned i = 0; i < GUESTS; i++) {
		net_port_free(b->ports[i]);
		b->ports[i] = NULL;
	}
	net_bridge_free(b->lan);
	settle(b);
	assert_int_equal(t.ended, 0);
	net_capture_pause(t.capture, false);
	settle(b);
	assert_int_equal(t.ended, 1);
	assert_int_equal(evbuffer_get_length(t.bytes), 16 + 60);
	end_capture(&t);
}

/* ---- routes and the way out ---- */

#define GATEWAY(net) { { 10, 0, net, 1 }, 24, true, { 0xfd, 0, 0, net, [15] = 1 }, 64 }

static struct ip_address address(unsigned net, unsigned host)
{
	return (struct ip_address){ .bytes = { 10, 0, (uint8_t)net, (uint8_t)host } };
}

/* Asks for the gateway's MAC as a guest does; the answer is put into mac. */
static void ask_gateway(struct bench *b, unsigned guest, unsigned net, uint8_t *mac)
{
	uint8_t arp[60] = { 255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, (uint8_t)(guest + 1), 8, 6, 0, 1, 8, 0, 6,
		4, 0, 1, 0x52, 0x54, 0, 0, 0, (uint8_t)(guest + 1), 10, 0, (uint8_t)net, (uint8_t)(10 + guest), 0, 0, 0, 0,
		0, 0, 10, 0, (uint8_t)net, 1 };
	uint8_t reply[2048];
	int64_t end = now_ns() + 10000 * MS;

	assert_int_equal(send(b->guests[guest], arp, sizeof(arp), 0), sizeof(arp));
	while (now_ns() < end) {
		if (get_frame(b, guest, reply, sizeof(reply)) >= 42 && get16(reply + 12) == TYPE_ARP &&
		    get16(reply + 20) == 2) {
			memcpy(mac, reply + 22, 6);
			return;
		}
		run_for(b, MS);
	}
	fail_msg("the gateway does not answer");
}

static void send_packet(struct bench *b, unsigned guest, const uint8_t *mac, struct frame *f)
{
	uint8_t own[6] = { 0x52, 0x54, 0, 0, 0, (uint8_t)(guest + 1) };

	memcpy(f->data, mac, 6);
	memcpy(f->data + 6, own, 6);
	assert_int_equal(send(b->guests[guest], f->data, f->len, 0), f->len);
	frame_unref(f);
}

/* The next IP packet that the guest gets; it answers ARP meanwhile. data holds it. */
static bool next_packet(struct bench *b, unsigned guest, struct packet *p, uint8_t data[65536], int64_t ns)
{
	int64_t end = now_ns() + ns, n;

	while (now_ns() < end) {
		n = get_frame(b, guest, data, 65536);
		if (n >= 42 && get16(data + 12) == TYPE_ARP && get16(data + 20) == 1) {
			uint8_t wanted[4];

			memcpy(wanted, data + 38, 4);
			memcpy(data, data + 6, 6);
			memcpy(data + 32, data + 22, 10);
			memcpy(data + 28, wanted, 4);
			memcpy(data + 22, (uint8_t[]){ 0x52, 0x54, 0, 0, 0, (uint8_t)(guest + 1) }, 6);
			memcpy(data + 6, data + 22, 6);
			put16(data + 20, 2);
			assert_int_equal(send(b->guests[guest], data, 42, 0), 42);
		} else if (n > FRAME_HEADER && packet_parse(p, data + FRAME_HEADER, (size_t)n - FRAME_HEADER)) {
			return true;
		}
		run_for(b, MS);
	}
	return false;
}

static struct frame *echo_to(struct ip_address src, struct ip_address dst)
{
	struct frame *f = packet_new(&src, &dst, PROTO_ICMP, 64);

	packet_payload(f)[0] = 8;
	packet_sum_icmp(f);
	return f;
}

static void test_route(void **state)
{
	static const struct net_address gw_lan = GATEWAY(1), gw_wan = GATEWAY(2);
	struct bench *b = *state;
	uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, 3 }, gw[6], data[65536];
	struct packet p;

	/* c moves to the other bridge. */
	net_port_free(b->ports[2]);
	close(b->guests[2]);
	b->wan = net_bridge_new(b->net, NET_USER, "wan", 43, done_cb, b);
	assert_null(await(b));
	b->ports[2] = net_port_new(b->wan, "c", mac, done_cb, b);
	assert_null(await(b));
	b->guests[2] = fcntl(net_port_fd(b->ports[2]), F_DUPFD_CLOEXEC, 3);
	net_route(b->lan, b->wan, true, done_cb, b);
	assert_non_null(strstr(await(b), "has no gateway address"));
	net_bridge_set_gateway(b->lan, &gw_lan, done_cb, b);
	assert_null(await(b));
	net_bridge_set_gateway(b->wan, &gw_wan, done_cb, b);
	assert_null(await(b));
	net_route(b->lan, b->wan, true, done_cb, b);
	assert_null(await(b));

	ask_gateway(b, 0, 1, gw);
	send_packet(b, 0, gw, echo_to(address(1, 10), address(2, 12)));
	assert_true(next_packet(b, 2, &p, data, 10000 * MS));
	assert_int_equal(p.ttl, 63);
	assert_memory_equal(p.src.bytes, address(1, 10).bytes, 4);
	send_packet(b, 2, data + 6, packet_echo_reply(&p));
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.payload[0], 0);

	net_route(b->lan, b->wan, false, done_cb, b);
	assert_null(await(b));
	send_packet(b, 0, gw, echo_to(address(1, 10), address(2, 12)));
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.payload[0], 3);
	/* A bridge with a gateway may go while packets wait for it. */
	net_route(b->lan, b->wan, true, done_cb, b);
	assert_null(await(b));
	send_packet(b, 0, gw, echo_to(address(1, 10), address(2, 99)));
	settle(b);
	net_port_free(b->ports[2]);
	net_bridge_free(b->wan);
	settle(b);
}

static uint32_t add_words(const uint8_t *p, size_t len, uint32_t total)
{
	for (; len > 1; p += 2, len -= 2)
		total += get16(p);
	return len ? total + (uint32_t)(p[0] << 8) : total;
}

static struct frame *transport_to(struct ip_address src, struct ip_address dst, unsigned proto, const void *header,
	size_t len, unsigned sum_at)
{
	struct frame *f = packet_new(&src, &dst, proto, len);
	uint32_t total;

	memcpy(packet_payload(f), header, len);
	total = add_words(f->data + FRAME_HEADER + (src.is6 ? 8 : 12), src.is6 ? 32 : 8, proto + (uint32_t)len);
	total = add_words(packet_payload(f), len, total);
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	put16(packet_payload(f) + sum_at, ~total & 0xffff);
	return f;
}

static struct frame *udp_to(struct ip_address src, struct ip_address dst, unsigned port, const char *text)
{
	uint8_t udp[256] = { 0x30, 0x39 };

	put16(udp + 2, port);
	put16(udp + 4, (unsigned)(8 + strlen(text)));
	memcpy(udp + 8, text, strlen(text));
	return transport_to(src, dst, PROTO_UDP, udp, 8 + strlen(text), 6);
}

#define SYN 2
#define ACK 16
#define PSH 8

static struct frame *tcp_to(struct ip_address src, struct ip_address dst, unsigned port, uint32_t seq, uint32_t ack,
	unsigned flags, const char *text)
{
	uint8_t tcp[256] = { 0x30, 0x3a, [12] = 0x50, [13] = (uint8_t)flags, [14] = 0xff };

	put16(tcp + 2, port);
	put16(tcp + 4, seq >> 16);
	put16(tcp + 6, seq & 0xffff);
	put16(tcp + 8, ack >> 16);
	put16(tcp + 10, ack & 0xffff);
	memcpy(tcp + 20, text, strlen(text));
	return transport_to(src, dst, PROTO_TCP, tcp, 20 + strlen(text), 16);
}

#define OUTSIDE6 { .is6 = true, .bytes = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } }

/* As linux/ipv6.h has it, which does not go together with netinet/in.h. */
struct ifreq6 { struct in6_addr address; uint32_t prefix; int index; };

static bool enter_outside6(void)
{
	struct ifreq6 r = { .prefix = 128, .index = (int)if_nametoindex("lo") };
	int s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	if (s < 0)
		return false;
	inet_pton(AF_INET6, "2001:db8::1", &r.address);
	rc = ioctl(s, SIOCSIFADDR, &r);
	close(s);
	return rc == 0;
}

/* A network of its own whose loopback has 203.0.113.1: what stands for the outside. False: not allowed here. */
static bool enter_outside(void)
{
	struct ifreq r = { 0 };
	struct sockaddr_in *a = (struct sockaddr_in *)(void *)&r.ifr_addr;
	int s;

	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	strcpy(r.ifr_name, "lo");
	r.ifr_flags = IFF_UP | IFF_LOOPBACK;
	if (ioctl(s, SIOCSIFFLAGS, &r) < 0)
		return false;
	strcpy(r.ifr_name, "lo:1");
	a->sin_family = AF_INET;
	inet_pton(AF_INET, "203.0.113.1", &a->sin_addr);
	if (ioctl(s, SIOCSIFADDR, &r) < 0)
		return false;
	close(s);
	return true;
}

static int outside_server(int type, uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t len = sizeof(a);
	int s = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, "203.0.113.1", &a.sin_addr);
	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(s, 4), 0);
	return s;
}

static bool readable(struct bench *b, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	for (int i = 0; i < 5000 && poll(&p, 1, 0) == 0; i++)
		run_for(b, 2 * MS);
	return p.revents & POLLIN;
}

static uint32_t seq_of(const struct packet *p, unsigned at)
{
	return (uint32_t)get16(p->payload + at) << 16 | get16(p->payload + at + 2);
}

static void check_udp_out(struct bench *b, const uint8_t *gw)
{
	static const struct ip_address outside = { .bytes = { 203, 0, 113, 1 } };
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint8_t data[65536];
	char text[64] = "";
	struct packet p;
	uint16_t port;
	int s = outside_server(SOCK_DGRAM, &port);

	send_packet(b, 0, gw, udp_to(address(1, 10), outside, port, "hello"));
	assert_true(readable(b, s));
	assert_int_equal(recvfrom(s, text, sizeof(text), 0, (struct sockaddr *)&from, &len), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(sendto(s, "welcome", 7, 0, (struct sockaddr *)&from, len), 7);
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.proto, PROTO_UDP);
	assert_true(ip_equal(&p.src, &outside));
	assert_int_equal(get16(p.payload), port);
	assert_memory_equal(p.payload + 8, "welcome", 7);
	close(s);
}

static void check_udp6_out(struct bench *b, const uint8_t *gw)
{
	static const struct ip_address outside = OUTSIDE6, guest = { .is6 = true, .bytes = { 0xfd, [3] = 1, [15] = 10 } };
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 }, from;
	socklen_t len = sizeof(a), from_len = sizeof(from);
	int s = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	uint8_t data[65536];
	char text[64] = "";
	struct packet p;

	memcpy(&a.sin6_addr, outside.bytes, 16);
	assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)&a, &len), 0);
	/* The gateway learns where the guest is as it would from a real one. */
	send_packet(b, 0, gw, udp_to(guest, outside, ntohs(a.sin6_port), "hello"));
	assert_true(readable(b, s));
	assert_int_equal(recvfrom(s, text, sizeof(text), 0, (struct sockaddr *)&from, &from_len), 5);
	assert_int_equal(sendto(s, "welcome", 7, 0, (struct sockaddr *)&from, from_len), 7);
	/* It asks who has that address before it can deliver. */
	do
		assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	while (!(p.proto == PROTO_ICMP6 && p.payload[0] == 135));
	{
		struct frame *f = packet_new(&guest, &p.src, PROTO_ICMP6, 32);
		uint8_t *nd = packet_payload(f);

		nd[0] = 136;
		nd[4] = 0x60;
		memcpy(nd + 8, guest.bytes, 16);
		nd[24] = 2;
		nd[25] = 1;
		memcpy(nd + 26, (uint8_t[]){ 0x52, 0x54, 0, 0, 0, 1 }, 6);
		packet_sum_icmp(f);
		send_packet(b, 0, gw, f);
	}
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.proto, PROTO_UDP);
	assert_true(ip_equal(&p.src, &outside));
	assert_memory_equal(p.payload + 8, "welcome", 7);
	close(s);
}

/* A connection to the outside that carries some text each way; left open. Returns the server's end. */
static int check_tcp_out(struct bench *b, const uint8_t *gw)
{
	static const struct ip_address outside = { .bytes = { 203, 0, 113, 1 } };
	uint8_t data[65536];
	char text[64] = "";
	struct packet p;
	uint16_t port;
	uint32_t theirs;
	int s = outside_server(SOCK_STREAM, &port), c;

	send_packet(b, 0, gw, tcp_to(address(1, 10), outside, port, 1000, 0, SYN, ""));
	assert_true(readable(b, s));
	c = accept4(s, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(c >= 0);
	close(s);
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.payload[13], SYN | ACK);
	theirs = seq_of(&p, 4) + 1;
	assert_int_equal(seq_of(&p, 8), 1001);
	send_packet(b, 0, gw, tcp_to(address(1, 10), outside, port, 1001, theirs, ACK, ""));
	send_packet(b, 0, gw, tcp_to(address(1, 10), outside, port, 1001, theirs, ACK | PSH, "GET / HTTP/1.0\r\n\r\n"));
	assert_true(readable(b, c));
	assert_int_equal(read(c, text, sizeof(text)), 18);
	assert_int_equal(write(c, "a page", 6), 6);
	do
		assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	while (p.payload_len <= 20);
	assert_memory_equal(p.payload + (p.payload[12] >> 4) * 4, "a page", 6);
	return c;
}

static bool outside6;

static void test_uplink(void **state)
{
	static const struct net_address gateway = GATEWAY(1);
	struct bench *b = *state;
	uint8_t gw[6], data[65536];
	char text[8];
	struct packet p;
	int c;

	net_uplink(b->lan, true, done_cb, b);
	assert_string_equal(await(b), "the way out of bridge `lan` needs a gateway address");
	net_bridge_set_gateway(b->lan, &gateway, done_cb, b);
	assert_null(await(b));
	net_uplink(b->lan, true, done_cb, b);
	assert_null(await(b));
	ask_gateway(b, 0, 1, gw);
	check_udp_out(b, gw);
	if (outside6)
		check_udp6_out(b, gw);
	c = check_tcp_out(b, gw);
	/* Nothing of the host's own is behind the gateway's address, but the resolver. */
	send_packet(b, 0, gw, tcp_to(address(1, 10), address(1, 1), 22, 5, 0, SYN, ""));
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.proto, PROTO_ICMP);
	assert_int_equal(p.payload[1], 3);
	/* Off: the connection ends, and nothing goes out any more. */
	net_uplink(b->lan, false, done_cb, b);
	assert_null(await(b));
	assert_true(readable(b, c));
	assert_true(read(c, text, sizeof(text)) <= 0);
	close(c);
	while (next_packet(b, 0, &p, data, 50 * MS))
		;
	send_packet(b, 0, gw, echo_to(address(1, 10), (struct ip_address){ .bytes = { 203, 0, 113, 1 } }));
	assert_true(next_packet(b, 0, &p, data, 10000 * MS));
	assert_int_equal(p.payload[0], 3);
	/* On again, and freed with connections open. */
	net_uplink(b->lan, true, done_cb, b);
	assert_null(await(b));
	close(check_tcp_out(b, gw));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_frames, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_netdev, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_burst_in_order, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_slow_guest, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_blocks, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_latency, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_replay, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_port_rate, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_renew, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_no_descriptors, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_port_goes, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_capture, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_capture_filter, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_capture_complete, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_capture_paused, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_route, open_bench, close_bench),
	};
	const struct CMUnitTest outside[] = {
		cmocka_unit_test_setup_teardown(test_uplink, open_bench, close_bench),
	};
	int failed = cmocka_run_group_tests_name("usernet", tests, NULL, NULL);

	if (enter_outside()) {
		outside6 = enter_outside6();
		failed += cmocka_run_group_tests_name("usernet, outside", outside, NULL, NULL);
	}
	return failed;
}
