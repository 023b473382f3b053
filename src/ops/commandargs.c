/*
 * A command's forms and options in Lua, packed into the agent's request; its exit decoded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/command.h"
#include "ops/reply.h"

static const char *const run_keys[], *const async_keys[];

/* The three forms: how argv is made. */
enum form { SHELL_LINE, PROGRAM_AND_LIST, LIST };

struct parse {
	lua_State *L;
	const char *what;
	enum form form;
	int list;		/* stack index of the argument list, 0: none */
	int options;		/* stack index of the option table, 0: none */
};

static int raise_signature(lua_State *L, const char *what, int arg)
{
	char signature[160];

	snprintf(signature, sizeof(signature), "%s(string [, table]), %s(program, {args}) or %s({program, args})", what,
		what, what);
	return args_raise(L, signature, arg);
}

/* An array, or an empty table. */
static bool is_list(lua_State *L, int index)
{
	bool empty;

	if (lua_rawlen(L, index) > 0)
		return true;
	lua_pushnil(L);
	empty = !lua_next(L, index);
	if (!empty)
		lua_pop(L, 2);
	return empty;
}

static void check_strings(struct parse *p, int index, const char *name)
{
	lua_State *L = p->L;
	int n = (int)lua_rawlen(L, index);
	lua_Number i;

	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
		i = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
		if (i < 1 || i > n || i != (int)i) {
			lua_pushvalue(L, -2);
			lua_raise(L, "%s: %s: unexpected key `%s` in the list (options go into a table of their own)", p->what, name,
				luaL_tolstring(L, -1, NULL));
		}
		if (!lua_isstring(L, -1))
			lua_raise(L, "%s: %s: item %d must be a string, got a %s", p->what, name, (int)i, luaL_typename(L, -1));
	}
}

/* The last argument, if it is there. */
static void take_options(struct parse *p, int arg)
{
	lua_State *L = p->L;

	if (lua_istable(L, arg))
		p->options = arg;
	else if (!lua_isnoneornil(L, arg))
		raise_signature(L, p->what, arg);
	if (!lua_isnoneornil(L, arg + 1))
		raise_signature(L, p->what, arg + 1);
	if (p->list && p->options && opt_push(L, arg, "args"))
		lua_raise(L, "%s: option `args` beside a list of arguments", p->what);
}

static void find_form(struct parse *p)
{
	lua_State *L = p->L;

	if (lua_istable(L, 2)) {
		p->form = LIST;
		p->list = 2;
		if (lua_rawlen(L, 2) == 0)
			lua_raise(L, "%s: the list has no program", p->what);
		take_options(p, 3);
		return;
	}
	if (lua_type(L, 2) != LUA_TSTRING)
		raise_signature(L, p->what, 2);
	if (lua_istable(L, 3) && is_list(L, 3)) {
		p->form = PROGRAM_AND_LIST;
		p->list = 3;
		take_options(p, 4);
		return;
	}
	take_options(p, 3);
	if (p->options && opt_push(L, 3, "args")) {
		if (!lua_istable(L, -1))
			opt_raise(L, p->what, "args", "an array", -1);
		p->form = PROGRAM_AND_LIST;
		p->list = lua_gettop(L);	/* stays on the stack */
	}
}

/* Guest paths, arguments and environments are bytes: str when they could be text is not worth a check. */
static void pack_string_at(msgpack_packer *pk, lua_State *L, int index)
{
	size_t n;
	const char *s = lua_tolstring(L, index, &n);

	msgpack_pack_str_with_body(pk, s, n);
}

static void pack_argv(struct parse *p, msgpack_packer *pk)
{
	lua_State *L = p->L;
	size_t n = p->list ? lua_rawlen(L, p->list) : 0;

	pack_key(pk, "argv");
	if (p->form == SHELL_LINE) {
		msgpack_pack_array(pk, 3);
		pack_text(pk, "/bin/sh");
		pack_text(pk, "-c");
		pack_string_at(pk, L, 2);
		return;
	}
	msgpack_pack_array(pk, n + (p->form == PROGRAM_AND_LIST));
	if (p->form == PROGRAM_AND_LIST)
		pack_string_at(pk, L, 2);
	for (size_t i = 1; i <= n; i++) {
		lua_rawgeti(L, p->list, (int)i);
		pack_string_at(pk, L, -1);
		lua_pop(L, 1);
	}
}

