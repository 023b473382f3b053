/*
 * The switches of a VM: shutdown, kill, pause, resume, reset, power button, wakeup, and QMP itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/args.h"
#include "ops/target.h"

static void done_cb(void *arg, const struct err *e);
static void pressed_cb(void *arg, const char *result, const struct err *e);
static void button_state_cb(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to);
static void button_timer_cb(evutil_socket_t fd, short what, void *arg);
static void qmp_cb(void *arg, const char *result, const struct err *e);
static const struct wait_kind power_kind, button_kind, qmp_kind;
static const char *const button_keys[];

#define SHUTDOWN_NS (10 * INT64_C(1000000000))
#define BUTTON_NS (60 * INT64_C(1000000000))

/* What one callback of src/vmm/ ends. The VM lives as long as its userdata on the op's stack. */
struct power_wait {
	struct wait wait;
	struct vm *vm;
	const char *op;
};

struct button_wait {
	struct wait wait;
	struct vm *vm;
	struct vm_listener listener;
	struct vm_qmp_call *call;	/* NULL once QEMU has pressed it */
	struct event *timer;
	int64_t ns;
	bool stay;			/* until the guest is off */
};

struct qmp_wait {
	struct wait wait;
	struct vm *vm;
	struct vm_qmp_call *call;	/* NULL once answered */
	char *command, *result;
};

/* ---- ops that src/vmm/ has a function for ---- */

static struct power_wait *power_wait_new(lua_State *L, struct vm *vm, const char *op)
{
	struct power_wait *w = wait_new(L, &power_kind, sizeof(*w));

	w->vm = vm;
	w->op = op;
	return w;
}

static void done_cb(void *arg, const struct err *e)
{
	struct power_wait *w = arg;

	if (e)
		wait_fail(&w->wait, e->code, "vm `%s`: %s: %s", vm_name(w->vm), w->op, e->msg);
	else
		wait_finish(&w->wait);
}

/* shutdown([timeout=10]) */
static int op_shutdown(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	int64_t ns = args_duration(L, 2, "vm:shutdown: timeout", SHUTDOWN_NS);
	struct power_wait *w;

	args_max(L, 2, "vm:shutdown([timeout])");
	w = power_wait_new(L, vm, "shutdown");
	vm_shutdown(vm, ns, done_cb, w);
	return wait_yield(L, &w->wait);
}

/* close(): shutdown if needed */
static int op_close(lua_State *L)
{
	lua_settop(L, 1);
	return op_shutdown(L);
}

/* Starts one of src/vmm/'s functions for an op without arguments. */
static int start(lua_State *L, struct vm *vm, const char *op, void (*fn)(struct vm *, vm_done_fn *, void *))
{
	struct power_wait *w = power_wait_new(L, vm, op);

	fn(vm, done_cb, w);
	return wait_yield(L, &w->wait);
}

/* kill() */
static int op_kill(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	args_max(L, 1, "vm:kill()");
	return start(L, vm, "kill", vm_kill);
}

/* pause() */
static int op_pause(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	args_max(L, 1, "vm:pause()");
	vm_require_qemu(L, vm, "pause");
	if (vm_state(vm) != VM_BOOTED)
		vm_raise_state(L, vm, "pause");
	return start(L, vm, "pause", vm_pause);
}

/* resume() */
static int op_resume(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	args_max(L, 1, "vm:resume()");
	vm_require_qemu(L, vm, "resume");
	if (vm_state(vm) != VM_PAUSED)
		vm_raise_state(L, vm, "resume");
	return start(L, vm, "resume", vm_resume);
}

/* reset(): returns when the agent answers again */
static int op_reset(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	args_max(L, 1, "vm:reset()");
	vm_require_qemu(L, vm, "reset");
	if (vm_state(vm) != VM_BOOTED && vm_state(vm) != VM_PAUSED)
		vm_raise_state(L, vm, "reset");
	return start(L, vm, "reset", vm_reset);
}

/* wakeup(): from S3; returns when the agent answers */
static int op_wakeup(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);

	args_max(L, 1, "vm:wakeup()");
	vm_require_qemu(L, vm, "wakeup");
	if (vm_state(vm) != VM_BOOTED)
		vm_raise_state(L, vm, "wakeup");
	return start(L, vm, "wakeup", vm_wakeup);
}

static void power_cancel(struct wait *wait)
{
	struct power_wait *w = (struct power_wait *)wait;

	vm_forget(w->vm, done_cb, w);
}

static void power_describe(struct wait *wait, char *buf, size_t size)
{
	struct power_wait *w = (struct power_wait *)wait;

	snprintf(buf, size, "vm \"%s\": %s", vm_name(w->vm), w->op);
}

/* ---- the power button ---- */

static void button_args(lua_State *L, int64_t *ns, bool *stay)
{
	bool wait = true;

	args_max(L, 2, "vm:power_button([timeout | {timeout=, wait=}])");
	*ns = BUTTON_NS;
	if (lua_istable(L, 2) && opt_check(L, 2, "vm:power_button", button_keys)) {
		opt_duration(L, 2, "vm:power_button", "timeout", ns);
		opt_bool(L, 2, "vm:power_button", "wait", &wait);
	} else {
		*ns = args_duration(L, 2, "vm:power_button: timeout", BUTTON_NS);
	}
	*stay = wait;
}

