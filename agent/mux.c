/*
 * The mux: which connection is the host's, and what goes through it.
 */
#include "mux.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

/* Connections that have not spoken yet; more are not kept, so that nobody can fill the table. */
#define TRANSPORTS_MAX 8

static void transport_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body);
static void transport_closed(void *arg, int err);
static void transport_drained(void *arg);
static void transport_synced(void *arg, const uint8_t *mark);
static void transport_broken(void *arg, const char *why);
static void child_ended(void *arg, uint32_t events);

static const struct conn_cbs transport_cbs;

struct transport {
	LIST_ENTRY(transport) entry;
	struct mux *mux;
	struct conn *conn;
	bool port, once;
	void (*gone)(void *arg);
	void *arg;
};

struct mux {
	struct ev *ev;
	LIST_HEAD(, transport) transports;
	unsigned ntransports;
	struct transport *active;	/* where the last sync mark came from */
	struct peers *peers;
	struct transports *finder;
	struct ev_io children;
};

struct mux *mux_new(void)
{
	struct mux *m = xcalloc(1, sizeof(*m));
	sigset_t set;
	int fd;

	m->ev = ev_new();
	LIST_INIT(&m->transports);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		agent_die("signalfd: %m (the guest's kernel needs CONFIG_SIGNALFD)");
	ev_io_init(&m->children, agent_high_fd(fd), child_ended, m);
	ev_io_set(m->ev, &m->children, EPOLLIN);
	m->peers = peers_new(m);
	return m;
}

int mux_run(struct mux *m)
{
	ev_run(m->ev);
	return 0;
}

struct ev *mux_ev(struct mux *m)
{
	return m->ev;
}

void mux_set_transports(struct mux *m, struct transports *t)
{
	m->finder = t;
}

bool mux_connected(const struct mux *m)
{
	return m->active != NULL;
}

static void child_ended(void *arg, uint32_t events)
{
	struct mux *m = arg;
	struct signalfd_siginfo info;
	int wstatus;
	pid_t pid;

	(void)events;
	while (read(m->children.fd, &info, sizeof(info)) > 0)
		;
	while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0)
		peers_reaped(m->peers, pid, wstatus);
}

/* ---- output ---- */

void mux_send(struct mux *m, struct buf frame, enum conn_class class)
{
	if (!m->active) {
		buf_free(&frame);
		return;
	}
	conn_send(m->active->conn, frame, class);
	if (conn_queued(m->active->conn) > CONN_LONG)
		peers_pause(m->peers, true);
}

void mux_forward(struct mux *m, const uint8_t *p, size_t n, enum conn_class class)
{
	if (!m->active)
		return;
	conn_forward(m->active->conn, p, n, class);
	if (conn_queued(m->active->conn) > CONN_LONG)
		peers_pause(m->peers, true);
}

static void transport_drained(void *arg)
{
	struct transport *t = arg;

	if (t == t->mux->active)
		peers_pause(t->mux->peers, false);
}

/* ---- transports ---- */

static void transport_free(struct transport *t)
{
	struct mux *m = t->mux;

	LIST_REMOVE(t, entry);
	m->ntransports--;
	if (t == m->active) {
		m->active = NULL;
		peers_reset(m->peers);
		if (m->finder)
			transports_connected(m->finder, false);
	}
	conn_free(t->conn);
	if (t->once)
		ev_stop(m->ev);
	if (t->gone)
		t->gone(t->arg);
	ev_free_later(m->ev, t);
}

void mux_add_transport(struct mux *m, int fd, bool port, bool once, void (*gone)(void *arg), void *arg)
{
	struct transport *t, *oldest = NULL;

	LIST_FOREACH(t, &m->transports, entry)
		if (t != m->active && !t->port)
			oldest = t;
	if (m->ntransports >= TRANSPORTS_MAX && oldest)
		transport_free(oldest);
	t = xcalloc(1, sizeof(*t));
	t->mux = m;
	t->port = port;
	t->once = once;
	t->gone = gone;
	t->arg = arg;
	t->conn = conn_new(m->ev, fd, port, &transport_cbs, t);
	LIST_INSERT_HEAD(&m->transports, t, entry);
	m->ntransports++;
}

/* A host that speaks on another transport, or again on this one, takes over. */
static void transport_synced(void *arg, const uint8_t *mark)
{
	struct transport *t = arg, *former = t->mux->active;
	struct mux *m = t->mux;
	struct buf echo = {0};

	if (former && former != t && former->port)
		conn_unsync(former->conn);
	m->active = t;
	if (former && former != t) {
		conn_drop_output(former->conn, true);
		if (!former->port)
			transport_free(former);
	}
	conn_drop_output(t->conn, true);
	peers_reset(m->peers);
	if (m->finder)
		transports_connected(m->finder, true);
	buf_append(&echo, mark, WIRE_SYNC_LEN);
	conn_send(t->conn, echo, CONN_EXPRESS);
}

static void transport_closed(void *arg, int err)
{
	(void)err;
	transport_free(arg);
}

static void transport_broken(void *arg, const char *why)
{
	struct transport *t = arg;
	char *message;

	if (t != t->mux->active)
		return;
	message = xasprintf("the host sent what is no frame: %s; "
		"everything is ignored until the next sync mark", why);
	conn_send(t->conn, frame_error(WIRE_MUX, 0, WIRE_BAD_REQUEST, message), CONN_EXPRESS);
	free(message);
}

static void transport_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	struct transport *t = arg;
	struct mux *m = t->mux;

	if (t != m->active)
		return;
	if (h->channel != WIRE_MUX)
		peers_route(m->peers, p, n, h, body);
	else if (h->type == WIRE_REQUEST)
		mux_request(m, m->peers, h->id, p + body, n - body);
	else if (h->type == WIRE_CANCEL && peers_cancel_join(m->peers, h->id))
		mux_send(m, frame_error(WIRE_MUX, h->id, WIRE_CANCELLED, "cancelled"), CONN_EXPRESS);
}

static const struct conn_cbs transport_cbs = {
	.frame = transport_frame,
	.closed = transport_closed,
	.drained = transport_drained,
	.synced = transport_synced,
	.broken = transport_broken,
};
