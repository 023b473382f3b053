/*
 * Which kernel modules a guest needs for the devices we give it, read from its modules.dep.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/initramfs.h"

static const char *const wanted_pci[], *const wanted_mmio[];

/* One line of modules.dep. */
struct line {
	char *path;	/* below the directory */
	char *deps;	/* paths, separated by blanks */
	bool taken;
};

/* On modules_select's stack. */
struct selection {
	const char *dir;
	char *text;		/* modules.dep; the lines point into it */
	struct line *lines;
	size_t nlines;
	char **paths;
	size_t npaths;
};

static char *read_text(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0, size = 1 << 16;
	char *text = xmalloc(size);
	ssize_t n = -1;

	while (fd >= 0 && (n = read(fd, text + len, size - len - 1)) > 0) {
		len += n;
		if (len + 1 == size)
			text = xrealloc(text, size *= 2);
	}
	text[len] = '\0';
	if (n < 0) {
		err_set(e, errno, "modules: read `%s`: %s", path, strerror(errno));
		if (e && e->code == -ENOENT)
			err_append(e, "; `modules` is a /lib/modules/VERSION directory after `depmod`");
		free(text);
		text = NULL;
	}
	if (fd >= 0)
		close(fd);
	return text;
}

/* Old depmods wrote whole paths: cut off what comes before the version's directory. */
static char *below_version(char *path)
{
	static const char prefix[] = "/lib/modules/";
	char *rest;

	if (strncmp(path, prefix, sizeof(prefix) - 1))
		return path;
	rest = strchr(path + sizeof(prefix) - 1, '/');
	return rest ? rest + 1 : path;
}

static void parse_lines(struct selection *s)
{
	char *save = NULL, *text, *colon;

	for (text = strtok_r(s->text, "\n", &save); text; text = strtok_r(NULL, "\n", &save)) {
		colon = strchr(text, ':');
		if (!colon)
			continue;
		*colon = '\0';
		s->lines = xrealloc(s->lines, (s->nlines + 1) * sizeof(*s->lines));
		s->lines[s->nlines++] = (struct line){ .path = below_version(text), .deps = colon + 1 };
	}
}

/* Whether a path is the file of a module: "virtio_rng" is in virtio-rng.ko.xz. */
static bool is_module(const char *path, const char *name)
{
	const char *base = strrchr(path, '/');

	for (base = base ? base + 1 : path; *name; base++, name++)
		if (*base != *name && !(*base == '-' && *name == '_'))
			return false;
	return !strncmp(base, ".ko", 3) && (base[3] == '\0' || base[3] == '.');
}

static struct line *find_name(struct selection *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->nlines; i++)
		if (is_module(s->lines[i].path, name))
			return &s->lines[i];
	return NULL;
}

static struct line *find_path(struct selection *s, const char *path)
{
	size_t i;

	for (i = 0; i < s->nlines; i++)
		if (!strcmp(s->lines[i].path, path))
			return &s->lines[i];
	return NULL;
}

static bool on_disk(const struct selection *s, const char *path)
{
	char *full = xasprintf("%s/%s", s->dir, path);
	bool there = access(full, R_OK) == 0;

	free(full);
	return there;
}

/* Takes a module after everything it depends on. The list of a line is complete and the last one is to be
 * loaded first, but taking each one's own first makes any order right. */
static int take(struct selection *s, struct line *l, struct err *e)
{
	char *deps = l->deps, *end = deps + strlen(deps), *start;
	int rc = 0;

	if (l->taken)
		return 0;
	l->taken = true;
	while (!rc && end > deps) {
		struct line *dep;

		while (end > deps && strchr(" \t\r", end[-1]))
			end--;
		for (start = end; start > deps && !strchr(" \t\r", start[-1]);)
			start--;
		if (start == end)
			break;
		*end = '\0';
		end = start > deps ? start - 1 : deps;
		dep = find_path(s, below_version(start));
		if (dep)
			rc = take(s, dep, e);
		else
			rc = err_set(e, ENOENT,
				"modules: `%s/modules.dep`: `%s` needs `%s`, which it does not list",
				s->dir, l->path, start);
	}
	if (!rc && !on_disk(s, l->path))
		rc = err_set(e, ENOENT, "modules: `%s/%s`: %s", s->dir, l->path, strerror(ENOENT));
	if (rc)
		return rc;
	s->paths = xrealloc(s->paths, (s->npaths + 2) * sizeof(*s->paths));
	s->paths[s->npaths++] = xstrdup(l->path);
	s->paths[s->npaths] = NULL;
	return 0;
}

char **modules_select(const char *dir, const char *machine, struct err *e)
{
	struct selection s = { .dir = dir };
	char *dep = xasprintf("%s/modules.dep", dir);
	const char *const *w = machine && !strcmp(machine, "microvm") ? wanted_mmio : wanted_pci;
	int rc = 0;

	s.text = read_text(dep, e);
	free(dep);
	if (!s.text)
		return NULL;
	s.paths = xcalloc(1, sizeof(*s.paths));
	parse_lines(&s);
	for (; *w && !rc; w++) {
		struct line *l = find_name(&s, *w);

		/* Built in, or cut from this tree: the kernel will do without. */
		if (l && on_disk(&s, l->path))
			rc = take(&s, l, e);
	}
	free(s.lines);
	free(s.text);
	if (rc) {
		modules_free(s.paths);
		return NULL;
	}
	return s.paths;
}

void modules_free(char **paths)
{
	char **p;

	for (p = paths; p && *p; p++)
		free(*p);
	free(paths);
}

/* The bus and the agent's port come first: the agent serves while the rest is loaded. */
static const char *const wanted_pci[] = {
	"virtio_pci", "virtio_console", "vmw_vsock_virtio_transport", "virtio_net", "virtio_blk",
	"virtio_rng", NULL
};

static const char *const wanted_mmio[] = {
	"virtio_mmio", "virtio_console", "vmw_vsock_virtio_transport", "virtio_net", "virtio_blk",
	"virtio_rng", NULL
};
