/*
 * The QMP client: one JSON object for each line, many commands in flight, told apart by their ids.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <event2/bufferevent.h>

#include "vmm/qmp.h"

static void read_cb(struct bufferevent *bev, void *arg);
static void written_cb(struct bufferevent *bev, void *arg);
static void event_cb(struct bufferevent *bev, short what, void *arg);
static void deadline_cb(evutil_socket_t fd, short what, void *arg);

/* One command. Freed when it was answered, failed or cancelled. */
struct qmp_call {
	TAILQ_ENTRY(qmp_call) entry;
	struct qmp *qmp;
	json_int_t id;
	char *command;
	char *line;			/* not sent yet: before the handshake is over, or its descriptor's turn */
	int fd;				/* goes along with the line; -1: none, or sent */
	struct event *deadline;
	qmp_fn *cb;
	void *arg;
};

TAILQ_HEAD(calls, qmp_call);

/* Owned by one machine; freed at the end of the turn in which qmp_free was called. */
struct qmp {
	struct loop *loop;
	struct bufferevent *bev;	/* NULL when broken */
	const struct qmp_events *ev;
	void *arg;
	struct calls calls;
	struct calls failing;		/* made after the end: told from the loop */
	struct qmp_call *passing;	/* has sent a descriptor and is not answered yet */
	json_int_t last_id;
	size_t scanned;			/* bytes of the input known to have no newline */
	int64_t deadline_ns;
	bool greeted, ready, told, freed, fail_deferred;
	struct err reason;		/* why it ended */
};

static void call_free(struct qmp_call *c)
{
	timer_stop(&c->deadline);
	if (c->fd >= 0)
		close(c->fd);
	free(c->command);
	free(c->line);
	free(c);
}

static void call_end(struct calls *list, struct qmp_call *c, const json_t *result, const struct err *e)
{
	if (c->qmp->passing == c)
		c->qmp->passing = NULL;
	TAILQ_REMOVE(list, c, entry);
	if (c->cb)
		c->cb(c->arg, result, e);
	call_free(c);
}

static void close_connection(struct qmp *q)
{
	if (!q->bev)
		return;
	bufferevent_free(q->bev);
	q->bev = NULL;
}

static void break_off(struct qmp *q, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Nothing more can be said or heard. The owner is told once and ends the calls. */
static void break_off(struct qmp *q, int code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	char *text;

	close_connection(q);
	if (q->told)
		return;
	q->told = true;
	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&e, code, "%s", text);
	free(text);
	log_debug("qmp", "finish: %s", e.msg);
	if (!err_is_set(&q->reason))
		err_copy(&q->reason, &e);
	if (q->ev->broken)
		q->ev->broken(q->arg, &e);
	err_release(&e);
}

/* Sends the line and the descriptor in one message. Nothing else is in the output then. */
static void send_with_fd(struct qmp *q, struct qmp_call *c)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	size_t len = strlen(c->line);
	struct iovec iov[] = { { c->line, len }, { (char *)"\n", 1 } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	ssize_t n;

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &c->fd, sizeof(int));
	n = sendmsg(bufferevent_getfd(q->bev), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0) {
		/* A blank, which QMP ignores: when it is written there is room again. Other errors show there, too. */
		bufferevent_write(q->bev, "\n", 1);
		return;
	}
	log_debug("qmp", "arm %s with a descriptor", c->line);
	if ((size_t)n < len)
		bufferevent_write(q->bev, c->line + n, len - (size_t)n);
	if ((size_t)n < len + 1)
		bufferevent_write(q->bev, "\n", 1);
	close(c->fd);
	c->fd = -1;
	free(c->line);
	c->line = NULL;
	q->passing = c;
}

/* QEMU keeps the descriptors of the last message only, so that one command at a time may bring one. */
static void send_next_fd(struct qmp *q)
{
	struct qmp_call *c;

	if (!q->bev || !q->ready || q->passing || evbuffer_get_length(bufferevent_get_output(q->bev)) > 0)
		return;
	TAILQ_FOREACH(c, &q->calls, entry)
		if (c->line && c->fd >= 0) {
			send_with_fd(q, c);
			return;
		}
}

static void written_cb(struct bufferevent *bev, void *arg)
{
	(void)bev;
	send_next_fd(arg);
}

static void send_call(struct qmp *q, struct qmp_call *c)
{
	if (c->fd >= 0) {
		send_next_fd(q);
		return;
	}
	log_debug("qmp", "arm %s", c->line);
	bufferevent_write(q->bev, c->line, strlen(c->line));
	bufferevent_write(q->bev, "\n", 1);
	free(c->line);
	c->line = NULL;
}

