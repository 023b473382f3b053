/*
 * Executors as the mux sees them: started, fed, watched, and answered for when they die.
 *
 * What is pending on each is remembered, so that a dead executor's requests get an error, and so that frames
 * that nobody waits for any more do not reach the host.
 */
#include "mux.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "executor.h"

#define QUEUE_MAX (16u << 20)	/* bytes that may wait for a stuck executor before requests are refused */
#define GRACE 200000000		/* ns between an executor's end and its connection's, in either order */
#define ENDED_MAX 1024		/* ended workers that can still be joined */
#define HANDLES (1u << 24)	/* that one main executor can give before they are those of the next */
#define SNDBUF (16 << 10)	/* bytes in the socket to an executor; the kernel counts twice as much */
#define BULK_FROM 4096		/* an event this long makes its stream a bulk one */

static void peer_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body);
static void peer_closed(void *arg, int err);
static void peer_finish(void *arg);

static int start(struct peers *ps, uint32_t channel, struct peer **out);

static const struct conn_cbs peer_cbs;

struct pending {
	uint32_t id;
	uint8_t streams;		/* bits of those that go on after the reply */
	bool replied, bulk;
	bool cancelled;			/* the host knows; what its executor still says is dropped */
};

/* Freed by the table: the main one when it is replaced, a worker's when too many have ended. */
struct peer {
	LIST_ENTRY(peer) entry;
	struct peers *all;
	uint32_t channel;
	pid_t pid;
	struct conn *conn;		/* NULL when finished */
	bool exited, closed;
	int wstatus;
	uint32_t resetting;	/* what it says is dropped until it confirms this generation; 0: none */
	struct pending *pending;
	size_t npending, pending_cap;
	struct ev_timer grace;
};

struct joiner {
	LIST_ENTRY(joiner) entry;
	uint32_t channel, id;
};

struct peers {
	struct mux *mux;
	LIST_HEAD(, peer) list;
	LIST_HEAD(, joiner) joiners;
	unsigned nended;
	uint32_t next_channel, generation, mains;
	bool paused;
};

struct peers *peers_new(struct mux *m)
{
	struct peers *ps = xcalloc(1, sizeof(*ps));
	struct peer *e;

	ps->mux = m;
	ps->next_channel = WIRE_FIRST_WORKER;
	LIST_INIT(&ps->list);
	LIST_INIT(&ps->joiners);
	start(ps, WIRE_MAIN, &e);	/* a failure shows, with its reason, at the first request */
	return ps;
}

static struct peer *find(struct peers *ps, uint32_t channel)
{
	struct peer *e;

	LIST_FOREACH(e, &ps->list, entry)
		if (e->channel == channel)
			return e;
	return NULL;
}

/* ---- what is pending ---- */

static struct pending *pending_find(struct peer *e, uint32_t id)
{
	for (size_t i = 0; i < e->npending; i++)
		if (e->pending[i].id == id)
			return &e->pending[i];
	return NULL;
}

static void pending_add(struct peer *e, uint32_t id, uint8_t streams)
{
	if (e->npending == e->pending_cap) {
		e->pending_cap = e->pending_cap ? 2 * e->pending_cap : 16;
		e->pending = xrealloc(e->pending, e->pending_cap * sizeof(*e->pending));
	}
	e->pending[e->npending++] = (struct pending){.id = id, .streams = streams};
}

static void pending_remove(struct peer *e, struct pending *q)
{
	*q = e->pending[--e->npending];
}

static void fail_request(struct peers *ps, uint32_t channel, uint32_t id, const char *kind,
	const char *message)
{
	mux_send(ps->mux, frame_error(channel, id, kind, message), CONN_EXPRESS);
}

/* ---- start ---- */

static void run_child(int fd, uint32_t channel, uint32_t handles, pid_t mux)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != mux)
		_exit(1);
	prctl(PR_SET_NAME, channel == WIRE_MAIN ? "provium-main" : "provium-worker");
	_exit(executor_main(fd, channel, handles));
}

static int start(struct peers *ps, uint32_t channel, struct peer **out)
{
	struct peer *e;
	pid_t pid, mux = getpid();
	int sv[2], sndbuf = SNDBUF;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	/* What is in a socket cannot be overtaken any more: let it be little, each way. */
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
	setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
	pid = fork();
	if (pid == 0)
		run_child(sv[1], channel, channel == WIRE_MAIN ? ps->mains * HANDLES : 0, mux);
	close(sv[1]);
	if (pid < 0) {
		pid = -errno;
		close(sv[0]);
		return pid;
	}
	e = xcalloc(1, sizeof(*e));
	e->all = ps;
	e->channel = channel;
	e->pid = pid;
	e->conn = conn_new(mux_ev(ps->mux), sv[0], false, &peer_cbs, e);
	if (ps->paused)
		conn_pause(e->conn, true);
	ev_timer_init(&e->grace, peer_finish, e);
	LIST_INSERT_HEAD(&ps->list, e, entry);
	ps->mains += channel == WIRE_MAIN;
	*out = e;
	return 0;
}

