/*
 * A little rtnetlink: links, addresses and routes of the executor's network namespace.
 *
 * The kernel answers before sendmsg returns, so that reading the answer does not wait.
 */
#include "rtnl.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define MESSAGE_MAX 512
#define ANSWER_MAX 32768
#define ROUTE_PROTOCOL 80	/* marks our routes; the kernel gives numbers from 5 on no meaning */
#define ROUTES_MAX 256

struct message {
	struct nlmsghdr h;
	char body[MESSAGE_MAX];
};

int rtnl_open(void)
{
	struct timeval limit = {.tv_sec = 2};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void begin(struct message *m, unsigned type, unsigned flags, const void *head, size_t n)
{
	static uint32_t seq;

	memset(m, 0, sizeof(*m));
	m->h.nlmsg_len = NLMSG_LENGTH(n);
	m->h.nlmsg_type = (uint16_t)type;
	m->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	m->h.nlmsg_seq = ++seq;
	memcpy(NLMSG_DATA(&m->h), head, n);
}

static void add(struct message *m, unsigned type, const void *data, size_t n)
{
	struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->h.nlmsg_len));

	a->rta_type = (uint16_t)type;
	a->rta_len = (uint16_t)RTA_LENGTH(n);
	memcpy(RTA_DATA(a), data, n);
	m->h.nlmsg_len = NLMSG_ALIGN(m->h.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static int talk(int fd, struct message *m)
{
	union {
		struct nlmsghdr h;
		char bytes[4096];
	} answer;
	ssize_t n;

	m->h.nlmsg_flags |= NLM_F_ACK;
	if (send(fd, m, m->h.nlmsg_len, 0) < 0)
		return -errno;
	do {
		n = recv(fd, &answer, sizeof(answer), 0);
		if (n < 0)
			return -errno;
	} while (answer.h.nlmsg_seq != m->h.nlmsg_seq);
	if (answer.h.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return ((struct nlmsgerr *)NLMSG_DATA(&answer.h))->error;
}

static bool match(const struct nlmsghdr *h, const uint8_t mac[6], const char *name, struct rtnl_link *l)
{
	struct ifinfomsg *info = NLMSG_DATA(h);
	int left = (int)IFLA_PAYLOAD(h);
	bool same_mac = false;

	memset(l, 0, sizeof(*l));
	l->index = info->ifi_index;
	l->up = info->ifi_flags & IFF_UP;
	l->running = info->ifi_flags & IFF_RUNNING;
	for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == 6 && mac)
			same_mac = memcmp(RTA_DATA(a), mac, 6) == 0;
		if (a->rta_type == IFLA_IFNAME && RTA_PAYLOAD(a) <= IF_NAMESIZE)
			memcpy(l->name, RTA_DATA(a), RTA_PAYLOAD(a));
	}
	return mac ? same_mac : strcmp(l->name, name) == 0;
}

int rtnl_find(int fd, const uint8_t mac[6], const char *name, struct rtnl_link *l)
{
	static char answer[ANSWER_MAX] __attribute__((aligned(8)));
	struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
	struct rtnl_link link;
	struct nlmsghdr *h;
	bool found = false;
	struct message m;
	ssize_t n;

	begin(&m, RTM_GETLINK, NLM_F_DUMP, &info, sizeof(info));
	if (send(fd, &m, m.h.nlmsg_len, 0) < 0)
		return -errno;
	for (;;) {
		n = recv(fd, answer, sizeof(answer), 0);
		if (n < 0)
			return -errno;
		for (h = (struct nlmsghdr *)answer; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return found ? 0 : -ENODEV;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_type == RTM_NEWLINK && !found && match(h, mac, name, &link)) {
				found = true;
				*l = link;
			}
		}
	}
}

int rtnl_set_up(int fd, int index, bool up)
{
	struct ifinfomsg info = {.ifi_index = index, .ifi_change = IFF_UP, .ifi_flags = up ? IFF_UP : 0};
	struct message m;

	begin(&m, RTM_NEWLINK, 0, &info, sizeof(info));
	return talk(fd, &m);
}

int rtnl_rename(int fd, int index, const char *name)
{
	struct ifinfomsg info = {.ifi_index = index};
	struct message m;

	begin(&m, RTM_NEWLINK, 0, &info, sizeof(info));
	add(&m, IFLA_IFNAME, name, strlen(name) + 1);
	return talk(fd, &m);
}

