/*
 * The QEMU command line: from profile, options and inherited descriptors to argv.
 *
 * No socket and no image of ours has a path: control, consoles and agent are inherited socketpairs, RAM is an
 * inherited memfd. What is killed leaves nothing behind.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "agent/protocol.h"
#include "vmm/accel.h"
#include "vmm/host.h"
#include "vmm/qemu.h"

#define RDINIT "/sbin/provium-agent"
#define NO_TIMER_CHECK "no_timer_check"
#define TSC_KHZ "tsc_early_khz"
#define MIB ((uint64_t)1 << 20)
#define ID_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

struct args {
	char **v;
	size_t n;
};

/* What differs between the machines. */
struct board {
	const char *machine, *arch;
	const char *options;		/* appended to -machine */
	const char *suffix;		/* of virtio devices: -pci or -device */
	const char *bus;		/* NULL: virtio-mmio */
	const char *console;		/* the serial port's name in the guest */
	bool ports;			/* hot-plug goes through root ports */
	bool x86_devices;		/* pvpanic on ISA, vmgenid, a PIT */
	bool no_timer_irq;		/* hardware-reduced ACPI: x86 without a PIT's interrupts */
};

#define BOARDS 4
static const struct board boards[BOARDS];

static void add(struct args *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct args *a, const char *fmt, ...)
{
	va_list ap;

	a->v = xrealloc(a->v, (a->n + 2) * sizeof(*a->v));
	va_start(ap, fmt);
	a->v[a->n++] = xvasprintf(fmt, ap);
	va_end(ap);
	a->v[a->n] = NULL;
}

/* An option and its value. */
#define add_option(a, option, ...) (add((a), "%s", (option)), add((a), __VA_ARGS__))

void qemu_argv_free(char **argv)
{
	for (char **s = argv; s && *s; s++)
		free(*s);
	free(argv);
}

uint64_t qemu_memory(const struct profile *p, const struct vm_options *o)
{
	uint64_t bytes = o && o->memory ? o->memory : p->memory;

	return (bytes + MIB - 1) / MIB * MIB;
}

const char *qemu_machine(const struct profile *p, const struct vm_options *o)
{
	return o && o->machine ? o->machine : p->machine ? p->machine : "pc";
}

static const struct board *find_board(const struct profile *p, const struct vm_options *o, struct err *e)
{
	const char *machine = qemu_machine(p, o), *arch = p->arch ? p->arch : host_arch();

	for (const struct board *b = boards; b < boards + BOARDS; b++) {
		if (strcmp(machine, b->machine) != 0)
			continue;
		if (strcmp(arch, b->arch) == 0)
			return b;
		err_set(e, EINVAL, "profile `%s`: machine `%s` is for arch `%s`, but arch is `%s`",
			p->name, machine, b->arch, arch);
		return NULL;
	}
	err_set(e, EINVAL, "profile `%s`: unknown machine `%s` (known: pc, q35, microvm, virt)", p->name,
		machine);
	return NULL;
}

/* The value of the last KEY= word of a command line and its length, or NULL. */
static const char *cmdline_value(const char *cmdline, const char *key, size_t *len)
{
	const char *found = NULL;
	size_t n = strlen(key);

	for (const char *p = cmdline; *p; ) {
		size_t word = strcspn(p, " \t\n");

		if (word > n && strncmp(p, key, n) == 0 && p[n] == '=') {
			found = p + n + 1;
			*len = word - n - 1;
		}
		p += word;
		p += strspn(p, " \t\n");
	}
	return found;
}

static bool has_word(const char *cmdline, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = cmdline; (p = strstr(p, word)); p += n)
		/* console=ttyS0,115200 is the same port */
		if ((p == cmdline || strchr(" \t\n", p[-1])) && (!p[n] || strchr(" \t\n,", p[n])))
			return true;
	return false;
}