/* power_button([timeout=60 | {timeout=, wait=}]): returns when the guest is off */
static int op_power_button(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	struct button_wait *w;
	struct err e = ERR_INIT;
	int64_t ns;
	bool stay;

	button_args(L, &ns, &stay);
	vm_require_qemu(L, vm, "power_button");
	if (vm_state(vm) != VM_BOOTED)
		vm_raise_state(L, vm, "power_button");
	w = wait_new(L, &button_kind, sizeof(*w));
	w->vm = vm;
	w->ns = ns;
	w->stay = stay;
	w->listener.changed = button_state_cb;
	vm_listen(vm, &w->listener);
	w->call = vm_qmp(vm, "system_powerdown", NULL, pressed_cb, w, &e);
	if (!w->call)
		wait_fail(&w->wait, e.code, "vm `%s`: power_button: %s", vm_name(vm), e.msg);
	else if (stay)
		timer_start(state_loop(state_of(L)), &w->timer, ns, button_timer_cb, w);
	err_release(&e);
	return wait_yield(L, &w->wait);
}

static void pressed_cb(void *arg, const char *result, const struct err *e)
{
	struct button_wait *w = arg;

	(void)result;
	w->call = NULL;
	if (w->wait.finished)
		return;
	if (e)
		wait_fail(&w->wait, e->code, "vm `%s`: power_button: %s", vm_name(w->vm), e->msg);
	else if (!w->stay)
		wait_finish(&w->wait);
}

static void button_state_cb(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to)
{
	struct button_wait *w = (struct button_wait *)((char *)l - offsetof(struct button_wait, listener));

	(void)from;
	if (w->wait.finished)
		return;
	if (to == VM_SHUTDOWN)
		wait_finish(&w->wait);
	else if (to == VM_DEAD)
		wait_fail(&w->wait, ECONNRESET, "vm `%s`: power_button: %s", vm_name(vm), vm_reason(vm));
}

static void button_timer_cb(evutil_socket_t fd, short what, void *arg)
{
	struct button_wait *w = arg;

	(void)fd, (void)what;
	if (!w->wait.finished)
		wait_fail(&w->wait, ETIMEDOUT, "vm `%s`: power_button: the guest did not power off within %gs "
			"(does it listen to its ACPI power button?)", vm_name(w->vm), (double)w->ns / 1e9);
}

static void button_describe(struct wait *wait, char *buf, size_t size)
{
	snprintf(buf, size, "vm \"%s\": power_button", vm_name(((struct button_wait *)wait)->vm));
}

static void button_release(struct wait *wait)
{
	struct button_wait *w = (struct button_wait *)wait;

	vm_unlisten(w->vm, &w->listener);
	vm_qmp_cancel(w->call);
	timer_stop(&w->timer);
}

/* ---- QMP ---- */

/* vm_qmp(vm, command, [arguments as JSON]) -> the result as JSON */
static int op_vm_qmp(lua_State *L)
{
	struct vm *vm = check_vm(L, 1);
	const char *command = luaL_checkstring(L, 2), *args = luaL_optstring(L, 3, NULL);
	struct err e = ERR_INIT;
	struct qmp_wait *w;

	vm_require_qemu(L, vm, "qmp");
	if (vm_state(vm) != VM_BOOTED && vm_state(vm) != VM_PAUSED)
		vm_raise_state(L, vm, "qmp");
	w = wait_new(L, &qmp_kind, sizeof(*w));
	w->vm = vm;
	w->command = xstrdup(command);
	w->call = vm_qmp(vm, command, args, qmp_cb, w, &e);
	if (!w->call)
		wait_fail(&w->wait, e.code, "vm `%s`: %s", vm_name(vm), e.msg);
	err_release(&e);
	return wait_yield(L, &w->wait);
}

static void qmp_cb(void *arg, const char *result, const struct err *e)
{
	struct qmp_wait *w = arg;

	w->call = NULL;
	if (e) {
		wait_fail(&w->wait, e->code, "vm `%s`: qmp `%s`: %s", vm_name(w->vm), w->command, e->msg);
		return;
	}
	w->result = xstrdup(result ? result : "{}");
	wait_finish(&w->wait);
}

static int qmp_push(struct wait *wait, lua_State *L)
{
	lua_pushstring(L, ((struct qmp_wait *)wait)->result);
	return 1;
}

static void qmp_describe(struct wait *wait, char *buf, size_t size)
{
	struct qmp_wait *w = (struct qmp_wait *)wait;

	snprintf(buf, size, "vm \"%s\": qmp \"%.200s\"", vm_name(w->vm), w->command);
}

static void qmp_release(struct wait *wait)
{
	struct qmp_wait *w = (struct qmp_wait *)wait;

	vm_qmp_cancel(w->call);
	free(w->command);
	free(w->result);
}

static const char *const button_keys[] = { "timeout", "wait", NULL };

static const struct wait_kind power_kind = {
	.name = "vm",
	.cancel = power_cancel,
	.describe = power_describe,
};

static const struct wait_kind button_kind = {
	.name = "vm:power_button",
	.describe = button_describe,
	.release = button_release,
};

static const struct wait_kind qmp_kind = {
	.name = "vm:qmp",
	.push = qmp_push,
	.describe = qmp_describe,
	.release = qmp_release,
};

static const luaL_Reg power_ops[] = {
	{ "shutdown", op_shutdown },
	{ "close", op_close },
	{ "kill", op_kill },
	{ "pause", op_pause },
	{ "resume", op_resume },
	{ "reset", op_reset },
	{ "power_button", op_power_button },
	{ "wakeup", op_wakeup },
	{ NULL, NULL },
};

static const luaL_Reg core_ops[] = {
	{ "vm_qmp", op_vm_qmp },
	{ NULL, NULL },
};

/* After ops_open_vm: adds to its methods. */
void ops_open_power(lua_State *L)
{
	lua_getfield(L, -1, "VM");
	lua_set_ops(L, power_ops);
	lua_pop(L, 1);
	lua_set_ops(L, core_ops);
}
