/*
 * A guest in QEMU while it runs, and what became of it. How it gets there is in launch.c.
 *
 * How a guest ends is told by several sources in no order: QMP events, the console, QEMU's exit. The
 * first one that knows decides the fate; over() comes when QEMU is reaped and everything it said has been
 * read.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/console.h"
#include "vmm/host.h"
#include "vmm/nics.h"
#include "vmm/qemumachine.h"
#include "vmm/save.h"

#define MS INT64_C(1000000)
#define LINGER_STEP_NS (150 * MS)	/* the console is quiet for so long: those were its last words */
#define LINGER_NS (1000 * MS)		/* but no longer than this */
#define EXIT_NS (1500 * MS)		/* what QEMU has to end by itself when the guest powers off */

static void qmp_ready_cb(void *arg);
static void qmp_event_cb(void *arg, const char *name, const json_t *data);
static void qmp_broken_cb(void *arg, const struct err *e);
static void loaded_cb(void *arg, const struct err *e);
static void linger_cb(evutil_socket_t fd, short what, void *arg);
static void tell_over(void *arg);
static void qm_fail(struct machine *m, const struct err *why);

static const struct machine_kind qemu_kind;

static struct qemu_machine *self(const struct machine *m)
{
	return (struct qemu_machine *)m;
}

static struct qemu_machine *new_machine(const struct machine_spec *s)
{
	struct qemu_machine *q = xcalloc(1, sizeof(*q));

	q->m.kind = &qemu_kind;
	q->spec = *s;
	q->loop = vmm_loop(s->vmm);
	q->ram = q->state = q->serial = q->hvc = -1;
	q->restored = s->image != NULL;
	if (s->image)
		image_ref(s->image);
	q->paused = s->image && s->image->paused;
	loop_defer(q->loop, machine_begin, q);
	return q;
}

struct machine *machine_new(const struct machine_spec *s)
{
	return &new_machine(s)->m;
}

struct machine *machine_new_spare(const struct machine_spec *s)
{
	struct qemu_machine *q = new_machine(s);

	q->spare = true;
	return &q->m;
}

/* ---- the end ---- */

static void tell_over(void *arg)
{
	struct qemu_machine *q = arg;

	if (q->told || q->freed)
		return;
	q->told = true;
	log_debug("machine", "%s: over: %s", q->spec.name, q->why.msg);
	if (q->qmp)
		qmp_fail(q->qmp, &q->why);
	q->spec.ev->over(q->spec.arg, q->end, &q->why);
}

/* The first fate counts. */
static void set_fate(struct qemu_machine *q, enum machine_end end, int code, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

static void set_fate(struct qemu_machine *q, enum machine_end end, int code, const char *fmt, ...)
{
	va_list ap;
	char *text;

	if (q->fated)
		return;
	q->fated = true;
	q->end = end;
	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&q->why, code, "%s", text);
	free(text);
	log_debug("machine", "%s: fate: %s", q->spec.name, q->why.msg);
}

/* Nothing runs yet: the fate is already the end. */
static void end_early(struct qemu_machine *q)
{
	if (q->ended)
		return;
	q->ended = true;
	initramfs_job_free(q->job);
	q->job = NULL;
	diskset_free(q->disks);
	q->disks = NULL;
	nics_forget(q->spec.nics);
	loop_defer(q->loop, tell_over, q);
}

/* Something could not be prepared. */
void machine_give_up(struct qemu_machine *q, const struct err *e)
{
	set_fate(q, MACHINE_FAILED, e->code, "%s", e->msg);
	end_early(q);
}

static void kill_now(struct qemu_machine *q)
{
	timer_stop(&q->linger);
	if (q->child && !q->ended)
		child_signal(q->child, SIGKILL);
}

static size_t console_len(struct qemu_machine *q)
{
	size_t len;

	console_log(q->spec.console, &len);
	return len;
}

static void linger_cb(evutil_socket_t fd, short what, void *arg)
{
	struct qemu_machine *q = arg;
	size_t len = console_len(q);

	(void)fd, (void)what;
	if (q->linger_until && len != q->console_seen && now_ns() < q->linger_until) {
		q->console_seen = len;
		timer_start(q->loop, &q->linger, LINGER_STEP_NS, linger_cb, q);
		return;
	}
	if (!q->fated)
		set_fate(q, MACHINE_DIED, EPIPE, "QEMU closed its QMP connection and went on running");
	kill_now(q);
}