int peers_spawn_worker(struct peers *ps, uint32_t *channel, pid_t *pid)
{
	struct peer *e;
	int err = start(ps, ps->next_channel, &e);

	if (err)
		return err;
	*channel = ps->next_channel++;
	*pid = e->pid;
	return 0;
}

/* ---- frames ---- */

static uint8_t streams_of(const uint8_t *p, size_t n)
{
	if (body_is_op(p, n, "spawn") || body_is_op(p, n, "attach"))
		return 1 << 1 | 1 << 2;
	return body_is_op(p, n, "tail") ? 1 << 0 : 0;
}

static void route_request(struct peer *e, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	char *message;

	if (pending_find(e, h->id)) {
		fail_request(e->all, h->channel, h->id, WIRE_BAD_REQUEST,
			"this id is in use on this channel");
		return;
	}
	if (conn_queued(e->conn) > QUEUE_MAX) {
		message = xasprintf("process %d is stuck: %zu bytes of requests wait for it already",
			(int)e->pid, conn_queued(e->conn));
		fail_request(e->all, h->channel, h->id, WIRE_INTERNAL, message);
		free(message);
		return;
	}
	agent_env.shared->asked_ns = agent_now();
	pending_add(e, h->id, streams_of(p + body, n - body));
	conn_forward(e->conn, p, n, CONN_EXPRESS);
}

/* Answered here, at once: the executor may be stuck. It is told all the same, and its own answer ends the
 * record. */
static void route_cancel(struct peer *e, const uint8_t *p, size_t n, const struct wire_head *h)
{
	struct pending *q = pending_find(e, h->id);

	if (!q || q->cancelled)
		return;
	if (conn_drop_request(e->conn, h->id)) {
		pending_remove(e, q);
	} else {
		q->cancelled = true;
		conn_forward(e->conn, p, n, CONN_EXPRESS);
	}
	fail_request(e->all, h->channel, h->id, WIRE_CANCELLED, "cancelled");
}

void peers_route(struct peers *ps, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	struct peer *e = find(ps, h->channel);
	int err = 0;

	if (e && h->type == WIRE_REQUEST && !e->conn && h->channel == WIRE_MAIN) {
		LIST_REMOVE(e, entry);
		ev_free_later(mux_ev(ps->mux), e);
		e = NULL;
	}
	if (!e && h->type == WIRE_REQUEST && h->channel == WIRE_MAIN)
		err = start(ps, WIRE_MAIN, &e);
	if (err) {
		mux_send(ps->mux, frame_errno(h->channel, h->id, -err), CONN_EXPRESS);
		return;
	}
	if ((!e || !e->conn) && h->type == WIRE_REQUEST)
		fail_request(ps, h->channel, h->id, WIRE_UNKNOWN_HANDLE,
			e ? "this worker has ended" : "no worker has this channel");
	if (!e || !e->conn)
		return;
	if (h->type == WIRE_REQUEST)
		route_request(e, p, n, h, body);
	else if (h->type == WIRE_CANCEL)
		route_cancel(e, p, n, h);
	else if (pending_find(e, h->id))
		conn_forward(e->conn, p, n, CONN_EXPRESS);
}

/* True when this frame is the last of its request. */
static bool account(struct pending *q, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	uint32_t stream;

	if (h->type == WIRE_EVENT && body_is_stream_end(p + body, n - body, &stream))
		q->streams &= (uint8_t)~(1u << (stream & 7));
	else if (h->type == WIRE_EVENT && n >= BULK_FROM)
		q->bulk = true;
	if (h->type == WIRE_REPLY)
		q->replied = true;
	if (h->type == WIRE_ERROR) {
		q->replied = true;
		q->streams = 0;
	}
	return q->replied && !q->streams;
}

static void peer_frame(void *arg, const uint8_t *p, size_t n, const struct wire_head *h, size_t body)
{
	struct peer *e = arg;
	struct pending *q;
	enum conn_class class;
	bool over, cancelled;

	if (h->type == FRAME_RESET) {
		if (h->id == e->resetting)
			e->resetting = 0;
		return;
	}
	q = e->resetting ? NULL : pending_find(e, h->id);
	if (!q)
		return;
	over = account(q, p, n, h, body);
	class = q->bulk ? CONN_BULK : CONN_EXPRESS;
	cancelled = q->cancelled;
	if (over)
		pending_remove(e, q);
	if (!cancelled)
		mux_forward(e->all->mux, p, n, class);
}

void peers_reset(struct peers *ps)
{
	struct joiner *j;
	struct peer *e;

	if (++ps->generation == 0)
		ps->generation = 1;
	LIST_FOREACH(e, &ps->list, entry) {
		e->npending = 0;
		if (!e->conn)
			continue;
		conn_drop_output(e->conn, false);
		conn_send(e->conn, frame_plain(FRAME_RESET, e->channel, ps->generation), CONN_EXPRESS);
		e->resetting = ps->generation;
	}
	while ((j = LIST_FIRST(&ps->joiners))) {
		LIST_REMOVE(j, entry);
		free(j);
	}
	peers_pause(ps, false);
}

