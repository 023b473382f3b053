/*
 * A snapshot's directory: meta.json written, read and held against what is really there.
 *
 * What a damaged or foreign one can do here is to be refused: every file's size is in meta.json, and whether
 * this host can take it is decided before a QEMU is started.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "vmm/host.h"
#include "vmm/image.h"
#include "vmm/optionsjson.h"
#include "vmm/rundir.h"

#define META_MAX ((off_t)256 << 20)	/* boot options may hold files */

char *image_path(const char *dir, const char *file)
{
	return xasprintf("%s/%s", dir, file);
}

char *image_qemu_version(const json_t *version)
{
	const json_t *q = json_object_get(version, "qemu");
	const char *package = json_string_value(json_object_get(version, "package"));

	return xasprintf("%d.%d.%d%s%s%s", (int)json_integer_value(json_object_get(q, "major")),
		(int)json_integer_value(json_object_get(q, "minor")),
		(int)json_integer_value(json_object_get(q, "micro")), package && *package ? " (" : "",
		package ? package : "", package && *package ? ")" : "");
}

/* ---- writing ---- */

static int file_size(const char *dir, const char *file, uint64_t *size)
{
	char *path = image_path(dir, file);
	struct stat st;
	int r = stat(path, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;

	free(path);
	*size = r < 0 ? 0 : (uint64_t)st.st_size;
	return r;
}

/* The files that every snapshot has, or may have. */
static const struct part { const char *name; size_t size; bool optional; } parts[] = {
	{ "ram", offsetof(struct image, ram), false }, { "changes", offsetof(struct image, changes), true },
	{ "state", offsetof(struct image, state), false }, { "console", offsetof(struct image, console), false },
};
#define PARTS (sizeof(parts) / sizeof(*parts))

static uint64_t *part_size(struct image *i, const struct part *p)
{
	return (uint64_t *)((char *)i + p->size);
}

int image_measure(struct image *i, const char *dir, struct err *e)
{
	for (const struct part *p = parts; p < parts + PARTS; p++) {
		int r = file_size(dir, p->name, part_size(i, p));

		if (r < 0 && !(r == -ENOENT && p->optional))
			return err_set(e, -r, "its file `%s`: %s", p->name, strerror(-r));
	}
	return 0;
}

static json_t *strings_json(char *const *list)
{
	json_t *j = json_array();

	for (; list && *list; list++)
		json_array_append_new(j, json_string(*list));
	return j;
}

static json_t *cards_json(const struct image *i)
{
	json_t *list = json_array();

	for (const struct image_card *c = i->cards; c < i->cards + i->ncards; c++) {
		char mac[18];

		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", c->mac[0], c->mac[1], c->mac[2], c->mac[3],
			c->mac[4], c->mac[5]);
		json_array_append_new(list, json_pack("{s:i s:s s:s}", "slot", (int)c->slot, "mac", mac, "bridge",
			c->bridge));
	}
	return list;
}

int image_write(const struct image *i, const char *dir, struct err *e)
{
	const struct vm_image *p = &i->pub;
	char *path = image_path(dir, "meta.json"), *text;
	json_t *j = json_pack("{s:i s:s s:s s:s s:s s:s s:s s:s s:s s:s s:I s:i s:b s:I s:o s:o s:o s:{s:I s:I s:I s:I}}",
		"format", IMAGE_FORMAT, "id", i->id, "vm", p->vm_name, "profile", p->profile,
		"qemu", p->qemu_version, "machine", p->machine, "accel", p->accel, "arch", i->arch, "cpu", i->cpu,
		"agent", i->agent_version, "memory", (json_int_t)p->memory, "cpus", (int)p->cpus,
		"paused", (int)i->paused, "console_consumed", (json_int_t)i->consumed,
		"options", options_to_json(&i->options), "disks", strings_json(i->disks), "nics", cards_json(i),
		"files", "ram", (json_int_t)i->ram, "changes", (json_int_t)i->changes,
		"state", (json_int_t)i->state, "console", (json_int_t)i->console);
	struct outfile *o = NULL;
	int r;

	text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	if (!text) {
		r = err_set(e, EILSEQ, "cannot describe the snapshot: a name in it is not UTF-8");
		goto out;
	}
	o = outfile_open(path, strlen(text), e);
	r = o ? outfile_write(o, text, strlen(text), e) : e->code;
	if (r == 0)
		r = outfile_write(o, "\n", 1, e);
	if (r == 0)
		r = outfile_commit(o, false, e);
out:
	outfile_free(o);
	free(text);
	json_decref(j);
	free(path);
	return r;
}

/* ---- reading ---- */

