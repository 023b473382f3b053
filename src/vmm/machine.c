/*
 * A guest in QEMU, from its preparation to QEMU's end: initramfs, disks, the process, and what became of it.
 *
 * How a guest ends is told by several sources in no order: QMP events, the console, QEMU's exit. The
 * first one that knows decides the fate; over() comes when QEMU is reaped and everything it said has been
 * read.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/console.h"
#include "vmm/disks.h"
#include "vmm/host.h"
#include "vmm/incoming.h"
#include "vmm/initramfs.h"
#include "vmm/machine.h"
#include "vmm/nics.h"
#include "vmm/qemu.h"
#include "vmm/save.h"
#include "vmm/transport.h"

#define MS INT64_C(1000000)
#define LINGER_STEP_NS (150 * MS)	/* the console is quiet for so long: those were its last words */
#define LINGER_NS (1000 * MS)		/* but no longer than this */
#define EXIT_NS (1500 * MS)		/* what QEMU has to end by itself when the guest powers off */
#define STDERR_MAX 4096

/* Descriptors as QEMU sees them. */
enum { FD_RAM = 3, FD_QMP, FD_SERIAL, FD_HVC, FD_AGENT, FD_VHOST, FD_STATE, FD_NICS, FD_MAX = FD_NICS + VM_NICS };

static void begin(void *arg);
static void initramfs_cb(void *arg, const char *path, const struct err *e);
static void disks_cb(void *arg, const struct err *e);
static void nics_cb(void *arg, const struct err *e);
static void child_cb(void *arg, const struct child_result *r);
static void qmp_ready_cb(void *arg);
static void qmp_event_cb(void *arg, const char *name, const json_t *data);
static void qmp_broken_cb(void *arg, const struct err *e);
static void loaded_cb(void *arg, const struct err *e);
static void linked_cb(void *arg, int fd);
static void verdict_cb(void *arg, enum verdict v, const char *line);
static void linger_cb(evutil_socket_t fd, short what, void *arg);
static void tell_over(void *arg);
static void qm_fail(struct machine *m, const struct err *why);

/* One power-on. Owned by its VM, freed at the end of the turn in which free was called. */
struct qemu_machine {
	struct machine m;		/* first: what vm.c holds */
	struct machine_spec spec;
	struct loop *loop;
	struct initramfs_job *job;
	char *initramfs;
	struct diskset *disks;
	int ram, state;			/* until QEMU has them */
	struct incoming *incoming;	/* while the snapshot is loaded */
	bool restored;
	struct transport *transport;
	struct qmp *qmp;
	struct child *child;
	char **argv;
	uint32_t cid;
	struct event *linger;
	int64_t linger_until;
	size_t console_seen;
	bool fated, quitting, ended, told, freed;
	enum machine_end end;
	struct err why;
};

static const struct machine_kind qemu_kind;
static const struct qmp_events qmp_events;

static struct qemu_machine *self(const struct machine *m)
{
	return (struct qemu_machine *)m;
}

struct machine *machine_new(const struct machine_spec *s)
{
	struct qemu_machine *q = xcalloc(1, sizeof(*q));

	q->m.kind = &qemu_kind;
	q->spec = *s;
	q->loop = vmm_loop(s->vmm);
	q->ram = q->state = -1;
	q->restored = s->image != NULL;
	if (s->image)
		image_ref(s->image);
	loop_defer(q->loop, begin, q);
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
static void give_up(struct qemu_machine *q, const struct err *e)
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

	if (n > STDERR_MAX) {
		evbuffer_drain(err, n - STDERR_MAX);
		n = STDERR_MAX;
	}
	text = xmalloc(n + 1);
	if (n > 0)
		evbuffer_copyout(err, text, n);
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	text[n] = 0;
	return text;
}

static void child_cb(void *arg, const struct child_result *r)
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

static void verdict_cb(void *arg, enum verdict v, const char *line)
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
		.done = loaded_cb, .arg = q });
}

static void loaded_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e) {
		/* QEMU says why on its stderr and exits, or does not know and is ended. */
		if (e->code == -ESTALE && strstr(e->msg, "could not load"))
			expect_exit(q);
		else
			qm_fail(&q->m, e);
		return;
	}
	incoming_free(q->incoming);
	q->incoming = NULL;
	image_unref(q->spec.image);
	q->spec.image = NULL;
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

static void linked_cb(void *arg, int fd)
{
	struct qemu_machine *q = arg;

	if (q->fated)
		close(fd);
	else
		q->spec.ev->linked(q->spec.arg, fd);
}

/* ---- starting QEMU ---- */

