/*
 * Bridge: what lua/bridge.lua builds bridges from, over src/net/net.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/network.h"

static void bridge_undo(struct undo *u);
static void close_bridge(struct bridge *b);
static void free_later(void *arg);
static const struct wait_kind net_kind;

#define BRIDGE_TYPE "provium.Bridge"

/* Where the answer to a question for counters goes: nobody can call that off. */
struct counters_box {
	LIST_ENTRY(counters_box) entry;
	struct net_wait *waiter;	/* NULL: nobody waits for it any more */
};

struct filenet {
	struct net *net;
	LIST_HEAD(, counters_box) boxes;
};

static struct filenet *filenet_of(lua_State *L)
{
	struct ops_file *f = ops_file(L);

	if (!f->net) {
		f->net = xcalloc(1, sizeof(*f->net));
		LIST_INIT(&f->net->boxes);
		f->net->net = net_new(state_loop(state_of(L)));
	}
	return f->net;
}

void filenet_free(struct filenet *f)
{
	struct counters_box *box;

	if (!f)
		return;
	net_free(f->net);
	while ((box = LIST_FIRST(&f->boxes))) {
		LIST_REMOVE(box, entry);
		free(box);
	}
	free(f);
}

struct net *filenet_net(struct filenet *f)
{
	return f->net;
}

/* ---- waits ---- */

struct net_wait *net_wait_new(lua_State *L, struct filenet *f, const char *op, char *subject)
{
	struct net_wait *w = wait_new(L, &net_kind, sizeof(*w));

	w->filenet = f;
	w->op = op;
	w->subject = subject;
	return w;
}

void net_wait_done(void *arg, const struct err *e)
{
	struct net_wait *w = arg;

	if (e)
		wait_fail(&w->wait, e->code, "%s: %s: %s", w->subject, w->op, e->msg);
	else
		wait_finish(&w->wait);
}

struct counters_box *net_wait_count(struct net_wait *w)
{
	struct counters_box *box = xcalloc(1, sizeof(*box));

	box->waiter = w;
	w->box = box;
	LIST_INSERT_HEAD(&w->filenet->boxes, box, entry);
	return box;
}

void net_wait_counted(void *arg, const struct net_counters *c, const struct err *e)
{
	struct counters_box *box = arg;
	struct net_wait *w = box->waiter;

	LIST_REMOVE(box, entry);
	free(box);
	if (!w)
		return;
	w->box = NULL;
	if (c)
		w->counters = *c;
	net_wait_done(w, e);
}

static int net_push(struct wait *wait, lua_State *L)
{
	struct net_wait *w = (struct net_wait *)wait;
	struct net_counters *c = &w->counters;

	lua_pushinteger(L, (lua_Integer)c->rx_packets);
	lua_pushinteger(L, (lua_Integer)c->rx_bytes);
	lua_pushinteger(L, (lua_Integer)c->tx_packets);
	lua_pushinteger(L, (lua_Integer)c->tx_bytes);
	lua_pushinteger(L, (lua_Integer)c->dropped);
	return 5;
}

static void net_cancel(struct wait *wait)
{
	struct net_wait *w = (struct net_wait *)wait;

	net_forget(w->filenet->net, net_wait_done, w);
}

static void net_describe(struct wait *wait, char *buf, size_t size)
{
	struct net_wait *w = (struct net_wait *)wait;

	snprintf(buf, size, "%s: %s", w->subject, w->op);
}

static void net_release(struct wait *wait)
{
	struct net_wait *w = (struct net_wait *)wait;

	if (w->box)
		w->box->waiter = NULL;
	if (w->card && w->card->adder == w)
		w->card->adder = NULL;
	if (w->card && w->card->remover == w)
		w->card->remover = NULL;
	if (w->card && w->card->linker == w)
		w->card->linker = NULL;
	if (w->bridge && w->bridge->closer == w)
		w->bridge->closer = NULL;
	free(w->subject);
}

/* ---- life ---- */

