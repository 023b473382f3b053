/*
 * Captures: frames of a bridge or port as bytes of a pcap file.
 *
 * The source (a tap of the user backend, a packet socket for the kernel's) brings frames; those that pass libpcap's
 * filter go into a buffer, and at the end of the turn the receiver gets it, as long as it wants to. A file of
 * nanoseconds, Ethernet.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/capture.h"
#include "net/user.h"

#define KEPT_MAX ((size_t)16 << 20)
#define SNAPLEN 262144
#define PIECE 65536			/* handed over at once */
#define MAGIC_NS 0xa1b23c4d

static void tap_cb(struct user_tap *t, const void *data, size_t len);
static void flush_cb(void *arg);

struct file_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, snaplen, link_type;
};

struct record_header {
	uint32_t seconds, nanoseconds, captured, length;
};

/* Owned by the caller; its memory stays until flush_cb is through. */
struct net_capture {
	TAILQ_ENTRY(net_capture) entry;	/* of captures */
	struct user_tap tap;		/* user backend */
	struct live *live;		/* kernel backend */
	struct loop *loop;
	struct net_bridge *bridge;	/* NULL: gone */
	struct net_port *port;
	const struct net_capture_events *ev;
	void *arg;
	struct bpf_program program;
	bool filtered;
	unsigned snaplen;
	struct evbuffer *kept;
	bool paused, pending, freed;	/* pending: flush_cb is deferred */
	bool over, told;
	struct err why;
	uint64_t dropped;
};

static TAILQ_HEAD(, net_capture) captures = TAILQ_HEAD_INITIALIZER(captures);

/* ---- to the receiver ---- */

static void schedule(struct net_capture *c)
{
	if (c->pending || c->paused)
		return;
	c->pending = true;
	loop_defer(c->loop, flush_cb, c);
}

static void free_now(struct net_capture *c)
{
	if (c->filtered)
		pcap_freecode(&c->program);
	evbuffer_free(c->kept);
	err_release(&c->why);
	free(c);
}

/* The receiver may pause or free the capture in its callbacks. */
static void flush_cb(void *arg)
{
	struct net_capture *c = arg;
	char buf[PIECE];
	int n;

	while (!c->freed && !c->paused && (n = evbuffer_remove(c->kept, buf, sizeof(buf))) > 0)
		c->ev->data(c->arg, buf, (size_t)n);
	if (!c->freed && !c->paused && c->over && !c->told) {
		c->told = true;
		c->ev->ended(c->arg, err_is_set(&c->why) ? &c->why : NULL);
	}
	c->pending = false;
	if (c->freed)
		free_now(c);
}

void capture_frame(struct net_capture *c, int64_t realtime_ns, const void *data, size_t caplen, size_t len)
{
	struct pcap_pkthdr looked = { .caplen = (bpf_u_int32)caplen, .len = (bpf_u_int32)len };
	struct record_header h = {
		.seconds = (uint32_t)(realtime_ns / 1000000000),
		.nanoseconds = (uint32_t)(realtime_ns % 1000000000),
		.length = (uint32_t)len,
	};

	if (c->filtered && pcap_offline_filter(&c->program, &looked, data) == 0)
		return;
	if (caplen > c->snaplen)
		caplen = c->snaplen;
	h.captured = (uint32_t)caplen;
	if (c->paused && evbuffer_get_length(c->kept) + sizeof(h) + caplen > KEPT_MAX) {
		c->dropped++;
		return;
	}
	evbuffer_add(c->kept, &h, sizeof(h));
	evbuffer_add(c->kept, data, caplen);
	schedule(c);
}

static void tap_cb(struct user_tap *t, const void *data, size_t len)
{
	struct net_capture *c = (struct net_capture *)((char *)t - offsetof(struct net_capture, tap));
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	capture_frame(c, (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec, data, len, len);
}

/* ---- life ---- */

static int compile(struct net_capture *c, const char *filter, struct err *e)
{
	pcap_t *dead = pcap_open_dead(DLT_EN10MB, (int)c->snaplen);
	int rc = 0;

	if (!dead)
		return err_set(e, ENOMEM, "capture: libpcap has no memory");
	if (pcap_compile(dead, &c->program, filter, 1, PCAP_NETMASK_UNKNOWN) < 0)
		rc = err_set(e, EINVAL, "capture filter `%s`: %s", filter, pcap_geterr(dead));
	else
		c->filtered = true;
	pcap_close(dead);
	return rc;
}

static int start(struct net_capture *c, const char *filter, struct err *e)
{
	if (net_bridge_backend(c->bridge) == NET_KERNEL) {
		/* The kernel takes VLAN tags off before it filters; then only we can. */
		c->live = live_open(c->loop, c->bridge, c->port, c->filtered && !strstr(filter, "vlan") ?
			&c->program : NULL, c, e);
		return c->live ? 0 : -EIO;
	}
	c->tap = (struct user_tap){ .port = c->port, .frame = tap_cb };
	user_tap_add(c->bridge, &c->tap);
	return 0;
}

static void put_file_header(struct net_capture *c)
{
	struct file_header h = { .magic = MAGIC_NS, .major = 2, .minor = 4, .snaplen = c->snaplen, .link_type = 1 };

	evbuffer_add(c->kept, &h, sizeof(h));
	schedule(c);
}

struct net_capture *net_capture_new(struct net_bridge *b, struct net_port *port, const char *filter, unsigned snaplen,
	const struct net_capture_events *ev, void *arg, struct err *e)
{
	struct net_capture *c = xcalloc(1, sizeof(*c));

	c->loop = b->net->loop;
	c->bridge = b;
	c->port = port;
	c->ev = ev;
	c->arg = arg;
	c->snaplen = snaplen > 0 && snaplen <= SNAPLEN ? snaplen : SNAPLEN;
	c->kept = evbuffer_new();
	INVARIANT(c->kept);
	if ((filter && compile(c, filter, e) < 0) || start(c, filter, e) < 0) {
		free_now(c);
		return NULL;
	}
	put_file_header(c);
	TAILQ_INSERT_TAIL(&captures, c, entry);
	return c;
}

/* No more frames. */
static void stop(struct net_capture *c)
{
	if (!c->bridge)
		return;
	if (c->live) {
		c->dropped += live_dropped(c->live);
		live_close(c->live);
	} else {
		user_tap_remove(c->bridge, &c->tap);
	}
	c->live = NULL;
	c->bridge = NULL;
	c->port = NULL;
	TAILQ_REMOVE(&captures, c, entry);
}

void capture_broke(struct net_capture *c, const struct err *e)
{
	err_copy(&c->why, e);
	c->over = true;
	schedule(c);
}

void net_captures_end(struct net_bridge *b, struct net_port *port)
{
	struct net_capture *c, *next;

	for (c = TAILQ_FIRST(&captures); c; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (c->bridge != b || (port && c->port != port))
			continue;
		stop(c);
		c->over = true;
		schedule(c);
	}
}

void net_capture_pause(struct net_capture *c, bool paused)
{
	c->paused = paused;
	if (!paused && (evbuffer_get_length(c->kept) > 0 || (c->over && !c->told)))
		schedule(c);
}

uint64_t net_capture_dropped(const struct net_capture *c)
{
	return c->dropped + (c->live ? live_dropped(c->live) : 0);
}

void net_capture_free(struct net_capture *c)
{
	if (!c)
		return;
	stop(c);
	c->freed = true;
	if (!c->pending)
		free_now(c);
}