/* The whole file, malloc'ed, with a NUL behind it. */
static char *read_whole(const char *path, off_t max, size_t *len, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = NULL;
	struct stat st;
	ssize_t n = 0;

	*len = 0;
	if (fd < 0 || fstat(fd, &st) < 0) {
		err_set(e, errno, "cannot read `%s`: %s", path, strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > max) {
		err_set(e, EINVAL, "cannot read `%s`: it is no file that was written here", path);
		goto out;
	}
	text = xmalloc((size_t)st.st_size + 1);
	while (*len < (size_t)st.st_size && (n = read(fd, text + *len, (size_t)st.st_size - *len)) > 0)
		*len += (size_t)n;
	text[*len] = 0;
	if (n < 0) {
		err_set(e, errno, "cannot read `%s`: %s", path, strerror(errno));
		free(text);
		text = NULL;
	}
out:
	if (fd >= 0)
		close(fd);
	return text;
}

static int take_string(const json_t *j, const char *key, char **to, struct err *e)
{
	const char *s = json_string_value(json_object_get(j, key));

	if (!s)
		return err_set(e, ESTALE, "its meta.json has no string `%s`", key);
	*to = xstrdup(s);
	return 0;
}

static int take_number(const json_t *j, const char *key, uint64_t *to, struct err *e)
{
	const json_t *n = json_object_get(j, key);

	if (!json_is_integer(n) || json_integer_value(n) < 0)
		return err_set(e, ESTALE, "its meta.json has no number `%s`", key);
	*to = (uint64_t)json_integer_value(n);
	return 0;
}

static int parse_cards(struct image *i, const json_t *list, struct err *e)
{
	const json_t *j;
	size_t n;

	i->cards = xcalloc(json_array_size(list) + 1, sizeof(*i->cards));
	json_array_foreach(list, n, j) {
		struct image_card *c = &i->cards[i->ncards++];
		const char *mac = json_string_value(json_object_get(j, "mac"));
		const char *bridge = json_string_value(json_object_get(j, "bridge"));

		c->slot = (unsigned)json_integer_value(json_object_get(j, "slot"));
		c->bridge = xstrdup(bridge ? bridge : "");
		if (!mac || sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &c->mac[0], &c->mac[1], &c->mac[2], &c->mac[3],
		    &c->mac[4], &c->mac[5]) != 6)
			return err_set(e, ESTALE, "a network card in its meta.json is damaged");
	}
	return 0;
}

static int parse(struct image *i, const json_t *j, struct err *e)
{
	const json_t *files = json_object_get(j, "files"), *disks = json_object_get(j, "disks"), *id;
	struct vm_image *p = &i->pub;
	struct { const char *key; char **to; } strings[] = {
		{ "id", &i->id }, { "vm", &p->vm_name }, { "profile", &p->profile }, { "qemu", &p->qemu_version },
		{ "machine", &p->machine }, { "accel", &p->accel }, { "arch", &i->arch }, { "cpu", &i->cpu },
		{ "agent", &i->agent_version },
	};
	uint64_t cpus;
	size_t n;

	for (n = 0; n < sizeof(strings) / sizeof(*strings); n++)
		if (take_string(j, strings[n].key, strings[n].to, e) < 0)
			return e->code;
	if (take_number(j, "memory", &p->memory, e) < 0 || take_number(j, "cpus", &cpus, e) < 0 ||
	    take_number(j, "console_consumed", &i->consumed, e) < 0 ||
	    take_number(files, "ram", &i->ram, e) < 0 || take_number(files, "changes", &i->changes, e) < 0 ||
	    take_number(files, "state", &i->state, e) < 0 || take_number(files, "console", &i->console, e) < 0)
		return e->code;
	p->cpus = (unsigned)cpus;
	i->paused = json_is_true(json_object_get(j, "paused"));
	i->accel = strcmp(p->accel, "kvm") == 0 ? ACCEL_KVM : ACCEL_TCG;
	i->disks = xcalloc(json_array_size(disks) + 1, sizeof(*i->disks));
	json_array_foreach(disks, n, id)
		i->disks[n] = xstrdup(json_is_string(id) ? json_string_value(id) : "?");
	if (parse_cards(i, json_object_get(j, "nics"), e) < 0)
		return e->code;
	if (options_from_json(&i->options, json_object_get(j, "options"), e) < 0)
		return err_set(e, ESTALE, "%s", e->msg);
	i->options.accel = i->accel;
	return 0;
}

static int check_format(const json_t *j, struct err *e)
{
	json_int_t format = json_integer_value(json_object_get(j, "format"));

	if (format > IMAGE_FORMAT)
		return err_set(e, ESTALE, "it has format %" JSON_INTEGER_FORMAT ", made by a newer Provium; this one "
			"reads format %d", format, IMAGE_FORMAT);
	if (format < 1)
		return err_set(e, ESTALE, "its meta.json has no format");
	return 0;
}

static int check_files(struct image *i, struct err *e)
{
	struct image now = *i;
	uint64_t size;

	if (image_measure(&now, i->pub.dir, e) < 0)
		return err_set(e, ESTALE, "%s", e->msg);
	for (const struct part *p = parts; p < parts + PARTS; p++)
		if (*part_size(&now, p) != *part_size(i, p))
			return err_set(e, ESTALE, "its file `%s` has %" PRIu64 " bytes and should have %" PRIu64, p->name,
				*part_size(&now, p), *part_size(i, p));
	if (i->ram != i->pub.memory)
		return err_set(e, ESTALE, "its file `ram` is not as large as the guest's memory");
	for (char **id = i->disks; *id; id++) {
		char *file = xasprintf("disk-%s", *id);
		int r = file_size(i->pub.dir, file, &size);

		if (r < 0)
			err_set(e, ESTALE, "its file `%s`: %s", file, strerror(-r));
		free(file);
		if (r < 0)
			return e->code;
	}
	return 0;
}