static struct bridge *check_any_bridge(lua_State *L, int arg)
{
	struct bridge **ud = luaL_testudata(L, arg, BRIDGE_TYPE);

	if (!ud)
		args_raise_self(L, arg, "Bridge");
	return *ud;
}

struct bridge *check_bridge(lua_State *L, int arg)
{
	struct bridge *b = check_any_bridge(L, arg);

	if (!b->net || b->closing)
		lua_raise(L, "bridge `%s` is closed", b->name);
	return b;
}

static char *subject(const struct bridge *b)
{
	return xasprintf("bridge `%s`", b->name);
}

static struct net_wait *start(lua_State *L, struct bridge *b, const char *op)
{
	return net_wait_new(L, b->filenet, op, subject(b));
}

/* bridge_new(name, "kernel" or "user", seed) -> Bridge */
static int op_bridge_new(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	enum net_backend backend = strcmp(luaL_checkstring(L, 2), "kernel") == 0 ? NET_KERNEL : NET_USER;
	uint64_t seed = (uint64_t)luaL_checkinteger(L, 3);
	struct scope *scope = ops_scope(L);
	struct bridge **ud, *b;
	struct net_wait *w;

	lua_settop(L, 4);		/* the fourth: a table that the bridge goes into at once */
	ud = lua_newuserdata(L, sizeof(*ud));
	*ud = b = xcalloc(1, sizeof(*b));
	LIST_INIT(&b->cards);
	LIST_INIT(&b->captures);
	b->name = xstrdup(name);
	luaL_getmetatable(L, BRIDGE_TYPE);
	lua_setmetatable(L, -2);
	b->filenet = filenet_of(L);
	b->L = state_lua(state_of(L));
	w = start(L, b, "make it");
	b->net = net_bridge_new(b->filenet->net, backend, name, seed, net_wait_done, w);
	scope_add(scope, &b->undo, RANK_BRIDGE, bridge_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, b);
	lua_setfield(L, 4, "bridge");
	return wait_yield(L, &w->wait);
}

static void free_if_unused(struct bridge *b)
{
	if (b->collected && !b->net)
		loop_defer(state_loop(state_of(b->L)), free_later, b);
}

static void free_later(void *arg)
{
	struct bridge *b = arg;

	free(b->name);
	free(b);
}

static int bridge_gc(lua_State *L)
{
	struct bridge **ud = lua_touserdata(L, 1), *b = *ud;

	*ud = NULL;
	b->collected = true;
	if (b->net) {			/* the state ends */
		scope_remove(&b->undo);
		captures_end(&b->captures);
		net_bridge_free(b->net);
		b->net = NULL;
	}
	free_if_unused(b);
	return 0;
}

/* Every card of it is out. */
static void finish_close(struct bridge *b)
{
	captures_end(&b->captures);
	net_bridge_free(b->net);
	b->net = NULL;
	if (b->undo.scope && b->undo.started)
		undo_done(&b->undo);
	else
		scope_remove(&b->undo);
	if (b->closer)
		wait_finish(&b->closer->wait);
	b->closer = NULL;
	lua_pushnil(b->L);
	lua_rawsetp(b->L, LUA_REGISTRYINDEX, b);
	free_if_unused(b);
}

void bridge_card_gone(struct bridge *b)
{
	if (b->closing && b->net && LIST_EMPTY(&b->cards))
		finish_close(b);
}

static void close_bridge(struct bridge *b)
{
	struct card *c, *next;

	if (b->closing)
		return;
	b->closing = true;
	captures_end(&b->captures);
	for (c = LIST_FIRST(&b->cards); c; c = next) {
		next = LIST_NEXT(c, of_bridge);
		/* A VM of the scope that ends is killed next. */
		card_remove(c, b->undo.started && c->scope == b->undo.scope);
	}
	bridge_card_gone(b);
}

static void bridge_undo(struct undo *u)
{
	close_bridge((struct bridge *)((char *)u - offsetof(struct bridge, undo)));
}

