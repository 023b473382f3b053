/*
 * Process: a command that runs on in the guest, made by run_async().
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/command.h"
#include "ops/reply.h"
#include "ops/signals.h"
#include "ops/stream.h"

static void spawn_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void spawn_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void spawn_broken_cb(void *arg, const struct err *e);
static void exit_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void timeout_cb(evutil_socket_t fd, short what, void *arg);
static void linger_cb(evutil_socket_t fd, short what, void *arg);
static void process_undo(struct undo *u);
static const struct wait_kind spawn_kind, exit_kind;
static void attach_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static const struct agent_events spawn_events, attach_events, exit_events;
static const struct stream_source output_source;
static const char *const wait_keys[];

#define PROCESS_TYPE "provium.Process"
#define OUTPUT_MAX ((size_t)64 << 20)		/* collected while a task waits for the end */
#define LINGER_NS INT64_C(1000000000)		/* for output after the exit: a grandchild may hold it open for ever */

struct process;

/* stdout or stderr: collected here for wait(), until a stream takes it. */
struct output {
	struct process *process;
	unsigned number;		/* 1 or 2 */
	struct evbuffer *data;
	struct mark { unsigned era; size_t n; } *marks;	/* when what is in data came, in order */
	size_t nmarks;
	size_t owed;			/* received and not yet credited */
	struct stream *stream;		/* NULL until asked for, and after it is closed */
	bool ended, taken;		/* taken: a stream had it, so wait() does not */
	unsigned taken_era;
};

/* Belongs to its scope until it is closed; freed with its userdata. */
struct process {
	struct target *target;
	struct undo undo;
	struct agent_call *call;	/* the spawn's, for its output; NULL once closed */
	char *text;
	int64_t handle;
	unsigned era;			/* of the guest, when it was started */
	unsigned restores;		/* of its VM, when its output was last asked for */
	unsigned exit_era, broken_era;	/* when that became known, */
	const struct agent *broken_agent;	/* and on which connection; only compared */
	pid_t pid;
	struct output out[2];
	bool closed, exited, timed_out, lingered;
	struct command_exit exit;
	struct err broken;
	struct spawn_wait *starter;	/* the task in run_async, until the agent has answered */
	LIST_HEAD(, exit_wait) waits;
	struct event *linger;
	struct loop *loop;
	lua_State *L;			/* the state's main thread */
};

struct spawn_wait {
	struct wait wait;
	struct process *p;
};

struct exit_wait {
	struct wait wait;
	struct process *p;
	LIST_ENTRY(exit_wait) entry;
	struct agent_call *call;	/* the agent's wait request */
	struct event *timer;
	bool keep, gave_up;
};

/* ---- output ---- */

static void give_credit(struct output *o)
{
	size_t n = o->owed;

	/* Whoever waits for the end wants all of it; otherwise the command waits for a reader. */
	if (!n || !o->process->call ||
	    evbuffer_get_length(o->data) >= (LIST_EMPTY(&o->process->waits) ? STREAM_MAX : OUTPUT_MAX))
		return;
	o->owed = 0;
	agent_call_credit(o->process->call, o->number, n);
}

static void output_consumed(void *arg, size_t n)
{
	struct output *o = arg;

	if (o->process->call)
		agent_call_credit(o->process->call, o->number, n);
}

/* What comes after its stream was closed is dropped: the command must not be stopped by it. */
static void output_closed(void *arg)
{
	((struct output *)arg)->stream = NULL;
}

static bool output_complete(const struct output *o)
{
	return o->ended || o->taken;
}

/* Lets the tasks in wait() go on when the process has exited and its output is there. */
static void check_waits(struct process *p)
{
	struct exit_wait *w;

	if (!p->exited && !p->broken.code)
		return;
	if (!p->broken.code && !p->lingered && !(output_complete(&p->out[0]) && output_complete(&p->out[1]))) {
		if (!p->linger)
			timer_start(p->loop, &p->linger, LINGER_NS, linger_cb, p);
		return;
	}
	while ((w = LIST_FIRST(&p->waits))) {
		LIST_REMOVE(w, entry);
		if (p->exited)
			wait_finish(&w->wait);
		else
			target_fail(&w->wait, p->target, "wait for", p->text, &p->broken);
	}
}

