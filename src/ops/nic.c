/*
 * Nic: a guest's network card on a bridge, what lua/nic.lua builds on.
 *
 * It is a port of the bridge on one side and a card of the VM on the other. Whatever ends it, the guest's scope,
 * the bridge, a detach, comes to card_remove.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/network.h"

static void port_cb(void *arg, const struct err *e);
static void plugged_cb(void *arg, const struct err *e);
static void removed_cb(void *arg, const struct err *e);
static void renewed_cb(void *arg, const struct err *e);
static void link_cb(void *arg, const struct err *e);
static void card_open(void *arg, struct vm_nic *n);
static int card_fd(void *arg);
static char *card_netdev(void *arg, const char *id, const char *fd);
static void card_given(void *arg);
static void free_later(void *arg);
static const struct nic_ops nic_ops;

#define NIC_TYPE "provium.Nic"

static struct card *check_any_card(lua_State *L, int arg)
{
	struct card **ud = luaL_testudata(L, arg, NIC_TYPE);

	if (!ud)
		args_raise_self(L, arg, "Nic");
	return *ud;
}

static struct card *check_open_card(lua_State *L, int arg)
{
	struct card *c = check_any_card(L, arg);

	if (!c->bridge || c->removing)
		lua_raise(L, "this network card is detached");
	return c;
}

struct card *check_card(lua_State *L, int arg)
{
	struct card *c = check_open_card(L, arg);

	/* Other tasks see it from nic_new() on; its port comes with attach(). */
	if (!c->port)
		lua_raise(L, "this network card is being attached");
	return c;
}

struct card *opt_card(lua_State *L, int arg)
{
	return lua_isnoneornil(L, arg) ? NULL : check_card(L, arg);
}

static char *subject(const struct card *c)
{
	return xasprintf("bridge `%s`: vm `%s`", c->bridge->name, vm_name(c->vm));
}

static struct net_wait *start(lua_State *L, struct card *c, const char *op)
{
	struct net_wait *w = net_wait_new(L, c->bridge->filenet, op, subject(c));

	w->card = c;
	return w;
}

/* ---- being attached ---- */

static void parse_mac(lua_State *L, int arg, uint8_t mac[6])
{
	unsigned v[6];

	INVARIANT(sscanf(luaL_checkstring(L, arg), "%2x:%2x:%2x:%2x:%2x:%2x", &v[0], &v[1], &v[2], &v[3],
		&v[4], &v[5]) == 6);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)v[i];
}

/* nic_new(bridge, vm, mac, slot or -1) -> Nic: not connected before attach() */
static int core_nic_new(lua_State *L)
{
	struct bridge *b = check_bridge(L, 1);
	struct vm *vm = check_vm(L, 2);
	struct guestnet *g = vm_guestnet(L, 2);
	struct err e = ERR_INIT;
	struct card **ud, *c;

	ud = lua_newuserdata(L, sizeof(*ud));
	*ud = c = xcalloc(1, sizeof(*c));
	c->L = state_lua(state_of(L));
	LIST_INIT(&c->captures);
	luaL_getmetatable(L, NIC_TYPE);
	lua_setmetatable(L, -2);
	parse_mac(L, 3, c->mac);
	c->nic = vm_nic_new(vm, (int)luaL_checkinteger(L, 4), c->mac, b->name, &nic_ops, c, &e);
	if (!c->nic) {
		lua_pushfstring(L, "bridge `%s`: attach: vm `%s`: %s", b->name, vm_name(vm), e.msg);
		err_release(&e);
		return lua_raise(L, "%s", lua_tostring(L, -1));
	}
	c->bridge = b;
	c->vm = vm;
	c->scope = vm_scope(L, 2);
	c->streams = &target_mux(vm_target(L, 2))->open_streams;
	LIST_INSERT_HEAD(&b->cards, c, of_bridge);
	LIST_INSERT_HEAD(guestnet_cards(g), c, of_guest);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, c);
	return 1;
}

/* attach(): gets its port, and is plugged into the guest that runs */
static int op_attach(lua_State *L)
{
	struct card *c = check_open_card(L, 1);
	struct net_wait *w = start(L, c, "attach");

	c->adder = w;
	c->port = net_port_new(c->bridge->net, vm_name(c->vm), c->mac, port_cb, c);
	return wait_yield(L, &w->wait);
}

static void attached(struct card *c, const struct err *e)
{
	struct net_wait *w = c->adder;

	c->adder = NULL;
	if (w)
		net_wait_done(w, e);
}

static void port_cb(void *arg, const struct err *e)
{
	struct card *c = arg;

	if (e) {
		attached(c, e);
		return;
	}
	c->fresh = true;
	vm_nic_plug(c->nic, plugged_cb, c);
}

static void plugged_cb(void *arg, const struct err *e)
{
	attached(arg, e);
}

/* ---- what the VM asks for ---- */

static void card_open(void *arg, struct vm_nic *n)
{
	struct card *c = arg;
	struct err e = ERR_INIT;

	if (c->fresh) {
		vm_nic_ready(n, NULL);
	} else if (c->port) {
		net_port_renew(c->port, renewed_cb, c);
	} else {
		err_set(&e, ENOTCONN, "it is being attached to bridge `%s`", c->bridge->name);
		vm_nic_ready(n, &e);
		err_release(&e);
	}
}

static void renewed_cb(void *arg, const struct err *e)
{
	struct card *c = arg;

	if (c->nic)
		vm_nic_ready(c->nic, e);
}

static int card_fd(void *arg)
{
	return net_port_fd(((struct card *)arg)->port);
}

static char *card_netdev(void *arg, const char *id, const char *fd)
{
	return net_port_netdev(((struct card *)arg)->port, id, fd);
}