static void deadline_cb(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_call *c = arg;
	struct qmp *q = c->qmp;

	(void)fd, (void)what;
	timer_stop(&c->deadline);
	break_off(q, ETIMEDOUT, "QMP silent for %lld s while executing `%s`",
		(long long)(q->deadline_ns / 1000000000), c->command);
}

static struct qmp_call *call_new(struct qmp *q, const char *command, json_t *args, qmp_fn *cb, void *arg)
{
	struct qmp_call *c = xcalloc(1, sizeof(*c));
	json_t *o = json_object();

	c->qmp = q;
	c->fd = -1;
	c->id = ++q->last_id;
	c->command = xstrdup(command);
	c->cb = cb;
	c->arg = arg;
	json_object_set_new(o, "execute", json_string(command));
	if (args)
		json_object_set_new(o, "arguments", args);
	json_object_set_new(o, "id", json_integer(c->id));
	c->line = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	INVARIANT(c->line);
	timer_start(q->loop, &c->deadline, q->deadline_ns, deadline_cb, c);
	return c;
}

static void negotiated_cb(void *arg, const json_t *result, const struct err *e)
{
	struct qmp *q = arg;
	struct qmp_call *c;

	(void)result;
	if (e) {
		if (!q->told)
			break_off(q, EPROTO, "QMP negotiation failed: %s", e->msg);
		return;
	}
	q->ready = true;
	TAILQ_FOREACH(c, &q->calls, entry)
		if (c->line)
			send_call(q, c);
	if (q->ev->ready)
		q->ev->ready(q->arg);
}

static void greeting(struct qmp *q, const json_t *o)
{
	struct qmp_call *c;

	if (!json_is_object(json_object_get(o, "QMP"))) {
		break_off(q, EPROTO, "QMP broken: no greeting");
		return;
	}
	q->greeted = true;
	c = call_new(q, "qmp_capabilities", NULL, negotiated_cb, q);
	TAILQ_INSERT_HEAD(&q->calls, c, entry);
	send_call(q, c);
}

static int class_code(const char *class)
{
	if (strcmp(class, "CommandNotFound") == 0)
		return ENOTSUP;
	if (strcmp(class, "DeviceNotFound") == 0)
		return ENODEV;
	return EIO;
}

static void reply(struct qmp *q, const json_t *o, const json_t *id)
{
	const json_t *error = json_object_get(o, "error"), *desc = json_object_get(error, "desc"),
		*class = json_object_get(error, "class");
	struct err e = ERR_INIT;
	struct qmp_call *c;

	TAILQ_FOREACH(c, &q->calls, entry)
		if (c->id == json_integer_value(id))
			break;
	if (!c)		/* cancelled meanwhile */
		return;
	if (!error) {
		call_end(&q->calls, c, json_object_get(o, "return"), NULL);
		send_next_fd(q);
		return;
	}
	err_set(&e, class_code(json_is_string(class) ? json_string_value(class) : ""), "QMP `%s`: %s",
		c->command, json_is_string(desc) ? json_string_value(desc) : "error without a description");
	call_end(&q->calls, c, NULL, &e);
	err_release(&e);
	send_next_fd(q);
}

static void handle_object(struct qmp *q, const json_t *o)
{
	const json_t *event = json_object_get(o, "event"), *id = json_object_get(o, "id");

	if (!q->greeted)
		greeting(q, o);
	else if (json_is_string(event))
		q->ev->event(q->arg, json_string_value(event), json_object_get(o, "data"));
	else if (json_is_integer(id) && (json_object_get(o, "return") || json_object_get(o, "error")))
		reply(q, o, id);
	else
		break_off(q, EPROTO, "QMP broken: an object that is neither event nor reply");
}

static void handle_line(struct qmp *q, const char *line, size_t len)
{
	json_error_t je;
	json_t *o = json_loadb(line, len, 0, &je);

	log_debug("qmp", "got %.*s", len > 2000 ? 2000 : (int)len, line);
	if (json_is_object(o))
		handle_object(q, o);
	else
		break_off(q, EPROTO, "QMP broken: not a JSON object (%s): %.*s", o ? "another type" : je.text,
			len > 80 ? 80 : (int)len, line);
	json_decref(o);
}

static void read_cb(struct bufferevent *bev, void *arg)
{
	struct qmp *q = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	struct evbuffer_ptr at, eol;
	size_t n;

	while (q->bev) {
		evbuffer_ptr_set(in, &at, q->scanned, EVBUFFER_PTR_SET);
		eol = evbuffer_search(in, "\n", 1, &at);
		n = evbuffer_get_length(in);
		if (eol.pos < 0) {
			q->scanned = n;
			if (n > QMP_LINE_MAX)
				break_off(q, EPROTO, "QMP broken: a line longer than %zu bytes",
					QMP_LINE_MAX);
			return;
		}
		q->scanned = 0;
		n = (size_t)eol.pos;
		if (n > QMP_LINE_MAX) {
			break_off(q, EPROTO, "QMP broken: a line longer than %zu bytes", QMP_LINE_MAX);
			return;
		}
		/* The line leaves the buffer first: a callback may end the connection. */
		char *line = xmalloc(n + 1);

		evbuffer_remove(in, line, n);
		evbuffer_drain(in, 1);
		while (n > 0 && line[n - 1] == '\r')
			n--;
		if (n > 0)
			handle_line(q, line, n);
		free(line);
	}
}

