/*
 * The QEMU command line: what each part of profile and options comes to, for every machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/qemu.h"

static struct profile profile;
static struct vm_options options;
static struct qemu_spec spec;
static char **argv;

static int setup(void **state)
{
	(void)state;
	profile = (struct profile){
		.name = (char *)"debian", .kernel = (char *)"/k/vmlinuz", .cmdline = (char *)"quiet",
		.memory = 256 << 20, .cpus = 1, .machine = (char *)"pc", .arch = (char *)"x86_64",
		.inject_agent = true,
	};
	options = (struct vm_options){ 0 };
	spec = (struct qemu_spec){
		.program = "qemu", .name = "a", .profile = &profile, .options = &options, .accel = ACCEL_TCG,
		.initramfs = "/i/ramfs", .fds = { 3, 4, 5, 6, 7, -1 },
	};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	qemu_argv_free(argv);
	argv = NULL;
	return 0;
}

static void build(void)
{
	struct err e = ERR_INIT;

	qemu_argv_free(argv);
	argv = qemu_argv(&spec, &e);
	if (!argv)
		fail_msg("%s", e.msg);
}

/* The value after the n-th (from 0) such option, or NULL. */
static const char *value(const char *option, unsigned n)
{
	for (char **s = argv; *s; s++)
		if (strcmp(*s, option) == 0 && n-- == 0)
			return s[1];
	return NULL;
}

/* The value of the option that contains text. */
static const char *with(const char *option, const char *text)
{
	for (unsigned n = 0; value(option, n); n++)
		if (strstr(value(option, n), text))
			return value(option, n);
	return NULL;
}

static void assert_refused(const char *message)
{
	struct err e = ERR_INIT;

	qemu_argv_free(argv);
	argv = qemu_argv(&spec, &e);
	assert_null(argv);
	if (!strstr(e.msg, message))
		fail_msg("\"%s\" has no \"%s\"", e.msg, message);
	err_release(&e);
}

static void every_device_on_pc_has_an_address(void **state)
{
	const struct qemu_disk disk = { .id = "data", .path = "/d" };

	(void)state;
	spec.fds.vhost = 8;
	spec.cid = 77;
	spec.disks = &disk;
	spec.ndisks = 1;
	build();
	assert_string_equal(argv[0], "qemu");
	assert_non_null(with("-device", "virtio-serial-pci,id=vser,max_ports=8,bus=pci.0,addr=0x2"));
	assert_non_null(with("-device",
		"vhost-vsock-pci,id=vsock,guest-cid=77,vhostfd=8,bus=pci.0,addr=0x3"));
	assert_non_null(with("-device", "virtio-rng-pci,id=rng,rng=rng0,bus=pci.0,addr=0x4"));
	assert_non_null(with("-device",
		"virtio-blk-pci,id=blk-data,drive=image0,serial=data,bus=pci.0,addr=0x10"));
	for (unsigned n = 0; value("-device", n); n++)
		if (strstr(value("-device", n), "-pci"))
			assert_non_null(strstr(value("-device", n), ",addr=0x"));
}

static void descriptors_and_ram(void **state)
{
	(void)state;
	options.memory = (100 << 20) + 1;
	options.cpus = 3;
	build();
	assert_string_equal(value("-m", 0), "101M");
	assert_string_equal(value("-smp", 0), "3");
	assert_string_equal(value("-object", 0),
		"memory-backend-file,id=ram,size=101M,mem-path=/proc/self/fd/3,share=on");
	assert_non_null(with("-chardev", "socket,id=qmp,fd=4"));
	assert_non_null(with("-chardev", "socket,id=serial0,fd=5"));
	assert_non_null(with("-chardev", "socket,id=hvc0,fd=6"));
	assert_non_null(with("-chardev", "socket,id=agent0,fd=7"));
	assert_non_null(with("-device", "name=org.provium.agent.0"));
	assert_null(with("-device", "vsock"));
}

