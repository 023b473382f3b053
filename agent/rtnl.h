/*
 * A little rtnetlink: links and addresses of the executor's network namespace.
 */
#ifndef PROVIUM_AGENT_RTNL_H
#define PROVIUM_AGENT_RTNL_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rtnl_link {
	int index;
	char name[IF_NAMESIZE];
	bool up, running;		/* running: up and connected */
};

int rtnl_open(void);	/* a socket, or -errno; close it with close() */
/* Finds a link by its hardware address or (mac NULL) its name. 0, -ENODEV or -errno. */
int rtnl_find(int fd, const uint8_t mac[6], const char *name, struct rtnl_link *l);
int rtnl_set_up(int fd, int index, bool up);
int rtnl_rename(int fd, int index, const char *name);
/* family AF_INET or AF_INET6. */
int rtnl_add_address(int fd, int index, int family, const void *addr, unsigned prefix);

struct rtnl_route {
	int family;
	uint8_t dst[16], via[16];
	unsigned prefix;
};

/* Makes want the only routes of ours; others stay. */
int rtnl_set_routes(int fd, const struct rtnl_route *want, size_t n);

#endif