static void append_word(char **cmdline, const char *fmt, const char *value)
{
	char *word = xasprintf(fmt, value), *old = *cmdline;

	*cmdline = xasprintf("%s%s%s", old, *old ? " " : "", word);
	free(word);
	free(old);
}

static int add_rdinit(const struct profile *p, char **cmdline, struct err *e)
{
	size_t len = 0;
	const char *rdinit = cmdline_value(*cmdline, "rdinit", &len);

	if (!p->inject_agent)
		return 0;
	if (!rdinit) {
		append_word(cmdline, "rdinit=%s", RDINIT);
		return 0;
	}
	if (len == strlen(RDINIT) && strncmp(rdinit, RDINIT, len) == 0)
		return 0;
	return err_set(e, EINVAL,
		"profile `%s`: the kernel command line has `rdinit=%.*s`, but the injected agent needs "
		"`rdinit=" RDINIT "`: remove it, or set inject_agent = false", p->name, (int)len, rdinit);
}

/*
 * A kernel without timer interrupts waits for ever when it could not measure the counter with a PIT, which on a busy host
 * is now and then.
 */
static void tell_tsc(char **cmdline)
{
	size_t len;
	uint64_t khz = accel_tsc_khz();
	char text[32];

	if (khz == 0 || cmdline_value(*cmdline, TSC_KHZ, &len))
		return;
	snprintf(text, sizeof(text), "%" PRIu64, khz);
	append_word(cmdline, TSC_KHZ "=%s", text);
}

char *qemu_cmdline(const struct profile *p, const struct vm_options *o, enum accel accel, struct err *e)
{
	const struct board *b = find_board(p, o, e);
	const char *base = o->cmdline ? o->cmdline : p->cmdline;
	char *cmdline, *console;

	if (!b)
		return NULL;
	cmdline = xstrdup(base ? base : "");
	if (o->cmdline_append && *o->cmdline_append)
		append_word(&cmdline, "%s", o->cmdline_append);
	console = xasprintf("console=%s", b->console);
	if (!has_word(cmdline, console))
		append_word(&cmdline, "%s", console);
	free(console);
	/* Emulated on a busy host, timer interrupts come so late that the kernel takes them for missing and
	 * panics ("IO-APIC + timer doesn't work"). Under KVM it trusts them by itself. */
	if (accel == ACCEL_TCG && b->x86_devices && !has_word(cmdline, NO_TIMER_CHECK))
		append_word(&cmdline, "%s", NO_TIMER_CHECK);
	if (accel == ACCEL_TCG && b->no_timer_irq)
		tell_tsc(&cmdline);
	if (add_rdinit(p, &cmdline, e) < 0)
		goto fail;
	if (strlen(cmdline) > QEMU_CMDLINE_MAX) {
		err_set(e, E2BIG, "profile `%s`: the kernel command line has %zu bytes, a kernel takes %d",
			p->name, strlen(cmdline), QEMU_CMDLINE_MAX);
		goto fail;
	}
	return cmdline;
fail:
	free(cmdline);
	return NULL;
}

/* ",bus=X,addr=Y" for a device of the fixed slots; nothing on virtio-mmio. malloc'ed. */
static char *address(const struct board *b, unsigned slot)
{
	return b->bus ? xasprintf(",bus=%s,addr=0x%x", b->bus, slot) : xstrdup("");
}

static void add_device(struct args *a, const struct board *b, const char *driver, unsigned slot,
	const char *props)
{
	char *addr = address(b, slot);

	add_option(a, "-device", "%s%s%s%s", driver, b->suffix, props, addr);
	free(addr);
}

