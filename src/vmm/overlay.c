/*
 * The helper verbs that make an initramfs: the overlay's archive behind a copy of the initrd.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/initramfs.h"
#include "vmm/image.h"
#include "vmm/ramimage.h"
#include "vmm/tree.h"

#define MAX_MEMBER ((uint64_t)UINT32_MAX)	/* newc has 32-bit sizes */
#define COPY_BUFFER ((size_t)1 << 18)

/* What is being written. On verb_initramfs's stack. */
struct overlay {
	struct outfile *out;
	struct archive *cpio;		/* NULL until the initrd has been copied */
	struct tree *tree;		/* what unpacking it so far comes to */
	char *dir, *version;		/* of the modules that follow */
	struct evbuffer *list;		/* their paths in the guest */
	struct err *err;
};

/* One step of the description: its array without the name. */
struct step {
	const char *name;
	uint32_t n;
	int (*run)(struct overlay *ov, const msgpack_object *args);
};

static const struct step steps[];

/* ---- the archive ---- */

static int cpio_failed(struct overlay *ov, const char *path)
{
	int code = archive_errno(ov->cpio);

	if (code == ENOSPC || code == EDQUOT || code == EIO)
		return outfile_failed(ov->out, code, ov->err);
	return err_set(ov->err, EINVAL, "initramfs: `/%s`: %s", path, archive_error_string(ov->cpio));
}

static int cpio_open(struct overlay *ov)
{
	/* The kernel wants a plain archive to begin at a multiple of four. */
	off_t end = lseek(outfile_fd(ov->out), 0, SEEK_CUR);
	int rc = outfile_write(ov->out, "\0\0\0", (4 - end % 4) % 4, ov->err);

	if (rc)
		return rc;
	ov->cpio = archive_write_new();
	archive_write_set_format_cpio_newc(ov->cpio);
	archive_write_set_bytes_per_block(ov->cpio, COPY_BUFFER);
	archive_write_set_bytes_in_last_block(ov->cpio, 1);
	if (archive_write_open_fd(ov->cpio, outfile_fd(ov->out)) != ARCHIVE_OK)
		return cpio_failed(ov, "");
	return 0;
}

/* Begins a member. Times are zero, so that the same input gives the same bytes. */
static int cpio_begin(struct overlay *ov, const char *path, mode_t mode, uint64_t size, const char *target)
{
	struct archive_entry *entry = archive_entry_new();
	int rc;

	archive_entry_set_pathname(entry, path);
	archive_entry_set_filetype(entry, mode & S_IFMT);
	archive_entry_set_perm(entry, mode & 07777);
	archive_entry_set_size(entry, target ? 0 : size);
	archive_entry_set_nlink(entry, 1);
	archive_entry_set_mtime(entry, 0, 0);
	if (target)
		archive_entry_set_symlink(entry, target);
	rc = archive_write_header(ov->cpio, entry);
	archive_entry_free(entry);
	return rc == ARCHIVE_OK ? 0 : cpio_failed(ov, path);
}

static int cpio_data(struct overlay *ov, const char *path, const void *data, size_t len)
{
	if (len == 0 || archive_write_data(ov->cpio, data, len) == (la_ssize_t)len)
		return 0;
	return cpio_failed(ov, path);
}

static mode_t parent_mode(const char *path)
{
	if (!strcmp(path, "tmp") || !strcmp(path, "var/tmp") || !strcmp(path, "dev/shm"))
		return 01777;
	return !strcmp(path, "root") ? 0700 : 0755;
}

static int add_parents(struct overlay *ov, char *path)
{
	char *slash;
	int rc = 0;

	for (slash = strchr(path, '/'); slash && !rc; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (tree_get(ov->tree, path, NULL) == TREE_NONE) {
			rc = cpio_begin(ov, path, S_IFDIR | parent_mode(path), 0, NULL);
			tree_put(ov->tree, path, TREE_DIR, NULL);
		}
		*slash = '/';
	}
	return rc;
}

