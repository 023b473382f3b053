/*
 * What tests call on a Process (process.h).
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "ops/args.h"
#include "ops/openers.h"
#include "ops/process.h"
#include "ops/reply.h"
#include "ops/signals.h"

static void timeout_cb(evutil_socket_t fd, short what, void *arg);
static void exit_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static const struct wait_kind exit_kind;
static const struct agent_events exit_events;
static const char *const wait_keys[];

static struct process *check_process(lua_State *L)
{
	struct process **ud = luaL_testudata(L, 1, PROCESS_TYPE);

	if (!ud || !*ud)
		args_raise_self(L, 1, "Process");
	process_catch_up(*ud);
	return *ud;
}

static struct process *check_open(lua_State *L)
{
	struct process *p = check_process(L);

	if (p->closed)
		lua_raise(L, "process is closed");
	return p;
}

/* One that a request can be sent about. */
static struct process *check_live(lua_State *L, const char *op)
{
	struct process *p = check_open(L);

	target_require(L, p->target, p->era, "process", op);
	return p;
}

/* What a request for this process starts with: {handle, ...} in a map of n entries. */
static msgpack_sbuffer *push_params(lua_State *L, struct process *p, msgpack_packer *pk, size_t n)
{
	msgpack_sbuffer *b = sbuffer_push(L);

	msgpack_packer_init(pk, b, msgpack_sbuffer_write);
	msgpack_pack_map(pk, n);
	pack_int(pk, "handle", p->handle);
	return b;
}

static void close_stdin(struct process *p)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 3);
	pack_int(&pk, "handle", p->handle);
	pack_bin(&pk, "data", "", 0);
	pack_bool(&pk, "eof", true);
	request_forget(p->target, "stdin", &b);
	msgpack_sbuffer_destroy(&b);
}

/* wait([timeout | {timeout=, keep=}]) -> RunResult; nil with keep when it runs on */
static int op_wait(lua_State *L)
{
	struct process *p = check_process(L);
	int64_t ns = -1;
	bool keep = false;
	struct exit_wait *w;
	msgpack_sbuffer *b;
	msgpack_packer pk;

	if (lua_istable(L, 2) && opt_check(L, 2, "proc:wait", wait_keys)) {
		args_max(L, 2, "proc:wait({timeout=, keep=})");
		opt_duration(L, 2, "proc:wait", "timeout", &ns);
		opt_bool(L, 2, "proc:wait", "keep", &keep);
	} else {
		args_max(L, 3, "proc:wait([timeout [, {keep=}]])");
		ns = args_duration(L, 2, "proc:wait: timeout", -1);
		if (opt_check(L, 3, "proc:wait", wait_keys + 1))
			opt_bool(L, 3, "proc:wait", "keep", &keep);
	}
	if (ns == 0)
		lua_raise(L, "proc:wait: a timeout of 0 would wait for nothing; use proc:status() to poll");
	if (!p->exited && !p->broken.code)
		check_live(L, "wait for a process");
	else if (!p->exited)
		check_open(L);
	b = push_params(L, p, &pk, 1);
	w = wait_new(L, &exit_kind, sizeof(*w));
	w->p = p;
	w->keep = keep;
	LIST_INSERT_HEAD(&p->waits, w, entry);
	if (!p->exited && !p->broken.code) {
		if (!keep && !p->input.wanted)
			close_stdin(p);
		w->call = agent_call(vm_agent(p->target->vm), p->target->channel, "wait", b, false, &exit_events, w);
		if (ns > 0)
			timer_start(p->loop, &w->timer, ns, timeout_cb, w);
		output_give_credit(&p->out[0]);
		output_give_credit(&p->out[1]);
	}
	process_check_waits(p);
	return wait_yield(L, &w->wait);
}

static void exit_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct exit_wait *w = arg;
	struct process *p = w->p;

	if (w->wait.finished)
		return;
	if (e) {
		process_set_broken(p, e);
	} else {
		command_exit_decode(o, &p->exit);
		if (p->timed_out)
			p->exit.status = "timed_out";
		p->exited = true;
		p->exit_era = vm_era(p->target->vm);
	}
	process_check_waits(p);
}

/* The process group is killed, and what it printed before is the result; or, with keep, it is left alone. */
static void timeout_cb(evutil_socket_t fd, short what, void *arg)
{
	struct exit_wait *w = arg;
	msgpack_sbuffer b;
	msgpack_packer pk;

	(void)fd, (void)what;
	if (w->keep) {
		w->gave_up = true;
		LIST_REMOVE(w, entry);
		wait_finish(&w->wait);
		return;
	}
	w->p->timed_out = true;
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 3);
	pack_int(&pk, "handle", w->p->handle);
	pack_int(&pk, "signal", SIGKILL);
	pack_bool(&pk, "group", true);
	request_forget(w->p->target, "signal", &b);
	msgpack_sbuffer_destroy(&b);
}

static void push_output(lua_State *L, struct output *o, const char *field)
{
	const char *data = evbuffer_get_length(o->data) ? (const char *)evbuffer_pullup(o->data, -1) : NULL;
	luaL_Buffer b;

	luaL_buffinit(L, &b);
	for (size_t i = 0; data && i < o->nmarks; data += o->marks[i++].n)
		if (output_mark_counts(o, &o->marks[i]))
			luaL_addlstring(&b, data, o->marks[i].n);
	luaL_pushresult(&b);
	lua_setfield(L, -2, field);
}

static int exit_push(struct wait *wait, lua_State *L)
{
	struct exit_wait *w = (struct exit_wait *)wait;

	if (w->gave_up)
		return 0;
	command_result_push(L, &w->p->exit, w->p->text);
	push_output(L, &w->p->out[0], "stdout");
	push_output(L, &w->p->out[1], "stderr");
	return 1;
}