/* The processor is the guest's own under TCG, and the host's under KVM. */
static int check_host(struct vmm *v, const struct image *i, struct err *e)
{
	if (strcmp(i->arch, host_arch()) != 0 && i->accel == ACCEL_KVM)
		return err_set(e, ESTALE, "it was made on %s, this is %s", i->arch, host_arch());
	if (i->accel == ACCEL_KVM && strcmp(i->cpu, host_cpu()) != 0)
		return err_set(e, ESTALE, "it was made on the processor `%s`, this is `%s`", i->cpu, host_cpu());
	if (i->accel == ACCEL_KVM && vmm_resolve_accel(v, ACCEL_KVM, e) == ACCEL_AUTO)
		return err_set(e, ESTALE, "it was made with KVM: %s", e->msg);
	return 0;
}

struct vm_image *vm_image_open(struct vmm *v, const char *dir, struct err *e)
{
	char *path = image_path(dir, "meta.json"), *text;
	struct image *i = image_new();
	json_error_t je;
	json_t *j = NULL;
	size_t len;
	int r;

	i->pub.dir = xstrdup(dir);
	text = read_whole(path, META_MAX, &len, e);
	r = text ? 0 : e->code;
	if (r == 0 && !(j = json_loadb(text, len, 0, &je)))
		r = err_set(e, ESTALE, "its meta.json is damaged: line %d: %s", je.line, je.text);
	if (r == 0)
		r = check_format(j, e);
	if (r == 0)
		r = parse(i, j, e);
	if (r == 0)
		r = check_files(i, e);
	if (r == 0)
		r = check_host(v, i, e);
	if (r < 0)
		err_prefix(e, "snapshot `%s`", dir);
	json_decref(j);
	free(text);
	free(path);
	if (r == 0)
		return &i->pub;
	vm_image_free(&i->pub);
	return NULL;
}

char *image_console(const struct image *i, size_t *len, struct err *e)
{
	char *path = image_path(i->pub.dir, "console"), *text = read_whole(path, META_MAX, len, e);

	free(path);
	return text;
}

void vm_image_free(struct vm_image *p)
{
	image_unref((struct image *)p);
}

/* ---- from outside ---- */

uint64_t vm_image_size(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *f;
	uint64_t sum = 0;

	while (d && (f = readdir(d))) {
		char *path = image_path(dir, f->d_name);
		struct stat st;

		if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0 && lstat(path, &st) == 0)
			sum += S_ISDIR(st.st_mode) ? vm_image_size(path) : (uint64_t)st.st_blocks * 512;
		free(path);
	}
	if (d)
		closedir(d);
	return sum;
}

struct removal {
	void (*cb)(void *arg, const struct err *e);
	void *arg;
};

static void removed_cb(void *arg, const struct err *e)
{
	struct removal *r = arg;

	if (r->cb)
		r->cb(r->arg, e);
	free(r);
}

void vm_image_remove(struct loop *l, const char *dir, void (*cb)(void *arg, const struct err *e), void *arg)
{
	const char *argv[] = { "remove", dir, NULL };
	struct removal *r = xcalloc(1, sizeof(*r));
	struct err e = ERR_INIT;

	r->cb = cb;
	r->arg = arg;
	if (!helper_start(l, argv, removed_cb, r, &e))
		removed_cb(r, &e);
	err_release(&e);
}

int image_remove_verb(int argc, char **argv, struct err *e)
{
	struct stat st;

	if (argc != 2)
		return err_set(e, EINVAL, "expected remove DIR");
	rundir_remove(argv[1]);
	if (lstat(argv[1], &st) == 0)
		return err_set(e, EBUSY, "cannot remove all of `%s`", argv[1]);
	return 0;
}

/* ---- sharing ---- */

struct image *image_new(void)
{
	struct image *i = xcalloc(1, sizeof(*i));

	i->refs = 1;
	return i;
}

const struct image *image_ref(const struct image *i)
{
	((struct image *)i)->refs++;
	return i;
}

void image_unref(const struct image *shared)
{
	struct image *i = (struct image *)shared;

	if (!i || --i->refs > 0)
		return;
	free(i->pub.dir);
	free(i->pub.vm_name);
	free(i->pub.profile);
	free(i->pub.qemu_version);
	free(i->pub.machine);
	free(i->pub.accel);
	free(i->id);
	free(i->cpu);
	free(i->arch);
	free(i->agent_version);
	for (char **id = i->disks; id && *id; id++)
		free(*id);
	free(i->disks);
	for (size_t n = 0; n < i->ncards; n++)
		free(i->cards[n].bridge);
	free(i->cards);
	vm_options_release(&i->options);
	free(i);
}
