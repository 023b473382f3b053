/*
 * run(): a command in the guest, from its arguments to its RunResult.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/command.h"
#include "ops/reply.h"
#include "ops/target.h"

static void run_reply_cb(void *arg, const msgpack_object *o, const struct err *e);
static void run_piece_cb(void *arg, unsigned stream, const void *data, size_t len);
static void run_writable_cb(void *arg);
static const struct wait_kind run_kind;
static const struct agent_events run_events;

#define MAX_OUTPUT ((uint64_t)64 << 20)

struct run_wait {
	struct wait wait;
	struct target *target;
	struct agent_call *call;
	struct command_input input;
	struct evbuffer *out[2];	/* stdout, stderr */
	uint64_t max_output;
	char *line;			/* for messages */
	const char *status;		/* static text */
	int code, signal;
	double duration;
};

/* run(line, [options]) | run(prog, {args...}) | run({prog, args...}) -> RunResult */
static int op_run(lua_State *L)
{
	struct target *t = check_target(L, 1, "run");
	struct command c;
	struct run_wait *w;

	command_check(L, "vm:run", true, &c);
	w = wait_new(L, &run_kind, sizeof(*w));
	w->target = t;
	w->line = xstrdup(c.text);
	w->max_output = c.has_max_output ? c.max_output : MAX_OUTPUT;
	w->out[0] = evbuffer_new();
	w->out[1] = evbuffer_new();
	command_input_init(&w->input, c.stdin_data, c.stdin_len);
	w->call = agent_call(vm_agent(t->vm), t->channel, "exec", c.params, false, &run_events, w);
	command_input_feed(&w->input, w->call);
	return wait_yield(L, &w->wait);
}

static void run_end(struct run_wait *w)
{
	agent_call_free(w->call);
	w->call = NULL;
}

/* Too much output is an error rather than a truncated result that looks complete. */
static void run_piece_cb(void *arg, unsigned stream, const void *data, size_t len)
{
	struct run_wait *w = arg;
	struct evbuffer *out;

	if (stream < 1 || stream > 2 || !data || w->wait.finished)
		return;
	out = w->out[stream - 1];
	if (evbuffer_get_length(out) + len > w->max_output) {
		run_end(w);
		wait_fail(&w->wait, EMSGSIZE, "vm `%s`: run `%s`: more than %llu bytes on %s; raise the option "
			"`max_output`, or redirect the output to a file in the guest", vm_name(w->target->vm), w->line,
			(unsigned long long)w->max_output, stream == 1 ? "stdout" : "stderr");
		return;
	}
	evbuffer_add(out, data, len);
	agent_call_credit(w->call, stream, len);
}

static void run_writable_cb(void *arg)
{
	struct run_wait *w = arg;

	if (!w->wait.finished)
		command_input_feed(&w->input, w->call);
}

static void run_reply_cb(void *arg, const msgpack_object *o, const struct err *e)
{
	struct run_wait *w = arg;
	struct command_exit ex;

	if (w->wait.finished)
		return;
	if (!e) {
		command_exit_decode(o, &ex);
		w->status = ex.status;
		w->code = ex.code;
		w->signal = ex.signal;
		w->duration = ex.duration;
		wait_finish(&w->wait);
		return;
	}
	target_fail(&w->wait, w->target, "run", w->line, e);
}

static void push_output(lua_State *L, struct evbuffer *b, const char *field)
{
	size_t n = evbuffer_get_length(b);

	lua_pushlstring(L, n ? (const char *)evbuffer_pullup(b, -1) : "", n);
	lua_setfield(L, -2, field);
}

static int run_push(struct wait *wait, lua_State *L)
{
	struct run_wait *w = (struct run_wait *)wait;

	command_result_push(L, &(struct command_exit){ w->status, w->code, w->signal, w->duration }, w->line);
	push_output(L, w->out[0], "stdout");
	push_output(L, w->out[1], "stderr");
	return 1;
}

static void run_describe(struct wait *wait, char *buf, size_t size)
{
	struct run_wait *w = (struct run_wait *)wait;

	snprintf(buf, size, "vm \"%s\": run \"%.200s\"", vm_name(w->target->vm), w->line);
}

/* Also what cancels: freeing a pending call makes the agent kill the command's process group. */
static void run_release(struct wait *wait)
{
	struct run_wait *w = (struct run_wait *)wait;

	run_end(w);
	command_input_release(&w->input);
	evbuffer_free(w->out[0]);
	evbuffer_free(w->out[1]);
	free(w->line);
}

static const struct agent_events run_events = {
	.reply = run_reply_cb,
	.piece = run_piece_cb,
	.writable = run_writable_cb,
};

static const struct wait_kind run_kind = {
	.name = "vm:run",
	.push = run_push,
	.describe = run_describe,
	.release = run_release,
};

static const luaL_Reg command_ops[] = {
	{ "run", op_run },
	{ NULL, NULL },
};

void ops_open_command(lua_State *L)
{
	ops_add_target_ops(L, command_ops);
}
