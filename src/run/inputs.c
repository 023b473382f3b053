/*
 * What a build uses, in a helper child: `build-inputs OLD NEW DIR COMMAND OUT PATTERN...` expands the
 * patterns below DIR and writes the stamp NEW: one line with a key over everything, then for each file, ended
 * by a NUL, "SHA256 SIZE MTIME_NS INODE MODE PATH". A file that the stamp OLD knows by size, time and inode is
 * not read again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/build.h"

#define HEX_SIZE (2 * SHA256_DIGEST_SIZE + 1)

static int build_inputs(int argc, char **argv, struct err *e);

struct input {
	char *path;			/* relative to DIR, or absolute when its pattern is */
	char sha[HEX_SIZE];
	struct stat st;
};

struct inputs {
	const char *dir;
	struct input *v;		/* sorted by path once all are found */
	size_t n;
	char *old;			/* the old stamp's text, or NULL */
	size_t old_len;
};

/* ---- finding files ---- */

static char *join(const char *a, const char *b)
{
	if (!*a)
		return xstrdup(b);
	return xasprintf("%s%s%s", a, a[strlen(a) - 1] == '/' ? "" : "/", b);
}

static char *full_path(const struct inputs *in, const char *path)
{
	return *path == '/' ? xstrdup(path) : join(in->dir, path);
}

/* Follows symlinks, except those that lead nowhere. */
static int stat_input(const struct inputs *in, const char *path, bool follow, struct stat *st)
{
	char *full = full_path(in, path);
	int r = follow && stat(full, st) == 0 ? 0 : lstat(full, st);

	free(full);
	return r;
}

static struct dirent **list(const struct inputs *in, const char *path, int *n)
{
	char *full = full_path(in, *path ? path : ".");
	struct dirent **names = NULL;

	*n = scandir(full, &names, NULL, alphasort);
	free(full);
	return names;
}

static void free_list(struct dirent **names, int n)
{
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Adds a file, or everything below a directory (links inside are not followed into directories). */
static void add(struct inputs *in, const char *path, bool follow)
{
	struct dirent **names;
	struct stat st;
	char *child;
	int n;

	if (stat_input(in, path, follow, &st) < 0)
		return;
	if (!S_ISDIR(st.st_mode)) {
		in->v = xrealloc(in->v, (in->n + 1) * sizeof(*in->v));
		in->v[in->n++] = (struct input){ .path = xstrdup(path), .st = st };
		return;
	}
	names = list(in, path, &n);
	for (int i = 0; i < n; i++) {
		if (is_dots(names[i]->d_name))
			continue;
		child = join(path, names[i]->d_name);
		add(in, child, false);
		free(child);
	}
	free_list(names, n);
}

static void expand(struct inputs *in, const char *base, const char *pattern);

/* base/NAME for each NAME that the component matches; `**` is any number of directories. */
static void expand_component(struct inputs *in, const char *base, const char *component, const char *rest)
{
	bool any_depth = strcmp(component, "**") == 0;
	struct dirent **names;
	struct stat st;
	char *child;
	int n;

	if (any_depth)
		expand(in, base, *rest ? rest : "*");
	names = list(in, base, &n);
	for (int i = 0; i < n; i++) {
		if (is_dots(names[i]->d_name))
			continue;
		child = join(base, names[i]->d_name);
		if (any_depth) {
			if (*names[i]->d_name != '.' && stat_input(in, child, false, &st) == 0 &&
			    S_ISDIR(st.st_mode))
				expand_component(in, child, component, rest);
		} else if (fnmatch(component, names[i]->d_name, FNM_PERIOD) == 0) {
			expand(in, child, rest);
		}
		free(child);
	}
	free_list(names, n);
}

/* Adds what pattern matches below base; an empty pattern is base itself. */
static void expand(struct inputs *in, const char *base, const char *pattern)
{
	char *component, *child;
	size_t len;

	if (*pattern == '/' && !*base) {
		expand(in, "/", pattern + strspn(pattern, "/"));
		return;
	}
	if (!*pattern) {
		add(in, base, true);
		return;
	}
	len = strcspn(pattern, "/");
	component = xstrndup(pattern, len);
	pattern += len + strspn(pattern + len, "/");
	if (strpbrk(component, "*?[\\")) {
		expand_component(in, base, component, pattern);
	} else {
		child = join(base, component);
		expand(in, child, pattern);
		free(child);
	}
	free(component);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct input *)a)->path, ((const struct input *)b)->path);
}

static void sort_unique(struct inputs *in)
{
	size_t kept = 0;

	if (in->n == 0)
		return;
	qsort(in->v, in->n, sizeof(*in->v), by_path);
	for (size_t i = 1; i < in->n; i++) {
		if (strcmp(in->v[kept].path, in->v[i].path) == 0)
			free(in->v[i].path);
		else
			in->v[++kept] = in->v[i];
	}
	in->n = kept + 1;
}

/* ---- what is in them ---- */

static void digest_hex(struct sha256_ctx *ctx, char hex[HEX_SIZE])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* "SIZE MTIME_NS INODE MODE PATH": what a file is known by. malloc'ed. */
static char *identity(const struct input *f)
{
	return xasprintf("%lld %lld%09ld %llu %o %s", (long long)f->st.st_size, (long long)f->st.st_mtim.tv_sec,
		f->st.st_mtim.tv_nsec, (unsigned long long)f->st.st_ino, (unsigned)f->st.st_mode, f->path);
}

