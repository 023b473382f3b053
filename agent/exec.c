/*
 * The requests that start and steer programs: exec, spawn, attach, wait, signal, stdin, status, release.
 */
#include <errno.h>
#include <signal.h>

#include "executor.h"
#include "ops.h"
#include "process.h"

static const struct call_cbs exec_cbs, spawn_cbs;

static bool wants_stdin(struct call *c)
{
	return c->batch ? args_find(&c->args, "stdin") != NULL : args_flag(&c->args, "stdin");
}

void op_exec(struct call *c)
{
	int64_t timeout = args_opt_int(&c->args, "timeout", 0, 1, INT64_MAX);
	bool with_stdin = wants_stdin(c);
	struct process *p;
	struct launch l;
	int err;

	launch_parse(&l, &c->args);
	if (call_refused(c))
		return;
	err = process_start(c, &l, PROCESS_EXEC, with_stdin, &p);
	if (err) {
		call_errno(c, err);
		return;
	}
	c->cbs = &exec_cbs;
	if (l.tty)
		call_send_end(c, 2);
	if (timeout)
		process_set_timeout(p, timeout);
}

void op_spawn(struct call *c)
{
	msgpack_packer *pk;
	struct process *p;
	struct launch l;
	int err;

	launch_parse(&l, &c->args);
	if (call_refused(c))
		return;
	err = process_start(c, &l, PROCESS_SPAWN, true, &p);
	if (err) {
		call_errno(c, err);
		return;
	}
	c->cbs = &spawn_cbs;
	pk = call_reply(c, 2);
	pack_str(pk, "handle");
	msgpack_pack_uint32(pk, process_handle(p));
	pack_str(pk, "pid");
	msgpack_pack_int(pk, process_pid(p));
	call_reply_keep(c);
	if (l.tty)
		call_send_end(c, 2);
}

static struct process *get(struct call *c)
{
	uint32_t handle = (uint32_t)args_int(&c->args, "handle", 0, UINT32_MAX);

	return call_refused(c) ? NULL : process_find(c, handle);
}

void op_attach(struct call *c)
{
	struct process *p = get(c);

	if (!p)
		return;
	c->cbs = &spawn_cbs;
	if (!process_attach(p, c)) {
		c->cbs = NULL;
		call_errno(c, EBUSY);
	}
}

void op_wait(struct call *c)
{
	struct process *p = get(c);

	if (p)
		process_wait(p, c);
}

void op_signal(struct call *c)
{
	int sig = (int)args_int(&c->args, "signal", 0, SIGRTMAX);
	bool group = args_flag(&c->args, "group");
	struct process *p = get(c);
	int err;

	if (!p)
		return;
	err = process_signal(p, sig, group);
	if (err)
		call_errno(c, err);
	else
		call_reply_empty(c);
}

void op_stdin(struct call *c)
{
	struct bytes data = args_bytes(&c->args, "data");
	bool eof = args_flag(&c->args, "eof");
	struct process *p = get(c);

	if (p)
		process_write(p, c, data.p, data.n, eof);
}

void op_status(struct call *c)
{
	struct process *p = get(c);
	msgpack_packer *pk;
	bool running;

	if (!p)
		return;
	running = process_running(p);
	pk = call_reply(c, running ? 1 : 4);
	pack_str(pk, "running");
	if (running) {
		msgpack_pack_true(pk);
	} else {
		msgpack_pack_false(pk);
		process_pack_status(p, pk);
	}
	call_reply_end(c);
}

void op_release(struct call *c)
{
	struct process *p = get(c);

	if (!p)
		return;
	process_free(p);
	call_reply_empty(c);
}

void op_unsubscribe(struct call *c)
{
	uint32_t id = (uint32_t)args_int(&c->args, "id", 0, UINT32_MAX);
	struct call *other;

	if (call_refused(c))
		return;
	other = executor_find_call(c->x, id);
	if (!other || !other->replied || !other->cbs || !other->cbs->unsubscribe) {
		call_fail(c, WIRE_UNKNOWN_HANDLE, "no stream of request %u is open", id);
		return;
	}
	other->cbs->unsubscribe(other);
	call_reply_empty(c);
}

static const struct call_cbs exec_cbs = {
	.event = process_call_event,
	.credit = process_call_credit,
	.cancel = process_call_cancel,
};

static const struct call_cbs spawn_cbs = {
	.event = process_call_event,
	.credit = process_call_credit,
	.cancel = process_call_cancel,
	.reset = process_call_forget,
	.unsubscribe = process_call_unsubscribe,
};
