/*
 * A guest's network stack for tests, without the guest: a namespace with a TAP, whose frames are carried to and from a
 * kernel bridge's port in the loop, as QEMU would. Sockets opened in it are ordinary ones.
 */
#ifndef PROVIUM_NETGUEST_H
#define PROVIUM_NETGUEST_H

#include "netrig.h"
#include "net/netns.h"

struct netguest;

/* On the port p, with address 10.0.NET.HOST/24 and fd00:NET::HOST/64, default routes to HOST 1 of the same. */
struct netguest *netguest_new(struct netrig *r, struct net_port *p, unsigned net, unsigned host);
void netguest_free(struct netguest *g);
struct netns *netguest_ns(struct netguest *g);

/* A namespace that is joined to the one we are in by a veth: outside is 203.0.113.2, we are 203.0.113.1 with the
 * default route to it. */
struct netns *netguest_outside(void);

/* A non-blocking socket in a namespace (NULL: ours), bound to a port (0: any). type: SOCK_DGRAM or SOCK_STREAM, which
 * listens if it has a port. text: an address; with ':' IPv6; NULL: the IPv4 wildcard. */
int netguest_socket(struct netns *ns, int type, const char *text, unsigned port);
/* Connects to it. */
int netguest_connect(int fd, const char *text, unsigned port);
/* Runs the loop until fd is readable; false after ns. */
bool netguest_readable(struct netrig *r, int fd, int64_t ns);

#endif