/* The guest is finished but QEMU goes on: hear the rest of what the guest says, then end it. */
static void linger(struct qemu_machine *q)
{
	q->linger_until = now_ns() + LINGER_NS;
	q->console_seen = console_len(q);
	timer_start(q->loop, &q->linger, LINGER_STEP_NS, linger_cb, q);
}

/* QEMU is about to end by itself. */
static void expect_exit(struct qemu_machine *q)
{
	if (q->linger)
		return;
	q->linger_until = 0;
	timer_start(q->loop, &q->linger, EXIT_NS, linger_cb, q);
}

/* The last part of what QEMU complained about, without the newline; malloc'ed. */
static char *stderr_text(struct evbuffer *err)
{
	size_t n = err ? evbuffer_get_length(err) : 0;
	char *text;

	if (n > QEMU_STDERR_MAX) {
		evbuffer_drain(err, n - QEMU_STDERR_MAX);
		n = QEMU_STDERR_MAX;
	}
	text = xmalloc(n + 1);
	if (n > 0)
		evbuffer_copyout(err, text, n);
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	text[n] = 0;
	return text;
}

void machine_child_cb(void *arg, const struct child_result *r)
{
	struct qemu_machine *q = arg;
	char status[64], *err = stderr_text(r->err);

	timer_stop(&q->linger);
	if (q->qmp)
		qmp_drain(q->qmp);
	console_detach(q->spec.console);
	console_on_verdict(q->spec.console, NULL, NULL);
	timer_stop(&q->linger);
	set_fate(q, MACHINE_DIED, q->incoming ? ESTALE : ECONNRESET, "QEMU %s%s: %s%s%s",
		r->signalled ? "died" : "exited", q->incoming ? " while it loaded the snapshot" : "",
		child_result_text(r, status, sizeof(status)), *err ? ": " : "", err);
	free(err);
	q->ended = true;
	transport_free(q->transport);
	q->transport = NULL;
	tell_over(q);
}

/* ---- what the guest and QEMU tell ---- */

void machine_verdict_cb(void *arg, enum verdict v, const char *line)
{
	struct qemu_machine *q = arg;

	switch (v) {
	case VERDICT_INIT:
		if (!q->fated)
			q->spec.ev->stage(q->spec.arg, "waiting for the agent");
		return;
	case VERDICT_PANIC:
		/* The event may come first, but it does not know the reason. */
		if (q->fated && q->end == MACHINE_PANICKED)
			err_set(&q->why, ECONNRESET, "guest panicked: %s", line);
		set_fate(q, MACHINE_PANICKED, ECONNRESET, "guest panicked: %s", line);
		linger(q);
		return;
	case VERDICT_HALTED:
		set_fate(q, MACHINE_HALTED, ECONNRESET, "guest halted");
		linger(q);
		return;
	case VERDICT_POWERED_OFF:
		/* Without ACPI the kernel says so and spins for ever. */
		set_fate(q, MACHINE_POWERED_OFF, ECONNRESET, "guest powered off");
		expect_exit(q);
		return;
	case VERDICT_NONE:
		return;
	}
}