static void add_machine(struct args *a, const struct board *b, const struct qemu_spec *s)
{
	unsigned cpus = s->options->cpus ? s->options->cpus : s->profile->cpus;
	uint64_t memory = qemu_memory(s->profile, s->options);

	add(a, "%s", s->program);
	add_option(a, "-name", "guest=%s", s->name);
	add(a, "-nodefaults");
	add(a, "-no-user-config");
	add_option(a, "-display", "none");
	add_option(a, "-machine", "%s%s,memory-backend=ram", b->machine, b->options);
	if (s->accel == ACCEL_KVM) {
		add_option(a, "-accel", "kvm");
		add_option(a, "-cpu", "host");
	} else {
		/* Translated code is bounded: the default may grow to 1 GiB for each guest. `max` boots
		 * as fast as smaller models and runs user space built for x86-64-v2 and v3. What costs is
		 * walking 5-level page tables, and the fast string moves that it promises: they are
		 * emulated byte by byte, and a kernel without them moves words. */
		add_option(a, "-accel", "tcg,thread=multi,tb-size=128");
		add_option(a, "-cpu", "max%s",
			strcmp(b->arch, "x86_64") == 0 ? ",la57=off,erms=off,fsrm=off" : "");
	}
	add_option(a, "-smp", "%u", cpus ? cpus : 1);
	add_option(a, "-m", "%" PRIu64 "M", memory / MIB);
	/* A private mapping: nothing of it is read before it is touched, and its pages are shared by all who were
	 * restored from the same file. */
	add_option(a, "-object",
		"memory-backend-file,id=ram,size=%" PRIu64 "M,mem-path=/proc/self/fd/%d,share=%s",
		memory / MIB, s->fds.ram, s->incoming ? "off,reserve=off" : "on");
	/* A panic is told by event; the guest goes on, so that the rest of its last words is heard. */
	add_option(a, "-action", "panic=none");
	if (!s->incoming)
		return;
	/* It has no kernel to reboot into: vm.c boots it anew. */
	add_option(a, "-action", "reboot=shutdown");
	add(a, "-S");
	add_option(a, "-incoming", "defer");
	add_option(a, "-global", "migration.send-configuration=off");
}

static void add_kernel(struct args *a, const struct qemu_spec *s, const char *cmdline)
{
	if (s->incoming)
		return;
	add_option(a, "-kernel", "%s", s->profile->kernel);
	if (s->initramfs)
		add_option(a, "-initrd", "%s", s->initramfs);
	add_option(a, "-append", "%s", cmdline);
}

static int add_time(struct args *a, const struct vm_options *o, struct err *e)
{
	time_t t;
	struct tm tm;
	char text[64];

	if (!o->has_initial_time)
		return 0;
	t = (time_t)floor(o->initial_time);
	if (!gmtime_r(&t, &tm) || tm.tm_year < 0 || tm.tm_year > 8099)
		return err_set(e, EINVAL, "initial_time: %.17g is not between the years 1900 and 9999",
			o->initial_time);
	/* QEMU takes -1 for a date that it cannot read. */
	if (t == -1)
		tm.tm_sec--;
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	add_option(a, "-rtc", "base=%s", text);
	return 0;
}

/* A seed makes everything random that QEMU itself gives the guest repeatable: the boot loader's seed for the
 * kernel, virtio-rng's stream and, under TCG, RDRAND. What the guest draws from its own timing stays its
 * own. */
static void add_entropy(struct args *a, const struct board *b, const struct vm_options *o)
{
	if (o->has_rng_seed)
		add_option(a, "-seed", "%" PRIu64, o->rng_seed);
	add_option(a, "-object", "rng-builtin,id=rng0");
	add_device(a, b, "virtio-rng", 4, ",id=rng,rng=rng0");
}

static void add_chardev(struct args *a, const char *id, int fd)
{
	add_option(a, "-chardev", "socket,id=%s,fd=%d", id, fd);
}