static void acceleration(void **state)
{
	(void)state;
	build();
	assert_non_null(strstr(value("-accel", 0), "tcg"));
	spec.accel = ACCEL_KVM;
	build();
	assert_string_equal(value("-accel", 0), "kvm");
	assert_string_equal(value("-cpu", 0), "host");
}

static void the_kernel_command_line(void **state)
{
	(void)state;
	build();
	assert_string_equal(value("-kernel", 0), "/k/vmlinuz");
	assert_string_equal(value("-initrd", 0), "/i/ramfs");
	assert_string_equal(value("-append", 0), "quiet console=ttyS0 no_timer_check rdinit=/sbin/provium-agent");
	spec.accel = ACCEL_KVM;
	options.cmdline = (char *)"console=ttyS0,115200 rdinit=/sbin/provium-agent";
	options.cmdline_append = (char *)"debug";
	spec.initramfs = NULL;
	build();
	assert_string_equal(value("-append", 0), "console=ttyS0,115200 rdinit=/sbin/provium-agent debug");
	assert_null(value("-initrd", 0));
	profile.inject_agent = false;
	options.cmdline = (char *)"rdinit=/mine console=ttyS01";
	build();
	assert_string_equal(value("-append", 0), "rdinit=/mine console=ttyS01 debug console=ttyS0");
}

static void another_rdinit_is_refused(void **state)
{
	(void)state;
	profile.cmdline = (char *)"quiet rdinit=/bin/sh";
	assert_refused("profile `debian`: the kernel command line has `rdinit=/bin/sh`");
	assert_refused("set inject_agent = false");
}

static void long_command_lines_are_refused(void **state)
{
	char *text = xmalloc(3001);

	(void)state;
	memset(text, 'x', 3000);
	text[3000] = 0;
	options.cmdline = text;
	assert_refused("a kernel takes 2047");
	free(text);
}

static void machines(void **state)
{
	const struct qemu_disk disk = { .id = "data", .path = "/d" };

	(void)state;
	spec.disks = &disk;
	spec.ndisks = 1;
	options.machine = (char *)"q35";
	build();
	assert_non_null(with("-device",
		"pcie-root-port,id=nic0,bus=pcie.0,chassis=1,slot=1,addr=0x8.0,multifunction=on"));
	assert_non_null(with("-device", "pcie-root-port,id=disk15,bus=pcie.0,chassis=24,slot=24,addr=0xa.7"));
	assert_non_null(with("-device",
		"virtio-blk-pci,id=blk-data,drive=image0,serial=data,bus=disk0,addr=0"));
	options.machine = (char *)"microvm";
	build();
	assert_non_null(with("-device", "virtio-blk-device,id=blk-data,drive=image0,serial=data"));
	assert_null(with("-device", "addr="));
	assert_null(with("-device", "pvpanic"));
	assert_non_null(strstr(value("-append", 0), " tsc_early_khz="));
	options.machine = (char *)"virt";
	assert_refused("machine `virt` is for arch `aarch64`, but arch is `x86_64`");
	profile.arch = (char *)"aarch64";
	build();
	assert_non_null(strstr(value("-append", 0), "console=ttyAMA0"));
	options.machine = (char *)"pcc";
	assert_refused("unknown machine `pcc` (known: pc, q35, microvm, virt)");
}

static void time_and_seed(void **state)
{
	(void)state;
	build();
	assert_null(value("-rtc", 0));
	assert_null(value("-seed", 0));
	options.has_rng_seed = true;
	options.rng_seed = UINT64_MAX;
	options.has_initial_time = true;
	options.initial_time = 1000000000.75;
	build();
	assert_string_equal(value("-seed", 0), "18446744073709551615");
	assert_string_equal(value("-rtc", 0), "base=2001-09-09T01:46:40");
	options.initial_time = -0.5;
	build();
	assert_string_equal(value("-rtc", 0), "base=1969-12-31T23:59:58");
	options.initial_time = 1e15;
	assert_refused("initial_time: 1000000000000000 is not between");
}

