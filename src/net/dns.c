/*
 * Names for guests with an uplink: what is asked of their gateway's port 53 goes on to the host's resolver.
 *
 * Messages are passed on as they are. A question by UDP gets a socket of its own on the host, so an answer is
 * known by the socket it comes in; one that stays away is asked of the next server of /etc/resolv.conf. TCP
 * connections are joined.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/bufferevent.h>

#include "net/kernel.h"

#define PORT 53
#define SERVERS 3
#define PATIENCE_NS INT64_C(2000000000)
#define MAX_QUERIES 256
#define MAX_PIPES 64
#define MAX_MESSAGE 65535

static void question_cb(evutil_socket_t fd, short what, void *arg);
static void answer_cb(evutil_socket_t fd, short what, void *arg);
static void accept_cb(evutil_socket_t fd, short what, void *arg);
static void pipe_read_cb(struct bufferevent *bev, void *arg);
static void pipe_event_cb(struct bufferevent *bev, short what, void *arg);

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* One question by UDP, until it is answered or no server is left. */
struct query {
	TAILQ_ENTRY(query) entry;
	struct dns *dns;
	int to;				/* our socket in the namespace */
	union address asker;
	socklen_t asker_len;
	char *message;
	size_t len;
	unsigned server;		/* the next to ask */
	struct event *ev;		/* on the socket to the last one */
};

/* One connection, both halves of it. */
struct pipe {
	TAILQ_ENTRY(pipe) entry;
	struct dns *dns;
	struct bufferevent *guest, *server;
};

/* A socket in the namespace. */
struct port {
	int fd;
	struct event *ev;
};

/* Owned by its bridge. */
struct dns {
	struct loop *loop;
	struct port ports[4];		/* UDP and TCP, on one or two addresses */
	unsigned nports, nqueries, npipes;
	union address servers[SERVERS];
	unsigned nservers;
	TAILQ_HEAD(, query) queries;
	TAILQ_HEAD(, pipe) pipes;
	const struct net_address *address;	/* while it is made */
};

/* ---- the host's resolver ---- */

static socklen_t address_len(const union address *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->in) : sizeof(a->in6);
}

static bool parse_server(const char *text, union address *a)
{
	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, text, &a->in.sin_addr) == 1) {
		a->in.sin_family = AF_INET;
		a->in.sin_port = htons(PORT);
		return true;
	}
	if (inet_pton(AF_INET6, text, &a->in6.sin6_addr) == 1) {
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = htons(PORT);
		return true;
	}
	return false;
}

/* As resolv.conf(5) says: three at most, and without any the one on this host. */
static void read_servers(struct dns *d)
{
	FILE *f = fopen("/etc/resolv.conf", "re");
	char line[256], word[64];

	while (f && d->nservers < SERVERS && fgets(line, sizeof(line), f))
		if (sscanf(line, " nameserver %63s", word) == 1 && parse_server(word, &d->servers[d->nservers]))
			d->nservers++;
	if (f)
		fclose(f);
	if (!d->nservers)
		d->nservers = parse_server("127.0.0.1", &d->servers[0]);
}

/* ---- UDP ---- */

static void close_question(struct query *q)
{
	if (!q->ev)
		return;
	close(event_get_fd(q->ev));
	event_free(q->ev);
	q->ev = NULL;
}

static void query_free(struct query *q)
{
	TAILQ_REMOVE(&q->dns->queries, q, entry);
	q->dns->nqueries--;
	close_question(q);
	free(q->message);
	free(q);
}

/* Asks the next server that takes the question. */
static void ask_next(struct query *q)
{
	struct timeval patience = timeval_from_ns(PATIENCE_NS);
	const union address *a;
	int fd;

	close_question(q);
	while (q->server < q->dns->nservers) {
		a = &q->dns->servers[q->server++];
		fd = socket(a->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0)
			continue;
		if (connect(fd, &a->sa, address_len(a)) || send(fd, q->message, q->len, 0) < 0) {
			close(fd);
			continue;
		}
		q->ev = event_new(loop_base(q->dns->loop), fd, EV_READ | EV_TIMEOUT, answer_cb, q);
		event_add(q->ev, &patience);
		return;
	}
	query_free(q);
}

static void answer_cb(evutil_socket_t fd, short what, void *arg)
{
	char message[MAX_MESSAGE];
	struct query *q = arg;
	ssize_t n = what & EV_READ ? recv(fd, message, sizeof(message), 0) : -1;

	if (n < 0) {
		ask_next(q);
		return;
	}
	if (sendto(q->to, message, (size_t)n, 0, &q->asker.sa, q->asker_len) < 0)
		log_debug("dns", "an answer of %zd bytes is lost: %s", n, strerror(errno));
	query_free(q);
}

