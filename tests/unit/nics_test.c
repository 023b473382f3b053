/*
 * Network cards of a VM against a fake QEMU: the chain of commands that plugs one in, the one that takes it out, where
 * each can break, and what is called back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/bufferevent.h>

#include "vmm/nics.h"
#include "vmm/vmpriv.h"

static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
static struct loop *loop;
static struct vmm *vmm;
static struct vm *vm;
static struct nics *nics;
static struct profile profile;
static struct vm_options options;
static struct qmp *qmp;
static struct bufferevent *server;
static struct event *guard;
static char said[1024];			/* what happened, a word each */
static const char *refuse;		/* the command that the fake refuses */
static bool keeps;			/* the guest does not let go of cards */
static struct vm_nic *late;		/* whose descriptor comes when the test says so */
static bool slow;

static void note(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void note(const char *fmt, ...)
{
	size_t n = strlen(said);
	va_list ap;

	if (n)
		said[n++] = ' ';
	va_start(ap, fmt);
	vsnprintf(said + n, sizeof(said) - n, fmt, ap);
	va_end(ap);
}

/* ---- the fake QEMU ---- */

static void answer(json_int_t id, const char *command, const json_t *args)
{
	if (refuse && strcmp(refuse, command) == 0) {
		evbuffer_add_printf(bufferevent_get_output(server),
			"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": %d}\n", (int)id);
		return;
	}
	evbuffer_add_printf(bufferevent_get_output(server), "{\"return\": {}, \"id\": %d}\n", (int)id);
	if (strcmp(command, "device_del") == 0 && !keeps)
		evbuffer_add_printf(bufferevent_get_output(server),
			"{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"%s\"}}\n",
			json_string_value(json_object_get(args, "id")));
}

static void command_cb(struct bufferevent *bev, void *arg)
{
	char *line;

	(void)arg;
	while ((line = evbuffer_readln(bufferevent_get_input(bev), NULL, EVBUFFER_EOL_LF))) {
		json_t *o = json_loads(line, 0, NULL);
		const char *command = json_string_value(json_object_get(o, "execute"));

		if (command) {
			if (strcmp(command, "qmp_capabilities") != 0)
				note("%s", command);
			answer(json_integer_value(json_object_get(o, "id")), command,
				json_object_get(o, "arguments"));
		}
		json_decref(o);
		free(line);
	}
}

static void event_cb(void *arg, const char *name, const json_t *data)
{
	(void)arg;
	nics_event(nics, name, data);
}

static void broken_cb(void *arg, const struct err *e)
{
	(void)arg, (void)e;
}

static const struct qmp_events qmp_events = { .event = event_cb, .broken = broken_cb };

static void start_qemu(void)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	evutil_make_socket_nonblocking(sv[1]);
	server = bufferevent_socket_new(loop_base(loop), sv[1], BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(server, command_cb, NULL, NULL, NULL);
	bufferevent_enable(server, EV_READ | EV_WRITE);
	evbuffer_add_printf(bufferevent_get_output(server), "{\"QMP\": {}}\n");
	qmp = qmp_new(loop, sv[0], &qmp_events, NULL);
	nics_started(nics, qmp, &profile, &options);
}

static void stop_qemu(const char *why)
{
	struct err e = ERR_INIT;

	err_set(&e, ECONNRESET, "%s", why);
	nics_over(nics, &e);
	err_release(&e);
	qmp_free(qmp);
	bufferevent_free(server);
	qmp = NULL;
	server = NULL;
}

/* ---- what the layer above does ---- */

static void card_open(void *arg, struct vm_nic *n)
{
	(void)arg;
	note("open");
	if (slow)
		late = n;
	else
		vm_nic_ready(n, NULL);
}

static int card_fd(void *arg)
{
	(void)arg;
	return 0;
}

static char *card_netdev(void *arg, const char *id, const char *fd)
{
	(void)arg;
	return xasprintf("tap,id=%s,fd=%s,vhost=off", id, fd);
}

static void card_given(void *arg)
{
	(void)arg;
	note("given");
}

static const struct nic_ops nic_ops = { card_open, card_fd, card_netdev, card_given };

/* arg: what it is noted as. */
static void done_cb(void *arg, const struct err *e)
{
	note("%s%s%s", (const char *)arg, e ? ": " : "", e ? e->msg : "");
	loop_stop(loop);
}

static void opened_cb(void *arg, const struct err *e)
{
	done_cb(arg, e);
}

static void guard_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	fail_msg("nothing happened for 10 s after: %s", said);
}

