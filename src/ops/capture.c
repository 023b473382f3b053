/*
 * Captures: the frames of a bridge, or of one card of it, as a stream in pcap format.
 */
#include <stdlib.h>

#include "ops/args.h"
#include "ops/network.h"

static void data_cb(void *arg, const void *data, size_t len);
static void ended_cb(void *arg, const struct err *e);
static const struct net_capture_events capture_events;
static const struct stream_source capture_source;

/* Freed when its stream is closed. */
struct capture {
	LIST_ENTRY(capture) entry;
	bool linked;			/* in the list of its bridge or card */
	struct net_capture *net;	/* NULL: what it captured on is gone */
	struct stream *stream;
	uint64_t dropped;		/* once net is NULL */
	size_t owed;			/* bytes that the stream has no room for */
};

/* new_capture(bridge, nic or nil, filter or nil, snaplen) -> Stream */
static int core_capture_new(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct card *card = opt_card(L, 2);
	const char *filter = luaL_optstring(L, 3, NULL);
	unsigned snaplen = (unsigned)luaL_checkinteger(L, 4);
	struct err e = ERR_INIT;
	struct capture *c;

	ops_scope(L);	/* raises while nothing is made yet */
	c = xcalloc(1, sizeof(*c));
	c->stream = stream_new(L, &capture_source, c, card ? card->streams : NULL);
	stream_label(c->stream, "%s:capture()", card ? "nic" : "bridge");
	stream_push(L, c->stream);
	c->net = net_capture_new(b->net, card ? card->port : NULL, filter, snaplen, &capture_events, c, &e);
	if (!c->net) {
		stream_close(c->stream);
		free(c);
		lua_pushfstring(L, "bridge `%s`: capture: %s", b->name, e.msg);
		err_release(&e);
		return lua_raise(L, "%s", lua_tostring(L, -1));
	}
	LIST_INSERT_HEAD(card ? &card->captures : &b->captures, c, entry);
	c->linked = true;
	return 1;
}

static void data_cb(void *arg, const void *data, size_t len)
{
	struct capture *c = arg;

	c->owed += len;
	stream_feed(c->stream, data, len);
	if (c->owed && c->net)		/* else it was consumed in there */
		net_capture_pause(c->net, true);
}

static void capture_consumed(void *arg, size_t n)
{
	struct capture *c = arg;

	c->owed -= n < c->owed ? n : c->owed;
	if (c->net && !c->owed)
		net_capture_pause(c->net, false);
}

static void let_go(struct capture *c)
{
	if (c->linked)
		LIST_REMOVE(c, entry);
	c->linked = false;
	if (!c->net)
		return;
	c->dropped = net_capture_dropped(c->net);
	net_capture_free(c->net);
	c->net = NULL;
}

static void ended_cb(void *arg, const struct err *e)
{
	stream_end(((struct capture *)arg)->stream, e);
}

void captures_end(struct captures *list)
{
	struct capture *c;

	while ((c = LIST_FIRST(list))) {
		let_go(c);
		stream_end(c->stream, NULL);
	}
}

static void capture_closed(void *arg)
{
	let_go(arg);
	free(arg);
}

static uint64_t capture_dropped(void *arg)
{
	struct capture *c = arg;

	return c->net ? net_capture_dropped(c->net) : c->dropped;
}

static const struct net_capture_events capture_events = { .data = data_cb, .ended = ended_cb };

static const struct stream_source capture_source = {
	.kind = "capture", .consumed = capture_consumed, .closed = capture_closed, .dropped = capture_dropped,
};

static const luaL_Reg core_functions[] = {
	{ "capture_new", core_capture_new },
	{ NULL, NULL },
};

void ops_open_capture(lua_State *L)
{
	luaL_setfuncs(L, core_functions, 0);
}