/* shut(): the members' cards are taken out, then the bridge goes; idempotent */
static int op_shut(lua_State *L)
{
	struct bridge *b = check_any_bridge(L, 1);
	struct net_wait *w = start(L, b, "close");

	if (!b->net || b->closing) {
		wait_finish(&w->wait);
		return wait_yield(L, &w->wait);
	}
	b->closer = w;
	w->bridge = b;
	close_bridge(b);
	return wait_yield(L, &w->wait);
}

static int bridge_is_open(lua_State *L)
{
	struct bridge *b = check_any_bridge(L, 1);

	lua_pushboolean(L, b->net && !b->closing);
	return 1;
}

static int bridge_backend(lua_State *L)
{
	lua_pushstring(L, net_bridge_backend(check_bridge(L, 1)->net) == NET_KERNEL ? "kernel" : "user");
	return 1;
}

static int bridge_tostring(lua_State *L)
{
	struct bridge *b = check_any_bridge(L, 1);

	lua_pushfstring(L, "Bridge (%s%s)", b->name, b->net && !b->closing ? "" : ", closed");
	return 1;
}

/* ---- what goes wrong on the way ---- */

static double number_field(lua_State *L, int t, const char *key)
{
	double n;

	lua_getfield(L, t, key);
	n = lua_tonumber(L, -1);
	lua_pop(L, 1);
	return n;
}

