/*
 * What goes into an initramfs, written down, and the name in the cache that follows from it.
 *
 * The name is the SHA-256 of the description (initramfs.h), which tells every input by content or
 * identity. The machine's boot id is part of it: so nothing need be flushed to the disk, and what a power
 * failure damaged is not used again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/pack.h"
#include "vmm/initramfs.h"

#define FORMAT_VERSION 1
#define KEY_LEN (2 * SHA256_DIGEST_SIZE)
#define AGENT_OVERLAY "agent-overlay.cpio.gz"

static void pack_step(msgpack_packer *pk, const char *name, size_t nargs)
{
	msgpack_pack_array(pk, nargs + 1);
	pack_text(pk, name);
}

/* What tells this state of the file from any other; it must be a regular one. NULL and *e. */
static char *identity(struct initramfs_plan *plan, const char *path, const char *what, struct err *e)
{
	struct stat st;

	if (stat(path, &st)) {
		err_set(e, errno, "%s: `%s`: %s", what, path, strerror(errno));
		return NULL;
	}
	if (!S_ISREG(st.st_mode)) {
		err_set(e, EINVAL, "%s: `%s`: %s", what, path,
			S_ISDIR(st.st_mode) ? "a directory, expected a file" : "not a regular file");
		return NULL;
	}
	if (access(path, R_OK)) {
		err_set(e, errno, "%s: `%s`: %s", what, path, strerror(errno));
		return NULL;
	}
	plan->need += st.st_size;
	return xasprintf("%llu:%llu:%llu:%lld.%09ld:%lld.%09ld", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino, (unsigned long long)st.st_size,
		(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec,
		st.st_ctim.tv_nsec);
}

static void hash_name(char *hex, const char *kind, const void *data, size_t len)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	char boot_id[64] = "", *salt;
	struct sha256_ctx ctx;
	int i, fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t n = read(fd, boot_id, sizeof(boot_id) - 1);

		boot_id[n > 0 ? n : 0] = '\0';
		close(fd);
	}
	salt = xasprintf("%s %d %s\n", kind, FORMAT_VERSION, boot_id);
	sha256_init(&ctx);
	sha256_update(&ctx, strlen(salt), (uint8_t *)salt);
	sha256_update(&ctx, len, data);
	sha256_digest(&ctx, sizeof(digest), digest);
	for (i = 0; i < SHA256_DIGEST_SIZE; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	free(salt);
}

static char *cache_path(struct vmm *v, const char *kind, const char *suffix, const void *data, size_t len)
{
	char hex[KEY_LEN + 1];

	hash_name(hex, kind, data, len);
	return xasprintf("%s/initramfs/%s.%s", vmm_cache_dir(v), hex, suffix);
}

static int describe_initrd(struct initramfs_plan *plan, const struct profile *p, msgpack_packer *pk,
	struct err *e)
{
	char *id;

	if (!p->initrd)
		return 0;
	id = identity(plan, p->initrd, "initrd", e);
	if (!id)
		return -1;
	plan->initrd = xstrdup(p->initrd);
	plan->names = cache_path(plan->vmm, "names", "names", id, strlen(id));
	pack_step(pk, "initrd", 3);
	pack_text(pk, p->initrd);
	pack_text(pk, plan->names);
	pack_text(pk, id);
	free(id);
	return 0;
}

static int describe_modules(struct initramfs_plan *plan, const struct profile *p,
	const struct vm_options *o, msgpack_packer *pk, struct err *e)
{
	char *dir, *base, **paths, **m;
	int rc = 0;

	if (!p->modules)
		return 0;
	dir = realpath(p->modules, NULL);
	if (!dir)
		return err_set(e, errno, "modules: `%s`: %s", p->modules, strerror(errno));
	paths = modules_select(dir, o && o->machine ? o->machine : p->machine, e);
	base = strrchr(dir, '/') + 1;
	if (paths) {
		pack_step(pk, "modules", 2);
		pack_text(pk, dir);
		pack_text(pk, base);
	}
	for (m = paths; m && *m && !rc; m++) {
		char *full = xasprintf("%s/%s", dir, *m), *id = identity(plan, full, "modules", e);

		if (id) {
			pack_step(pk, "module", 2);
			pack_text(pk, *m);
			pack_text(pk, id);
		} else {
			rc = -1;
		}
		free(id);
		free(full);
	}
	rc = paths ? rc : -1;
	modules_free(paths);
	free(dir);
	return rc;
}

/* The binary's own directories: never more than a few. */
static char *search_agent(const char *exe)
{
	char *dir = xstrdup(exe), *path, *slash;

	slash = strrchr(dir, '/');
	*(slash ? slash : dir) = '\0';
	path = xasprintf("%s/../share/provium/" AGENT_OVERLAY, dir);
	while (access(path, F_OK)) {
		free(path);
		path = xasprintf("%s/dist/" AGENT_OVERLAY, dir);
		if (!access(path, F_OK))
			break;
		slash = strrchr(dir, '/');
		if (!slash) {
			free(path);
			path = NULL;
			break;
		}
		*slash = '\0';
	}
	free(dir);
	return path;
}