static struct vm_nic *make(void)
{
	struct err e = ERR_INIT;
	struct vm_nic *n = vm_nic_new(vm, -1, mac, "lan", &nic_ops, NULL, &e);

	if (!n)
		fail_msg("%s", e.msg);
	return n;
}

static int setup(void **state)
{
	struct vmm_config c = { .kind = VMM_QEMU, .cache_dir = "/nonexistent" };
	struct err e = ERR_INIT;

	(void)state;
	loop = loop_new();
	vmm = vmm_new(loop, &c, &e);
	if (!vmm)
		fail_msg("%s", e.msg);
	profile = (struct profile){ .name = (char *)"p", .machine = (char *)"pc", .arch = (char *)"x86_64" };
	options = (struct vm_options){ 0 };
	vm = vm_new(vmm, "a", &profile);
	nics = vm_nics(vm);
	said[0] = 0;
	refuse = NULL;
	keeps = slow = false;
	late = NULL;
	timer_start(loop, &guard, INT64_C(10000000000), guard_cb, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (qmp)
		stop_qemu("over");
	vm_free(vm);
	loop_defer(loop, (void (*)(void *))loop_stop, loop);
	loop_run(loop);
	vmm_free(vmm);
	timer_stop(&guard);
	loop_free(loop);
	return 0;
}

/* ---- tests ---- */

static void slots_are_taken_from_the_first(void **state)
{
	struct vm_nic *n[VM_NICS];
	struct err e = ERR_INIT;

	(void)state;
	for (unsigned i = 0; i < VM_NICS; i++) {
		n[i] = make();
		assert_int_equal(vm_nic_slot(n[i]), i);
	}
	assert_null(vm_nic_new(vm, -1, mac, "lan", &nic_ops, NULL, &e));
	assert_non_null(strstr(e.msg, "8 network cards already"));
	vm_nic_free(n[3], false, done_cb, (void *)"free");
	loop_run(loop);
	assert_int_equal(vm_nic_slot(make()), 3);
	assert_null(vm_nic_new(vm, 3, mac, "lan", &nic_ops, NULL, &e));
	assert_non_null(strstr(e.msg, "slot 3 is taken"));
	err_release(&e);
}

static void nothing_is_plugged_before_boot(void **state)
{
	struct qemu_nic list[VM_NICS];
	struct child_fd fds[VM_NICS];

	(void)state;
	vm_nic_plug(make(), done_cb, (void *)"plugged");
	assert_string_equal(said, "");
	loop_run(loop);
	nics_open(nics, opened_cb, (void *)"opened");
	loop_run(loop);
	assert_int_equal(nics_list(nics, 20, list, fds), 1);
	assert_int_equal(fds[0].as, 20);
	assert_string_equal(list[0].netdev, "tap,id=net0,fd=20,vhost=off");
	nics_list_free(list, 1);
	start_qemu();
	assert_string_equal(said, "plugged open opened given");
}

static void plugged_and_taken_out(void **state)
{
	struct vm_nic *n = make();

	(void)state;
	start_qemu();
	vm_nic_plug(n, done_cb, (void *)"plugged");
	loop_run(loop);
	vm_nic_free(n, false, done_cb, (void *)"out");
	loop_run(loop);
	vm_nic_plug(make(), done_cb, (void *)"again");
	loop_run(loop);
	assert_string_equal(said, "open getfd given netdev_add device_add plugged device_del out "
		"open netdev_del getfd given netdev_add device_add again");
}

static void what_qemu_refuses_is_told(void **state)
{
	(void)state;
	start_qemu();
	refuse = "netdev_add";
	vm_nic_plug(make(), done_cb, (void *)"one");
	loop_run(loop);
	refuse = "device_add";
	vm_nic_plug(make(), done_cb, (void *)"two");
	loop_run(loop);
	assert_non_null(strstr(said, "one: QMP `netdev_add`: no"));
	assert_non_null(strstr(said, "two: QMP `device_add`: no"));
}

static void a_machine_without_hot_plug_refuses(void **state)
{
	(void)state;
	profile.machine = (char *)"microvm";
	start_qemu();
	vm_nic_plug(make(), done_cb, (void *)"plug");
	loop_run(loop);
	assert_string_equal(said,
		"plug: machine `microvm` takes no network card while it runs: attach it before boot");
}

static void qemu_dies_in_the_middle(void **state)
{
	struct vm_nic *n = make(), *out = make();

	(void)state;
	start_qemu();
	keeps = true;
	vm_nic_plug(out, done_cb, (void *)"plugged");
	loop_run(loop);
	vm_nic_free(out, false, done_cb, (void *)"out");
	vm_nic_plug(n, done_cb, (void *)"plug");
	stop_qemu("QEMU died: signal 9");
	said[0] = 0;
	loop_run(loop);
	if (!strstr(said, "out") || !strstr(said, "plug"))
		loop_run(loop);
	assert_non_null(strstr(said, "plug: QEMU died: signal 9"));
	assert_non_null(strstr(said, "out"));
	assert_null(strstr(said, "out: "));
}

static void at_once_asks_nobody(void **state)
{
	struct vm_nic *n = make();

	(void)state;
	start_qemu();
	vm_nic_plug(n, done_cb, (void *)"plugged");
	loop_run(loop);
	said[0] = 0;
	vm_nic_free(n, true, done_cb, (void *)"out");
	assert_string_equal(said, "");
	loop_run(loop);
	assert_string_equal(said, "out");
}

static void taken_out_while_it_is_plugged_in(void **state)
{
	struct vm_nic *n = make();

	(void)state;
	slow = true;
	start_qemu();
	vm_nic_plug(n, done_cb, (void *)"plugged");
	vm_nic_free(n, false, done_cb, (void *)"out");
	loop_run(loop);
	assert_string_equal(said, "open out");
}

static void a_late_descriptor(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	slow = true;
	start_qemu();
	vm_nic_plug(make(), done_cb, (void *)"plugged");
	assert_non_null(late);
	vm_nic_ready(late, NULL);
	loop_run(loop);
	assert_string_equal(said, "open getfd given netdev_add device_add plugged");
	said[0] = 0;
	vm_nic_plug(make(), done_cb, (void *)"plugged");
	err_set(&e, EPERM, "no TAP");
	vm_nic_ready(late, &e);
	err_release(&e);
	loop_run(loop);
	assert_string_equal(said, "open plugged: no TAP");
}

static void the_link_is_kept_over_power_ons(void **state)
{
	struct vm_nic *n = make();

	(void)state;
	vm_nic_set_link(n, false, done_cb, (void *)"down");
	loop_run(loop);
	nics_open(nics, opened_cb, (void *)"opened");
	loop_run(loop);
	start_qemu();
	vm_nic_set_link(n, true, done_cb, (void *)"up");
	loop_run(loop);
	assert_string_equal(said, "down open opened given set_link set_link up");
}

static void forgotten_callbacks_stay_silent(void **state)
{
	struct vm_nic *n = make();

	(void)state;
	start_qemu();
	vm_nic_plug(n, done_cb, (void *)"plugged");
	vm_nic_forget(n, done_cb, (void *)"plugged");
	vm_nic_plug(make(), done_cb, (void *)"other");
	loop_run(loop);
	assert_null(strstr(said, "plugged"));
}

static void each(void *arg, const struct vm_nic_info *i)
{
	(void)arg;
	note("%u:%s:%02x:%s", i->slot, i->bridge, i->mac[5], i->link_up ? "up" : "down");
}

static void cards_can_be_listed(void **state)
{
	(void)state;
	make();
	vm_nic_set_link(make(), false, NULL, NULL);
	vm_nic_each(vm, each, NULL);
	assert_string_equal(said, "0:lan:03:up 1:lan:03:down");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(slots_are_taken_from_the_first), TEST(nothing_is_plugged_before_boot), TEST(plugged_and_taken_out),
		TEST(what_qemu_refuses_is_told), TEST(a_machine_without_hot_plug_refuses), TEST(qemu_dies_in_the_middle),
		TEST(at_once_asks_nobody), TEST(taken_out_while_it_is_plugged_in), TEST(a_late_descriptor),
		TEST(the_link_is_kept_over_power_ons), TEST(forgotten_callbacks_stay_silent), TEST(cards_can_be_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
