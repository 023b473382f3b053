/*
 * The network cards of a VM: on the command line of its next QEMU, plugged into a running one, taken out.
 *
 * A card is there over all power-ons. What it is connected to is not known here: the layer above gives a
 * descriptor for each QEMU. Plugging is a chain of QMP commands, getfd, netdev_add, device_add; taking out is
 * device_del, then the event that the guest has let go of it, then netdev_del.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/nics.h"
#include "vmm/vmpriv.h"

static void opened(void *arg);
static void getfd_cb(void *arg, const json_t *result, const struct err *e);
static void netdev_cb(void *arg, const json_t *result, const struct err *e);
static void device_cb(void *arg, const json_t *result, const struct err *e);
static void unplug_cb(void *arg, const json_t *result, const struct err *e);
static void unplug_limit_cb(evutil_socket_t fd, short what, void *arg);
static void link_cb(void *arg, const json_t *result, const struct err *e);
static void answer_later(void *arg);

#define UNPLUG_NS (20 * INT64_C(1000000000))	/* what a guest has to let go of a card */

enum doing { IDLE, OPENING, PLUGGING, UNPLUGGING, LINKING };

/* Owned by the VM's struct nics; freed at the end of the turn in which it was taken out. */
struct vm_nic {
	TAILQ_ENTRY(vm_nic) entry;
	struct nics *nics;		/* NULL: taken out */
	unsigned slot;
	uint8_t mac[6];
	char *bridge;
	const struct nic_ops *ops;
	void *arg;
	bool opening;			/* ops->open was called and has not answered */
	bool open;			/* there is a descriptor that no QEMU has got yet */
	bool present;			/* the running QEMU has it */
	bool down;			/* its link was pulled */
	bool doomed;			/* vm_nic_free was called */
	bool finished;			/* what it does is done and will be answered this turn */
	enum doing doing;
	struct qmp_call *call;
	struct event *limit;
	vm_done_fn *cb;			/* of what it does now */
	void *cb_arg;
	struct err result;
};

/* One for each VM, freed with it. */
struct nics {
	struct loop *loop;
	TAILQ_HEAD(, vm_nic) list;	/* by slot */
	struct qmp *qmp;		/* NULL: nothing runs */
	const struct profile *profile;
	const struct vm_options *options;
	void (*opened)(void *arg, const struct err *e);	/* NULL: nobody waits for descriptors */
	void *opened_arg;
	bool deferred, freed;
	struct err open_err;
};

static void free_set(void *arg)
{
	free(arg);
}

struct nics *nics_new(struct loop *l)
{
	struct nics *s = xcalloc(1, sizeof(*s));

	s->loop = l;
	TAILQ_INIT(&s->list);
	return s;
}

static void free_nic(void *arg)
{
	struct vm_nic *n = arg;

	err_release(&n->result);
	free(n->bridge);
	free(n);
}

/* Takes it out of its VM. The memory goes later: a callback up the stack may look at it. */
static void drop(struct vm_nic *n)
{
	struct nics *s = n->nics;

	if (!s)
		return;
	timer_stop(&n->limit);
	qmp_cancel(n->call);
	n->call = NULL;
	TAILQ_REMOVE(&s->list, n, entry);
	n->nics = NULL;
	loop_defer(s->loop, free_nic, n);
}

void nics_free(struct nics *s)
{
	struct vm_nic *n;

	if (!s || s->freed)
		return;
	s->freed = true;
	s->opened = NULL;
	while ((n = TAILQ_FIRST(&s->list))) {
		n->cb = NULL;
		drop(n);
	}
	err_release(&s->open_err);
	loop_defer(s->loop, free_set, s);
}

/* ---- making ---- */

static struct vm_nic *at_slot(struct nics *s, unsigned slot)
{
	struct vm_nic *n;

	TAILQ_FOREACH(n, &s->list, entry)
		if (n->slot == slot)
			return n;
	return NULL;
}

static int choose_slot(struct nics *s, int wanted, struct err *e)
{
	if (wanted >= VM_NICS)
		return err_set(e, EINVAL, "a VM has no network slot %d (0 to %d)", wanted, VM_NICS - 1);
	if (wanted >= 0)
		return at_slot(s, (unsigned)wanted) ?
			err_set(e, EBUSY, "network slot %d is taken", wanted) : wanted;
	for (int i = 0; i < VM_NICS; i++)
		if (!at_slot(s, (unsigned)i))
			return i;
	return err_set(e, ENOSPC, "it has %d network cards already, which is all a VM takes", VM_NICS);
}