/* A socketpair whose one end is for QEMU. */
static int open_pair(int *ours, int *theirs, struct err *e)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_set(e, errno, "cannot make a socket pair for QEMU: %s", strerror(errno));
	*ours = sv[0];
	*theirs = sv[1];
	return 0;
}

static int open_saved(const char *dir, const char *file, int flags, int *fd, struct err *e)
{
	char *path = image_path(dir, file);
	int r = 0;

	*fd = open(path, flags | O_CLOEXEC);
	if (*fd < 0)
		r = err_set(e, ESTALE, "cannot open `%s`: %s", path, strerror(errno));
	free(path);
	return r;
}

static int make_ram(struct qemu_machine *q, struct err *e)
{
	uint64_t size = qemu_memory(q->spec.profile, q->spec.options);
	char text[32];

	/* QEMU opens it again for writing, though nothing is ever written to it. */
	if (q->spec.image)
		return open_saved(q->spec.image->pub.dir, "ram", O_RDWR, &q->ram, e) < 0 ? e->code :
			open_saved(q->spec.image->pub.dir, "state", O_RDONLY, &q->state, e);
	q->ram = memfd_create("provium-ram", MFD_CLOEXEC);
	if (q->ram < 0)
		return err_set(e, errno, "cannot make the guest's RAM: memfd_create: %s", strerror(errno));
	if (ftruncate(q->ram, (off_t)size) < 0)
		return err_set(e, errno, "cannot make the guest's RAM of %s: %s",
			units_format_size(size, text, sizeof(text)), strerror(errno));
	return 0;
}

static int spawn(struct qemu_machine *q, int qmp, int serial, int hvc, struct err *e)
{
	int vhost = transport_vhost_fd(q->transport);
	struct qemu_nic nics[VM_NICS];
	struct child_fd fds[FD_MAX - FD_RAM] = {
		{ q->ram, FD_RAM }, { qmp, FD_QMP }, { serial, FD_SERIAL }, { hvc, FD_HVC },
		{ transport_serial_fd(q->transport), FD_AGENT },
	};
	struct qemu_spec s = {
		.program = vmm_qemu_program(q->spec.vmm, q->spec.profile->arch), .name = q->spec.name,
		.profile = q->spec.profile, .options = q->spec.options, .accel = q->spec.accel,
		.initramfs = q->initramfs, .incoming = q->spec.image, .cid = transport_cid(q->transport),
		.fds = { FD_RAM, FD_QMP, FD_SERIAL, FD_HVC, FD_AGENT, vhost < 0 ? -1 : FD_VHOST },
	};
	struct child_spec c = {
		.fds = fds, .nfds = FD_VHOST - FD_RAM,
		.capture_err = true, .capture_max = 4 * STDERR_MAX, .batch = true, .done = child_cb, .arg = q,
	};

	if (vhost >= 0)
		fds[c.nfds++] = (struct child_fd){ vhost, FD_VHOST };
	if (q->state >= 0)
		fds[c.nfds++] = (struct child_fd){ q->state, FD_STATE };
	s.disks = diskset_list(q->disks, &s.ndisks);
	s.nics = nics;
	s.nnics = nics_list(q->spec.nics, FD_NICS, nics, fds + c.nfds);
	c.nfds += s.nnics;
	q->argv = qemu_argv(&s, e);
	nics_list_free(nics, s.nnics);
	if (!q->argv)
		return -EINVAL;
	c.argv = (const char *const *)q->argv;
	q->child = child_spawn(q->loop, &c, e);
	if (!q->child) {
		if (e->code == -ENOENT)
			err_append(e, " (install QEMU, or name it with PROVIUM_QEMU)");
		return e->code;
	}
	return 0;
}

static void set_console_input(struct qemu_machine *q)
{
	struct err e = ERR_INIT;
	char *cmdline = qemu_cmdline(q->spec.profile, q->spec.options, q->spec.accel, &e);
	char *last = NULL;

	for (char *p = cmdline; p && (p = strstr(p, "console=")); p++)
		if (p == cmdline || p[-1] == ' ')
			last = p;
	console_set_input(q->spec.console,
		last && strncmp(last, "console=hvc", 11) == 0 ? CONSOLE_HVC : CONSOLE_SERIAL);
	free(cmdline);
	err_release(&e);
}