static void disks(void **state)
{
	struct qemu_disk list[] = {
		{ .id = "a", .path = "/with,comma \"quote\"", .format = "qcow2", .readonly = true },
		{ .id = "b", .path = "/b", .temporary = true },
	};

	(void)state;
	spec.disks = list;
	spec.ndisks = 2;
	build();
	assert_non_null(strstr(value("-blockdev", 0), "\"/with,comma \\\"quote\\\"\""));
	assert_non_null(strstr(value("-blockdev", 0), "\"driver\":\"qcow2\""));
	assert_non_null(strstr(value("-blockdev", 0), "\"read-only\":true"));
	assert_non_null(strstr(value("-blockdev", 1), "\"no-flush\":true"));
	assert_non_null(with("-device", "serial=b,bus=pci.0,addr=0x11"));
	list[1].id = "a";
	assert_refused("two disks have the id `a`");
	list[1].id = "";
	assert_refused("disk id ``");
	list[1].id = "a,serial=x";
	assert_refused("disk id `a,serial=x`");
	spec.ndisks = 17;
	assert_refused("17 disks: a VM takes 16");
}

static void extra_arguments_come_last(void **state)
{
	char *mine[] = { (char *)"-foo", (char *)"a b", NULL }, *more[] = { (char *)"-bar", NULL };
	size_t n = 0;

	(void)state;
	profile.qemu_args = mine;
	options.qemu_args = more;
	build();
	while (argv[n])
		n++;
	assert_string_equal(argv[n - 3], "-foo");
	assert_string_equal(argv[n - 2], "a b");
	assert_string_equal(argv[n - 1], "-bar");
}

static void network_cards(void **state)
{
	struct qemu_nic nics[] = {
		{ .slot = 0, .mac = { 0x52, 0x54, 0, 1, 2, 3 }, .netdev = (char *)"tap,id=net0,fd=9" },
		{ .slot = 7, .mac = { 0x52, 0x54, 0, 1, 2, 4 }, .netdev = (char *)"dgram,id=net7" },
	};
	char *text;

	(void)state;
	spec.nics = nics;
	spec.nnics = 2;
	build();
	assert_string_equal(value("-netdev", 0), "tap,id=net0,fd=9");
	assert_string_equal(with("-device", "eth0"),
		"virtio-net-pci,id=eth0,netdev=net0,mac=52:54:00:01:02:03,romfile=,bus=pci.0,addr=0x8");
	assert_non_null(strstr(with("-device", "eth7"), ",addr=0xf"));
	options.machine = (char *)"q35";
	build();
	assert_non_null(strstr(with("-device", "eth7"), "bus=nic7,addr=0"));
	assert_true(qemu_can_plug(&profile, &options));
	options.machine = (char *)"microvm";
	build();
	assert_string_equal(with("-device", "eth0"), "virtio-net-device,id=eth0,netdev=net0,mac=52:54:00:01:02:03");
	assert_false(qemu_can_plug(&profile, &options));
	options.machine = NULL;
	text = qemu_nic_device(&profile, &options, 1, nics[0].mac);
	assert_non_null(strstr(text, "id=eth1,netdev=net1"));
	free(text);
}

static void options_as_arguments(void **state)
{
	json_t *o = qemu_option_args("type", "dgram,id=net0,local.type=fd,local.str=net0,vhost=off,up=on");
	char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);

	(void)state;
	assert_string_equal(text, "{\"id\":\"net0\",\"local\":{\"str\":\"net0\",\"type\":\"fd\"},"
		"\"type\":\"dgram\",\"up\":true,\"vhost\":false}");
	free(text);
	json_decref(o);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_device_on_pc_has_an_address), TEST(descriptors_and_ram), TEST(acceleration),
		TEST(the_kernel_command_line), TEST(another_rdinit_is_refused),
		TEST(long_command_lines_are_refused),
		TEST(machines), TEST(time_and_seed), TEST(disks), TEST(extra_arguments_come_last),
		TEST(network_cards), TEST(options_as_arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