static void add_channels(struct args *a, const struct board *b, const struct qemu_spec *s)
{
	char *props;

	add_chardev(a, "qmp", s->fds.qmp);
	add_option(a, "-mon", "chardev=qmp,mode=control");
	add_chardev(a, "serial0", s->fds.serial);
	add_option(a, "-serial", "chardev:serial0");
	add_device(a, b, "virtio-serial", 2, ",id=vser,max_ports=8");
	add_chardev(a, "hvc0", s->fds.hvc);
	add_option(a, "-device", "virtconsole,chardev=hvc0,id=hvc0,bus=vser.0,nr=0");
	add_chardev(a, "agent0", s->fds.agent);
	add_option(a, "-device",
		"virtserialport,chardev=agent0,id=" QEMU_AGENT_PORT_ID ",bus=vser.0,nr=1,name="
		AGENT_SERIAL_PORT);
	if (s->fds.vhost < 0)
		return;
	props = xasprintf(",id=vsock,guest-cid=%" PRIu32 ",vhostfd=%d", s->cid, s->fds.vhost);
	add_device(a, b, "vhost-vsock", 3, props);
	free(props);
}

static void add_ports(struct args *a, const struct board *b)
{
	if (!b->ports)
		return;
	for (unsigned i = 0; i < QEMU_NICS + QEMU_DISKS; i++) {
		bool nic = i < QEMU_NICS;

		add_option(a, "-device", "pcie-root-port,id=%s%u,bus=%s,chassis=%u,slot=%u,addr=0x%x.%x%s",
			nic ? "nic" : "disk", nic ? i : i - QEMU_NICS, b->bus, i + 1, i + 1,
			QEMU_NIC_SLOT + i / 8, i % 8, i % 8 == 0 ? ",multifunction=on" : "");
	}
}

/* Its ROM would be for booting from the network. */
static char *nic_device(const struct board *b, unsigned slot, const uint8_t mac[6])
{
	char *where = b->ports ? xasprintf(",bus=nic%u,addr=0", slot) : address(b, QEMU_NIC_SLOT + slot);
	char *text = xasprintf("virtio-net%s,id=eth%u,netdev=net%u,mac=%02x:%02x:%02x:%02x:%02x:%02x%s%s", b->suffix,
		slot, slot, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], b->bus ? ",romfile=" : "", where);

	free(where);
	return text;
}

static void add_nics(struct args *a, const struct board *b, const struct qemu_spec *s)
{
	for (size_t i = 0; i < s->nnics; i++) {
		char *device = nic_device(b, s->nics[i].slot, s->nics[i].mac);

		add_option(a, "-netdev", "%s", s->nics[i].netdev);
		add_option(a, "-device", "%s", device);
		free(device);
	}
}

char *qemu_nic_device(const struct profile *p, const struct vm_options *o, unsigned slot, const uint8_t mac[6])
{
	const struct board *b = find_board(p, o, NULL);

	return b ? nic_device(b, slot, mac) : NULL;
}

bool qemu_can_plug(const struct profile *p, const struct vm_options *o)
{
	const struct board *b = find_board(p, o, NULL);

	return b && b->bus;
}

json_t *qemu_option_args(const char *first, const char *text)
{
	json_t *args = json_object(), *in, *v;
	char *copy = xstrdup(text), *rest = copy, *word, *value, *dot;

	while ((word = strsep(&rest, ","))) {
		value = strchr(word, '=');
		if (value)
			*value++ = 0;
		in = args;
		if (!value) {		/* the first one */
			value = word;
			word = (char *)first;
		} else {
			for (; (dot = strchr(word, '.')); word = dot + 1) {
				*dot = 0;
				if (!json_object_get(in, word))
					json_object_set_new(in, word, json_object());
				in = json_object_get(in, word);
			}
		}
		v = strcmp(value, "on") == 0 ? json_true() : strcmp(value, "off") == 0 ? json_false() :
			json_string(value);
		json_object_set_new(in, word, v);
	}
	free(copy);
	return args;
}

static json_t *blockdev(const struct qemu_disk *d, size_t i)
{
	json_t *file = json_pack("{s:s, s:s}", "driver", "file", "filename", d->path), *o;
	char *node = xasprintf("image%zu", i);

	o = json_pack("{s:s, s:s, s:b, s:s, s:o}", "driver", d->format ? d->format : "raw", "node-name", node,
		"read-only", d->readonly, "discard", "unmap", "file", file);
	free(node);
	if (!o)
		return NULL;
	if (d->temporary) {
		json_object_set_new(o, "cache", json_pack("{s:b}", "no-flush", 1));
		json_object_set_new(file, "cache", json_pack("{s:b}", "no-flush", 1));
	}
	return o;
}