/* Takes the hash from the old stamp when it knows this very file. */
static bool known_hash(const struct inputs *in, struct input *f, const char *id)
{
	const char *p = in->old ? memchr(in->old, '\n', in->old_len) : NULL, *end = in->old + in->old_len;

	for (p = p ? p + 1 : end; p && p < end; p = memchr(p, '\0', end - p), p = p ? p + 1 : NULL) {
		if (strlen(p) <= HEX_SIZE || p[HEX_SIZE - 1] != ' ' || strcmp(p + HEX_SIZE, id))
			continue;
		memcpy(f->sha, p, HEX_SIZE - 1);
		return true;
	}
	return false;
}

static int hash_content(const struct inputs *in, struct input *f, struct err *e)
{
	char *full = full_path(in, f->path), buf[1 << 16];
	struct sha256_ctx ctx;
	ssize_t n = 0;
	int fd, r = 0;

	sha256_init(&ctx);
	if (S_ISLNK(f->st.st_mode)) {
		n = readlink(full, buf, sizeof(buf));
		if (n > 0)
			sha256_update(&ctx, n, (uint8_t *)buf);
	} else if (S_ISREG(f->st.st_mode)) {
		fd = open(full, O_RDONLY | O_CLOEXEC);
		while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
			sha256_update(&ctx, n, (uint8_t *)buf);
		if (fd < 0 || n < 0)
			r = err_set(e, errno, "read `%s`: %s", full, strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	digest_hex(&ctx, f->sha);
	free(full);
	return r;
}

static int hash_all(struct inputs *in, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < in->n && r == 0; i++) {
		char *id = identity(&in->v[i]);

		if (!known_hash(in, &in->v[i], id))
			r = hash_content(in, &in->v[i], e);
		free(id);
	}
	return r;
}

/* ---- the stamps ---- */

static void read_old(struct inputs *in, const char *path)
{
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return;
	do {
		in->old = xrealloc(in->old, in->old_len + (1 << 16) + 1);
		n = fread(in->old + in->old_len, 1, 1 << 16, f);
		in->old_len += n;
	} while (n > 0);
	in->old[in->old_len] = '\0';	/* also ends a record that was cut short */
	fclose(f);
}

/* The key: the command, where it writes, and every file's name, content and executability; not its times. */
static void make_key(const struct inputs *in, char **settings, char key[HEX_SIZE])
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	for (; *settings; settings++)
		sha256_update(&ctx, strlen(*settings) + 1, (uint8_t *)*settings);
	for (size_t i = 0; i < in->n; i++) {
		const struct input *f = &in->v[i];

		sha256_update(&ctx, strlen(f->path) + 1, (uint8_t *)f->path);
		sha256_update(&ctx, HEX_SIZE, (uint8_t *)f->sha);
		sha256_update(&ctx, 1, (uint8_t *)(f->st.st_mode & 0111 ? "x" : "-"));
	}
	digest_hex(&ctx, key);
}

static int write_stamp(const struct inputs *in, const char *path, const char *key, struct err *e)
{
	struct outfile *o = outfile_open(path, 0, e);
	char *line = xasprintf("provium-build 1 %s\n", key), *id;
	int r = o ? outfile_write(o, line, strlen(line), e) : -EIO;

	free(line);
	for (size_t i = 0; i < in->n && r == 0; i++) {
		id = identity(&in->v[i]);
		line = xasprintf("%s %s", in->v[i].sha, id);
		r = outfile_write(o, line, strlen(line) + 1, e);
		free(line);
		free(id);
	}
	if (r == 0)
		r = outfile_commit(o, false, e);
	outfile_free(o);
	return r;
}

/* A name without wildcards that is not there is a mistake; a pattern may match nothing. */
static int check_literal(const struct inputs *in, const char *pattern, struct err *e)
{
	struct stat st;

	if (strpbrk(pattern, "*?[\\") || stat_input(in, pattern, true, &st) == 0)
		return 0;
	return err_set(e, ENOENT, "`%s` does not exist in `%s`", pattern, in->dir);
}

static int build_inputs(int argc, char **argv, struct err *e)
{
	struct inputs in = { 0 };
	char key[HEX_SIZE];
	int r = 0;

	if (argc < 6)
		return err_set(e, EINVAL, "expected build-inputs OLD NEW DIR COMMAND OUT PATTERN...");
	in.dir = argv[3];
	for (int i = 6; i < argc && r == 0; i++) {
		r = check_literal(&in, argv[i], e);
		expand(&in, "", argv[i]);
	}
	sort_unique(&in);
	read_old(&in, argv[1]);
	if (r == 0)
		r = hash_all(&in, e);
	if (r == 0) {
		make_key(&in, argv + 4, key);
		r = write_stamp(&in, argv[2], key, e);
	}
	for (size_t i = 0; i < in.n; i++)
		free(in.v[i].path);
	free(in.v);
	free(in.old);
	return r;
}

const struct helper_verb run_helper_verbs[] = {
	{ "build-inputs", build_inputs },
	{ NULL, NULL },
};
