/*
 * The process-wide context of all VMs: configuration, run directory, acceleration.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "vmm/accel.h"
#include "vmm/host.h"
#include "vmm/rundir.h"
#include "vmm/spares.h"

/* Owned by main(); every VM borrows it. */
struct vmm {
	struct loop *loop;
	enum vmm_kind kind;
	enum accel accel;
	char *qemu;			/* NULL: by architecture */
	char *default_qemu;		/* made on first use, for the last architecture asked */
	char *cache_dir, *agent;
	void (*notice)(void *arg, const char *text);
	void *arg;
	struct rundir *rundir;
	struct spares *spares;
	bool (*spare_room)(void *arg, uint64_t memory, unsigned cpus);
	bool probed, noticed;
	struct err no_kvm;		/* why KVM is not used, after the probe */
	unsigned last_serial;
};

struct vmm *vmm_new(struct loop *l, const struct vmm_config *c, struct err *e)
{
	struct rundir *d = rundir_new(NULL, e);
	struct vmm *v;

	if (!d)
		return NULL;
	v = xcalloc(1, sizeof(*v));
	v->loop = l;
	v->kind = c->kind;
	v->accel = c->accel;
	v->qemu = xstrdup(c->qemu);
	v->cache_dir = xstrdup(c->cache_dir);
	v->agent = xstrdup(c->agent);
	v->notice = c->notice;
	v->arg = c->arg;
	v->rundir = d;
	v->spare_room = c->spare_room;
	v->spares = spares_new(v, c->spares);
	accel_tsc_khz();	/* begins to measure */
	return v;
}

void vmm_free(struct vmm *v)
{
	if (!v)
		return;
	spares_free(v->spares);
	rundir_free(v->rundir);
	err_release(&v->no_kvm);
	free(v->qemu);
	free(v->default_qemu);
	free(v->cache_dir);
	free(v->agent);
	free(v);
}

struct loop *vmm_loop(struct vmm *v)
{
	return v->loop;
}

void vmm_abandon(struct vmm *v)
{
	rundir_free(v->rundir);
}

const char *vmm_run_dir(struct vmm *v)
{
	return rundir_path(v->rundir);
}

const char *vmm_cache_dir(struct vmm *v)
{
	return v->cache_dir;
}

enum vmm_kind vmm_kind(struct vmm *v)
{
	return v->kind;
}

bool vmm_spare_room(struct vmm *v, uint64_t memory, unsigned cpus)
{
	return !v->spare_room || v->spare_room(v->arg, memory, cpus);
}

struct spares *vmm_spares(struct vmm *v)
{
	return v->spares;
}

unsigned vmm_next_serial(struct vmm *v)
{
	return ++v->last_serial;
}

const char *vmm_agent_program(struct vmm *v)
{
	return v->agent;
}

const char *host_arch(void)
{
	static struct utsname u;

	if (!u.machine[0] && uname(&u) < 0)
		return "x86_64";
	return u.machine;
}

const char *host_cpu(void)
{
	static char model[128];
	static bool known;
	char line[256];
	FILE *f;

	if (known)
		return model;
	known = true;
	f = fopen("/proc/cpuinfo", "re");
	while (f && fgets(line, sizeof(line), f) && !*model)
		if (strncmp(line, "model name", 10) == 0)
			sscanf(line, "model name : %127[^\n]", model);
	if (f)
		fclose(f);
	return model;
}

const char *vmm_qemu_program(struct vmm *v, const char *arch)
{
	if (v->qemu)
		return v->qemu;
	free(v->default_qemu);
	v->default_qemu = xasprintf("qemu-system-%s", arch ? arch : host_arch());
	return v->default_qemu;
}

static bool kvm_usable(struct vmm *v)
{
	if (!v->probed) {
		v->probed = true;
		accel_probe_kvm("/dev/kvm", "/proc/cpuinfo", &v->no_kvm);
	}
	return !err_is_set(&v->no_kvm);
}

static void tell_tcg(struct vmm *v)
{
	char *text;

	if (v->noticed || !v->notice)
		return;
	v->noticed = true;
	text = xasprintf("TCG: guests are emulated, slower than with KVM: %s", v->no_kvm.msg);
	v->notice(v->arg, text);
	free(text);
}

enum accel vmm_resolve_accel(struct vmm *v, enum accel want, struct err *e)
{
	if (v->accel != ACCEL_AUTO)
		want = v->accel;
	if (want == ACCEL_TCG)
		return ACCEL_TCG;
	if (kvm_usable(v))
		return ACCEL_KVM;
	if (want == ACCEL_KVM) {
		err_set(e, v->no_kvm.code, "accel = \"kvm\", but KVM is not usable here: %s "
			"(use \"auto\" or \"tcg\")", v->no_kvm.msg);
		return ACCEL_AUTO;
	}
	tell_tcg(v);
	return ACCEL_TCG;
}

enum accel vmm_guest_accel(struct vmm *v, enum accel want, const char *arch, struct err *e)
{
	if (!arch || strcmp(arch, host_arch()) == 0)
		return vmm_resolve_accel(v, want, e);
	if (v->accel != ACCEL_AUTO)
		want = v->accel;
	if (want != ACCEL_KVM)
		return ACCEL_TCG;
	err_set(e, ENODEV,
		"accel = \"kvm\" cannot run a guest of arch `%s` on this %s host (use \"auto\" or \"tcg\")",
		arch, host_arch());
	return ACCEL_AUTO;
}