char *initramfs_find_agent(const struct profile *p, const char *exe, struct err *e)
{
	const char *env = getenv("PROVIUM_OVERLAY");
	const char *given = p->agent_overlay_path ? p->agent_overlay_path : env && *env ? env : NULL;
	char *path;

	if (given && access(given, R_OK)) {
		err_set(e, errno, "%s: `%s`: %s",
			p->agent_overlay_path ? "agent_overlay_path" : "$PROVIUM_OVERLAY", given,
			strerror(errno));
		return NULL;
	}
	path = given ? xstrdup(given) : search_agent(exe);
	if (!path)
		err_set(e, ENOENT, "no " AGENT_OVERLAY " found: neither in ../share/provium beside `%s` "
			"nor in dist/ of the directories above it; run `make`, or set agent_overlay_path or "
			"$PROVIUM_OVERLAY, or inject_agent = false for an image that starts one itself", exe);
	return path;
}

static int describe_agent(struct initramfs_plan *plan, const struct profile *p, msgpack_packer *pk,
	struct err *e)
{
	char exe[PATH_MAX] = "", *path, *id;

	if (!p->inject_agent)
		return 0;
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return err_set(e, errno, "read /proc/self/exe: %s", strerror(errno));
	path = initramfs_find_agent(p, exe, e);
	id = path ? identity(plan, path, "agent overlay", e) : NULL;
	if (id) {
		pack_step(pk, "agent", 2);
		pack_text(pk, path);
		pack_text(pk, id);
	}
	free(path);
	free(id);
	return id ? 0 : -1;
}

/* A guest path names one file, and says so plainly: absolute, no "." or "..", no trailing slash. */
static int check_guest_path(const char *path, struct err *e)
{
	const char *p = path;

	if (!path || *path != '/')
		return err_set(e, EINVAL, "files: `%s`: expected an absolute path", path ? path : "");
	if (strlen(path) >= PATH_MAX)
		return err_set(e, ENAMETOOLONG, "files: `%.60s...`: longer than %d bytes", path,
			PATH_MAX - 1);
	while (*p) {
		size_t len = strcspn(++p, "/");

		if (len == 0)
			return err_set(e, EINVAL, "files: `%s`: %s", path,
				p[len] ? "has an empty component" : "names a directory, expected a file");
		if ((len == 1 && *p == '.') || (len == 2 && !memcmp(p, "..", 2)))
			return err_set(e, EINVAL, "files: `%s`: `.` and `..` are not allowed in it", path);
		if (len > NAME_MAX)
			return err_set(e, ENAMETOOLONG, "files: `%s`: a component is longer than %d bytes",
				path, NAME_MAX);
		p += len;
	}
	return 0;
}

static int describe_file(struct initramfs_plan *plan, const struct file_spec *f, msgpack_packer *pk,
	struct err *e)
{
	char *what, *id = NULL;
	int rc = check_guest_path(f->path, e);

	if (rc)
		return rc;
	if (f->host) {
		what = xasprintf("files: `%s`", f->path);
		id = identity(plan, f->host, what, e);
		free(what);
		if (!id)
			return -1;
	}
	plan->need += f->host ? 0 : f->content_len;
	pack_step(pk, "file", 5);
	pack_text(pk, f->path);
	msgpack_pack_unsigned_int(pk, f->mode & 07777);
	if (f->host) {
		pack_text(pk, f->host);
		msgpack_pack_nil(pk);
		pack_text(pk, id);
	} else {
		msgpack_pack_nil(pk);
		msgpack_pack_bin_with_body(pk, f->content ? f->content : "", f->content_len);
		msgpack_pack_nil(pk);
	}
	free(id);
	return 0;
}

int initramfs_describe(struct initramfs_plan *plan, struct vmm *v, const struct profile *p,
	const struct vm_options *o, struct err *e)
{
	msgpack_sbuffer *sb = &plan->description;
	msgpack_packer pk;
	size_t i, initrd_end;
	int rc;

	memset(plan, 0, sizeof(*plan));
	plan->vmm = v;
	msgpack_sbuffer_init(sb);
	msgpack_packer_init(&pk, sb, msgpack_sbuffer_write);
	rc = describe_initrd(plan, p, &pk, e);
	initrd_end = sb->size;
	if (!rc)
		rc = describe_modules(plan, p, o, &pk, e);
	if (!rc)
		rc = describe_agent(plan, p, &pk, e);
	for (i = 0; o && !rc && i < o->nfiles; i++)
		rc = describe_file(plan, &o->files[i], &pk, e);
	if (rc)
		return rc;
	plan->as_is = sb->size == initrd_end;
	if (plan->as_is)
		plan->path = xstrdup(p->initrd);
	else
		plan->path = cache_path(plan->vmm, "initramfs", "cpio", sb->data, sb->size);
	return 0;
}

void initramfs_plan_release(struct initramfs_plan *plan)
{
	msgpack_sbuffer_destroy(&plan->description);
	free(plan->initrd);
	free(plan->names);
	free(plan->path);
}
