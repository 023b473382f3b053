/*
 * Fuzzes what a guest may send: framed connections and the agent client, through the real objects.
 *
 * The first byte of an input chooses how far the connection is when the rest arrives as one burst: waiting
 * for the handshake's answer, or ready with calls outstanding (ids 2 to 6).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "vmm/agent.h"

#define CALLS 5
#define INPUT_MAX (32u << 10)
#define NONCE_LEN 16

struct guest {
	struct loop *loop;
	struct agent *agent;
	struct agent_call *calls[CALLS];
	int fd;
	struct event *readable;
	int stage;			/* 0: sync, 1: hello, 2: the burst */
	bool greets, blocks, over;
	const uint8_t *data;
	size_t size;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	(void)arg;
	INVARIANT(!o != !(e && e->msg));
}

/* Id 5 keeps what it gets, the others give credit back; a piece of three bytes makes its owner give up. */
static void piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct agent_call **call = arg;

	if (len == 3) {
		agent_call_free(*call);
		*call = NULL;
	} else if (data && agent_call_id(*call) != 5) {
		agent_call_credit(*call, stream, len);
	}
}

static void writable_cb(void *arg)
{
	agent_call_send(*(struct agent_call **)arg, "more", 4);
}

static void broken_cb(void *arg, const struct err *e)
{
	(void)arg;
	INVARIANT(e && e->msg);
}

static const struct agent_events events = { reply_cb, piece_cb, writable_cb, broken_cb };
static const struct agent_events plain = { .reply = reply_cb };

static void guest_ended(void *arg, const struct err *e)
{
	struct guest *g = arg;

	INVARIANT(e && e->msg);
	g->over = true;
	loop_stop(g->loop);
}

static void guest_burst(struct guest *g)
{
	INVARIANT(write(g->fd, g->data, g->size) == (ssize_t)g->size);
	shutdown(g->fd, SHUT_WR);
}

static void guest_ready(void *arg, const struct err *e)
{
	static char big[WIRE_WINDOW + 1];
	struct guest *g = arg;

	if (e) {
		guest_ended(g, e);
		return;
	}
	for (int i = 0; i < CALLS; i++)
		g->calls[i] = agent_call(g->agent, WIRE_MAIN, "op", NULL, i % 2, i == 1 ? &plain : &events,
			&g->calls[i]);
	/* Too much for the window is slow here, so only some inputs wait for more credit. */
	agent_call_send(g->calls[2], big, g->blocks ? sizeof(big) : 1000);
	agent_call_free(g->calls[4]);
	g->calls[4] = NULL;
	guest_burst(g);
}

/* Answers the sync mark, then hello, whose last bytes are the nonce. */
static void guest_readable(evutil_socket_t fd, short what, void *arg)
{
	static const char head[] = "\0\0\0\0\x94\1\0\1\x87\xb0protocol_version\1\xad" "agent_version\xa1" "1"
		"\xa6kernel\xa1" "6\xa4" "arch\xa1" "a\xa7" "boot_id\xa1" "b\xa8" "features\x90"
		"\xa5nonce\xc4\x10";
	char buf[16384], frame[sizeof(head) - 1 + NONCE_LEN];
	struct guest *g = arg;
	ssize_t n = read(fd, buf, sizeof(buf));

	(void)what;
	if (n == WIRE_SYNC_LEN && g->stage == 0) {
		INVARIANT(write(fd, buf, WIRE_SYNC_LEN) == WIRE_SYNC_LEN);
		g->stage++;
	} else if (n > NONCE_LEN && g->stage == 1) {
		g->stage++;
		memcpy(frame, head, sizeof(head) - 1);
		memcpy(frame + sizeof(head) - 1, buf + n - NONCE_LEN, NONCE_LEN);
		frame[3] = sizeof(frame) - 4;
		if (g->greets)
			INVARIANT(write(fd, frame, sizeof(frame)) == sizeof(frame));
		else
			guest_burst(g);
	}
}

static void stop_cb(void *arg)
{
	loop_stop(arg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct loop *loop;
	struct guest g = { 0 };
	int sv[2];

	if (size == 0 || size > INPUT_MAX)
		return 0;
	g.greets = data[0] & 1;
	g.blocks = data[0] & 2;
	g.data = data + 1;
	g.size = size - 1;
	INVARIANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0);
	loop = loop ? loop : loop_new();
	g.loop = loop;
	g.fd = sv[1];
	g.readable = event_new(loop_base(g.loop), g.fd, EV_READ | EV_PERSIST, guest_readable, &g);
	event_add(g.readable, NULL);
	g.agent = agent_new(g.loop, sv[0], "fuzz", guest_ready, guest_ended, &g);
	while (!g.over)
		loop_run(g.loop);
	agent_free(g.agent);
	for (int i = 0; i < CALLS; i++)
		agent_call_free(g.calls[i]);
	event_free(g.readable);
	close(g.fd);
	/* The frees are deferred. */
	loop_defer(loop, stop_cb, loop);
	loop_run(loop);
	return 0;
}
