/*
 * Networks between guests: bridges, ports, impairments, captures, and the way out.
 *
 * The one header of src/net/ that other folders include. Two backends behind it do the same: `kernel` (a network
 * namespace for each struct net, bridges, TAPs, qdiscs, nftables; needs CAP_NET_ADMIN) and `user` (a switch in the
 * loop, no privilege). Everything is asynchronous: what takes a callback calls it from the loop, once, never from
 * inside the call. Addresses inside guests, names and MACs are chosen above; a backend moves Ethernet frames.
 */
#ifndef PROVIUM_NET_H
#define PROVIUM_NET_H

#include "loop/loop.h"

enum net_backend { NET_AUTO, NET_KERNEL, NET_USER };

struct net;				/* of one test file */
struct net_bridge;
struct net_port;
struct net_capture;

/* e NULL: success. Says which right or module is missing, for what, and how to get it. */
typedef void net_done_fn(void *arg, const struct err *e);

/* ---- a file's network ---- */

/* Makes nothing in the kernel before the first bridge. */
struct net *net_new(struct loop *l);
/* Everything in it goes, in the background; no callback any more. */
void net_free(struct net *n);
/* Forgets a pending callback of this pair; the operation itself goes on. */
void net_forget(struct net *n, net_done_fn *cb, void *arg);
/* What NET_AUTO comes to on this host: NET_KERNEL when TUN, CAP_NET_ADMIN and the kernel's modules (sch_netem among
 * them) are there, else NET_USER with the reason in *why (malloc'ed, one line; NULL for NET_KERNEL). Cached. */
enum net_backend net_auto(struct loop *l, char **why);
/* Why NET_KERNEL cannot be used at all here, as an error to show: 0 or -errno. */
int net_kernel_usable(struct err *e);

/* ---- bridges ---- */

/* backend must not be NET_AUTO; bridges of both kinds may live in one net. seed: of the user backend's random
 * decisions. cb says whether it came about; the bridge exists at once and queues what is asked of it until then. */
struct net_bridge *net_bridge_new(struct net *n, enum net_backend backend, const char *name, uint64_t seed,
	net_done_fn *cb, void *arg);
/* Its ports and captures must be freed before. */
void net_bridge_free(struct net_bridge *b);
const char *net_bridge_name(const struct net_bridge *b);
enum net_backend net_bridge_backend(const struct net_bridge *b);

struct net_counters { uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, dropped; };
/* rx: what came from guests. cb gets the numbers. */
typedef void net_counters_fn(void *arg, const struct net_counters *c, const struct err *e);
void net_bridge_counters(struct net_bridge *b, net_counters_fn *cb, void *arg);
/* net_forget for the two that ask for numbers. */
void net_forget_counters(struct net *n, net_counters_fn *cb, void *arg);

/* ---- ports: a guest's NIC on a bridge ---- */

/* name: the VM's, for messages. mac: the guest's. */
struct net_port *net_port_new(struct net_bridge *b, const char *name, const uint8_t mac[6], net_done_fn *cb,
	void *arg);
void net_port_free(struct net_port *p);
/* For QEMU, once the port came about: our descriptor, which QEMU gets a copy of (inherited, or sent by QMP `getfd`);
 * stays the port's. After QEMU has it, net_port_given lets ours go. */
int net_port_fd(const struct net_port *p);
void net_port_given(struct net_port *p);
/* The value of -netdev for it: `fd` is the descriptor's number in QEMU, or a name given with `getfd`. malloc'ed. */
char *net_port_netdev(const struct net_port *p, const char *id, const char *fd);
/* A new descriptor for the next QEMU on the same port (after a reboot or restore). cb as in net_port_new. */
void net_port_renew(struct net_port *p, net_done_fn *cb, void *arg);
void net_port_counters(struct net_port *p, net_counters_fn *cb, void *arg);

/* ---- what goes wrong on the way ---- */

/* All zero: nothing. Probabilities are 0..1; correlations 0..1. */
struct net_impairment {
	int64_t latency_ns, jitter_ns;
	double latency_correlation;
	double loss, loss_correlation;
	double duplicate, reorder, corrupt;
	uint64_t rate_bps, burst_bytes;	/* bits a second, 0: no limit; burst 0: a default */
};

/* Replaces what was set for exactly from -> to; from and to both NULL: for every frame on the bridge; only one NULL:
 * every frame from, or to, that port. What matches a frame composes: latencies and jitters add up, losses multiply as
 * independent chances, each rate limit is a queue of its own. Takes effect on live traffic at once. */
void net_impair(struct net_bridge *b, struct net_port *from, struct net_port *to, const struct net_impairment *i,
	net_done_fn *cb, void *arg);

/* Frames from -> to are dropped, existing flows included. */
struct net_block { struct net_port *from, *to; };
/* Replaces the whole list. Broadcast and multicast are blocked pair by pair too. */
void net_set_blocks(struct net_bridge *b, const struct net_block *blocks, size_t n, net_done_fn *cb, void *arg);
/* Everything that comes from this guest is held to bps bits a second; 0: no limit (nic:set_rate). */
void net_port_set_rate(struct net_port *p, uint64_t bps, net_done_fn *cb, void *arg);

/* ---- the host's side: routes and the way out ---- */

struct net_address { uint8_t ip4[4]; unsigned prefix4; bool has6; uint8_t ip6[16]; unsigned prefix6; };
/* The address at which guests reach the host's side as their gateway. Needed for routes and uplink only. */
void net_bridge_set_gateway(struct net_bridge *b, const struct net_address *a, net_done_fn *cb, void *arg);
/* Both directions between two bridges of one net and one backend, by IP, through their gateways. */
void net_route(struct net_bridge *a, struct net_bridge *b, bool on, net_done_fn *cb, void *arg);
/* NAT to the host's default route; DNS asked of the gateway's address is answered with the host's resolver. */
void net_uplink(struct net_bridge *b, bool on, net_done_fn *cb, void *arg);

/* ---- captures ---- */

struct net_capture_events {
	/* pcap bytes: the file header comes first, at once. The receiver pauses with net_capture_pause. */
	void (*data)(void *arg, const void *data, size_t len);
	/* It ended: the bridge or port is gone, or e. Once, last. */
	void (*ended)(void *arg, const struct err *e);
};
/* Of a bridge (port NULL) or what one port sends and receives. filter: pcap syntax or NULL; snaplen 0: 262144.
 * Owned by the caller. NULL and *e for a bad filter, quoting libpcap. */
struct net_capture *net_capture_new(struct net_bridge *b, struct net_port *port, const char *filter, unsigned snaplen,
	const struct net_capture_events *ev, void *arg, struct err *e);
/* Paused, up to 16 MiB are kept, then frames are dropped and counted. */
void net_capture_pause(struct net_capture *c, bool paused);
uint64_t net_capture_dropped(const struct net_capture *c);
void net_capture_free(struct net_capture *c);

#endif
