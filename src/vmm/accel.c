/*
 * Acceleration: KVM if it really runs a guest here, or the one-line reason why it does not.
 *
 * A nested host may offer /dev/kvm and even create a vCPU without hardware virtualization below it; a
 * stock guest then hangs or crawls. So the processor's own flag counts too.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

#include "vmm/accel.h"

#define TSC_MEASURED_NS INT64_C(1000000)

/* Whether a line of flags lists the word. */
static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += n)
		if (p > line && (p[-1] == ' ' || p[-1] == '\t') && (p[n] == ' ' || p[n] == '\n' || !p[n]))
			return true;
	return false;
}

/* x86 lists "flags"; other architectures do not, and there the vCPU alone decides. */
static int check_flags(const char *cpuinfo, struct err *e)
{
	FILE *f = fopen(cpuinfo, "re");
	char *line = NULL;
	size_t cap = 0;
	int r = 0;

	if (!f)
		return 0;
	while (getline(&line, &cap, f) > 0) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		if (!has_word(line, "vmx") && !has_word(line, "svm"))
			r = err_set(e, ENODEV,
				"the processor shows no hardware virtualization (no vmx or svm flag)");
		break;
	}
	free(line);
	fclose(f);
	return r;
}

static int check_vcpu(int kvm, const char *device, struct err *e)
{
	int vm, vcpu, r = 0;

	vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
	if (vm < 0)
		return err_set(e, errno, "`%s` cannot create a VM: %s", device, strerror(errno));
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
	if (vcpu < 0)
		r = err_set(e, errno, "`%s` cannot create a vCPU: %s", device, strerror(errno));
	else
		close(vcpu);
	close(vm);
	return r;
}

int accel_probe_kvm(const char *device, const char *cpuinfo, struct err *e)
{
	int kvm, r;

	kvm = open(device, O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return err_set(e, errno, "cannot open `%s`: %s%s", device, strerror(errno),
			errno == EACCES ? " (add yourself to the group kvm)" : "");
	r = check_flags(cpuinfo, e);
	if (r == 0)
		r = check_vcpu(kvm, device, e);
	close(kvm);
	return r;
}

#ifdef __x86_64__
uint64_t accel_tsc_khz(void)
{
	static int64_t first_ns;
	static uint64_t first;
	int64_t ns;
	uint64_t ticks;

	if (!first_ns) {
		first = __rdtsc();
		first_ns = now_ns();
	}
	do {
		ticks = __rdtsc() - first;
		ns = now_ns() - first_ns;
	} while (ns < TSC_MEASURED_NS);
	return (uint64_t)((double)ticks * 1e6 / (double)ns);
}
#else
uint64_t accel_tsc_khz(void)
{
	return 0;
}
#endif