/* impair(from, to, settings): Nics or nil, and a table of struct net_impairment's fields */
static int op_impair(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct card *from = opt_card(L, 2), *to = opt_card(L, 3);
	struct net_impairment i = { 0 };
	struct net_wait *w;

	luaL_checktype(L, 4, LUA_TTABLE);
	i.latency_ns = (int64_t)(number_field(L, 4, "latency") * 1e6);
	i.jitter_ns = (int64_t)(number_field(L, 4, "jitter") * 1e6);
	i.latency_correlation = number_field(L, 4, "latency_correlation") / 100;
	i.loss = number_field(L, 4, "loss") / 100;
	i.loss_correlation = number_field(L, 4, "loss_correlation") / 100;
	i.duplicate = number_field(L, 4, "duplicate") / 100;
	i.reorder = number_field(L, 4, "reorder") / 100;
	i.corrupt = number_field(L, 4, "corrupt") / 100;
	i.rate_bps = (uint64_t)number_field(L, 4, "rate");
	i.burst_bytes = (uint64_t)number_field(L, 4, "burst");
	w = start(L, b, "impair");
	net_impair(b->net, from ? from->port : NULL, to ? to->port : NULL, &i, net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* set_blocks({from, to, from, to ...}): Nics */
static int op_set_blocks(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	size_t n = lua_rawlen(L, 2) / 2;
	struct net_block *blocks = lua_newuserdata(L, (n + 1) * sizeof(*blocks));
	struct net_wait *w;

	for (size_t i = 0; i < n; i++) {
		lua_rawgeti(L, 2, (int)(2 * i + 1));
		lua_rawgeti(L, 2, (int)(2 * i + 2));
		blocks[i] = (struct net_block){ check_card(L, -2)->port, check_card(L, -1)->port };
		lua_pop(L, 2);
	}
	w = start(L, b, "block frames");
	net_set_blocks(b->net, blocks, n, net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* ---- the host's side ---- */

/* set_gateway(ip4, prefix4, [ip6, prefix6]) */
static int op_set_gateway(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct net_address a = { .prefix4 = (unsigned)luaL_checkinteger(L, 3) };
	struct net_wait *w;

	INVARIANT(inet_pton(AF_INET, luaL_checkstring(L, 2), a.ip4) == 1);
	if (!lua_isnoneornil(L, 4)) {
		a.has6 = true;
		a.prefix6 = (unsigned)luaL_checkinteger(L, 5);
		INVARIANT(inet_pton(AF_INET6, luaL_checkstring(L, 4), a.ip6) == 1);
	}
	w = start(L, b, "set its gateway");
	net_bridge_set_gateway(b->net, &a, net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* set_route(bridge, other, on) */
static int op_set_route(lua_State *L)
{
	struct bridge *a = check_bridge(L, 1), *b = check_bridge(L, 2);
	struct net_wait *w = start(L, a, "route");

	net_route(a->net, b->net, lua_toboolean(L, 3), net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* set_uplink(on) */
static int op_set_uplink(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct net_wait *w = start(L, b, lua_toboolean(L, 2) ? "enable_uplink" : "disable_uplink");

	net_uplink(b->net, lua_toboolean(L, 2), net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* count() -> rx_packets, rx_bytes, tx_packets, tx_bytes, dropped */
static int op_count(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct net_wait *w = start(L, b, "counters");

	net_bridge_counters(b->net, net_wait_counted, net_wait_count(w));
	return wait_yield(L, &w->wait);
}

/* net_auto() -> "kernel" or "user", why: what `auto` comes to on this host */
static int core_net_auto(lua_State *L)
{
	char *why = NULL;
	enum net_backend backend = net_auto(state_loop(state_of(L)), &why);

	lua_pushstring(L, backend == NET_KERNEL ? "kernel" : "user");
	lua_pushstring(L, why);
	free(why);
	return 2;
}

/* net_kernel_usable() -> nil, or why the kernel backend cannot be used */
static int core_net_kernel_usable(lua_State *L)
{
	struct err e = ERR_INIT;

	if (net_kernel_usable(&e) == 0)
		return 0;
	lua_pushstring(L, e.msg);
	err_release(&e);
	return 1;
}

/* notice(text): a line for the user, once for each text */
static int core_notice(lua_State *L)
{
	struct ops_env *env = ops_env(L);

	if (env->notice)
		env->notice(env->arg, luaL_checkstring(L, 1));
	return 0;
}

/* is_local() -> whether there is no hypervisor */
static int core_is_local(lua_State *L)
{
	lua_pushboolean(L, vmm_kind(ops_env(L)->vmm) == VMM_LOCAL);
	return 1;
}

/* ip_parse(text) -> its 4 or 16 bytes, or nil; ip_format(bytes) -> text */
static int core_ip_parse(lua_State *L)
{
	const char *s = luaL_checkstring(L, 1);
	bool six = strchr(s, ':') != NULL;
	char bytes[16];

	if (inet_pton(six ? AF_INET6 : AF_INET, s, bytes) != 1)
		return 0;
	lua_pushlstring(L, bytes, six ? 16 : 4);
	return 1;
}

static int core_ip_format(lua_State *L)
{
	char text[INET6_ADDRSTRLEN];
	size_t n;
	const char *s = luaL_checklstring(L, 1, &n);

	if (n != 4 && n != 16)
		return 0;
	lua_pushstring(L, inet_ntop(n == 16 ? AF_INET6 : AF_INET, s, text, sizeof(text)));
	return 1;
}

static const struct wait_kind net_kind = {
	.name = "network",
	.cancel = net_cancel,
	.push = net_push,
	.describe = net_describe,
	.release = net_release,
};

static const luaL_Reg bridge_methods[] = {
	{ "is_open", bridge_is_open },
	{ "backend", bridge_backend },
	{ NULL, NULL },
};

static const luaL_Reg bridge_ops[] = {
	{ "shut", op_shut },
	{ "impair", op_impair },
	{ "set_blocks", op_set_blocks },
	{ "set_gateway", op_set_gateway },
	{ "set_route", op_set_route },
	{ "set_uplink", op_set_uplink },
	{ "count", op_count },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "net_auto", core_net_auto },
	{ "net_kernel_usable", core_net_kernel_usable },
	{ "notice", core_notice },
	{ "is_local", core_is_local },
	{ "ip_parse", core_ip_parse },
	{ "ip_format", core_ip_format },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "bridge_new", op_bridge_new },
	{ NULL, NULL },
};

void ops_open_bridge(lua_State *L)
{
	ops_new_type(L, BRIDGE_TYPE, "Bridge", bridge_gc, bridge_tostring, bridge_methods, bridge_ops);
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