/* Begins a file or link, with the parents it lacks, at the place where path leads. */
static int add_member(struct overlay *ov, const char *path, mode_t mode, uint64_t size, const char *target)
{
	char *real = NULL;
	enum tree_type there = tree_get(ov->tree, path, &real);
	int rc;

	path += !strncmp(path, "./", 2);
	path += strspn(path, "/");
	if (!real)
		rc = err_set(ov->err, ENOTDIR,
			"initramfs: `/%s`: a directory on its way is a file in the initrd", path);
	else if (there == TREE_DIR)
		rc = err_set(ov->err, EISDIR, "initramfs: `/%s`: the initrd has a directory there", path);
	else if (size > MAX_MEMBER)
		rc = err_set(ov->err, EFBIG, "initramfs: `/%s`: 4 GiB or more do not fit into an initramfs; "
			"attach a disk instead", path);
	else
		rc = add_parents(ov, real);
	if (!rc)
		rc = cpio_begin(ov, real, mode, size, target);
	if (!rc)
		tree_put(ov->tree, real, S_ISLNK(mode) ? TREE_LINK : TREE_FILE, target);
	free(real);
	return rc;
}

static int add_bytes(struct overlay *ov, const char *path, mode_t mode, const void *data, size_t len)
{
	int rc = add_member(ov, path, S_IFREG | mode, len, NULL);

	return rc ? rc : cpio_data(ov, path, data, len);
}

static int add_host_file(struct overlay *ov, const char *path, mode_t mode, const char *host)
{
	int fd = open(host, O_RDONLY | O_CLOEXEC), rc = 0;
	char *buf = xmalloc(COPY_BUFFER);
	uint64_t left = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		rc = err_set(ov->err, errno, "read `%s`: %s", host, strerror(errno));
		goto out;
	}
	left = st.st_size;
	rc = add_member(ov, path, S_IFREG | (mode ? mode : st.st_mode & 07777), left, NULL);
	while (!rc && left > 0) {
		n = read(fd, buf, left < COPY_BUFFER ? left : COPY_BUFFER);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			rc = err_set(ov->err, n ? errno : EIO, "read `%s`: %s", host,
				n ? strerror(errno) : "it became shorter while it was copied");
		else
			rc = cpio_data(ov, path, buf, n);
		left -= n > 0 ? n : 0;
	}
out:
	if (fd >= 0)
		close(fd);
	free(buf);
	return rc;
}

/* ---- reading other archives ---- */

/* Everything that is left of the current entry. */
static int slurp(struct archive *a, const char *name, struct evbuffer *out, struct err *e)
{
	const void *block;
	la_int64_t at;
	size_t len;
	int rc;

	while ((rc = archive_read_data_block(a, &block, &len, &at)) == ARCHIVE_OK)
		evbuffer_add(out, block, len);
	return rc == ARCHIVE_EOF ? 0 : err_set(e, EIO, "read `%s`: %s", name, archive_error_string(a));
}

static struct archive *reader_open(const char *path, bool raw, struct err *e)
{
	struct archive *a = archive_read_new();

	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	if (raw)
		archive_read_support_format_raw(a);
	else
		archive_read_support_format_cpio(a);
	if (archive_read_open_filename(a, path, COPY_BUFFER) == ARCHIVE_OK)
		return a;
	err_set(e, EIO, "read `%s`: %s", path, archive_error_string(a));
	archive_read_free(a);
	return NULL;
}

static int add_compressed(struct overlay *ov, const char *path, const char *host)
{
	struct evbuffer *data = evbuffer_new();
	struct archive *a = reader_open(host, true, ov->err);
	struct archive_entry *entry;
	int rc = a ? 0 : ov->err->code;

	if (a && archive_read_next_header(a, &entry) != ARCHIVE_OK)
		rc = err_set(ov->err, EIO, "read `%s`: %s", host, archive_error_string(a));
	if (!rc)
		rc = slurp(a, host, data, ov->err);
	if (!rc)
		rc = add_bytes(ov, path, 0644, evbuffer_pullup(data, -1), evbuffer_get_length(data));
	archive_read_free(a);
	evbuffer_free(data);
	return rc;
}