static void pack_env(struct parse *p, msgpack_packer *pk)
{
	lua_State *L = p->L;
	size_t n = 0;

	lua_pushnil(L);
	while (lua_next(L, -2)) {
		if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1))
			lua_raise(L, "%s: option `env` must map names to strings, got a %s for a %s", p->what,
				luaL_typename(L, -1), luaL_typename(L, -2));
		n++;
		lua_pop(L, 1);
	}
	pack_key(pk, "env");
	msgpack_pack_map(pk, n);
	lua_pushnil(L);
	while (lua_next(L, -2)) {
		pack_string_at(pk, L, -2);
		pack_string_at(pk, L, -1);
		lua_pop(L, 1);
	}
}

/* The options, checked, and how many of them go to the agent. */
struct options {
	bool env, env_clear, tty, has_timeout;
	const char *cwd, *user;
	int64_t timeout;
	unsigned count;
};

static void read_options(struct parse *p, bool takes_timeout, struct options *o, struct command *c)
{
	lua_State *L = p->L;
	int64_t ms;

	if (!takes_timeout && p->options && (opt_push(L, p->options, "timeout") || opt_push(L, p->options, "timeout_ms")))
		lua_raise(L, "%s takes no timeout: give it to proc:wait(timeout)", p->what);
	if (!opt_check(L, p->options ? p->options : lua_gettop(L) + 1, p->what, takes_timeout ? run_keys : async_keys))
		return;
	if (opt_push(L, p->options, "env")) {
		if (!lua_istable(L, -1))
			opt_raise(L, p->what, "env", "a table", -1);
		o->env = true;
		lua_pop(L, 1);
	}
	opt_bool(L, p->options, p->what, "env_clear", &o->env_clear);
	opt_bool(L, p->options, p->what, "tty", &o->tty);
	opt_string(L, p->options, p->what, "cwd", &o->cwd, NULL);
	opt_string(L, p->options, p->what, "user", &o->user, NULL);
	opt_string(L, p->options, p->what, "stdin", &c->stdin_data, &c->stdin_len);
	c->has_max_output = opt_size(L, p->options, p->what, "max_output", &c->max_output);
	o->has_timeout = opt_duration(L, p->options, p->what, "timeout", &o->timeout);
	if (opt_integer(L, p->options, p->what, "timeout_ms", 0, INT64_MAX / 1000000, &ms)) {
		if (o->has_timeout)
			lua_raise(L, "%s: `timeout` and `timeout_ms` exclude each other", p->what);
		o->has_timeout = true;
		o->timeout = ms * 1000000;
	}
	o->count = o->env + o->env_clear + o->tty + !!o->cwd + !!o->user + !!c->stdin_data + o->has_timeout;
}

static void pack_options(struct parse *p, msgpack_packer *pk, const struct options *o, const struct command *c)
{
	lua_State *L = p->L;

	if (o->env) {
		lua_getfield(L, p->options, "env");
		pack_env(p, pk);
		lua_pop(L, 1);
	}
	if (o->env_clear)
		pack_bool(pk, "env_clear", true);
	if (o->tty)
		pack_bool(pk, "tty", true);
	if (o->cwd)
		pack_str(pk, "cwd", o->cwd);
	if (o->user)
		pack_str(pk, "user", o->user);
	if (c->stdin_data)
		pack_bool(pk, "stdin", true);
	if (o->has_timeout)
		pack_int(pk, "timeout", o->timeout);
}

