/*
 * What a guest is told of its networks: kept here, and said again whenever its agent answers anew, after a boot,
 * a reset, a reboot of its own.
 *
 * lua/bridge.lua decides what; a running guest is asked from there when something changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/network.h"

static void told_cb(void *arg, const msgpack_object *o, const struct err *e);
static const struct agent_events told_events;
static const struct wait_kind settle_kind;

/* One request, and the call that tells it. */
struct telling {
	struct guestnet *net;
	char *op;
	char *params;
	size_t len;
	struct agent_call *call;
};

struct settle_wait {
	struct wait wait;
	LIST_ENTRY(settle_wait) entry;
	struct guestnet *net;		/* NULL: over */
	struct vm *vm;
};

/* Owned by the VM's userdata. */
struct guestnet {
	struct target *target;
	struct cards cards;
	struct telling *list;
	size_t n;
	size_t next;			/* to be told; n when the round is over */
	struct err err;			/* the first of the last round */
	LIST_HEAD(, settle_wait) waits;
};

struct guestnet *guestnet_new(struct target *t)
{
	struct guestnet *g = xcalloc(1, sizeof(*g));

	g->target = t;
	LIST_INIT(&g->cards);
	LIST_INIT(&g->waits);
	return g;
}

static void stop(struct guestnet *g)
{
	for (size_t i = 0; i < g->n; i++) {
		agent_call_free(g->list[i].call);
		g->list[i].call = NULL;
	}
	g->next = g->n;
}

static void forget(struct guestnet *g)
{
	stop(g);
	for (size_t i = 0; i < g->n; i++) {
		free(g->list[i].op);
		free(g->list[i].params);
	}
	free(g->list);
	g->list = NULL;
	g->n = g->next = 0;
}

void guestnet_free(struct guestnet *g)
{
	if (!g)
		return;
	INVARIANT(LIST_EMPTY(&g->waits));
	forget(g);
	err_release(&g->err);
	free(g);
}

struct cards *guestnet_cards(struct guestnet *g)
{
	return &g->cards;
}

void guestnet_drop_cards(struct guestnet *g)
{
	struct card *c, *next;

	for (c = LIST_FIRST(&g->cards); c; c = next) {
		next = LIST_NEXT(c, of_guest);
		card_remove(c, true);
	}
}

/* ---- telling ---- */

static void settle(struct guestnet *g)
{
	struct settle_wait *w;

	while ((w = LIST_FIRST(&g->waits))) {
		LIST_REMOVE(w, entry);
		w->net = NULL;
		if (err_is_set(&g->err))
			wait_fail(&w->wait, g->err.code, "vm `%s`: setting up its networks: %s",
				vm_name(w->vm), g->err.msg);
		else
			wait_finish(&w->wait);
	}
}

/* One after the other: routes can be had when the addresses are there. */
static void tell_next(struct guestnet *g)
{
	struct telling *t = &g->list[g->next];
	struct agent *a = vm_agent(g->target->vm);
	msgpack_sbuffer params = { 0 };

	if (g->next == g->n || !a) {
		g->next = g->n;
		settle(g);
		return;
	}
	params.data = t->params;
	params.size = t->len;
	t->call = agent_call(a, g->target->channel, t->op, &params, false, &told_events, t);
}

void guestnet_up(struct guestnet *g)
{
	stop(g);
	err_release(&g->err);
	g->err = (struct err)ERR_INIT;
	g->next = 0;
	tell_next(g);
}

static void told_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct telling *t = arg;
	struct guestnet *g = t->net;

	(void)o;
	if (e && !err_is_set(&g->err))
		err_copy(&g->err, e);
	g->next++;
	tell_next(g);
}

/* vm_net_set(vm, {op, packed, op, packed ...}): what it is told from now on; nothing is told at once, unless it is
 * being told */
static int core_vm_net_set(lua_State *L)
{
	struct guestnet *g = vm_guestnet(L, 1);
	size_t n = lua_rawlen(L, 2) / 2;
	bool telling = g->next < g->n;

	forget(g);
	err_release(&g->err);
	g->err = (struct err)ERR_INIT;
	g->list = xcalloc(n + 1, sizeof(*g->list));
	for (size_t i = 0; i < n; i++) {
		const char *params;
		size_t len;

		lua_rawgeti(L, 2, (int)(2 * i + 1));
		lua_rawgeti(L, 2, (int)(2 * i + 2));
		params = luaL_checklstring(L, -1, &len);
		g->list[i] = (struct telling){ .net = g, .op = xstrdup(luaL_checkstring(L, -2)), .len = len };
		g->list[i].params = xmalloc(len + 1);
		memcpy(g->list[i].params, params, len);
		g->n = g->next = i + 1;
		lua_pop(L, 2);
	}
	/* A round that this cuts short begins anew with the new list, for those who wait for it. */
	if (telling) {
		g->next = 0;
		tell_next(g);
	}
	return 0;
}

/* vm_net_settle(vm): returns when it was told all since its agent came up */
static int op_settle(lua_State *L)
{
	struct guestnet *g = vm_guestnet(L, 1);
	struct settle_wait *w = wait_new(L, &settle_kind, sizeof(*w));

	w->net = g;
	w->vm = g->target->vm;
	LIST_INSERT_HEAD(&g->waits, w, entry);
	if (g->next == g->n)
		settle(g);
	return wait_yield(L, &w->wait);
}

/* vm_has_agent(vm) -> whether its agent answers */
static int core_vm_has_agent(lua_State *L)
{
	lua_pushboolean(L, vm_agent(check_vm(L, 1)) != NULL);
	return 1;
}

/* vm_is_booting(vm) -> boolean */
static int core_vm_is_booting(lua_State *L)
{
	lua_pushboolean(L, vm_state(check_vm(L, 1)) == VM_BOOTING);
	return 1;
}

static void settle_describe(struct wait *wait, char *buf, size_t size)
{
	struct settle_wait *w = (struct settle_wait *)wait;

	snprintf(buf, size, "vm \"%s\": its networks to be set up", vm_name(w->vm));
}

static void settle_release(struct wait *wait)
{
	struct settle_wait *w = (struct settle_wait *)wait;

	if (w->net)
		LIST_REMOVE(w, entry);
}

static const struct agent_events told_events = { .reply = told_cb };

static const struct wait_kind settle_kind = {
	.name = "networks of a vm",
	.describe = settle_describe,
	.release = settle_release,
};

static const luaL_Reg core_functions[] = {
	{ "vm_net_set", core_vm_net_set },
	{ "vm_has_agent", core_vm_has_agent },
	{ "vm_is_booting", core_vm_is_booting },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "vm_net_settle", op_settle },
	{ NULL, NULL },
};

void ops_open_guestnet(lua_State *L)
{
	luaL_setfuncs(L, core_functions, 0);
	lua_set_ops(L, core_ops);
}