static const char *string_member(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void shutdown_event(struct qemu_machine *q, const char *reason)
{
	if (q->restored && (strcmp(reason, "guest-reset") == 0 || strcmp(reason, "host-qmp-system-reset") == 0))
		set_fate(q, MACHINE_REBOOTED, ECONNRESET, "guest rebooted");
	else if (strncmp(reason, "guest", 5) == 0)
		set_fate(q, MACHINE_POWERED_OFF, ECONNRESET, strcmp(reason, "guest-reset") == 0 ?
			"guest rebooted and QEMU was told to exit then" : "guest powered off");
	else if (q->quitting)
		set_fate(q, MACHINE_KILLED, ECONNRESET, "QEMU was told to quit");
	else
		set_fate(q, MACHINE_DIED, ECONNRESET, "QEMU ended from outside (%s)", reason);
	expect_exit(q);
}

static void qmp_ready_cb(void *arg)
{
	struct qemu_machine *q = arg;

	if (q->fated)
		return;
	if (!q->restored) {
		q->spec.ev->stage(q->spec.arg, "booting the guest kernel");
		return;
	}
	q->spec.ev->stage(q->spec.arg, "loading the snapshot");
	q->incoming = incoming_start(&(struct incoming_spec){ .loop = q->loop, .qmp = q->qmp,
		.pid = child_pid(q->child), .ram_fd = FD_RAM, .state_fd = FD_STATE, .image = q->spec.image,
		.hold = q->spare, .done = loaded_cb, .arg = q });
}

static void going_cb(void *arg, const json_t *result, const struct err *e)
{
	struct qemu_machine *q = arg;

	(void)result;
	if (e)
		qm_fail(&q->m, e);
	else
		q->spec.ev->loaded(q->spec.arg);
}

void machine_attach_consoles(struct qemu_machine *q)
{
	char *cmdline, *last = NULL;

	console_attach(q->spec.console, CONSOLE_SERIAL, q->serial);
	console_attach(q->spec.console, CONSOLE_HVC, q->hvc);
	q->serial = q->hvc = -1;
	console_on_verdict(q->spec.console, machine_verdict_cb, q);
	cmdline = qemu_cmdline(q->spec.profile, q->spec.options, q->spec.accel, NULL);
	for (char *p = cmdline; p && (p = strstr(p, "console=")); p++)
		if (p == cmdline || p[-1] == ' ')
			last = p;
	console_set_input(q->spec.console,
		last && strncmp(last, "console=hvc", 11) == 0 ? CONSOLE_HVC : CONSOLE_SERIAL);
	free(cmdline);
}

static void adopted(void *arg)
{
	struct qemu_machine *q = arg;

	if (q->freed || q->told)
		return;
	if (q->ended) {
		tell_over(q);
		return;
	}
	machine_attach_consoles(q);
	nics_started(q->spec.nics, q->qmp, q->spec.profile, q->spec.options);
	q->spec.ev->started(q->spec.arg);
	q->held = false;
	q->spec.ev->stage(q->spec.arg, "waiting for the agent");
	if (q->paused)
		q->spec.ev->loaded(q->spec.arg);
	else
		qmp_execute(q->qmp, "cont", NULL, going_cb, q);
}

void machine_adopt(struct machine *m, const struct machine_spec *s)
{
	struct qemu_machine *q = self(m);

	INVARIANT(q->held && !q->spec.image);
	q->spec = *s;
	q->spec.image = NULL;
	q->spare = false;
	loop_defer(q->loop, adopted, q);
}

static void loaded_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e) {
		if (e->code == -EIO)	/* QEMU says why on its stderr and exits */
			expect_exit(q);
		else
			qm_fail(&q->m, e);
		return;
	}
	incoming_free(q->incoming);
	q->incoming = NULL;
	image_unref(q->spec.image);
	q->spec.image = NULL;
	q->held = q->spare;
	if (q->spare) {
		q->spec.ev->loaded(q->spec.arg);
		return;
	}
	q->spec.ev->stage(q->spec.arg, "waiting for the agent");
	q->spec.ev->loaded(q->spec.arg);
}

static void qmp_event_cb(void *arg, const char *name, const json_t *data)
{
	struct qemu_machine *q = arg;

	if (strcmp(name, "VSERPORT_CHANGE") == 0) {
		if (strcmp(string_member(data, "id"), QEMU_AGENT_PORT_ID) == 0 &&
		    transport_port(q->transport, json_is_true(json_object_get(data, "open"))))
			q->spec.ev->unlinked(q->spec.arg);
	} else if (q->incoming && strcmp(name, "MIGRATION") == 0) {
		incoming_event(q->incoming, name, data);
	} else if (strcmp(name, "DEVICE_DELETED") == 0) {
		nics_event(q->spec.nics, name, data);
	} else if (strcmp(name, "SHUTDOWN") == 0) {
		shutdown_event(q, string_member(data, "reason"));
	} else if (strcmp(name, "GUEST_PANICKED") == 0) {
		set_fate(q, MACHINE_PANICKED, ECONNRESET, "guest panicked (told by pvpanic)");
		linger(q);
	} else if (strcmp(name, "RESET") == 0 && !q->fated) {
		transport_port(q->transport, false);
		transport_unlink(q->transport);
		q->spec.ev->reset(q->spec.arg);
	} else if (strcmp(name, "SUSPEND") == 0 && !q->fated) {
		transport_port(q->transport, false);
		transport_unlink(q->transport);
		q->spec.ev->suspended(q->spec.arg, true);
	} else if (strcmp(name, "WAKEUP") == 0 && !q->fated) {
		q->spec.ev->suspended(q->spec.arg, false);
	}
}