/* Pushes "prog arg arg" for messages. */
static const char *push_text(struct parse *p)
{
	lua_State *L = p->L;
	luaL_Buffer b;
	const char *s;
	size_t n;

	if (p->form == SHELL_LINE)
		return lua_tostring(L, 2);
	luaL_buffinit(L, &b);
	if (p->form == PROGRAM_AND_LIST) {
		s = lua_tolstring(L, 2, &n);
		luaL_addlstring(&b, s, n);
	}
	for (int i = 1; i <= (int)lua_rawlen(L, p->list); i++) {
		if (i > 1 || p->form == PROGRAM_AND_LIST)
			luaL_addchar(&b, ' ');
		lua_rawgeti(L, p->list, i);
		luaL_addvalue(&b);
	}
	luaL_pushresult(&b);
	return lua_tostring(L, -1);
}

void command_check(lua_State *L, const char *what, bool takes_timeout, struct command *c)
{
	struct parse p = { .L = L, .what = what };
	struct options o = { 0 };
	msgpack_sbuffer *buffer;
	msgpack_packer pk;

	memset(c, 0, sizeof(*c));
	if (lua_gettop(L) > 4)
		lua_raise(L, "%s: too many arguments (%d)", what, lua_gettop(L) - 1);
	find_form(&p);
	if (p.list)
		check_strings(&p, p.list, "the arguments");
	read_options(&p, takes_timeout, &o, c);
	buffer = sbuffer_push(L);
	msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1 + o.count);
	pack_argv(&p, &pk);
	pack_options(&p, &pk, &o, c);
	c->params = buffer;
	c->text = push_text(&p);
}

void command_input_init(struct command_input *in, const char *data, size_t len)
{
	*in = (struct command_input){ .wanted = data != NULL, .len = len };
	if (!data)
		return;
	in->data = xmalloc(len + 1);
	memcpy(in->data, data, len);
}

void command_input_feed(struct command_input *in, struct agent_call *call)
{
	size_t n;

	if (!in->wanted || in->ended)
		return;
	while (in->sent < in->len && (n = agent_call_send(call, in->data + in->sent, in->len - in->sent)) > 0)
		in->sent += n;
	if (in->sent == in->len) {
		in->ended = true;
		agent_call_send(call, NULL, 0);
	}
}

void command_input_release(struct command_input *in)
{
	free(in->data);
	in->data = NULL;
}

void command_exit_decode(const msgpack_object *o, struct command_exit *ex)
{
	static const char *const names[] = { "exited", "signalled", "timed_out" };
	char status[16] = "";

	reply_str(o, "status", status, sizeof(status));
	ex->status = names[0];
	for (int i = 0; i < 3; i++)
		if (strcmp(status, names[i]) == 0)
			ex->status = names[i];
	ex->code = (int)reply_int(o, "code", 0);
	ex->signal = (int)reply_int(o, "signal", 0);
	ex->duration = (double)reply_int(o, "duration", 0) / 1e9;
}

void command_result_push(lua_State *L, const struct command_exit *ex, const char *text)
{
	bool exited = strcmp(ex->status, "exited") == 0, timed_out = strcmp(ex->status, "timed_out") == 0;

	lua_createtable(L, 0, 8);
	lua_getfield(L, LUA_REGISTRYINDEX, "provium.RunResult");
	lua_setmetatable(L, -2);
	lua_pushinteger(L, exited ? ex->code : timed_out ? -2 : -1);
	lua_setfield(L, -2, "exit_code");
	lua_pushstring(L, ex->status);
	lua_setfield(L, -2, "status");
	if (!exited && ex->signal) {
		lua_pushinteger(L, ex->signal);
		lua_setfield(L, -2, "signal");
	}
	lua_pushboolean(L, timed_out);
	lua_setfield(L, -2, "timed_out");
	lua_pushnumber(L, ex->duration);
	lua_setfield(L, -2, "duration");
	lua_pushstring(L, text);
	lua_setfield(L, -2, "command");
}

static const char *const run_keys[] = {
	"args", "env", "env_clear", "cwd", "stdin", "timeout", "timeout_ms", "tty", "user", "max_output", NULL,
};

static const char *const async_keys[] = {
	"args", "env", "env_clear", "cwd", "stdin", "tty", "user", NULL,
};
