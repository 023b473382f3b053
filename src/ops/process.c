/*
 * What a process in the guest does here: its start, its output, its end, and what a restore takes back of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/process.h"
#include "ops/reply.h"

static void linger_cb(evutil_socket_t fd, short what, void *arg);
static void process_undo(struct undo *u);
static void spawn_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void spawn_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void spawn_writable_cb(void *arg);
static void spawn_broken_cb(void *arg, const struct err *e);
static void attach_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static const struct wait_kind spawn_kind;
static const struct agent_events spawn_events, attach_events;
static const struct stream_source output_source;

#define OUTPUT_MAX ((size_t)64 << 20)		/* collected while a task waits for the end */
#define LINGER_NS INT64_C(1000000000)		/* for output after the exit: a grandchild may hold it open for ever */

struct spawn_wait {
	struct wait wait;
	struct process *p;
};

/* ---- output ---- */

void output_give_credit(struct output *o)
{
	size_t n = o->owed;

	/* Whoever waits for the end wants all of it; otherwise the command waits for a reader. */
	if (!n || !o->process->call ||
	    evbuffer_get_length(o->data) > (LIST_EMPTY(&o->process->waits) ? STREAM_MAX - 1 : OUTPUT_MAX))
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

/* Nothing more is taken from the guest, so that the command would never end. */
static void refuse_output(struct process *p)
{
	struct exit_wait *w;
	unsigned full = 0;

	for (unsigned i = 0; i < 2; i++)
		if (evbuffer_get_length(p->out[i].data) > OUTPUT_MAX)
			full = i + 1;
	while (full && (w = LIST_FIRST(&p->waits))) {
		LIST_REMOVE(w, entry);
		wait_fail(&w->wait, EMSGSIZE, "vm `%s`: wait for `%s`: more than %zu bytes on %s; read them with "
			"proc:%s_stream(), or redirect the output to a file in the guest", vm_name(p->target->vm), p->text,
			OUTPUT_MAX, full == 1 ? "stdout" : "stderr", full == 1 ? "stdout" : "stderr");
	}
}

void process_check_waits(struct process *p)
{
	struct exit_wait *w;

	if (!p->exited && !p->broken.code) {
		refuse_output(p);
		return;
	}
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
	process_check_waits(p);
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

void process_set_broken(struct process *p, const struct err *e)
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
		process_check_waits(p);
	} else if (o->stream) {
		stream_feed(o->stream, data, len);
	} else if (o->taken) {
		agent_call_credit(p->call, o->number, len);
	} else {
		evbuffer_add(o->data, data, len);
		note_era(o, len);
		o->owed += len;
		output_give_credit(o);
		process_check_waits(p);
	}
}

static void spawn_broken_cb(void *arg, const struct err *e)
{
	struct process *p = arg;

	process_set_broken(p, e);
	for (int i = 0; i < 2; i++)
		if (p->out[i].stream)
			stream_end(p->out[i].stream, e);
	process_check_waits(p);
}

bool output_mark_counts(const struct output *o, const struct mark *m)
{
	const struct process *p = o->process;

	return p->closed || target_gone(p->target, p->era) || vm_era_alive(p->target->vm, m->era);
}

/* What was received, for a stream that goes on with it. */
static void drop_undone(struct output *o)
{
	struct evbuffer *all = o->data;

	o->data = evbuffer_new();
	for (size_t i = 0; i < o->nmarks; i++) {
		if (output_mark_counts(o, &o->marks[i]))
			evbuffer_remove_buffer(all, o->data, o->marks[i].n);
		else
			evbuffer_drain(all, o->marks[i].n);
	}
	evbuffer_free(all);
}

bool output_push_stream(struct output *o, lua_State *L)
{
	struct process *p = o->process;
	size_t n;

	if (o->taken) {
		if (o->stream)
			stream_push(L, o->stream);
		return o->stream != NULL;
	}
	o->stream = stream_new(L, &output_source, o, &target_mux(p->target)->open_streams);
	stream_label(o->stream, "%s_stream() of `%s`", o->number == 1 ? "stdout" : "stderr", p->text);
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
	return true;
}

/* ---- the end ---- */

void process_close(struct process *p)
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
	process_check_waits(p);
	scope_remove(&p->undo);
	lua_pushnil(p->L);
	lua_rawsetp(p->L, LUA_REGISTRYINDEX, p);
}

static void process_undo(struct undo *u)
{
	process_close((struct process *)((char *)u - offsetof(struct process, undo)));
}

void process_free(struct process *p)
{
	for (int i = 0; i < 2; i++) {
		evbuffer_free(p->out[i].data);
		free(p->out[i].marks);
	}
	err_release(&p->broken);
	command_input_release(&p->input);
	free(p->text);
	free(p);
}

/* ---- starting ---- */

int process_start(lua_State *L)
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
	command_input_init(&p->input, c.stdin_data, c.stdin_len);
	p->starter = w;
	LIST_INIT(&p->waits);
	for (unsigned i = 0; i < 2; i++)
		p->out[i] = (struct output){ .process = p, .number = i + 1, .data = evbuffer_new() };
	scope_add(scope, &p->undo, RANK_PROCESS, process_undo);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, p);
	p->call = agent_call(vm_agent(t->vm), t->channel, "spawn", c.params, true, &spawn_events, p);
	command_input_feed(&p->input, p->call);
	return wait_yield(L, &w->wait);
}

static void spawn_writable_cb(void *arg)
{
	struct process *p = arg;

	command_input_feed(&p->input, p->call);
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
		process_close(p);
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
	process_close(w->p);
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
	p->input.wanted = false;	/* what was on its way is lost with the connection: wait() closes stdin */
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
void process_catch_up(struct process *p)
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

static const struct agent_events spawn_events = {
	.reply = spawn_reply_cb,
	.piece = spawn_piece_cb,
	.writable = spawn_writable_cb,
	.broken = spawn_broken_cb,
};

static const struct agent_events attach_events = {
	.reply = attach_reply_cb,
	.piece = spawn_piece_cb,
	.broken = spawn_broken_cb,
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
