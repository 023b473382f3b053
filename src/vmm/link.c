/*
 * The link to an agent: survives reboots and restarted agents, and waits a moment for the reason of a loss.
 *
 * When QEMU dies, its sockets close before anybody has reaped it; when a guest powers off, its agent is
 * killed before QEMU says why. So a lost connection's calls fail after LOST_NS, unless link_end brings a
 * better reason first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/agent.h"
#include "vmm/link.h"

#define LOST_NS (500 * INT64_C(1000000))
#define LOST_PATIENCE_NS (20 * INT64_C(1000000000))	/* without a reboot: the guest goes down */
#define DEFAULT_PATIENCE_NS (30 * INT64_C(1000000000))

static void ready_cb(void *arg, const struct err *e);
static void broken_cb(void *arg, const struct err *e);
static void lost_cb(evutil_socket_t fd, short what, void *arg);
static void gone_cb(evutil_socket_t fd, short what, void *arg);

/* Owned by its VM. */
struct link {
	struct loop *loop;
	char *vm_name;
	const struct link_events *ev;
	void *arg;
	struct agent *agent;
	bool ready, paused;
	struct err lost;		/* why the connection is no more, while its reason is awaited */
	struct event *lost_timer, *gone_timer;
	int64_t patience_ns, awaited_ns;
};

struct link *link_new(struct loop *l, const char *vm_name, const struct link_events *ev, void *arg)
{
	struct link *k = xcalloc(1, sizeof(*k));

	k->loop = l;
	k->vm_name = xstrdup(vm_name);
	k->ev = ev;
	k->arg = arg;
	k->patience_ns = DEFAULT_PATIENCE_NS;
	return k;
}

void link_set_patience(struct link *k, int64_t ns)
{
	k->patience_ns = ns;
}

void link_pause(struct link *k, bool paused)
{
	k->paused = paused;
}

static void drop(struct link *k, const struct err *why)
{
	timer_stop(&k->lost_timer);
	if (!k->agent)
		return;
	agent_fail(k->agent, why);
	agent_free(k->agent);
	k->agent = NULL;
	k->ready = false;
}

static void await_return(struct link *k, int64_t ns)
{
	k->awaited_ns = ns;
	timer_start(k->loop, &k->gone_timer, ns, gone_cb, k);
}

static void drop_lost(struct link *k, int64_t patience_ns)
{
	bool was_ready = k->ready;

	drop(k, &k->lost);
	if (was_ready)
		await_return(k, patience_ns < k->patience_ns ? patience_ns : k->patience_ns);
}

void link_connect(struct link *k, int fd)
{
	if (!err_is_set(&k->lost))
		err_set(&k->lost, ECONNRESET, "the guest's agent connected anew");
	drop_lost(k, k->patience_ns);
	err_release(&k->lost);
	k->agent = agent_new(k->loop, fd, k->vm_name, ready_cb, broken_cb, k);
}

static void ready_cb(void *arg, const struct err *e)
{
	struct link *k = arg;

	if (e) {
		broken_cb(arg, e);
		return;
	}
	timer_stop(&k->gone_timer);
	k->ready = true;
	k->ev->up(k->arg);
}

static bool is_loss(int code)
{
	return code == -ECONNRESET || code == -EPIPE || code == -ENOTCONN || code == -ETIMEDOUT ||
		code == -EIO;
}

static void lose(struct link *k, const struct err *why)
{
	if (k->lost_timer)
		return;
	err_copy(&k->lost, why);
	if (k->ready) {
		timer_start(k->loop, &k->lost_timer, LOST_NS, lost_cb, k);
		return;
	}
	drop(k, why);
	k->ev->retry(k->arg);
}

static void broken_cb(void *arg, const struct err *e)
{
	struct link *k = arg;

	if (is_loss(e->code))
		lose(k, e);
	else
		k->ev->fatal(k->arg, e);
}

static void lost_cb(evutil_socket_t fd, short what, void *arg)
{
	struct link *k = arg;

	(void)fd, (void)what;
	drop_lost(k, LOST_PATIENCE_NS);
	k->ev->retry(k->arg);
}

static void gone_cb(evutil_socket_t fd, short what, void *arg)
{
	struct link *k = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	if (k->paused) {
		await_return(k, k->awaited_ns);
		return;
	}
	timer_stop(&k->gone_timer);
	err_set(&e, ETIMEDOUT, "agent gone: %s, and it did not come back for %g s",
		k->lost.msg ? k->lost.msg : "its connection ended", (double)k->awaited_ns / 1e9);
	k->ev->fatal(k->arg, &e);
	err_release(&e);
}

void link_closed(struct link *k)
{
	struct err e = ERR_INIT;

	err_set(&e, ECONNRESET, "the guest's agent closed its connection");
	if (k->agent)
		lose(k, &e);
	err_release(&e);
}

void link_reset(struct link *k, const char *why)
{
	err_set(&k->lost, ECONNRESET, "%s", why);
	if (k->gone_timer)
		await_return(k, k->patience_ns);
	drop_lost(k, k->patience_ns);
}

void link_end(struct link *k, const struct err *why)
{
	drop(k, why);
	timer_stop(&k->gone_timer);
	err_release(&k->lost);
}

struct agent *link_agent(struct link *k)
{
	return k->ready ? k->agent : NULL;
}

bool link_in_handshake(const struct link *k)
{
	return k->agent && !k->ready;
}

static void free_now(void *arg)
{
	struct link *k = arg;

	free(k->vm_name);
	free(k);
}

void link_free(struct link *k)
{
	struct err e = ERR_INIT;

	err_set(&e, ECONNRESET, "the VM was closed");
	link_end(k, &e);
	err_release(&e);
	loop_defer(k->loop, free_now, k);
}
