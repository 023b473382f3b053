/*
 * A netlink socket in the loop, over libmnl.
 *
 * The kernel carries out a request within sendmsg and queues the answer, so requests are executed in the
 * order they were sent and nothing ever waits to be writable. What is held back here is for the answers'
 * sake: not more requests at a time than their acks fit into the socket's buffer, and one dump at a time.
 */
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/netlink.h"

#define MAX_UNANSWERED 256
#define BUFFER (1 << 20)

static void readable_cb(evutil_socket_t fd, short what, void *arg);
static void failed_cb(void *arg);

/* Freed when it is answered, or with its socket. */
struct request {
	TAILQ_ENTRY(request) entry;
	uint32_t first, last;		/* sequence numbers */
	bool sent, failed, dump;	/* failed: could not be sent */
	struct nlbuf msg;		/* until it is sent */
	char *text;
	const char *module;
	netlink_answer_fn *answer;
	netlink_done_fn *done;		/* NULL: forgotten */
	void *arg;
	struct err err;			/* the first */
};

TAILQ_HEAD(requests, request);

/* Owned by its maker. */
struct netlink {
	struct loop *loop;
	int bus;
	struct mnl_socket *sock;
	struct event *ev;
	uint32_t seq;
	unsigned unanswered;
	bool dumping;
	bool deferred, gone;		/* failed_cb is under way; freed by it */
	struct requests requests;	/* in the order they were made */
	char *in;
};

/* ---- messages ---- */

char *nlbuf_room(struct nlbuf *b)
{
	if (b->cap < b->len + NLBUF_ROOM) {
		b->cap = b->cap ? 2 * b->cap : 2 * NLBUF_ROOM;
		b->data = xrealloc(b->data, b->cap);
	}
	return b->data + b->len;
}

struct nlmsghdr *nlbuf_begin(struct nlbuf *b, uint16_t type, uint16_t flags, void *extra, size_t extra_size)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(nlbuf_room(b));

	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	if (extra_size)
		*(void **)extra = mnl_nlmsg_put_extra_header(h, extra_size);
	return h;
}

void nlbuf_end(struct nlbuf *b, const struct nlmsghdr *h)
{
	b->len += MNL_ALIGN(h->nlmsg_len);
	INVARIANT(b->len <= b->cap);
}

void nlbuf_release(struct nlbuf *b)
{
	free(b->data);
	*b = (struct nlbuf)NLBUF_INIT;
}

static const struct nlmsghdr *message_at(const struct nlbuf *b, size_t off)
{
	return (const struct nlmsghdr *)(b->data + off);
}

/* Numbers the messages from *seq on and asks for the ack of the last one that may have it. */
static void number(struct nlbuf *b, int bus, uint32_t *seq, struct request *q)
{
	struct nlmsghdr *h, *acked = NULL;

	q->first = *seq;
	for (size_t off = 0; off < b->len; off += MNL_ALIGN(h->nlmsg_len)) {
		h = (struct nlmsghdr *)message_at(b, off);
		h->nlmsg_seq = (*seq)++;
		if (bus == NETLINK_NETFILTER &&
			(h->nlmsg_type == NFNL_MSG_BATCH_BEGIN || h->nlmsg_type == NFNL_MSG_BATCH_END))
			continue;	/* these are never acked */
		acked = h;
	}
	INVARIANT(acked);
	q->dump = (acked->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	if (!q->dump)
		acked->nlmsg_flags |= NLM_F_ACK;
	q->last = acked->nlmsg_seq;
}

/* ---- errors ---- */

/* The kernel's sentence in an NLMSG_ERROR message, or NULL. */
static const char *ext_ack(const struct nlmsghdr *h)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(h);
	size_t off = sizeof(*err);
	const struct nlattr *attr;

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		off += MNL_ALIGN(err->msg.nlmsg_len) - sizeof(struct nlmsghdr);
	if (MNL_NLMSG_HDRLEN + off > h->nlmsg_len)
		return NULL;
	mnl_attr_for_each(attr, h, off)
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG && mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
			return mnl_attr_get_str(attr);
	return NULL;
}

static void describe(struct err *e, int code, const char *text, const char *module, const char *said)
{
	err_set(e, code, "%s: %s%s%s%s", text, strerror(code), said ? " (" : "", said ? said : "", said ? ")" : "");
	if (code == EPERM || code == EACCES)
		err_append(e, "; this needs the right CAP_NET_ADMIN: run as root, or take backend = \"user\"");
	else if (module && (code == EOPNOTSUPP || code == ENOENT || code == EPROTONOSUPPORT))
		err_append(e, "; the kernel lacks %s%s: `modprobe %s%s`, or take backend = \"user\"",
			strchr(module, ' ') ? "one of " : "", module, strchr(module, ' ') ? "-a " : "", module);
}

