/* Messages of rtnetlink about links, addresses and routes. Each function appends one message to b. */
#ifndef PROVIUM_NET_LINKS_H
#define PROVIUM_NET_LINKS_H

#include "net/netlink.h"

/* A bridge that neither learns by spanning tree nor says anything of its own. */
void link_new_bridge(struct nlbuf *b, int index, const char *name);
/* A pair within one namespace, or with its peer in the namespace of the descriptor peer_ns (-1: the same),
 * where the kernel numbers it (peer 0) and completes a name with %d. mac: of the peer, or NULL. */
void link_new_veth(struct nlbuf *b, int index, const char *name, int peer, const char *peer_name, int peer_ns,
	const uint8_t *mac);
void link_new_ifb(struct nlbuf *b, int index, const char *name);
/* Up, and a port of the bridge `master` (0: as it is). */
void link_up(struct nlbuf *b, int index, int master);
void link_delete(struct nlbuf *b, int index);
/* Down, and into a group. The links of a group are deleted by one request, which takes hardly longer than one. */
void link_put_away(struct nlbuf *b, int index, uint32_t group);
void link_delete_group(struct nlbuf *b, uint32_t group);
/* Asks for the link; the answer is one RTM_NEWLINK. */
void link_get(struct nlbuf *b, int index);

/* family AF_INET or AF_INET6. An IPv6 address is there at once, without duplicate address detection. */
void address_add(struct nlbuf *b, int index, int family, const void *address, unsigned prefix);
void address_delete(struct nlbuf *b, int index, int family, const void *address, unsigned prefix);
/* The default route by a gateway on that link. */
void route_add_default(struct nlbuf *b, int index, int family, const void *gateway);
/* Dumps the IPv4 routes. */
void route_dump(struct nlbuf *b);
/* The link of the default route in an answer to route_dump, 0 when it is another route. */
int route_default_link(const struct nlmsghdr *h);

#endif