static void event_cb(struct bufferevent *bev, short what, void *arg)
{
	struct qmp *q = arg;

	(void)bev;
	if (what & BEV_EVENT_EOF)
		break_off(q, EPIPE, "QMP connection closed by QEMU");
	else if (what & BEV_EVENT_ERROR)
		break_off(q, errno, "QMP connection: %s", strerror(errno));
}

struct qmp *qmp_new(struct loop *l, int fd, const struct qmp_events *ev, void *arg)
{
	struct qmp *q = xcalloc(1, sizeof(*q));

	q->loop = l;
	q->ev = ev;
	q->arg = arg;
	q->deadline_ns = QMP_DEADLINE_NS;
	TAILQ_INIT(&q->calls);
	TAILQ_INIT(&q->failing);
	evutil_make_socket_nonblocking(fd);
	q->bev = bufferevent_socket_new(loop_base(l), fd, BEV_OPT_CLOSE_ON_FREE);
	INVARIANT(q->bev);
	bufferevent_setcb(q->bev, read_cb, written_cb, event_cb, q);
	bufferevent_enable(q->bev, EV_READ | EV_WRITE);
	return q;
}

static void free_now(void *arg)
{
	struct qmp *q = arg;

	err_release(&q->reason);
	free(q);
}

static void fail_later(void *arg)
{
	struct qmp *q = arg;
	struct qmp_call *c;

	q->fail_deferred = false;
	while ((c = TAILQ_FIRST(&q->failing)))
		call_end(&q->failing, c, NULL, &q->reason);
	if (q->freed && !q->fail_deferred)
		free_now(q);
}

static void defer_fail(struct qmp *q)
{
	if (q->fail_deferred)
		return;
	q->fail_deferred = true;
	loop_defer(q->loop, fail_later, q);
}

struct qmp_call *qmp_execute(struct qmp *q, const char *command, json_t *args, qmp_fn *cb, void *arg)
{
	return qmp_execute_fd(q, command, args, -1, cb, arg);
}

struct qmp_call *qmp_execute_fd(struct qmp *q, const char *command, json_t *args, int fd, qmp_fn *cb, void *arg)
{
	struct qmp_call *c = call_new(q, command, args, cb, arg);

	c->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (!q->bev) {
		timer_stop(&c->deadline);
		TAILQ_INSERT_TAIL(&q->failing, c, entry);
		defer_fail(q);
		return c;
	}
	TAILQ_INSERT_TAIL(&q->calls, c, entry);
	if (q->ready)
		send_call(q, c);
	return c;
}

void qmp_cancel(struct qmp_call *c)
{
	if (!c)
		return;
	log_debug("qmp", "cancel %s", c->command);
	/* It stays in its list without a callback, so that the reply is known and dropped. */
	c->cb = NULL;
}

void qmp_drain(struct qmp *q)
{
	char buf[4096];
	struct evbuffer *in;
	ssize_t n;

	while (q->bev && (n = read(bufferevent_getfd(q->bev), buf, sizeof(buf))) > 0) {
		in = bufferevent_get_input(q->bev);
		evbuffer_unfreeze(in, 0);	/* a bufferevent lets nobody else append */
		evbuffer_add(in, buf, (size_t)n);
		evbuffer_freeze(in, 0);
		read_cb(q->bev, q);
	}
}

void qmp_fail(struct qmp *q, const struct err *e)
{
	struct qmp_call *c;

	close_connection(q);
	q->told = true;
	if (e != &q->reason)
		err_copy(&q->reason, e);
	q->passing = NULL;
	while ((c = TAILQ_FIRST(&q->calls))) {
		timer_stop(&c->deadline);
		TAILQ_REMOVE(&q->calls, c, entry);
		TAILQ_INSERT_TAIL(&q->failing, c, entry);
	}
	defer_fail(q);
}

void qmp_set_deadline(struct qmp *q, int64_t ns)
{
	q->deadline_ns = ns;
}

void qmp_free(struct qmp *q)
{
	struct err e = ERR_INIT;

	if (!q || q->freed)
		return;
	q->freed = true;
	err_set(&e, ECONNRESET, "the QMP connection was closed");
	qmp_fail(q, err_is_set(&q->reason) ? &q->reason : &e);
	err_release(&e);
}