static void start_qemu(struct qemu_machine *q)
{
	int qmp[2] = { -1, -1 }, serial[2] = { -1, -1 }, hvc[2] = { -1, -1 };
	struct err e = ERR_INIT;
	int r;

	q->spec.ev->stage(q->spec.arg, "starting QEMU");
	q->transport = transport_new(q->loop, linked_cb, q, &e);
	r = q->transport ? 0 : e.code;
	if (r < 0 || (r = make_ram(q, &e)) < 0 || (r = open_pair(&qmp[0], &qmp[1], &e)) < 0 ||
	    (r = open_pair(&serial[0], &serial[1], &e)) < 0 || (r = open_pair(&hvc[0], &hvc[1], &e)) < 0)
		goto out;
	r = spawn(q, qmp[1], serial[1], hvc[1], &e);
	if (r < 0)
		goto out;
	/* Whoever closes guest RAM last frees its pages, which takes long: let it be QEMU's exit. What needs
	 * them later opens /proc/PID/fd/FD_RAM. */
	close(q->ram);
	if (q->state >= 0)
		close(q->state);
	q->ram = q->state = -1;
	transport_started(q->transport);
	q->cid = transport_cid(q->transport);
	q->qmp = qmp_new(q->loop, qmp[0], &qmp_events, q);
	console_attach(q->spec.console, CONSOLE_SERIAL, serial[0]);
	console_attach(q->spec.console, CONSOLE_HVC, hvc[0]);
	console_on_verdict(q->spec.console, verdict_cb, q);
	set_console_input(q);
	qmp[0] = serial[0] = hvc[0] = -1;
	nics_started(q->spec.nics, q->qmp, q->spec.profile, q->spec.options);
	q->spec.ev->started(q->spec.arg);
out:
	for (int i = 0; i < 2; i++) {
		if (qmp[i] >= 0)
			close(qmp[i]);
		if (serial[i] >= 0)
			close(serial[i]);
		if (hvc[i] >= 0)
			close(hvc[i]);
	}
	if (r < 0)
		give_up(q, &e);
	err_release(&e);
}

/* ---- preparing ---- */

static void nics_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e)
		give_up(q, e);
	else
		start_qemu(q);
}

static void disks_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e) {
		give_up(q, e);
		return;
	}
	q->spec.ev->stage(q->spec.arg, "connecting the network cards");
	nics_open(q->spec.nics, nics_cb, q);
}

static int check_kernel(const struct profile *p, struct err *e)
{
	struct stat st;

	if (!p->kernel)
		return err_set(e, ENOENT,
			"profile `%s` has no kernel: set `kernel` or `root` in provium.toml", p->name);
	if (access(p->kernel, R_OK) < 0 || stat(p->kernel, &st) < 0)
		return err_set(e, errno, "profile `%s`: cannot read the kernel `%s`: %s (correct `kernel` in "
			"provium.toml, or build it with `provium prepare`)",
			p->name, p->kernel, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "profile `%s`: the kernel `%s` is not a regular file", p->name,
			p->kernel);
	return 0;
}

static void prepare_disks(struct qemu_machine *q)
{
	q->spec.ev->stage(q->spec.arg, "preparing the disks");
	q->disks = diskset_new(q->loop, q->spec.dir, q->spec.profile, q->spec.options, q->spec.image,
		q->spec.own_disks, disks_cb, q);
}

static void initramfs_cb(void *arg, const char *path, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e) {
		give_up(q, e);
		return;
	}
	q->initramfs = xstrdup(path);
	prepare_disks(q);
}

static void begin(void *arg)
{
	struct qemu_machine *q = arg;
	struct err e = ERR_INIT;

	if (q->freed || q->ended)
		return;
	if (q->spec.image) {
		prepare_disks(q);
		return;
	}
	q->spec.ev->stage(q->spec.arg, "looking for the kernel");
	if (check_kernel(q->spec.profile, &e) < 0) {
		give_up(q, &e);
		err_release(&e);
		return;
	}
	q->spec.ev->stage(q->spec.arg, "preparing the initramfs");
	q->job = initramfs_build(q->spec.vmm, q->spec.profile, q->spec.options, initramfs_cb, q, &e);
	if (!q->job)
		give_up(q, &e);
	err_release(&e);
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
	struct save_spec s = { .loop = q->loop, .qmp = q->qmp, .pid = child_pid(q->child), .dir = dir,
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
	loop_defer(q->loop, free_now, q);
}

static const struct machine_kind qemu_kind = {
	.kill = qm_kill, .quit = qm_quit, .fail = qm_fail, .unlink = qm_unlink, .qmp = qm_qmp, .pid = qm_pid,
	.cid = qm_cid, .argv = qm_argv, .save = qm_save, .free = qm_free,
};

static const struct qmp_events qmp_events = {
	.ready = qmp_ready_cb, .event = qmp_event_cb, .broken = qmp_broken_cb,
};
