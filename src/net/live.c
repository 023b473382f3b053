/*
 * A capture on an interface of the kernel backend: a packet socket, opened inside the bridge's namespace.
 *
 * A socket and not libpcap's ring: what has arrived can be read at once, and to the last frame when the interface goes,
 * while a ring hands over blocks, when they are full or some time has passed. What arrives while the loop is at
 * something else waits in the socket's buffer.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/capture.h"

#define BUFFER_BYTES (64 << 20)
#define BATCH 32			/* frames of one turn */
#define ROOM 65664			/* of one; a few bytes in front are for a VLAN tag */
#define TAG 4

static void readable_cb(evutil_socket_t fd, short what, void *arg);

/* Owned by its capture. */
struct live {
	struct net_capture *capture;
	int fd;
	struct event *readable;
	uint64_t dropped;
};

struct opening {
	const char *ifname;
	struct bpf_program *filter;
	int fd;
};

/* What one batch is received into. */
struct batch {
	struct mmsghdr msgs[BATCH];
	struct iovec iov[BATCH];
	union {
		char room[256];
		struct cmsghdr align;
	} control[BATCH];
	uint8_t data[BATCH][ROOM];
};
static struct batch *batch;

/* Protocol 0: deaf until it is bound, so nothing of other interfaces gets in. */
static int open_socket(struct opening *o, struct err *e)
{
	int on = 1, size = BUFFER_BYTES;

	o->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (o->fd < 0 && errno == EPERM)
		return err_set(e, EPERM, "capture on `%s`: no right to open a packet socket; it takes CAP_NET_RAW",
			o->ifname);
	if (o->fd < 0)
		return err_set(e, errno, "capture on `%s`: a packet socket: %s", o->ifname, strerror(errno));
	if (setsockopt(o->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(o->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(o->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0 ||
	    setsockopt(o->fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0)
		return err_set(e, errno, "capture on `%s`: %s", o->ifname, strerror(errno));
	return 0;
}

static int attach_filter(struct opening *o, struct err *e)
{
	struct sock_fprog prog = { .len = (unsigned short)(o->filter ? o->filter->bf_len : 0) };

	if (!o->filter)
		return 0;
	/* The two structs of an instruction are the same. */
	prog.filter = (struct sock_filter *)(void *)o->filter->bf_insns;
	if (setsockopt(o->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0)
		return err_set(e, errno, "capture on `%s`: the kernel refuses the filter: %s", o->ifname, strerror(errno));
	return 0;
}

/* In the namespace. */
static int open_cb(void *arg, struct err *e)
{
	struct opening *o = arg;
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct packet_mreq all = { .mr_type = PACKET_MR_PROMISC };
	struct ifreq r = { 0 };
	int rc;

	if ((rc = open_socket(o, e)) < 0 || (rc = attach_filter(o, e)) < 0)
		return rc;
	strncpy(r.ifr_name, o->ifname, sizeof(r.ifr_name) - 1);
	if (ioctl(o->fd, SIOCGIFINDEX, &r) < 0)
		return err_set(e, errno, "capture on `%s`: %s", o->ifname, strerror(errno));
	to.sll_ifindex = all.mr_ifindex = r.ifr_ifindex;
	if (bind(o->fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    setsockopt(o->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) < 0)
		return err_set(e, errno, "capture on `%s`: %s", o->ifname, strerror(errno));
	return 0;
}

struct live *live_open(struct loop *l, struct net_bridge *b, struct net_port *port, struct bpf_program *filter,
	struct net_capture *c, struct err *e)
{
	struct opening o = { .ifname = net_kernel_ifname(b, port), .filter = filter, .fd = -1 };
	struct live *v;

	if (!o.ifname) {
		err_set(e, ENODEV, "capture on bridge `%s`: its interface is not there yet", b->name);
		return NULL;
	}
	if (net_kernel_inside(b, open_cb, &o, e) < 0) {
		if (o.fd >= 0)
			close(o.fd);
		return NULL;
	}
	v = xcalloc(1, sizeof(*v));
	v->capture = c;
	v->fd = o.fd;
	v->readable = event_new(loop_base(l), v->fd, EV_READ | EV_PERSIST, readable_cb, v);
	INVARIANT(v->readable);
	event_add(v->readable, NULL);
	return v;
}

/* ---- frames ---- */

static int receive(struct live *v)
{
	if (!batch)
		batch = xcalloc(1, sizeof(*batch));
	for (unsigned i = 0; i < BATCH; i++) {
		batch->iov[i] = (struct iovec){ batch->data[i] + TAG, ROOM - TAG };
		batch->msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &batch->iov[i], .msg_iovlen = 1,
			.msg_control = batch->control[i].room, .msg_controllen = sizeof(batch->control[i].room) };
	}
	return recvmmsg(v->fd, batch->msgs, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
}

static int64_t time_and_tag(struct msghdr *h, struct tpacket_auxdata *aux)
{
	struct timespec ts = { 0 };

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
			memcpy(&ts, CMSG_DATA(c), sizeof(ts));
		else if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA)
			memcpy(aux, CMSG_DATA(c), sizeof(*aux));
	}
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The kernel took a VLAN tag off; on the wire it was behind the addresses. */
static uint8_t *put_tag(uint8_t *data, const struct tpacket_auxdata *aux)
{
	unsigned type = aux->tp_status & TP_STATUS_VLAN_TPID_VALID ? aux->tp_vlan_tpid : ETH_P_8021Q;
	uint8_t *start = data - TAG;

	memmove(start, data, 12);
	start[12] = (uint8_t)(type >> 8);
	start[13] = (uint8_t)type;
	start[14] = (uint8_t)(aux->tp_vlan_tci >> 8);
	start[15] = (uint8_t)aux->tp_vlan_tci;
	return start;
}

static void take(struct live *v, struct mmsghdr *m, uint8_t *data)
{
	struct tpacket_auxdata aux = { 0 };
	int64_t ns = time_and_tag(&m->msg_hdr, &aux);
	size_t captured = m->msg_len < ROOM - TAG ? m->msg_len : ROOM - TAG;
	size_t len = aux.tp_len > captured ? aux.tp_len : captured;	/* a filter in the kernel also cuts */

	if (aux.tp_status & TP_STATUS_VLAN_VALID && len >= 12) {
		data = put_tag(data, &aux);
		len += TAG;
		captured += TAG;
	}
	capture_frame(v->capture, ns, data, captured, len);
}

/* Returns what recvmmsg does: the number of frames, or -1 with errno. */
static int take_some(struct live *v)
{
	int n = receive(v);

	for (int i = 0; i < n; i++)
		take(v, &batch->msgs[i], batch->data[i] + TAG);
	return n;
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct live *v = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	/* An interface that is down may come up again; the error is told once, and frames after it. */
	if (take_some(v) >= 0 || errno == EAGAIN || errno == EINTR || errno == ENETDOWN)
		return;
	err_set(&e, errno, "the capture's packet socket: %s", strerror(errno));
	event_del(v->readable);
	capture_broke(v->capture, &e);
	err_release(&e);
}

uint64_t live_dropped(struct live *v)
{
	struct tpacket_stats st = { 0 };
	socklen_t len = sizeof(st);

	/* Asking sets them to zero. */
	if (getsockopt(v->fd, SOL_PACKET, PACKET_STATISTICS, &st, &len) == 0)
		v->dropped += st.tp_drops;
	return v->dropped;
}

void live_close(struct live *v)
{
	int n;

	if (!v)
		return;
	do
		n = take_some(v);
	while (n > 0 || (n < 0 && (errno == ENETDOWN || errno == EINTR)));
	event_free(v->readable);
	close(v->fd);
	free(v);
}