struct vm_nic *vm_nic_new(struct vm *vm, int slot, const uint8_t mac[6], const char *bridge,
	const struct nic_ops *ops, void *arg, struct err *e)
{
	struct nics *s = vm_nics(vm);
	struct vm_nic *n, *after = NULL, *other;

	slot = choose_slot(s, slot, e);
	if (slot < 0)
		return NULL;
	n = xcalloc(1, sizeof(*n));
	n->nics = s;
	n->slot = (unsigned)slot;
	memcpy(n->mac, mac, 6);
	n->bridge = xstrdup(bridge);
	n->ops = ops;
	n->arg = arg;
	TAILQ_FOREACH(other, &s->list, entry)
		if (other->slot < n->slot)
			after = other;
	if (after)
		TAILQ_INSERT_AFTER(&s->list, after, n, entry);
	else
		TAILQ_INSERT_HEAD(&s->list, n, entry);
	return n;
}

unsigned vm_nic_slot(const struct vm_nic *n)
{
	return n->slot;
}

void vm_nic_each(struct vm *vm, void (*fn)(void *arg, const struct vm_nic_info *i), void *arg)
{
	struct vm_nic *n;

	TAILQ_FOREACH(n, &vm_nics(vm)->list, entry) {
		struct vm_nic_info i = { .slot = n->slot, .bridge = n->bridge, .link_up = !n->down };

		memcpy(i.mac, n->mac, 6);
		if (!n->doomed)
			fn(arg, &i);
	}
}

/* ---- one thing at a time ---- */

static void start(struct vm_nic *n, enum doing doing, vm_done_fn *cb, void *arg)
{
	n->doing = doing;
	n->finished = false;
	n->cb = cb;
	n->cb_arg = arg;
	err_release(&n->result);
	n->result = (struct err)ERR_INIT;
}

static void answer(struct vm_nic *n, const struct err *e)
{
	vm_done_fn *cb = n->cb;
	bool gone = n->doing == UNPLUGGING;

	n->doing = IDLE;
	n->finished = false;
	n->call = NULL;
	n->cb = NULL;
	timer_stop(&n->limit);
	if (cb)
		cb(n->cb_arg, e);
	if (gone)
		drop(n);
}

static void answer_later(void *arg)
{
	struct vm_nic *n = arg;

	if (n->nics && n->finished)
		answer(n, n->result.code ? &n->result : NULL);
}

/* Nothing to wait for, but a callback never comes from inside the call. */
static void finish_later(struct vm_nic *n)
{
	n->finished = true;
	loop_defer(n->nics->loop, answer_later, n);
}

void vm_nic_forget(struct vm_nic *n, vm_done_fn *cb, void *arg)
{
	if (n->cb == cb && n->cb_arg == arg)
		n->cb = NULL;
}

/* ---- descriptors ---- */

/* Tells whoever starts QEMU that all descriptors are there, or that one could not be made. */
static void opened(void *arg)
{
	struct nics *s = arg;
	void (*cb)(void *arg, const struct err *e) = s->opened;
	struct vm_nic *n;

	s->deferred = false;
	TAILQ_FOREACH(n, &s->list, entry)
		if (n->opening)
			return;
	s->opened = NULL;
	if (cb && !s->freed)
		cb(s->opened_arg, err_is_set(&s->open_err) ? &s->open_err : NULL);
}

static void check_opened(struct nics *s)
{
	if (!s->opened || s->deferred)
		return;
	s->deferred = true;
	loop_defer(s->loop, opened, s);
}

static void open_one(struct vm_nic *n)
{
	if (n->opening || n->open)
		return;
	n->opening = true;
	n->ops->open(n->arg, n);
}

size_t nics_count(const struct nics *s)
{
	struct vm_nic *n;
	size_t count = 0;

	TAILQ_FOREACH(n, &s->list, entry)
		count++;
	return count;
}

void nics_open(struct nics *s, void (*cb)(void *arg, const struct err *e), void *arg)
{
	struct vm_nic *n;

	s->opened = cb;
	s->opened_arg = arg;
	err_release(&s->open_err);
	s->open_err = (struct err)ERR_INIT;
	TAILQ_FOREACH(n, &s->list, entry)
		if (!n->doomed)
			open_one(n);
	check_opened(s);
}

