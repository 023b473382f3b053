/*
 * From nothing to a running QEMU: initramfs or snapshot, disks, network cards, descriptors, the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/host.h"
#include "vmm/nics.h"
#include "vmm/qemumachine.h"

static void initramfs_cb(void *arg, const char *path, const struct err *e);
static void disks_cb(void *arg, const struct err *e);
static void nics_cb(void *arg, const struct err *e);

#define SOCKET_BUFFER (4 << 20)

/* ---- starting QEMU ---- */

/* A socketpair whose one end is for QEMU. What it has no room for on a console it drops; the kernel counts most of a
 * kilobyte for each small write, and on a busy host we may not read for a while. */
static int open_pair(int *ours, int *theirs, struct err *e)
{
	int sv[2], size = SOCKET_BUFFER;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_set(e, errno, "cannot make a socket pair for QEMU: %s", strerror(errno));
	if (setsockopt(sv[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
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
		.capture_err = true, .capture_max = 4 * QEMU_STDERR_MAX, .batch = true, .done = machine_child_cb, .arg = q,
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

static void start_qemu(struct qemu_machine *q)
{
	int qmp[2] = { -1, -1 }, serial[2] = { -1, -1 }, hvc[2] = { -1, -1 };
	struct err e = ERR_INIT;
	int r;

	q->spec.ev->stage(q->spec.arg, "starting QEMU");
	q->transport = transport_new(q->loop, machine_linked_cb, q, &e);
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
	q->qmp = qmp_new(q->loop, qmp[0], &machine_qmp_events, q);
	q->serial = serial[0];
	q->hvc = hvc[0];
	qmp[0] = serial[0] = hvc[0] = -1;
	if (q->spare)
		goto out;
	machine_attach_consoles(q);
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
		machine_give_up(q, &e);
	err_release(&e);
}

/* ---- preparing ---- */

static void nics_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e)
		machine_give_up(q, e);
	else
		start_qemu(q);
}

static void disks_cb(void *arg, const struct err *e)
{
	struct qemu_machine *q = arg;

	if (e) {
		machine_give_up(q, e);
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
		machine_give_up(q, e);
		return;
	}
	q->initramfs = xstrdup(path);
	prepare_disks(q);
}

void machine_begin(void *arg)
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
		machine_give_up(q, &e);
		err_release(&e);
		return;
	}
	q->spec.ev->stage(q->spec.arg, "preparing the initramfs");
	q->job = initramfs_build(q->spec.vmm, q->spec.profile, q->spec.options, initramfs_cb, q, &e);
	if (!q->job)
		machine_give_up(q, &e);
	err_release(&e);
}