/* ---- requests ---- */

static void request_free(struct request *q)
{
	nlbuf_release(&q->msg);
	err_release(&q->err);
	free(q->text);
	free(q);
}

/* It must be out of the list. */
static void finish(struct request *q)
{
	netlink_done_fn *done = q->done;

	log_debug("netlink", "finish %u %s%s%s", q->first, q->text, q->err.msg ? ": " : "",
		q->err.msg ? q->err.msg : "");
	if (done)
		done(q->arg, err_is_set(&q->err) ? &q->err : NULL);
	request_free(q);
}

static int send_message(struct netlink *nl, struct request *q)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t n;

	do
		n = sendto(mnl_socket_get_fd(nl->sock), q->msg.data, q->msg.len, 0, (struct sockaddr *)&kernel,
			sizeof(kernel));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Sends what may be sent now. */
static void pump(struct netlink *nl)
{
	struct request *q;
	int rc;

	TAILQ_FOREACH(q, &nl->requests, entry) {
		if (q->sent)
			continue;
		if (nl->unanswered >= MAX_UNANSWERED || (q->dump && nl->dumping))
			return;
		q->sent = true;
		nl->unanswered++;
		if (q->dump)
			nl->dumping = true;
		rc = send_message(nl, q);
		log_debug("netlink", "arm %u %s", q->first, q->text);
		nlbuf_release(&q->msg);
		if (rc) {
			describe(&q->err, -rc, q->text, q->module, NULL);
			q->failed = true;
			if (!nl->deferred)
				loop_defer(nl->loop, failed_cb, nl);
			nl->deferred = true;
		}
	}
}

static void settle(struct netlink *nl, struct request *q)
{
	TAILQ_REMOVE(&nl->requests, q, entry);
	nl->unanswered--;
	if (q->dump)
		nl->dumping = false;
	finish(q);
}

/* Those that could not even be sent. */
static void failed_cb(void *arg)
{
	struct netlink *nl = arg;
	struct request *q;

	nl->deferred = false;
	if (nl->gone) {
		free(nl);
		return;
	}
	do {
		TAILQ_FOREACH(q, &nl->requests, entry)
			if (q->failed)
				break;
		if (q)
			settle(nl, q);
	} while (q && !nl->gone);
	if (!nl->gone)
		pump(nl);
}

void netlink_send(struct netlink *nl, struct nlbuf *b, const struct netlink_what *what,
	netlink_answer_fn *answer, netlink_done_fn *done, void *arg)
{
	struct request *q = xcalloc(1, sizeof(*q));

	q->text = xstrdup(what->text);
	q->module = what->module;
	q->answer = answer;
	q->done = done;
	q->arg = arg;
	number(b, nl->bus, &nl->seq, q);
	q->msg = *b;
	*b = (struct nlbuf)NLBUF_INIT;
	TAILQ_INSERT_TAIL(&nl->requests, q, entry);
	pump(nl);
}

void netlink_forget(struct netlink *nl, void *arg)
{
	struct request *q;

	TAILQ_FOREACH(q, &nl->requests, entry)
		if (q->arg == arg) {
			log_debug("netlink", "cancel %u %s", q->first, q->text);
			q->done = NULL;
			q->answer = NULL;
		}
}

/* ---- answers ---- */

static struct request *request_of(struct netlink *nl, uint32_t seq)
{
	struct request *q;

	TAILQ_FOREACH(q, &nl->requests, entry)
		if (q->sent && seq - q->first <= q->last - q->first)
			return q;
	return NULL;
}

/* Whether q is over with this message. */
static bool take(struct request *q, const struct nlmsghdr *h)
{
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(h);
	int code;

	switch (h->nlmsg_type) {
	case NLMSG_ERROR:
		code = h->nlmsg_len >= MNL_NLMSG_HDRLEN + sizeof(*err) ? -err->error : EBADMSG;
		if (code && !err_is_set(&q->err))
			describe(&q->err, code, q->text, q->module, ext_ack(h));
		/* What fails a transaction as a whole is said of its first message, and nothing more comes. */
		return h->nlmsg_seq == q->last || (code && h->nlmsg_seq == q->first);
	case NLMSG_DONE:
		return h->nlmsg_seq == q->last;
	default:
		if (q->answer)
			q->answer(q->arg, h);
		return false;
	}
}

