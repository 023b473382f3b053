/*
 * The walk that finds test and fixture files.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/discover.h"

/* On discover_files' stack. */
struct walk {
	const char *suffix;
	char **roots;			/* canonical, NULL-terminated */
	char *cwd;			/* canonical; NULL when it is gone */
	const char *start;		/* the directory of the PATH that is walked, canonical */
	struct found_files *out;
	struct err *err;
};

static bool ends_with(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n > s && !strcmp(name + n - s, suffix);
}

/* The part of path below dir, or NULL. */
static const char *below(const char *path, const char *dir)
{
	size_t n = dir ? strlen(dir) : 0;

	if (n == 0 || strncmp(path, dir, n))
		return NULL;
	if (dir[n - 1] == '/')
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

/* Takes the file at `path`, where the walk came by; its canonical path may be elsewhere. */
static int take_file(struct walk *w, const char *path)
{
	char *canonical = realpath(path, NULL), **root;
	const char *rel = NULL, *shown = below(path, w->cwd), *r;
	struct found_file *f;

	if (!canonical)
		return err_set(w->err, errno, "`%s`: %s", path, strerror(errno));
	for (root = w->roots; *root; root++) {
		r = below(path, *root);
		if (r && (!rel || strlen(r) < strlen(rel)))
			rel = r;	/* of nested roots the innermost */
	}
	if (!rel)
		rel = below(path, w->start);
	w->out->v = xrealloc(w->out->v, (w->out->n + 1) * sizeof(*w->out->v));
	f = &w->out->v[w->out->n++];
	f->path = canonical;
	f->rel = xstrdup(rel ? rel : path);
	f->shown = xstrdup(shown ? shown : path);
	return 0;
}

static int walk_dir(struct walk *w, const char *path);

static int walk_entry(struct walk *w, const char *path, const char *name)
{
	bool wanted = ends_with(name, w->suffix);
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : err_set(w->err, errno, "`%s`: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return walk_dir(w, path);
	if (!wanted)
		return 0;
	if (S_ISLNK(st.st_mode) && stat(path, &st))
		return err_set(w->err, errno, "`%s`: a symbolic link that leads nowhere: %s", path,
			strerror(errno));
	return S_ISREG(st.st_mode) ? take_file(w, path) : 0;
}

static int walk_dir(struct walk *w, const char *path)
{
	DIR *d = opendir(path);
	struct dirent *entry;
	int rc = 0;

	if (!d)
		return err_set(w->err, errno, "read directory `%s`: %s", path, strerror(errno));
	while (!rc && (entry = readdir(d))) {
		char *full;

		/* Hidden: directories by rule; files because editors keep locks like .#x.test.lua there. */
		if (entry->d_name[0] == '.')
			continue;
		full = xasprintf("%s%s%s", path, strcmp(path, "/") ? "/" : "", entry->d_name);
		rc = walk_entry(w, full, entry->d_name);
		free(full);
	}
	closedir(d);
	return rc;
}

/* The names in a directory, NULL-terminated; empty when it cannot be read. */
static char **list_names(const char *path)
{
	char **names = xcalloc(1, sizeof(*names));
	DIR *d = opendir(path);
	struct dirent *entry;
	size_t n = 0;

	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		names = xrealloc(names, (n + 2) * sizeof(*names));
		names[n++] = xstrdup(entry->d_name);
		names[n] = NULL;
	}
	if (d)
		closedir(d);
	return names;
}

static void free_names(char **names)
{
	char **p;

	for (p = names; *p; p++)
		free(*p);
	free(names);
}

/* "tests/smok": No such file ...; did you mean `tests/smoke`? */
static int missing(struct walk *w, const char *path, int code)
{
	char *dir = xstrdup(path), *slash, **names;
	const char *near;
	size_t len;

	err_set(w->err, code, "`%s`: %s", path, strerror(code));
	while ((len = strlen(dir)) > 1 && dir[len - 1] == '/')
		dir[len - 1] = '\0';
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	names = list_names(!slash ? "." : *dir ? dir : "/");
	near = nearest_name(slash ? slash + 1 : dir, (const char *const *)names);
	if (near && code == ENOENT)
		err_append(w->err, "; did you mean `%s%s%s`?", slash ? dir : "", slash ? "/" : "", near);
	free_names(names);
	free(dir);
	return -code;
}

/* The path without symbolic links except perhaps the last name: what the walk would have come by. */
static char *canonical_parent(const char *path)
{
	char *copy = xstrdup(path), *slash = strrchr(copy, '/'), *dir, *full = NULL;

	if (slash)
		*slash = '\0';
	dir = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (dir)
		full = xasprintf("%s%s%s", dir, strcmp(dir, "/") ? "/" : "", slash ? slash + 1 : copy);
	free(dir);
	free(copy);
	return full;
}

static int walk_path(struct walk *w, const char *path)
{
	char *full = NULL, *slash;
	struct stat st;
	int rc;

	if (stat(path, &st))
		return missing(w, path, errno);
	if (S_ISDIR(st.st_mode))
		full = realpath(path, NULL);
	else if (S_ISREG(st.st_mode))
		full = canonical_parent(path);
	else
		return err_set(w->err, EINVAL, "`%s`: neither a file nor a directory", path);
	if (!full)
		return err_set(w->err, errno, "`%s`: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode)) {
		w->start = full;
		rc = walk_dir(w, full);
	} else {
		char *start = xstrdup(full);

		slash = strrchr(start, '/');
		slash[slash == start] = '\0';
		w->start = start;
		rc = take_file(w, full);
		free(start);
	}
	free(full);
	return rc;
}

static int by_path(const void *a, const void *b)
{
	const struct found_file *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : strcmp(x->shown, y->shown);
}

static void file_release(struct found_file *f)
{
	free(f->path);
	free(f->rel);
	free(f->shown);
}

static void sort_and_unite(struct found_files *f)
{
	size_t i, n = 0;

	if (f->n)
		qsort(f->v, f->n, sizeof(*f->v), by_path);
	for (i = 0; i < f->n; i++) {
		if (n > 0 && !strcmp(f->v[n - 1].path, f->v[i].path))
			file_release(&f->v[i]);
		else
			f->v[n++] = f->v[i];
	}
	f->n = n;
}

/* Those that exist: only a root that is walked need be there. */
static char **canonical_roots(const char *const *roots)
{
	char **list = xcalloc(1, sizeof(*list)), *real;
	size_t n = 0;

	for (; roots && *roots; roots++) {
		real = realpath(*roots, NULL);
		if (!real)
			continue;
		list = xrealloc(list, (n + 2) * sizeof(*list));
		list[n++] = real;
		list[n] = NULL;
	}
	return list;
}

int discover_files(const char *const *paths, const char *const *roots, const char *suffix,
	struct found_files *out, struct err *e)
{
	bool given = paths && *paths;
	struct walk w = { .suffix = suffix, .out = out, .err = e };
	const char *const *p;
	int rc = 0;

	memset(out, 0, sizeof(*out));
	w.roots = canonical_roots(roots);
	w.cwd = realpath(".", NULL);
	for (p = given ? paths : roots; p && *p && !rc; p++) {
		rc = walk_path(&w, *p);
		if (rc && !given)
			err_prefix(e, "roots");
	}
	free_names(w.roots);
	free(w.cwd);
	sort_and_unite(out);
	return rc;
}

void found_files_release(struct found_files *f)
{
	size_t i;

	for (i = 0; i < f->n; i++)
		file_release(&f->v[i]);
	free(f->v);
	memset(f, 0, sizeof(*f));
}