static void card_given(void *arg)
{
	struct card *c = arg;

	c->fresh = false;
	net_port_given(c->port);
}

/* ---- being taken out ---- */

static void free_if_unused(struct card *c)
{
	if (c->collected && !c->bridge)
		loop_defer(state_loop(state_of(c->L)), free_later, c);
}

static void free_later(void *arg)
{
	free(arg);
}

static void end_wait(struct net_wait **w, const char *why)
{
	struct err e = ERR_INIT;

	if (!*w)
		return;
	err_set(&e, ECANCELED, "%s", why);
	net_wait_done(*w, &e);
	err_release(&e);
	*w = NULL;
}

void card_remove(struct card *c, bool at_once)
{
	struct net *net = filenet_net(c->bridge->filenet);

	if (c->removing)
		return;
	c->removing = true;
	net_forget(net, port_cb, c);
	net_forget(net, renewed_cb, c);
	end_wait(&c->adder, "it was taken out meanwhile");
	end_wait(&c->linker, "it was taken out meanwhile");
	captures_end(&c->captures);
	vm_nic_free(c->nic, at_once, removed_cb, c);
}

static void removed_cb(void *arg, const struct err *e)
{
	struct card *c = arg;
	struct bridge *b = c->bridge;
	struct net_wait *w = c->remover;

	c->nic = NULL;
	c->remover = NULL;
	if (c->port)
		net_port_free(c->port);
	c->port = NULL;
	LIST_REMOVE(c, of_bridge);
	LIST_REMOVE(c, of_guest);
	c->bridge = NULL;
	c->vm = NULL;
	if (w)
		net_wait_done(w, e);
	lua_pushnil(c->L);
	lua_rawsetp(c->L, LUA_REGISTRYINDEX, c);
	bridge_card_gone(b);
	free_if_unused(c);
}

/* remove(): returns when the guest has let go of it */
static int op_remove(lua_State *L)
{
	struct card *c = check_any_card(L, 1);
	struct net_wait *w;

	if (!c->bridge || c->removing)
		return op_return(L, 0);
	w = start(L, c, "detach");
	c->remover = w;
	card_remove(c, false);
	return wait_yield(L, &w->wait);
}

/* drop(): the same in the background */
static int nic_drop(lua_State *L)
{
	struct card *c = check_any_card(L, 1);

	if (c->bridge)
		card_remove(c, false);
	return 0;
}

static int nic_gc(lua_State *L)
{
	struct card **ud = lua_touserdata(L, 1), *c = *ud;

	*ud = NULL;
	c->collected = true;
	if (!c->nic)
		c->bridge = NULL;	/* it never came about */
	free_if_unused(c);
	return 0;
}

/* ---- what can be done with it ---- */

static int nic_is_open(lua_State *L)
{
	struct card *c = check_any_card(L, 1);

	lua_pushboolean(L, c->bridge && !c->removing);
	return 1;
}

static int nic_slot(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)vm_nic_slot(check_open_card(L, 1)->nic));
	return 1;
}

/* set_link(up) */
static int op_set_link(lua_State *L)
{
	struct card *c = check_card(L, 1);
	bool up = lua_toboolean(L, 2);
	struct net_wait *w;

	if (c->linker || c->adder)
		lua_raise(L, "bridge `%s`: vm `%s`: another task is changing this card", c->bridge->name,
			vm_name(c->vm));
	w = start(L, c, up ? "reconnect" : "disconnect");
	c->linker = w;
	vm_nic_set_link(c->nic, up, link_cb, c);
	return wait_yield(L, &w->wait);
}

static void link_cb(void *arg, const struct err *e)
{
	struct card *c = arg;
	struct net_wait *w = c->linker;

	c->linker = NULL;
	if (w)
		net_wait_done(w, e);
}

/* limit(bits a second), 0: none */
static int op_limit(lua_State *L)
{
	struct card *c = check_card(L, 1);
	struct net_wait *w = start(L, c, "set_rate");

	net_port_set_rate(c->port, (uint64_t)luaL_checkinteger(L, 2), net_wait_done, w);
	return wait_yield(L, &w->wait);
}

/* count() -> rx_packets, rx_bytes, tx_packets, tx_bytes, dropped, as the host sees it */
static int op_count(lua_State *L)
{
	struct card *c = check_card(L, 1);
	struct net_wait *w = start(L, c, "counters");

	net_port_counters(c->port, net_wait_counted, net_wait_count(w));
	return wait_yield(L, &w->wait);
}

static int nic_tostring(lua_State *L)
{
	struct card *c = check_any_card(L, 1);

	if (c->bridge)
		lua_pushfstring(L, "Nic (%s on %s)", vm_name(c->vm), c->bridge->name);
	else
		lua_pushliteral(L, "Nic (detached)");
	return 1;
}

static const struct nic_ops nic_ops = {
	.open = card_open, .fd = card_fd, .netdev = card_netdev, .given = card_given,
};

static const luaL_Reg nic_methods[] = {
	{ "is_open", nic_is_open },
	{ "slot", nic_slot },
	{ "drop", nic_drop },
	{ NULL, NULL },
};

static const luaL_Reg nic_lua_ops[] = {
	{ "attach", op_attach },
	{ "remove", op_remove },
	{ "set_link", op_set_link },
	{ "limit", op_limit },
	{ "count", op_count },
	{ NULL, NULL },
};

static const luaL_Reg core_functions[] = {
	{ "nic_new", core_nic_new },
	{ NULL, NULL },
};

void ops_open_nic(lua_State *L)
{
	ops_new_type(L, NIC_TYPE, "Nic", nic_gc, nic_tostring, nic_methods, nic_lua_ops);
	luaL_setfuncs(L, core_functions, 0);
}
