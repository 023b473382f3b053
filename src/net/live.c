/*
 * A capture on an interface of the kernel backend: libpcap in the loop, opened inside the bridge's namespace.
 *
 * What arrives while the loop is at something else waits in the ring that libpcap shares with the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/capture.h"

#define RING_BYTES (16 << 20)
#define RING_MS 10			/* a block of the ring is handed over after that, full or not */
#define BATCH 512			/* frames of one turn */

static void readable_cb(evutil_socket_t fd, short what, void *arg);
static void frame_cb(u_char *arg, const struct pcap_pkthdr *h, const u_char *data);

/* Owned by its capture. */
struct live {
	struct net_capture *capture;
	pcap_t *pcap;
	struct event *readable;
	bool exact;			/* nanoseconds */
	uint64_t dropped;		/* so far, by the kernel */
	unsigned last_drop;
	bool gone;
};

struct opening {
	const char *ifname;
	unsigned snaplen;
	pcap_t *pcap;
};

/* In the namespace. */
static int open_cb(void *arg, struct err *e)
{
	struct opening *o = arg;
	char text[PCAP_ERRBUF_SIZE] = "";
	int rc;

	o->pcap = pcap_create(o->ifname, text);
	if (!o->pcap)
		return err_set(e, EIO, "capture on `%s`: %s", o->ifname, text);
	pcap_set_snaplen(o->pcap, (int)o->snaplen);
	pcap_set_promisc(o->pcap, 1);
	pcap_set_timeout(o->pcap, RING_MS);
	pcap_set_buffer_size(o->pcap, RING_BYTES);
	pcap_set_tstamp_precision(o->pcap, PCAP_TSTAMP_PRECISION_NANO);
	rc = pcap_activate(o->pcap);
	if (rc == PCAP_ERROR_PERM_DENIED)
		return err_set(e, EPERM, "capture on `%s`: no right to open a packet socket (CAP_NET_RAW)", o->ifname);
	if (rc < 0)
		return err_set(e, EIO, "capture on `%s`: %s", o->ifname, *pcap_geterr(o->pcap) ?
			pcap_geterr(o->pcap) : pcap_statustostr(rc));
	return 0;
}

static int prepare(struct opening *o, struct bpf_program *filter, struct err *e)
{
	char text[PCAP_ERRBUF_SIZE] = "";

	if (filter && pcap_setfilter(o->pcap, filter) < 0)
		return err_set(e, EIO, "capture on `%s`: the filter: %s", o->ifname, pcap_geterr(o->pcap));
	if (pcap_setnonblock(o->pcap, 1, text) < 0)
		return err_set(e, EIO, "capture on `%s`: %s", o->ifname, text);
	if (pcap_datalink(o->pcap) != DLT_EN10MB)
		return err_set(e, EIO, "capture on `%s`: it is no Ethernet interface", o->ifname);
	return 0;
}

struct live *live_open(struct loop *l, struct net_bridge *b, struct net_port *port, struct bpf_program *filter,
	unsigned snaplen, struct net_capture *c, struct err *e)
{
	struct opening o = { .ifname = net_kernel_ifname(b, port), .snaplen = snaplen };
	struct live *v;

	if (!o.ifname) {
		err_set(e, ENODEV, "capture on bridge `%s`: its interface is not there yet", b->name);
		return NULL;
	}
	if (net_kernel_inside(b, open_cb, &o, e) < 0 || prepare(&o, filter, e) < 0) {
		if (o.pcap)
			pcap_close(o.pcap);
		return NULL;
	}
	v = xcalloc(1, sizeof(*v));
	v->capture = c;
	v->pcap = o.pcap;
	v->exact = pcap_get_tstamp_precision(o.pcap) == PCAP_TSTAMP_PRECISION_NANO;
	v->readable = event_new(loop_base(l), pcap_get_selectable_fd(o.pcap), EV_READ | EV_PERSIST, readable_cb, v);
	INVARIANT(v->readable);
	event_add(v->readable, NULL);
	return v;
}

static void frame_cb(u_char *arg, const struct pcap_pkthdr *h, const u_char *data)
{
	struct live *v = (struct live *)(void *)arg;
	int64_t fraction = v->exact ? h->ts.tv_usec : h->ts.tv_usec * 1000;

	capture_frame(v->capture, (int64_t)h->ts.tv_sec * 1000000000 + fraction, data, h->caplen, h->len);
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct live *v = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	if (pcap_dispatch(v->pcap, BATCH, frame_cb, (u_char *)v) != PCAP_ERROR)
		return;
	v->gone = true;
	event_del(v->readable);
	err_set(&e, EIO, "the capture's interface: %s", pcap_geterr(v->pcap));
	capture_broke(v->capture, &e);
	err_release(&e);
}

uint64_t live_dropped(struct live *v)
{
	struct pcap_stat st;

	if (pcap_stats(v->pcap, &st) == 0) {
		v->dropped += st.ps_drop - v->last_drop;	/* 32 bits that may wrap */
		v->last_drop = st.ps_drop;
	}
	return v->dropped;
}

void live_close(struct live *v)
{
	if (!v)
		return;
	while (!v->gone && pcap_dispatch(v->pcap, BATCH, frame_cb, (u_char *)v) > 0)
		;
	event_free(v->readable);
	pcap_close(v->pcap);
	free(v);
}