static void exit_cancel(struct wait *wait)
{
	LIST_REMOVE((struct exit_wait *)wait, entry);
}

static void exit_describe(struct wait *wait, char *buf, size_t size)
{
	struct exit_wait *w = (struct exit_wait *)wait;

	snprintf(buf, size, "vm \"%s\": the end of \"%.200s\"", vm_name(w->p->target->vm), w->p->text);
}

static void exit_release(struct wait *wait)
{
	struct exit_wait *w = (struct exit_wait *)wait;

	agent_call_free(w->call);
	timer_stop(&w->timer);
}

static int send_signal(lua_State *L, const char *what, int sig)
{
	struct process *p = check_live(L, "signal a process");
	msgpack_packer pk;
	msgpack_sbuffer *b = push_params(L, p, &pk, 3);

	pack_int(&pk, "signal", sig);
	pack_bool(&pk, "group", true);
	return request_start(L, p->target, "signal", what, b, NULL);
}

/* kill([sig="term"]): to the process group */
static int op_kill(lua_State *L)
{
	return send_signal(L, "kill", signal_check(L, 2, "proc:kill", SIGTERM));
}

/* signal(sig) */
static int op_signal(lua_State *L)
{
	if (lua_isnoneornil(L, 2))
		args_raise(L, "proc:signal(name or number)", 2);
	return send_signal(L, "signal", signal_check(L, 2, "proc:signal", 0));
}

static int push_status(lua_State *L, const msgpack_object *o)
{
	const msgpack_object *running = map_get(o, "running");

	lua_pushstring(L, running && running->type == MSGPACK_OBJECT_BOOLEAN && running->via.boolean ? "running" : "exited");
	return 1;
}

/* status() -> "running" or "exited" */
static int op_status(lua_State *L)
{
	struct process *p = check_process(L);
	msgpack_sbuffer *b;
	msgpack_packer pk;

	if (p->exited) {
		lua_pushliteral(L, "exited");
		return op_return(L, 1);
	}
	check_live(L, "ask for a process's status");
	b = push_params(L, p, &pk, 1);
	return request_start(L, p->target, "status", p->text, b, push_status);
}

static int push_written(lua_State *L, const msgpack_object *o)
{
	lua_pushinteger(L, (lua_Integer)reply_int(o, "written", 0));
	return 1;
}

/* stdin_write(data) -> bytes: all of it */
static int op_stdin_write(lua_State *L)
{
	struct process *p = check_live(L, "write to a process");
	size_t len;
	const char *data = args_string(L, 2, "proc:stdin_write(string)", &len);
	msgpack_packer pk;
	msgpack_sbuffer *b = push_params(L, p, &pk, 2);

	pack_bin(&pk, "data", data, len);
	return request_start(L, p->target, "stdin", p->text, b, push_written);
}

/* close_stdin() */
static int op_close_stdin(lua_State *L)
{
	struct process *p = check_live(L, "close a process's stdin");
	msgpack_packer pk;
	msgpack_sbuffer *b;

	if (p->input.wanted)
		return op_return(L, 0);		/* it is, behind what was given */
	b = push_params(L, p, &pk, 3);
	pack_bin(&pk, "data", "", 0);
	pack_bool(&pk, "eof", true);
	return request_start(L, p->target, "stdin", p->text, b, NULL);
}

static int proc_stream(lua_State *L, int i)
{
	struct process *p = check_open(L);

	if (!output_push_stream(&p->out[i], L))
		lua_raise(L, "the stream of %s was closed", i == 0 ? "stdout" : "stderr");
	return 1;
}

static int proc_stdout_stream(lua_State *L)
{
	return proc_stream(L, 0);
}

static int proc_stderr_stream(lua_State *L)
{
	return proc_stream(L, 1);
}

static int proc_pid(lua_State *L)
{
	lua_pushinteger(L, check_process(L)->pid);
	return 1;
}

static int proc_handle(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_process(L)->handle);
	return 1;
}

static int proc_close(lua_State *L)
{
	process_close(check_process(L));
	return 0;
}

static int proc_gc(lua_State *L)
{
	struct process **ud = lua_touserdata(L, 1);

	if (*ud)
		process_free(*ud);
	*ud = NULL;
	return 0;
}

static int proc_tostring(lua_State *L)
{
	struct process *p = check_process(L);

	lua_pushfstring(L, "Process (%s, pid %d)", p->text, (int)p->pid);
	return 1;
}

static const struct agent_events exit_events = {
	.reply = exit_reply_cb,
};

static const struct wait_kind exit_kind = {
	.name = "proc:wait",
	.cancel = exit_cancel,
	.push = exit_push,
	.describe = exit_describe,
	.release = exit_release,
};

static const char *const wait_keys[] = { "timeout", "keep", NULL };

static const luaL_Reg process_methods[] = {
	{ "pid", proc_pid },
	{ "handle", proc_handle },
	{ "stdout_stream", proc_stdout_stream },
	{ "stderr_stream", proc_stderr_stream },
	{ "close", proc_close },
	{ NULL, NULL },
};

static const luaL_Reg process_ops[] = {
	{ "wait", op_wait },
	{ "kill", op_kill },
	{ "signal", op_signal },
	{ "status", op_status },
	{ "stdin_write", op_stdin_write },
	{ "close_stdin", op_close_stdin },
	{ NULL, NULL },
};

static const luaL_Reg target_ops[] = {
	{ "run_async", process_start },
	{ NULL, NULL },
};

void ops_open_process(lua_State *L)
{
	ops_new_type(L, PROCESS_TYPE, "Process", proc_gc, proc_tostring, process_methods, process_ops);
	ops_add_target_ops(L, target_ops);
}
