/*
 * Where a capture's frames come from. Private to src/net/.
 */
#ifndef PROVIUM_NET_CAPTURE_H
#define PROVIUM_NET_CAPTURE_H

#include <pcap/pcap.h>
#include <sys/time.h>

#include "net/backend.h"

/* A frame, of which caplen bytes of len are there; it has to pass the filter. */
void capture_frame(struct net_capture *c, int64_t realtime_ns, const void *data, size_t caplen, size_t len);
/* The source broke. */
void capture_broke(struct net_capture *c, const struct err *e);

/* ---- the kernel backend's source (live.c) ---- */

struct live;

/* Opens the interface of the bridge or port. filter: for the kernel, so that the rest need not be read; may be NULL.
 * NULL and *e. */
struct live *live_open(struct loop *l, struct net_bridge *b, struct net_port *port, struct bpf_program *filter,
	struct net_capture *c, struct err *e);
uint64_t live_dropped(struct live *v);
/* Takes what has arrived, then closes. */
void live_close(struct live *v);

#endif