static void linger_cb(evutil_socket_t fd, short what, void *arg)
{
	struct process *p = arg;

	(void)fd, (void)what;
	p->lingered = true;
	check_waits(p);
}

static void note_era(struct output *o, size_t n)
{
	unsigned era = vm_era(o->process->target->vm);

	if (o->nmarks == 0 || o->marks[o->nmarks - 1].era != era) {
		o->marks = xrealloc(o->marks, (o->nmarks + 1) * sizeof(*o->marks));
		o->marks[o->nmarks++] = (struct mark){ .era = era };
	}
	o->marks[o->nmarks - 1].n += n;
}

static void set_broken(struct process *p, const struct err *e)
{
	err_copy(&p->broken, e);
	p->broken_era = vm_era(p->target->vm);
	p->broken_agent = vm_agent(p->target->vm);
}

static void spawn_piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct process *p = arg;
	struct output *o;

	if (stream < 1 || stream > 2)
		return;
	o = &p->out[stream - 1];
	if (!data) {
		o->ended = true;
		if (o->stream)
			stream_end(o->stream, NULL);
		check_waits(p);
	} else if (o->stream) {
		stream_feed(o->stream, data, len);
	} else if (o->taken) {
		agent_call_credit(p->call, o->number, len);
	} else {
		evbuffer_add(o->data, data, len);
		note_era(o, len);
		o->owed += len;
		give_credit(o);
	}
}

static void spawn_broken_cb(void *arg, const struct err *e)
{
	struct process *p = arg;

	set_broken(p, e);
	for (int i = 0; i < 2; i++)
		if (p->out[i].stream)
			stream_end(p->out[i].stream, e);
	check_waits(p);
}

/* ---- the end ---- */

/* After this nothing refers to the VM any more. */
static void close_process(struct process *p)
{
	if (p->closed)
		return;
	p->closed = true;
	for (int i = 0; i < 2; i++)
		if (p->out[i].stream)
			stream_close(p->out[i].stream);
	if (p->handle && !p->broken.code && !target_gone(p->target, p->era))
		request_forget_int(p->target, "release", "handle", p->handle);
	agent_call_free(p->call);
	p->call = NULL;
	timer_stop(&p->linger);
	if (!p->broken.code)
		err_set(&p->broken, EBADF, "the process was closed");
	check_waits(p);
	scope_remove(&p->undo);
	lua_pushnil(p->L);
	lua_rawsetp(p->L, LUA_REGISTRYINDEX, p);
}

static void process_undo(struct undo *u)
{
	close_process((struct process *)((char *)u - offsetof(struct process, undo)));
}

static int process_gc(lua_State *L)
{
	struct process **ud = lua_touserdata(L, 1), *p = *ud;

	if (!p)
		return 0;
	*ud = NULL;
	for (int i = 0; i < 2; i++) {
		evbuffer_free(p->out[i].data);
		free(p->out[i].marks);
	}
	err_release(&p->broken);
	free(p->text);
	free(p);
	return 0;
}

/* ---- starting ---- */

/* run_async(cmd, ...) -> Process */
static int op_run_async(lua_State *L)
{
	struct target *t = check_target(L, 1, "run_async");
	struct scope *scope = ops_scope(L);
	struct command c;
	struct process **ud, *p;
	struct spawn_wait *w;

	command_check(L, "vm:run_async", false, &c);
	ud = lua_newuserdata(L, sizeof(*ud));
	*ud = NULL;
	luaL_getmetatable(L, PROCESS_TYPE);
	lua_setmetatable(L, -2);
	w = wait_new(L, &spawn_kind, sizeof(*w));
	*ud = w->p = p = xcalloc(1, sizeof(*p));
	p->target = t;
	p->era = vm_era(t->vm);
	p->restores = vm_restores(t->vm);
	p->loop = state_loop(state_of(L));
	p->L = state_lua(state_of(L));
	p->text = xstrdup(c.text);
	p->starter = w;
	LIST_INIT(&p->waits);
	for (unsigned i = 0; i < 2; i++)
		p->out[i] = (struct output){ .process = p, .number = i + 1, .data = evbuffer_new() };
	scope_add(scope, &p->undo, RANK_PROCESS, process_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, p);
	p->call = agent_call(vm_agent(t->vm), t->channel, "spawn", c.params, true, &spawn_events, p);
	return wait_yield(L, &w->wait);
}