void peers_pause(struct peers *ps, bool pause)
{
	struct peer *e;

	if (ps->paused == pause)
		return;
	ps->paused = pause;
	LIST_FOREACH(e, &ps->list, entry)
		if (e->conn && !e->closed)
			conn_pause(e->conn, pause);
}

/* ---- end ---- */

static int exit_code(const struct peer *e)
{
	return WIFSIGNALED(e->wstatus) ? 128 + WTERMSIG(e->wstatus) : WEXITSTATUS(e->wstatus);
}

static void answer_join(struct peers *ps, const struct peer *e, uint32_t id)
{
	struct frame f;

	frame_begin(&f, WIRE_REPLY, WIRE_MUX, id);
	msgpack_pack_map(&f.pk, 1);
	pack_str(&f.pk, "status");
	msgpack_pack_int(&f.pk, exit_code(e));
	mux_send(ps->mux, frame_end(&f), CONN_EXPRESS);
}

static void answer_joiners(struct peer *e)
{
	struct joiner *j, *next;

	for (j = LIST_FIRST(&e->all->joiners); j; j = next) {
		next = LIST_NEXT(j, entry);
		if (j->channel != e->channel)
			continue;
		answer_join(e->all, e, j->id);
		LIST_REMOVE(j, entry);
		free(j);
	}
}

static void forget_oldest_ended(struct peers *ps)
{
	struct peer *e, *oldest = NULL;

	LIST_FOREACH(e, &ps->list, entry)
		if (!e->conn && e->exited && (!oldest || e->channel < oldest->channel))
			oldest = e;
	if (!oldest)
		return;
	LIST_REMOVE(oldest, entry);
	ps->nended--;
	ev_free_later(mux_ev(ps->mux), oldest);
}

/* Its process is gone, or its connection: whatever waits for it gets an error. */
static void peer_finish(void *arg)
{
	struct peer *e = arg;
	const char *who = e->channel == WIRE_MAIN ? "executor" : "worker";
	char *why;

	if (!e->conn)
		return;
	if (!e->exited)
		why = xasprintf("%s closed its connection", who);
	else if (WIFSIGNALED(e->wstatus))
		why = xasprintf("%s died: signal %d", who, WTERMSIG(e->wstatus));
	else
		why = xasprintf("%s ended: exit code %d", who, WEXITSTATUS(e->wstatus));
	ev_timer_clear(&e->grace);
	conn_free(e->conn);
	e->conn = NULL;
	for (size_t i = 0; i < e->npending; i++)
		if (!e->pending[i].cancelled)
			fail_request(e->all, e->channel, e->pending[i].id, WIRE_INTERNAL, why);
	free(why);
	free(e->pending);
	e->pending = NULL;
	e->npending = e->pending_cap = 0;
}

static void check_end(struct peer *e)
{
	if (e->exited && e->closed)
		peer_finish(e);
	else if (e->exited || e->closed)
		ev_timer_set(mux_ev(e->all->mux), &e->grace, GRACE);
}

static void peer_closed(void *arg, int err)
{
	struct peer *e = arg;

	(void)err;
	e->closed = true;
	check_end(e);
}

void peers_reaped(struct peers *ps, pid_t pid, int wstatus)
{
	struct peer *e;

	LIST_FOREACH(e, &ps->list, entry)
		if (e->pid == pid && !e->exited)
			break;
	if (!e)
		return;
	e->exited = true;
	e->wstatus = wstatus;
	if (e->conn)
		check_end(e);
	if (e->channel == WIRE_MAIN)
		return;
	answer_joiners(e);
	if (++ps->nended > ENDED_MAX)
		forget_oldest_ended(ps);
}

int peers_join(struct peers *ps, uint32_t channel, uint32_t id)
{
	struct peer *e = find(ps, channel);
	struct joiner *j;

	if (!e || channel < WIRE_FIRST_WORKER)
		return -ENOENT;
	if (e->exited) {
		answer_join(ps, e, id);
		return 0;
	}
	j = xcalloc(1, sizeof(*j));
	j->channel = channel;
	j->id = id;
	LIST_INSERT_HEAD(&ps->joiners, j, entry);
	return 0;
}

bool peers_cancel_join(struct peers *ps, uint32_t id)
{
	struct joiner *j;

	LIST_FOREACH(j, &ps->joiners, entry)
		if (j->id == id)
			break;
	if (!j)
		return false;
	LIST_REMOVE(j, entry);
	free(j);
	return true;
}

int peers_signal(struct peers *ps, uint32_t channel, int sig)
{
	struct peer *e = find(ps, channel);

	if (!e || channel < WIRE_FIRST_WORKER)
		return -ENOENT;
	if (e->exited)		/* as for a process that nobody has waited for yet */
		return 0;
	return kill(e->pid, sig) < 0 ? -errno : 0;
}

static const struct conn_cbs peer_cbs = {
	.frame = peer_frame,
	.closed = peer_closed,
};