static void question_cb(evutil_socket_t fd, short what, void *arg)
{
	char message[MAX_MESSAGE];
	struct query asked = { .asker_len = sizeof(asked.asker) }, *q;
	struct dns *d = arg;
	ssize_t n = recvfrom(fd, message, sizeof(message), 0, &asked.asker.sa, &asked.asker_len);

	(void)what;
	if (n <= 0 || d->nqueries >= MAX_QUERIES)
		return;
	q = xmalloc(sizeof(*q));
	*q = asked;
	q->dns = d;
	q->to = fd;
	q->len = (size_t)n;
	q->message = xmalloc(q->len);
	memcpy(q->message, message, q->len);
	TAILQ_INSERT_TAIL(&d->queries, q, entry);
	d->nqueries++;
	ask_next(q);
}

/* ---- TCP ---- */

static void pipe_free(struct pipe *p)
{
	TAILQ_REMOVE(&p->dns->pipes, p, entry);
	p->dns->npipes--;
	bufferevent_free(p->guest);
	bufferevent_free(p->server);
	free(p);
}

static void pipe_read_cb(struct bufferevent *bev, void *arg)
{
	struct pipe *p = arg;

	bufferevent_write_buffer(bev == p->guest ? p->server : p->guest, bufferevent_get_input(bev));
}

static void pipe_event_cb(struct bufferevent *bev, short what, void *arg)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
		pipe_free(arg);
}

static struct bufferevent *half(struct pipe *p, int fd)
{
	struct timeval idle = { .tv_sec = 30 };
	struct bufferevent *bev = bufferevent_socket_new(loop_base(p->dns->loop), fd, BEV_OPT_CLOSE_ON_FREE);

	bufferevent_setcb(bev, pipe_read_cb, NULL, pipe_event_cb, p);
	bufferevent_setwatermark(bev, EV_READ, 0, 2 * MAX_MESSAGE);
	bufferevent_set_timeouts(bev, &idle, NULL);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	return bev;
}

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
	struct dns *d = arg;
	int guest = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct pipe *p;

	(void)what;
	if (guest < 0)
		return;
	if (d->npipes >= MAX_PIPES) {
		close(guest);
		return;
	}
	p = xcalloc(1, sizeof(*p));
	p->dns = d;
	TAILQ_INSERT_TAIL(&d->pipes, p, entry);
	d->npipes++;
	p->guest = half(p, guest);
	p->server = half(p, -1);
	if (bufferevent_socket_connect(p->server, &d->servers[0].sa, (int)address_len(&d->servers[0])))
		pipe_free(p);
}

/* ---- the sockets in the namespace ---- */

static int open_port(struct dns *d, const union address *a, int type, struct err *e)
{
	int fd = socket(a->sa.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
	struct port *p = &d->ports[d->nports];

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
	}
	if (fd < 0 || bind(fd, &a->sa, address_len(a)) || (type == SOCK_STREAM && listen(fd, MAX_PIPES))) {
		err_set(e, errno, "answer DNS at the gateway: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return e->code;
	}
	p->fd = fd;
	p->ev = event_new(loop_base(d->loop), fd, EV_READ | EV_PERSIST,
		type == SOCK_STREAM ? accept_cb : question_cb, d);
	event_add(p->ev, NULL);
	d->nports++;
	return 0;
}

static int open_ports(void *arg, struct err *e)
{
	struct dns *d = arg;
	union address a = { .in = { .sin_family = AF_INET, .sin_port = htons(PORT) } };

	memcpy(&a.in.sin_addr, d->address->ip4, 4);
	if (open_port(d, &a, SOCK_DGRAM, e) || open_port(d, &a, SOCK_STREAM, e))
		return e->code;
	if (!d->address->has6)
		return 0;
	a = (union address){ .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) } };
	memcpy(&a.in6.sin6_addr, d->address->ip6, 16);
	return open_port(d, &a, SOCK_DGRAM, e) || open_port(d, &a, SOCK_STREAM, e) ? e->code : 0;
}

struct dns *dns_new(struct loop *l, struct netns *ns, const struct net_address *a, struct err *e)
{
	struct dns *d = xcalloc(1, sizeof(*d));

	d->loop = l;
	d->address = a;
	TAILQ_INIT(&d->queries);
	TAILQ_INIT(&d->pipes);
	read_servers(d);
	if (netns_run(ns, open_ports, d, e)) {
		dns_free(d);
		return NULL;
	}
	return d;
}

void dns_free(struct dns *d)
{
	struct query *q;
	struct pipe *p;

	if (!d)
		return;
	while ((q = TAILQ_FIRST(&d->queries)))
		query_free(q);
	while ((p = TAILQ_FIRST(&d->pipes)))
		pipe_free(p);
	for (unsigned i = 0; i < d->nports; i++) {
		event_free(d->ports[i].ev);
		close(d->ports[i].fd);
	}
	free(d);
}