static void lost_answers(struct netlink *nl, int code)
{
	struct request *q;

	TAILQ_FOREACH(q, &nl->requests, entry)
		if (q->sent)
			break;
	if (!q)
		return;
	err_set(&q->err, code, "%s: the kernel's answer was lost: %s", q->text, strerror(code));
	settle(nl, q);
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;
	struct request *q;
	const struct nlmsghdr *h;
	ssize_t n = mnl_socket_recvfrom(nl->sock, nl->in, BUFFER);
	int len = (int)n;

	(void)fd, (void)what;
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			lost_answers(nl, errno);
		return;
	}
	for (h = (struct nlmsghdr *)nl->in; mnl_nlmsg_ok(h, len); h = mnl_nlmsg_next(h, &len)) {
		q = request_of(nl, h->nlmsg_seq);
		if (!q || !take(q, h))
			continue;
		settle(nl, q);
		if (nl->gone)
			return;
	}
	pump(nl);
}

/* ---- the socket ---- */

static struct mnl_socket *open_socket(int bus, const char *name, int flags, struct err *e)
{
	struct mnl_socket *sock = mnl_socket_open2(bus, SOCK_CLOEXEC | flags);
	int one = 1, size = BUFFER;

	if (!sock || mnl_socket_bind(sock, 0, MNL_SOCKET_AUTOPID) < 0) {
		describe(e, errno, name, bus == NETLINK_NETFILTER ? "nfnetlink" : NULL, NULL);
		err_prefix(e, "open a netlink socket");
		if (sock)
			mnl_socket_close(sock);
		return NULL;
	}
	/* Without these the texts are shorter and the buffers smaller, no more. */
	mnl_socket_setsockopt(sock, NETLINK_EXT_ACK, &one, sizeof(one));
	mnl_socket_setsockopt(sock, NETLINK_CAP_ACK, &one, sizeof(one));
	setsockopt(mnl_socket_get_fd(sock), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	setsockopt(mnl_socket_get_fd(sock), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	return sock;
}

struct netlink *netlink_new(struct loop *l, int bus, const char *name, struct err *e)
{
	struct mnl_socket *sock = open_socket(bus, name, SOCK_NONBLOCK, e);
	struct netlink *nl;

	if (!sock)
		return NULL;
	nl = xcalloc(1, sizeof(*nl));
	nl->loop = l;
	nl->bus = bus;
	nl->sock = sock;
	nl->seq = 1;
	nl->in = xmalloc(BUFFER);
	TAILQ_INIT(&nl->requests);
	nl->ev = event_new(loop_base(l), mnl_socket_get_fd(sock), EV_READ | EV_PERSIST, readable_cb, nl);
	event_add(nl->ev, NULL);
	return nl;
}

void netlink_free(struct netlink *nl)
{
	struct request *q;

	if (!nl)
		return;
	while ((q = TAILQ_FIRST(&nl->requests))) {
		TAILQ_REMOVE(&nl->requests, q, entry);
		request_free(q);
	}
	event_free(nl->ev);
	mnl_socket_close(nl->sock);
	free(nl->in);
	nl->gone = true;
	if (!nl->deferred)
		loop_defer(nl->loop, failed_cb, nl);
	nl->deferred = true;
}

int netlink_ask(int bus, struct nlbuf *b, const struct netlink_what *what, netlink_answer_fn *answer,
	void *arg, struct err *e)
{
	struct request q = { .text = (char *)what->text, .module = what->module, .answer = answer, .arg = arg,
		.msg = *b, .err = ERR_INIT };
	struct netlink nl = { .sock = open_socket(bus, what->text, 0, e) };
	const struct nlmsghdr *h;
	uint32_t seq = 1;
	bool over = false;
	ssize_t n = -1;
	int len, rc = nl.sock ? 0 : e->code;

	number(&q.msg, bus, &seq, &q);
	if (!rc && (rc = send_message(&nl, &q)) < 0)
		describe(&q.err, -rc, q.text, q.module, NULL);
	nl.in = xmalloc(BUFFER);
	while (!rc && !over) {
		n = mnl_socket_recvfrom(nl.sock, nl.in, BUFFER);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = err_set(&q.err, errno, "%s: %s", q.text, strerror(errno));
			break;
		}
		len = (int)n;
		for (h = (struct nlmsghdr *)nl.in; !over && mnl_nlmsg_ok(h, len); h = mnl_nlmsg_next(h, &len))
			over = take(&q, h);
	}
	if (nl.sock)
		mnl_socket_close(nl.sock);
	if (err_is_set(&q.err)) {
		rc = q.err.code;
		err_move(e, &q.err);
	}
	err_release(&q.err);
	free(nl.in);
	nlbuf_release(&q.msg);
	*b = (struct nlbuf)NLBUF_INIT;
	return rc;
}
