/*
 * What rtnetlink is told about links, addresses and routes.
 */
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "net/links.h"

static struct nlmsghdr *begin_link(struct nlbuf *b, uint16_t type, uint16_t flags, int index,
	struct ifinfomsg **ifi)
{
	struct nlmsghdr *h = nlbuf_begin(b, type, flags, ifi, sizeof(**ifi));

	(*ifi)->ifi_family = AF_UNSPEC;
	(*ifi)->ifi_index = index;
	return h;
}

static struct nlmsghdr *begin_new(struct nlbuf *b, int index, const char *name)
{
	struct ifinfomsg *ifi;
	struct nlmsghdr *h = begin_link(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, index, &ifi);

	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	return h;
}

void link_new_bridge(struct nlbuf *b, int index, const char *name)
{
	struct nlmsghdr *h = begin_new(b, index, name);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO), *data;

	mnl_attr_put_strz(h, IFLA_INFO_KIND, "bridge");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	mnl_attr_put_u32(h, IFLA_BR_STP_STATE, 0);
	mnl_attr_put_u32(h, IFLA_BR_FORWARD_DELAY, 0);
	mnl_attr_put_u8(h, IFLA_BR_MCAST_SNOOPING, 0);
	mnl_attr_put_u8(h, IFLA_BR_MCAST_QUERIER, 0);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	nlbuf_end(b, h);
}

void link_new_veth(struct nlbuf *b, int index, const char *name, int peer, const char *peer_name, int peer_ns,
	const uint8_t *mac)
{
	struct nlmsghdr *h = begin_new(b, index, name);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO), *data, *other;
	struct ifinfomsg *ifi;

	mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	other = mnl_attr_nest_start(h, VETH_INFO_PEER);
	ifi = mnl_nlmsg_put_extra_header(h, sizeof(*ifi));
	ifi->ifi_index = peer;
	mnl_attr_put_strz(h, IFLA_IFNAME, peer_name);
	if (peer_ns >= 0)
		mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)peer_ns);
	if (mac)
		mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
	mnl_attr_nest_end(h, other);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	nlbuf_end(b, h);
}

void link_new_ifb(struct nlbuf *b, int index, const char *name)
{
	struct nlmsghdr *h = begin_new(b, index, name);
	struct nlattr *info = mnl_attr_nest_start(h, IFLA_LINKINFO);

	mnl_attr_put_strz(h, IFLA_INFO_KIND, "ifb");
	mnl_attr_nest_end(h, info);
	nlbuf_end(b, h);
}

void link_up(struct nlbuf *b, int index, int master)
{
	struct ifinfomsg *ifi;
	struct nlmsghdr *h = begin_link(b, RTM_SETLINK, 0, index, &ifi);

	ifi->ifi_flags = IFF_UP;
	ifi->ifi_change = IFF_UP;
	if (master)
		mnl_attr_put_u32(h, IFLA_MASTER, (uint32_t)master);
	nlbuf_end(b, h);
}

void link_delete(struct nlbuf *b, int index)
{
	struct ifinfomsg *ifi;

	nlbuf_end(b, begin_link(b, RTM_DELLINK, 0, index, &ifi));
}

void link_put_away(struct nlbuf *b, int index, uint32_t group)
{
	struct ifinfomsg *ifi;
	struct nlmsghdr *h = begin_link(b, RTM_SETLINK, 0, index, &ifi);

	ifi->ifi_change = IFF_UP;
	mnl_attr_put_u32(h, IFLA_GROUP, group);
	nlbuf_end(b, h);
}

void link_delete_group(struct nlbuf *b, uint32_t group)
{
	struct ifinfomsg *ifi;
	struct nlmsghdr *h = begin_link(b, RTM_DELLINK, 0, 0, &ifi);

	mnl_attr_put_u32(h, IFLA_GROUP, group);
	nlbuf_end(b, h);
}

void link_get(struct nlbuf *b, int index)
{
	struct ifinfomsg *ifi;

	nlbuf_end(b, begin_link(b, RTM_GETLINK, 0, index, &ifi));
}

/* ---- addresses and routes ---- */

static size_t address_size(int family)
{
	return family == AF_INET ? 4 : 16;
}

static void put_address(struct nlbuf *b, uint16_t type, uint16_t flags, int index, int family,
	const void *address, unsigned prefix)
{
	struct ifaddrmsg *ifa;
	struct nlmsghdr *h = nlbuf_begin(b, type, flags, &ifa, sizeof(*ifa));

	ifa->ifa_family = (uint8_t)family;
	ifa->ifa_prefixlen = (uint8_t)prefix;
	ifa->ifa_index = (uint32_t)index;
	if (family == AF_INET6)
		ifa->ifa_flags = IFA_F_NODAD;
	mnl_attr_put(h, IFA_LOCAL, address_size(family), address);
	mnl_attr_put(h, IFA_ADDRESS, address_size(family), address);
	nlbuf_end(b, h);
}

void address_add(struct nlbuf *b, int index, int family, const void *address, unsigned prefix)
{
	put_address(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, family, address, prefix);
}

void address_delete(struct nlbuf *b, int index, int family, const void *address, unsigned prefix)
{
	put_address(b, RTM_DELADDR, 0, index, family, address, prefix);
}

void route_add_default(struct nlbuf *b, int index, int family, const void *gateway)
{
	struct rtmsg *r;
	struct nlmsghdr *h = nlbuf_begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &r, sizeof(*r));

	r->rtm_family = (uint8_t)family;
	r->rtm_table = RT_TABLE_MAIN;
	r->rtm_protocol = RTPROT_STATIC;
	r->rtm_scope = RT_SCOPE_UNIVERSE;
	r->rtm_type = RTN_UNICAST;
	mnl_attr_put(h, RTA_GATEWAY, address_size(family), gateway);
	mnl_attr_put_u32(h, RTA_OIF, (uint32_t)index);
	nlbuf_end(b, h);
}

void route_dump(struct nlbuf *b)
{
	struct rtmsg *r;
	struct nlmsghdr *h = nlbuf_begin(b, RTM_GETROUTE, NLM_F_DUMP, &r, sizeof(*r));

	r->rtm_family = AF_INET;
	nlbuf_end(b, h);
}

int route_default_link(const struct nlmsghdr *h)
{
	const struct rtmsg *r = mnl_nlmsg_get_payload(h);
	const struct nlattr *attr;
	int link = 0;

	if (h->nlmsg_type != RTM_NEWROUTE || r->rtm_dst_len || r->rtm_type != RTN_UNICAST ||
		r->rtm_table != RT_TABLE_MAIN)
		return 0;
	mnl_attr_for_each(attr, h, sizeof(*r)) {
		if (mnl_attr_get_type(attr) == RTA_OIF)
			link = (int)mnl_attr_get_u32(attr);
		if (mnl_attr_get_type(attr) == RTA_MULTIPATH && mnl_attr_get_payload_len(attr) >= sizeof(struct rtnexthop))
			link = ((struct rtnexthop *)mnl_attr_get_payload(attr))->rtnh_ifindex;
	}
	return link;
}