static int check_disk(const struct qemu_spec *s, size_t i, struct err *e)
{
	const char *id = s->disks[i].id;
	size_t n = strlen(id);

	if (n == 0 || n > 20 || strspn(id, ID_CHARS) != n)
		return err_set(e, EINVAL,
			"disk id `%s`: 1 to 20 letters, digits, `_`, `.` or `-` are allowed", id);
	for (size_t k = 0; k < i; k++)
		if (strcmp(id, s->disks[k].id) == 0)
			return err_set(e, EEXIST, "two disks have the id `%s`", id);
	return 0;
}

static int add_disks(struct args *a, const struct board *b, const struct qemu_spec *s, struct err *e)
{
	if (s->ndisks > QEMU_DISKS)
		return err_set(e, E2BIG, "%zu disks: a VM takes %d", s->ndisks, QEMU_DISKS);
	for (size_t i = 0; i < s->ndisks; i++) {
		json_t *o;
		char *text, *where;

		if (check_disk(s, i, e) < 0)
			return e ? e->code : -EINVAL;
		o = blockdev(&s->disks[i], i);
		if (!o)
			return err_set(e, EILSEQ, "disk `%s`: its path is not UTF-8: %s", s->disks[i].id,
				s->disks[i].path);
		text = json_dumps(o, JSON_COMPACT);
		json_decref(o);
		add_option(a, "-blockdev", "%s", text);
		free(text);
		where = b->ports ? xasprintf(",bus=disk%zu,addr=0", i) :
			address(b, QEMU_DISK_SLOT + (unsigned)i);
		add_option(a, "-device", "virtio-blk%s,id=blk-%s,drive=image%zu,serial=%s%s", b->suffix,
			s->disks[i].id, i, s->disks[i].id, where);
		free(where);
	}
	return 0;
}

static void add_extra(struct args *a, char *const *extra)
{
	for (; extra && *extra; extra++)
		add(a, "%s", *extra);
}

char **qemu_argv(const struct qemu_spec *s, struct err *e)
{
	const struct board *b = find_board(s->profile, s->options, e);
	struct args a = { NULL, 0 };
	char *cmdline;

	if (!b)
		return NULL;
	cmdline = qemu_cmdline(s->profile, s->options, s->accel, e);
	if (!cmdline)
		return NULL;
	add_machine(&a, b, s);
	if (add_time(&a, s->options, e) < 0)
		goto fail;
	add_channels(&a, b, s);
	add_entropy(&a, b, s->options);
	if (b->x86_devices) {
		add_option(&a, "-device", "pvpanic");
		add_option(&a, "-device", "vmgenid,id=vmgenid,guid=auto");
	}
	add_ports(&a, b);
	add_nics(&a, b, s);
	if (add_disks(&a, b, s, e) < 0)
		goto fail;
	add_kernel(&a, s, cmdline);
	add_extra(&a, s->profile->qemu_args);
	add_extra(&a, s->options->qemu_args);
	free(cmdline);
	return a.v;
fail:
	free(cmdline);
	qemu_argv_free(a.v);
	return NULL;
}

static const struct board boards[BOARDS] = {
	{ "pc", "x86_64", ",usb=off,vmport=off", "-pci", "pci.0", "ttyS0", false, true, false },
	{ "q35", "x86_64", ",usb=off,vmport=off", "-pci", "pcie.0", "ttyS0", true, true, false },
	{ "microvm", "x86_64", ",rtc=on", "-device", NULL, "ttyS0", false, false, true },
	{ "virt", "aarch64", ",gic-version=max", "-pci", "pcie.0", "ttyAMA0", true, false, false },
};