int rtnl_add_address(int fd, int index, int family, const void *addr, unsigned prefix)
{
	size_t n = family == AF_INET ? 4 : 16;
	struct ifaddrmsg info = {.ifa_family = (uint8_t)family, .ifa_prefixlen = (uint8_t)prefix,
		.ifa_index = (uint32_t)index};
	struct message m;

	/* Ready at once: nobody else on the test's network has this address. */
	if (family == AF_INET6)
		info.ifa_flags = IFA_F_NODAD;
	begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof(info));
	add(&m, IFA_LOCAL, addr, n);
	add(&m, IFA_ADDRESS, addr, n);
	if (family == AF_INET && prefix < 31) {
		uint32_t v, mask = prefix ? 0xffffffffu << (32 - prefix) : 0;

		memcpy(&v, addr, 4);
		v |= __builtin_bswap32(~mask);
		add(&m, IFA_BROADCAST, &v, 4);
	}
	return talk(fd, &m);
}

static int change_route(int fd, unsigned type, unsigned flags, const struct rtnl_route *r)
{
	size_t n = r->family == AF_INET ? 4 : 16;
	struct rtmsg head = {.rtm_family = (uint8_t)r->family, .rtm_dst_len = (uint8_t)r->prefix,
		.rtm_table = RT_TABLE_MAIN, .rtm_protocol = ROUTE_PROTOCOL, .rtm_scope = RT_SCOPE_UNIVERSE,
		.rtm_type = RTN_UNICAST};
	struct message m;
	int err;

	begin(&m, type, flags, &head, sizeof(head));
	if (r->prefix)
		add(&m, RTA_DST, r->dst, n);
	add(&m, RTA_GATEWAY, r->via, n);
	err = talk(fd, &m);
	return err == -EEXIST ? 0 : err;
}

static bool ours(const struct nlmsghdr *h, struct rtnl_route *r)
{
	const struct rtmsg *head = NLMSG_DATA(h);
	int left = (int)RTM_PAYLOAD(h);
	bool via = false;

	memset(r, 0, sizeof(*r));
	r->family = head->rtm_family;
	r->prefix = head->rtm_dst_len;
	for (struct rtattr *a = RTM_RTA(head); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == RTA_DST && RTA_PAYLOAD(a) <= sizeof(r->dst))
			memcpy(r->dst, RTA_DATA(a), RTA_PAYLOAD(a));
		if (a->rta_type == RTA_GATEWAY && RTA_PAYLOAD(a) <= sizeof(r->via)) {
			memcpy(r->via, RTA_DATA(a), RTA_PAYLOAD(a));
			via = true;
		}
	}
	return head->rtm_protocol == ROUTE_PROTOCOL && via;
}

/* Our routes of all families. Returns how many, or -errno. */
static int list_routes(int fd, struct rtnl_route *out, size_t max)
{
	static char answer[ANSWER_MAX] __attribute__((aligned(8)));
	struct rtmsg head = {.rtm_family = AF_UNSPEC};
	struct rtnl_route r;
	struct message m;
	size_t count = 0;
	ssize_t n;

	begin(&m, RTM_GETROUTE, NLM_F_DUMP, &head, sizeof(head));
	if (send(fd, &m, m.h.nlmsg_len, 0) < 0)
		return -errno;
	for (;;) {
		n = recv(fd, answer, sizeof(answer), 0);
		if (n < 0)
			return -errno;
		for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return (int)count;
			if (h->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			if (h->nlmsg_type == RTM_NEWROUTE && ours(h, &r) && count < max)
				out[count++] = r;
		}
	}
}

static bool same_route(const struct rtnl_route *a, const struct rtnl_route *b)
{
	return a->family == b->family && a->prefix == b->prefix && memcmp(a->dst, b->dst, sizeof(a->dst)) == 0 &&
		memcmp(a->via, b->via, sizeof(a->via)) == 0;
}

int rtnl_set_routes(int fd, const struct rtnl_route *want, size_t n)
{
	static struct rtnl_route have[ROUTES_MAX];
	int count = list_routes(fd, have, ROUTES_MAX), err = count < 0 ? count : 0;
	size_t k;

	for (int i = 0; i < count; i++) {
		for (k = 0; k < n && !same_route(&have[i], &want[k]); k++)
			;
		if (k == n)
			change_route(fd, RTM_DELROUTE, 0, &have[i]);
	}
	/* In front of one to the same place that was there before. On a card that the test has set down there can be
	 * none. */
	for (k = 0; k < n && !err; k++) {
		err = change_route(fd, RTM_NEWROUTE, NLM_F_CREATE, &want[k]);
		if (err == -ENETUNREACH || err == -ENETDOWN || err == -EHOSTUNREACH)
			err = 0;
	}
	return err;
}