static void spawn_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct process *p = arg;
	struct spawn_wait *w = p->starter;

	p->starter = NULL;
	if (e) {
		if (w)
			target_fail(&w->wait, p->target, "run_async", p->text, e);
		err_copy(&p->broken, e);
		close_process(p);
		return;
	}
	p->handle = reply_int(o, "handle", 0);
	p->pid = (pid_t)reply_int(o, "pid", 0);
	if (w)
		wait_finish(&w->wait);
}

static int spawn_push(struct wait *wait, lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, ((struct spawn_wait *)wait)->p);
	return 1;
}

/* Freeing the call makes the agent kill what it has started. */
static void spawn_cancel(struct wait *wait)
{
	struct spawn_wait *w = (struct spawn_wait *)wait;

	w->p->starter = NULL;
	close_process(w->p);
}

static void spawn_describe(struct wait *wait, char *buf, size_t size)
{
	struct spawn_wait *w = (struct spawn_wait *)wait;

	snprintf(buf, size, "vm \"%s\": run_async \"%.200s\"", vm_name(w->p->target->vm), w->p->text);
}

/* ---- restores ---- */

/* What has come after the snapshot is dropped where it is looked at, by its marks. */
static void output_again(struct output *o)
{
	if (o->taken && !vm_era_alive(o->process->target->vm, o->taken_era)) {
		if (o->stream)
			stream_close(o->stream);
		o->stream = NULL;
		o->taken = false;
	}
	o->owed = 0;
	o->ended = false;
}

/* The connection that its output came by is gone with the former life: it is asked for on the new one. */
static void listen_again(struct process *p)
{
	struct vm *vm = p->target->vm;
	msgpack_sbuffer b;
	msgpack_packer pk;

	p->restores = vm_restores(vm);
	output_again(&p->out[0]);
	output_again(&p->out[1]);
	agent_call_free(p->call);
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 1);
	pack_int(&pk, "handle", p->handle);
	p->call = agent_call(vm_agent(vm), p->target->channel, "attach", &b, true, &attach_events, p);
	msgpack_sbuffer_destroy(&b);
}

static void attach_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	(void)o;
	if (e)
		spawn_broken_cb(arg, e);
}

/*
 * A restore takes back what has happened since the snapshot: a process that was there lives again, and its end was never
 * known. What it prints until somebody asks for it is lost.
 */
static void catch_up(struct process *p)
{
	struct vm *vm = p->target->vm;

	if (p->closed || target_gone(p->target, p->era))
		return;
	if (p->exited && !vm_era_alive(vm, p->exit_era)) {
		p->exited = p->timed_out = p->lingered = false;
		timer_stop(&p->linger);
	}
	if (p->handle && p->restores != vm_restores(vm) && vm_state(vm) == VM_BOOTED && vm_agent(vm)) {
		err_release(&p->broken);
		listen_again(p);
	} else if (p->broken.code && vm_agent(vm) && (p->broken_era != vm_era(vm) || p->broken_agent != vm_agent(vm))) {
		err_release(&p->broken);
		agent_call_free(p->call);
		p->call = NULL;
		p->out[0].ended = p->out[1].ended = true;
	}
}

/* Whether what came then is output of the process as it is now. What is gone keeps what it had. */
static bool mark_counts(const struct output *o, const struct mark *m)
{
	const struct process *p = o->process;

	return target_gone(p->target, p->era) || vm_era_alive(p->target->vm, m->era);
}

/* What was received, for a stream that goes on with it. */
static void drop_undone(struct output *o)
{
	struct evbuffer *all = o->data;

	o->data = evbuffer_new();
	for (size_t i = 0; i < o->nmarks; i++) {
		if (mark_counts(o, &o->marks[i]))
			evbuffer_remove_buffer(all, o->data, o->marks[i].n);
		else
			evbuffer_drain(all, o->marks[i].n);
	}
	evbuffer_free(all);
}

/* ---- methods ---- */

static struct process *check_process(lua_State *L)
{
	struct process **ud = luaL_testudata(L, 1, PROCESS_TYPE);