/* ---- the steps of a description ---- */

static char *text(const msgpack_object *o)
{
	return xstrndup(o->via.str.ptr, o->via.str.size);
}

static int step_need(struct overlay *ov, const msgpack_object *args)
{
	(void)ov, (void)args;	/* read before the file was opened */
	return 0;
}

static int step_initrd(struct overlay *ov, const msgpack_object *args)
{
	char *path = text(&args[0]), *names = text(&args[1]);
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		rc = err_set(ov->err, errno, "read `%s`: %s", path, strerror(errno));
	else
		rc = outfile_append(ov->out, fd, path, ov->err);
	if (!rc)
		rc = tree_load(ov->tree, names, ov->err);
	if (fd >= 0)
		close(fd);
	free(path);
	free(names);
	return rc;
}

static int step_modules(struct overlay *ov, const msgpack_object *args)
{
	free(ov->dir);
	free(ov->version);
	ov->dir = text(&args[0]);
	ov->version = text(&args[1]);
	return 0;
}

static int step_module(struct overlay *ov, const msgpack_object *args)
{
	char *path = text(&args[0]), *host = xasprintf("%s/%s", ov->dir ? ov->dir : "", path);
	char *guest = xasprintf("lib/modules/%s/%s", ov->version ? ov->version : "", path);
	char *suffix = strrchr(guest, '.');
	int rc;

	if (suffix && strcmp(suffix, ".ko")) {
		*suffix = '\0';
		rc = add_compressed(ov, guest, host);
	} else {
		rc = add_host_file(ov, guest, 0644, host);
	}
	evbuffer_add_printf(ov->list, "/%s\n", guest);
	free(path);
	free(host);
	free(guest);
	return rc;
}

