/*
 * A directory for each failed test: what it has kept with t:artifact, its error, its consoles, how to run it again.
 *
 * One that an earlier run left under the same name is replaced: its files are removed first.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/artifacts.h"

#define NAME_LEN 200	/* of a directory or file, leaving room for a number */

/* Names that are given already: of the run's directories, or of one directory's files. */
struct names {
	char **v;
	size_t n;
};

struct artifacts {
	const struct args *args;
	const char *base;
	struct names dirs;
};

static void names_release(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static bool is_given(const struct names *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], name) == 0)
			return true;
	return false;
}

/* A plain file name made of text, given to nothing else yet; borrowed from the list. */
static const char *give_name(struct names *l, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	char *base = xstrndup(text, NAME_LEN), *name;

	for (char *p = base; *p; p++)
		if (!strchr(plain, *p) || (p == base && *p == '.'))
			*p = '_';
	name = xstrdup(*base ? base : "_");
	for (unsigned i = 2; is_given(l, name); i++) {
		free(name);
		name = xasprintf("%s.%u", base, i);
	}
	free(base);
	l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
	return l->v[l->n++] = name;
}

struct artifacts *artifacts_new(const struct args *a)
{
	struct artifacts *s = xcalloc(1, sizeof(*s));

	s->args = a;
	s->base = a->artifacts ? a->artifacts : ARTIFACTS_DIR;
	return s;
}

void artifacts_free(struct artifacts *s)
{
	if (!s)
		return;
	names_release(&s->dirs);
	free(s);
}

static int make_empty(const char *dir, struct err *e)
{
	struct dirent *entry;
	DIR *d;
	int r = make_dirs(dir, 0755, e);

	if (r < 0)
		return r;
	d = opendir(dir);
	if (!d)
		return err_set(e, errno, "open directory `%s`: %s", dir, strerror(errno));
	while ((entry = readdir(d)))
		unlinkat(dirfd(d), entry->d_name, 0);	/* what is no file stays */
	closedir(d);
	return 0;
}

/* ---- the files ---- */

static int save(const char *dir, struct names *given, const char *name, const void *data, size_t len, struct err *e)
{
	char *path = xasprintf("%s/%s", dir, give_name(given, name));
	struct outfile *o = outfile_open(path, len, e);
	int r = o ? outfile_write(o, data, len, e) : -1;

	if (r == 0)
		r = outfile_commit(o, false, e);
	outfile_free(o);
	free(path);
	return r;
}

static int save_text(const char *dir, struct names *given, const char *name, const char *text, struct err *e)
{
	return text && *text ? save(dir, given, name, text, strlen(text), e) : 0;
}

static char *error_text(const struct test_result *t)
{
	return xasprintf("%s\n%s%s%s", t->reason ? t->reason : "", t->where ? t->where : "", t->where ? "\n" : "",
		t->traceback ? t->traceback : "");
}

/* Appends " PREFIX'word'", quoted for the shell. */
static void add_word(char **line, const char *prefix, const char *word)
{
	char *old = *line, *quoted = xmalloc(strlen(word) * 4 + 1), *p = quoted;

	for (; *word; word++) {
		if (*word == '\'')
			p = stpcpy(p, "'\\''");
		else
			*p++ = *word;
	}
	*p = '\0';
	*line = xasprintf("%s %s'%s'", old, prefix, quoted);
	free(quoted);
	free(old);
}

/* A command line that runs just this test, with the flags that change what it does. */
static char *reproduction(const struct args *a, const char *path, const char *test)
{
	static const char *const accels[] = { [ACCEL_KVM] = "kvm", [ACCEL_TCG] = "tcg" };
	char *cwd = getcwd(NULL, 0), *line = xstrdup("cd"), *done;

	add_word(&line, "", cwd ? cwd : ".");
	done = xasprintf("%s && provium -v", line);
	free(line);
	if (a->config)
		add_word(&done, "--config=", a->config);
	if (a->vmm == VMM_LOCAL)
		add_word(&done, "--vmm=", "local");
	if (a->accel != ACCEL_AUTO)
		add_word(&done, "--accel=", accels[a->accel]);
	if (a->include_slow) {
		line = xasprintf("%s --include-slow", done);
		free(done);
		done = line;
	}
	add_word(&done, "--test=", test);
	add_word(&done, "", path);
	line = xasprintf("%s\n", done);
	free(done);
	free(cwd);
	return line;
}

static int fill(struct artifacts *s, const char *dir, const char *path, const struct test_result *t, struct err *e)
{
	char *error = error_text(t), *again = reproduction(s->args, path, t->name);
	struct names given = { 0 };
	int r = make_empty(dir, e);

	if (r == 0)
		r = save_text(dir, &given, "error.txt", error, e);
	if (r == 0)
		r = save_text(dir, &given, "console.txt", t->console, e);
	if (r == 0)
		r = save_text(dir, &given, "reproduce.txt", again, e);
	for (size_t i = 0; r == 0 && i < t->nartifacts; i++)
		r = save(dir, &given, t->artifacts[i].name, t->artifacts[i].data, t->artifacts[i].len, e);
	names_release(&given);
	free(error);
	free(again);
	return r;
}

int artifacts_save(struct artifacts *s, const char *path, struct file_result *f, struct err *e)
{
	int first = 0;

	for (size_t i = 0; i < f->ntests; i++) {
		struct test_result *t = &f->tests[i];
		struct err failure = ERR_INIT;
		char *wanted, *dir;

		if (!t->over || t->status != TEST_FAILED)
			continue;
		wanted = xasprintf("%s_%s", f->path, t->name);
		dir = xasprintf("%s/%s", s->base, give_name(&s->dirs, wanted));
		free(wanted);
		if (fill(s, dir, path, t, &failure) == 0) {
			t->artifacts_dir = dir;
			continue;
		}
		free(dir);
		err_prefix(&failure, "the artifacts of the test `%s`", t->name);
		if (!first) {
			first = failure.code;
			if (e)
				err_move(e, &failure);
		}
		err_release(&failure);
	}
	return first;
}