static void qmp_broken_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e->code == -EPIPE || e->code == -ECONNRESET) {
		expect_exit(q);		/* mostly QEMU has died and is about to be reaped */
		return;
	}
	set_fate(q, MACHINE_DIED, e->code, "%s", e->msg);
	kill_now(q);
}

void machine_linked_cb(void *arg, int fd)
{
	struct qemu_machine *q = arg;

	if (q->fated)
		close(fd);
	else
		q->spec.ev->linked(q->spec.arg, fd);
}

/* ---- what vm.c asks for ---- */

static void qm_kill(struct machine *m)
{
	struct qemu_machine *q = self(m);

	set_fate(q, MACHINE_KILLED, ECANCELED, "killed");
	if (q->child)
		kill_now(q);
	else
		end_early(q);
}

static void qm_quit(struct machine *m)
{
	struct qemu_machine *q = self(m);

	if (!q->qmp) {
		qm_kill(m);
		return;
	}
	q->quitting = true;
	qmp_execute(q->qmp, "quit", NULL, NULL, NULL);
}

static void qm_fail(struct machine *m, const struct err *why)
{
	struct qemu_machine *q = self(m);

	set_fate(q, MACHINE_DIED, why->code, "%s", why->msg);
	if (q->child)
		kill_now(q);
	else
		end_early(q);
}

static void qm_unlink(struct machine *m)
{
	struct qemu_machine *q = self(m);

	if (q->transport && !q->ended)
		transport_unlink(q->transport);
}

static struct qmp *qm_qmp(struct machine *m)
{
	return self(m)->qmp;
}

static pid_t qm_pid(const struct machine *m)
{
	const struct qemu_machine *q = self(m);

	return q->child && !q->ended ? child_pid(q->child) : 0;
}

static uint32_t qm_cid(const struct machine *m)
{
	return self(m)->cid;
}

static const char *const *qm_argv(const struct machine *m)
{
	return (const char *const *)self(m)->argv;
}

static struct save *qm_save(struct machine *m, const char *dir, struct image *image, bool running,
	void (*done)(void *arg, const struct vm_saved *s, const struct err *e), void *arg, struct err *e)
{
	struct qemu_machine *q = self(m);
	struct save_spec s = { .loop = q->loop, .qmp = q->qmp, .pid = child_pid(q->child), .ram_fd = FD_RAM, .dir = dir,
		.image = image, .private_ram = q->restored, .console = q->spec.console, .running = running,
		.done = done, .arg = arg };

	s.disks = diskset_list(q->disks, &s.ndisks);
	return save_start(&s, e);
}

static void free_now(void *arg)
{
	struct qemu_machine *q = arg;

	image_unref(q->spec.image);
	free(q->initramfs);
	qemu_argv_free(q->argv);
	err_release(&q->why);
	free(q);
}

static void qm_free(struct machine *m)
{
	struct qemu_machine *q = self(m);

	q->freed = true;
	timer_stop(&q->linger);
	initramfs_job_free(q->job);
	diskset_free(q->disks);
	if (!q->child)
		nics_forget(q->spec.nics);
	if (q->child && !q->ended)
		console_on_verdict(q->spec.console, NULL, NULL);
	child_free(q->child);
	qmp_free(q->qmp);
	transport_free(q->transport);
	incoming_free(q->incoming);
	if (q->ram >= 0)
		close(q->ram);
	if (q->state >= 0)
		close(q->state);
	if (q->serial >= 0)
		close(q->serial);
	if (q->hvc >= 0)
		close(q->hvc);
	loop_defer(q->loop, free_now, q);
}

static const struct machine_kind qemu_kind = {
	.kill = qm_kill, .quit = qm_quit, .fail = qm_fail, .unlink = qm_unlink, .qmp = qm_qmp, .pid = qm_pid,
	.cid = qm_cid, .argv = qm_argv, .save = qm_save, .free = qm_free,
};

const struct qmp_events machine_qmp_events = {
	.ready = qmp_ready_cb, .event = qmp_event_cb, .broken = qmp_broken_cb,
};