static int step_agent(struct overlay *ov, const msgpack_object *args)
{
	char *path = text(&args[0]);
	struct archive *a = reader_open(path, false, ov->err);
	struct archive_entry *entry;
	int rc = a ? 0 : ov->err->code, got;

	while (!rc && (got = archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
		const char *name = archive_entry_pathname(entry);
		mode_t mode = archive_entry_mode(entry);
		struct evbuffer *data = evbuffer_new();

		if (got != ARCHIVE_OK)
			rc = err_set(ov->err, EIO, "read `%s`: %s", path, archive_error_string(a));
		else if (S_ISLNK(mode))
			rc = add_member(ov, name, mode, 0, archive_entry_symlink(entry));
		else if (S_ISREG(mode) && !(rc = slurp(a, path, data, ov->err)))
			rc = add_bytes(ov, name, mode & 07777, evbuffer_pullup(data, -1),
				evbuffer_get_length(data));
		evbuffer_free(data);
	}
	archive_read_free(a);
	free(path);
	return rc;
}

static int step_file(struct overlay *ov, const msgpack_object *args)
{
	char *path = text(&args[0]), *host = NULL;
	mode_t mode = args[1].via.u64;
	int rc;

	if (args[2].type == MSGPACK_OBJECT_STR)
		rc = add_host_file(ov, path, mode, host = text(&args[2]));
	else
		rc = add_bytes(ov, path, mode ? mode : 0644, args[3].via.bin.ptr, args[3].via.bin.size);
	free(path);
	free(host);
	return rc;
}

/* ---- the verb `initramfs DST DESCRIPTION` ---- */

static int add_modules_list(struct overlay *ov)
{
	size_t len = evbuffer_get_length(ov->list);
	int rc;

	if (len == 0)
		return 0;
	rc = add_bytes(ov, INITRAMFS_MODULES_LIST, 0644, evbuffer_pullup(ov->list, -1), len);
	evbuffer_drain(ov->list, len);
	return rc;
}

/* A step's array is ours, so a wrong one is a broken invariant, not an input error. */
static int run_step(struct overlay *ov, const msgpack_object *o)
{
	const struct step *s;
	int rc = 0;

	INVARIANT(o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size > 0);
	for (s = steps; s->name; s++)
		if (o->via.array.ptr[0].via.str.size == strlen(s->name) &&
		    !memcmp(o->via.array.ptr[0].via.str.ptr, s->name, strlen(s->name)))
			break;
	INVARIANT(s->name && o->via.array.size == s->n + 1);
	if (!ov->cpio && s->run != step_initrd && s->run != step_need)
		rc = cpio_open(ov);
	/* The list follows the last module, so that `files` can replace even that. */
	if (!rc && ov->cpio && s->run != step_module)
		rc = add_modules_list(ov);
	return rc ? rc : s->run(ov, o->via.array.ptr + 1);
}

static int run_steps(struct overlay *ov, const char *dst, const char *data, size_t len)
{
	msgpack_unpacked u;
	size_t off = 0;
	int rc = 0;

	msgpack_unpacked_init(&u);
	while (!rc && msgpack_unpack_next(&u, data, len, &off) == MSGPACK_UNPACK_SUCCESS) {
		if (!ov->out) {
			INVARIANT(u.data.type == MSGPACK_OBJECT_ARRAY && u.data.via.array.size == 2);
			ov->out = outfile_open(dst, u.data.via.array.ptr[1].via.u64, ov->err);
			rc = ov->out ? 0 : ov->err->code;
		}
		if (!rc)
			rc = run_step(ov, &u.data);
	}
	INVARIANT(rc || off == len);
	msgpack_unpacked_destroy(&u);
	if (!rc && !ov->cpio)
		rc = cpio_open(ov);
	if (!rc)
		rc = add_modules_list(ov);
	if (!rc && archive_write_close(ov->cpio) != ARCHIVE_OK)
		rc = cpio_failed(ov, "");
	return rc ? rc : outfile_commit(ov->out, false, ov->err);
}

static int verb_initramfs(int argc, char **argv, struct err *e)
{
	struct overlay ov = { .err = e };
	struct stat st;
	void *map = NULL;
	char *slash;
	int fd, rc;

	if (argc != 3)
		return err_set(e, EINVAL, "expected initramfs DST DESCRIPTION");
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) ||
	    (map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
		rc = err_set(e, errno, "read `%s`: %s", argv[2], strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	ov.tree = tree_new();
	ov.list = evbuffer_new();
	rc = run_steps(&ov, argv[1], map, st.st_size);
	if (ov.cpio)
		archive_write_free(ov.cpio);
	outfile_free(ov.out);
	tree_free(ov.tree);
	evbuffer_free(ov.list);
	free(ov.dir);
	free(ov.version);
	munmap(map, st.st_size);
	close(fd);
	slash = strrchr(argv[1], '/');
	if (!rc && slash) {
		*slash = '\0';
		cache_sweep(argv[1]);
	}
	return rc;
}

/* initrd-names DST INITRD: what the initrd holds, for the step "initrd". */
static int verb_initrd_names(int argc, char **argv, struct err *e)
{
	struct tree *t;
	int rc;

	if (argc != 3)
		return err_set(e, EINVAL, "expected initrd-names DST INITRD");
	t = tree_new();
	rc = tree_read_initrd(t, argv[2], e);
	if (!rc)
		rc = tree_save(t, argv[1], e);
	tree_free(t);
	return rc;
}

static const struct step steps[] = {
	{ "need", 1, step_need },
	{ "initrd", 3, step_initrd },
	{ "modules", 2, step_modules },
	{ "module", 2, step_module },
	{ "agent", 2, step_agent },
	{ "file", 5, step_file },
	{ NULL, 0, NULL },
};

const struct helper_verb vmm_helper_verbs[] = {
	{ "initramfs", verb_initramfs },
	{ "initrd-names", verb_initrd_names },
	{ "sweep", cache_sweep_verb },
	{ "remove", image_remove_verb },
	{ "ram-save", ram_save_verb },
	{ "ram-update", ram_update_verb },
	{ "ram-apply", ram_apply_verb },
	{ NULL, NULL },
};