void nics_forget(struct nics *s)
{
	s->opened = NULL;
}

static void add_netdev(struct vm_nic *n)
{
	char name[16];

	snprintf(name, sizeof(name), "net%u", n->slot);
	n->call = qmp_execute_fd(n->nics->qmp, "getfd", json_pack("{s:s}", "fdname", name),
		n->ops->fd(n->arg), getfd_cb, n);
}

void vm_nic_ready(struct vm_nic *n, const struct err *e)
{
	struct nics *s = n->nics;

	n->opening = false;
	n->open = !e;
	if (!s)
		return;
	if (n->doing == OPENING && !e && s->qmp) {
		n->doing = PLUGGING;
		add_netdev(n);
	} else if (n->doing == OPENING) {
		if (e)
			err_copy(&n->result, e);
		finish_later(n);
	}
	if (e && s->opened && !err_is_set(&s->open_err)) {
		err_copy(&s->open_err, e);
		err_prefix(&s->open_err, "network card eth%u", n->slot);
	}
	check_opened(s);
}

/* ---- with QEMU ---- */

static char *netdev_text(struct vm_nic *n, const char *fd)
{
	char id[16];

	snprintf(id, sizeof(id), "net%u", n->slot);
	return n->ops->netdev(n->arg, id, fd);
}

size_t nics_list(struct nics *s, int first_fd, struct qemu_nic *out, struct child_fd *fds)
{
	struct vm_nic *n;
	size_t count = 0;
	char fd[16];

	TAILQ_FOREACH(n, &s->list, entry) {
		if (!n->open || n->doomed)
			continue;
		fds[count] = (struct child_fd){ n->ops->fd(n->arg), first_fd + (int)count };
		snprintf(fd, sizeof(fd), "%d", fds[count].as);
		out[count] = (struct qemu_nic){ .slot = n->slot, .netdev = netdev_text(n, fd) };
		memcpy(out[count].mac, n->mac, 6);
		count++;
	}
	return count;
}

void nics_list_free(struct qemu_nic *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i].netdev);
}

static struct qmp_call *send_link(struct vm_nic *n, qmp_fn *cb)
{
	char id[16];

	snprintf(id, sizeof(id), "eth%u", n->slot);
	return qmp_execute(n->nics->qmp, "set_link", json_pack("{s:s, s:b}", "name", id, "up", !n->down),
		cb, n);
}

static void given(struct vm_nic *n)
{
	n->open = false;
	n->present = true;
	n->ops->given(n->arg);
	if (n->down)
		send_link(n, NULL);
}

void nics_started(struct nics *s, struct qmp *q, const struct profile *p, const struct vm_options *o)
{
	struct vm_nic *n;

	s->qmp = q;
	s->profile = p;
	s->options = o;
	TAILQ_FOREACH(n, &s->list, entry)
		if (n->open && !n->doomed)
			given(n);
}

void nics_over(struct nics *s, const struct err *why)
{
	struct vm_nic *n, *next;

	s->qmp = NULL;
	for (n = TAILQ_FIRST(&s->list); n && !s->freed; n = next) {
		next = TAILQ_NEXT(n, entry);
		qmp_cancel(n->call);
		n->call = NULL;
		timer_stop(&n->limit);
		n->present = false;
		if (n->doing == UNPLUGGING || n->doing == LINKING)
			finish_later(n);	/* out with the machine; a link is set at the next start */
		else if (n->doing == PLUGGING) {
			err_copy(&n->result, why);
			finish_later(n);
		}
	}
}

/* ---- plugging ---- */

void vm_nic_plug(struct vm_nic *n, vm_done_fn *cb, void *arg)
{
	struct nics *s = n->nics;

	start(n, PLUGGING, cb, arg);
	if (!s->qmp || n->present) {
		finish_later(n);
		return;
	}
	if (!qemu_can_plug(s->profile, s->options)) {
		err_set(&n->result, ENOTSUP, "machine `%s` takes no network card while it runs: attach it "
			"before boot", qemu_machine(s->profile, s->options));
		finish_later(n);
		return;
	}
	n->doing = OPENING;
	open_one(n);
	if (n->open && n->doing == OPENING) {
		n->doing = PLUGGING;
		add_netdev(n);
	}
}

