/*
 * The acceleration probe's reasons, the run directory's life and sweep, and the merging of options.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/accel.h"
#include "vmm/rundir.h"
#include "vmm/vmm.h"

static char dir[] = "/tmp/provium-accel-test-XXXXXX";

static char *write_file(const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	return path;
}

static void assert_reason(const char *device, const char *cpuinfo, const char *reason)
{
	struct err e = ERR_INIT;

	assert_true(accel_probe_kvm(device, cpuinfo, &e) < 0);
	assert_non_null(strstr(e.msg, reason));
	assert_null(strchr(e.msg, '\n'));
	err_release(&e);
}

static void no_device(void **state)
{
	(void)state;
	assert_reason("/nonexistent/kvm", "/proc/cpuinfo", "cannot open `/nonexistent/kvm`: No such file");
}

static void no_flag(void **state)
{
	char *cpuinfo = write_file("cpuinfo", "processor\t: 0\nflags\t\t: fpu vmxish avmx svm_lock sse\n");
	char *device = write_file("device", "");

	(void)state;
	assert_reason(device, cpuinfo, "no vmx or svm flag");
	free(cpuinfo);
	free(device);
}

static void flag_but_no_vm(void **state)
{
	char *device = write_file("device", "");
	char *cpuinfo = write_file("cpuinfo", "processor\t: 0\nflags\t\t: fpu sse svm\n");

	(void)state;
	assert_reason(device, cpuinfo, "cannot create a VM");
	free(cpuinfo);
	/* An architecture without such a line is judged by the vCPU alone. */
	cpuinfo = write_file("cpuinfo", "Features\t: fp asimd\n");
	assert_reason(device, cpuinfo, "cannot create a VM");
	free(cpuinfo);
	free(device);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void the_counter_is_measured(void **state)
{
	uint64_t first = accel_tsc_khz(), second;

	(void)state;
	usleep(20000);
	second = accel_tsc_khz();
#ifdef __x86_64__
	assert_in_range(first, 500000, 10000000);
	assert_in_range(second, first - first / 100, first + first / 100);
#else
	assert_int_equal(first, 0);
	assert_int_equal(second, 0);
#endif
}

static void rundir_is_swept_when_its_owner_is_gone(void **state)
{
	struct rundir *mine = rundir_new(dir, NULL), *other;
	char *orphan = xasprintf("%s/provium-%u-orphan", dir, (unsigned)geteuid());
	char *nested = xasprintf("%s/vm-1", orphan), *lock = xasprintf("%s/lock", orphan);

	(void)state;
	assert_non_null(mine);
	assert_int_equal(mkdir(orphan, 0700), 0);
	assert_int_equal(mkdir(nested, 0700), 0);
	close(open(lock, O_CREAT | O_RDWR, 0600));
	other = rundir_new(dir, NULL);
	assert_non_null(other);
	assert_false(exists(orphan));
	assert_true(exists(rundir_path(mine)));
	assert_string_not_equal(rundir_path(mine), rundir_path(other));
	free(nested);
	nested = xasprintf("%s/vm-2", rundir_path(mine));
	assert_int_equal(mkdir(nested, 0700), 0);
	rundir_free(mine);
	assert_false(exists(nested));
	rundir_free(other);
	free(orphan);
	free(nested);
	free(lock);
}

static void rundir_needs_a_writable_base(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_null(rundir_new("/nonexistent", &e));
	assert_non_null(strstr(e.msg, "set TMPDIR"));
	err_release(&e);
}

static void boot_options_win(void **state)
{
	struct file_spec file = { .path = (char *)"/etc/x", .content = (char *)"a\0b", .content_len = 3 };
	struct disk_spec disk = { .id = (char *)"d", .scratch = 5 };
	char *args[] = { (char *)"-x", NULL };
	struct vm_options o = { 0 }, vm = {
		.memory = 1, .cpus = 2, .cmdline = (char *)"one", .files = &file, .nfiles = 1,
		.qemu_args = args,
	}, boot = {
		.memory = 3, .cmdline = (char *)"two", .disks = &disk, .ndisks = 1, .has_rng_seed = true,
	};

	(void)state;
	vm_options_merge(&o, &vm);
	vm_options_merge(&o, &boot);
	assert_int_equal(o.memory, 3);
	assert_int_equal(o.cpus, 2);
	assert_string_equal(o.cmdline, "two");
	assert_int_equal(o.nfiles, 1);
	assert_memory_equal(o.files[0].content, "a\0b", 3);
	assert_ptr_not_equal(o.files[0].content, file.content);
	assert_string_equal(o.disks[0].id, "d");
	assert_true(o.has_rng_seed);
	assert_string_equal(o.qemu_args[0], "-x");
	vm_options_release(&o);
	assert_null(o.files);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_device),
		cmocka_unit_test(no_flag),
		cmocka_unit_test(flag_but_no_vm),
		cmocka_unit_test(rundir_is_swept_when_its_owner_is_gone),
		cmocka_unit_test(the_counter_is_measured),
		cmocka_unit_test(rundir_needs_a_writable_base),
		cmocka_unit_test(boot_options_win),
	};
	int r;

	if (!mkdtemp(dir))
		return 99;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rundir_remove(dir);
	return r;
}