	if (!ud || !*ud)
		args_raise_self(L, 1, "Process");
	catch_up(*ud);
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
		opt_duration(L, 2, "proc:wait", "timeout", &ns);
		opt_bool(L, 2, "proc:wait", "keep", &keep);
	} else {
		ns = args_duration(L, 2, "proc:wait: timeout", -1);
		if (opt_check(L, 3, "proc:wait", wait_keys))
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
		if (!keep)
			close_stdin(p);
		w->call = agent_call(vm_agent(p->target->vm), p->target->channel, "wait", b, false, &exit_events, w);
		if (ns > 0)
			timer_start(p->loop, &w->timer, ns, timeout_cb, w);
		give_credit(&p->out[0]);
		give_credit(&p->out[1]);
	}
	check_waits(p);
	return wait_yield(L, &w->wait);
}

static void exit_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct exit_wait *w = arg;
	struct process *p = w->p;

	if (w->wait.finished)
		return;
	if (e) {
		set_broken(p, e);
	} else {
		command_exit_decode(o, &p->exit);
		if (p->timed_out)
			p->exit.status = "timed_out";
		p->exited = true;
		p->exit_era = vm_era(p->target->vm);
	}
	check_waits(p);
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
		if (mark_counts(o, &o->marks[i]))
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
	msgpack_sbuffer *b = push_params(L, p, &pk, 3);

	pack_bin(&pk, "data", "", 0);
	pack_bool(&pk, "eof", true);
	return request_start(L, p->target, "stdin", p->text, b, NULL);
}

static int process_stream(lua_State *L, int i)
{
	struct process *p = check_open(L);
	struct output *o = &p->out[i];
	size_t n;

	if (!o->taken) {
		o->stream = stream_new(L, &output_source, o, &target_mux(p->target)->open_streams);
		stream_label(o->stream, "%s_stream() of `%s`", i == 0 ? "stdout" : "stderr", p->text);
		o->taken = true;
		o->taken_era = vm_era(p->target->vm);
		stream_push(L, o->stream);
		drop_undone(o);
		o->nmarks = 0;
		n = evbuffer_get_length(o->data);
		/* The stream credits what it is fed; what was credited before it came is not its own. */
		if (n)
			stream_adopt(o->stream, o->data, o->owed);
		o->owed = 0;
		if (o->ended)
			stream_end(o->stream, NULL);
		return 1;
	}
	if (!o->stream)
		lua_raise(L, "the stream of %s was closed", i == 0 ? "stdout" : "stderr");
	stream_push(L, o->stream);
	return 1;
}

static int process_stdout_stream(lua_State *L)
{
	return process_stream(L, 0);
}

static int process_stderr_stream(lua_State *L)
{
	return process_stream(L, 1);
}

static int process_pid(lua_State *L)
{
	lua_pushinteger(L, check_process(L)->pid);
	return 1;
}

static int process_handle(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_process(L)->handle);
	return 1;
}

static int process_close(lua_State *L)
{
	close_process(check_process(L));
	return 0;
}

static int process_tostring(lua_State *L)
{
	struct process *p = check_process(L);

	lua_pushfstring(L, "Process (%s, pid %d)", p->text, (int)p->pid);
	return 1;
}

static const struct agent_events spawn_events = {
	.reply = spawn_reply_cb,
	.piece = spawn_piece_cb,
	.broken = spawn_broken_cb,
};

static const struct agent_events attach_events = {
	.reply = attach_reply_cb,
	.piece = spawn_piece_cb,
	.broken = spawn_broken_cb,
};

static const struct agent_events exit_events = {
	.reply = exit_reply_cb,
};

static const struct stream_source output_source = {
	.kind = "process",
	.consumed = output_consumed,
	.closed = output_closed,
};

static const struct wait_kind spawn_kind = {
	.name = "vm:run_async",
	.cancel = spawn_cancel,
	.push = spawn_push,
	.describe = spawn_describe,
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
	{ "pid", process_pid },
	{ "handle", process_handle },
	{ "stdout_stream", process_stdout_stream },
	{ "stderr_stream", process_stderr_stream },
	{ "close", process_close },
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
	{ "run_async", op_run_async },
	{ NULL, NULL },
};

void ops_open_process(lua_State *L)
{
	ops_new_type(L, PROCESS_TYPE, "Process", process_gc, process_tostring, process_methods, process_ops);
	ops_add_target_ops(L, target_ops);
}