static void getfd_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm_nic *n = arg;
	char name[16], *text;
	json_t *args;

	(void)result;
	if (e) {
		answer(n, e);
		return;
	}
	n->open = false;
	snprintf(name, sizeof(name), "net%u", n->slot);
	text = netdev_text(n, name);
	n->ops->given(n->arg);
	args = qemu_option_args("type", text);
	free(text);
	n->call = qmp_execute(n->nics->qmp, "netdev_add", args, netdev_cb, n);
}

static void netdev_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm_nic *n = arg;
	struct nics *s = n->nics;
	char *text;

	(void)result;
	if (e) {
		answer(n, e);
		return;
	}
	text = qemu_nic_device(s->profile, s->options, n->slot, n->mac);
	n->call = qmp_execute(s->qmp, "device_add", qemu_option_args("driver", text), device_cb, n);
	free(text);
}

static void del_netdev(struct vm_nic *n)
{
	char id[16];

	snprintf(id, sizeof(id), "net%u", n->slot);
	qmp_execute(n->nics->qmp, "netdev_del", json_pack("{s:s}", "id", id), NULL, NULL);
}

static void device_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm_nic *n = arg;

	(void)result;
	if (e) {
		del_netdev(n);
		answer(n, e);
		return;
	}
	n->present = true;
	if (n->down)
		send_link(n, NULL);
	answer(n, NULL);
}

/* ---- taking out ---- */

static void unplug(struct vm_nic *n)
{
	char id[16];

	snprintf(id, sizeof(id), "eth%u", n->slot);
	timer_start(n->nics->loop, &n->limit, UNPLUG_NS, unplug_limit_cb, n);
	n->call = qmp_execute(n->nics->qmp, "device_del", json_pack("{s:s}", "id", id), unplug_cb, n);
}

void vm_nic_free(struct vm_nic *n, bool at_once, vm_done_fn *cb, void *arg)
{
	struct nics *s = n->nics;
	bool plugging = n->doing == PLUGGING;

	qmp_cancel(n->call);
	n->call = NULL;
	n->doomed = true;
	n->opening = false;
	if (s->opened)
		check_opened(s);
	start(n, UNPLUGGING, cb, arg);
	if (at_once || !s->qmp || (!n->present && !plugging)) {
		finish_later(n);
		return;
	}
	/* A chain that was cut off may have come to any point. What is not there is refused: fine. */
	unplug(n);
}

static void unplug_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm_nic *n = arg;

	(void)result;
	n->call = NULL;
	if (!e)
		return;		/* DEVICE_DELETED will tell */
	del_netdev(n);
	answer(n, e->code == -ENODEV ? NULL : e);
}

void nics_event(struct nics *s, const char *name, const json_t *data)
{
	const char *device = json_string_value(json_object_get(data, "device"));
	struct vm_nic *n;
	char id[16];

	if (strcmp(name, "DEVICE_DELETED") != 0 || !device)
		return;
	TAILQ_FOREACH(n, &s->list, entry) {
		snprintf(id, sizeof(id), "eth%u", n->slot);
		if (strcmp(id, device) != 0)
			continue;
		n->present = false;
		if (n->doing == UNPLUGGING) {
			qmp_cancel(n->call);
			del_netdev(n);
			answer(n, NULL);
		}
		return;
	}
}

/* The card stays in the guest, dead; the wire is cut all the same. */
static void unplug_limit_cb(evutil_socket_t fd, short what, void *arg)
{
	struct vm_nic *n = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	qmp_cancel(n->call);
	del_netdev(n);
	err_set(&e, ETIMEDOUT, "the guest has not let go of its card eth%u for %d s (has its kernel PCI "
		"hot-plug?)", n->slot, (int)(UNPLUG_NS / 1000000000));
	answer(n, &e);
	err_release(&e);
}

/* ---- the link ---- */

void vm_nic_set_link(struct vm_nic *n, bool up, vm_done_fn *cb, void *arg)
{
	if (n->doing == LINKING)
		qmp_cancel(n->call);
	start(n, LINKING, cb, arg);
	n->down = !up;
	if (n->nics->qmp && n->present)
		n->call = send_link(n, link_cb);
	else
		finish_later(n);
}

static void link_cb(void *arg, const json_t *result, const struct err *e)
{
	(void)result;
	answer(arg, e);
}
