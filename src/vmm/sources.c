/*
 * Which files of the host a guest is made from.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/host.h"
#include "vmm/initramfs.h"

struct list {
	char **v;
	size_t n;
};

static void add(struct list *l, char *path)
{
	if (!path)
		return;
	l->v = xrealloc(l->v, (l->n + 2) * sizeof(*l->v));
	l->v[l->n++] = path;
	l->v[l->n] = NULL;
}

/* The program as execvp would find it. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return xstrdup(name);
	while (path && *path) {
		size_t len = strcspn(path, ":");
		char *file = xasprintf("%.*s/%s", (int)len, path, name);

		if (access(file, X_OK) == 0)
			return file;
		free(file);
		path += len + (path[len] == ':');
	}
	return NULL;
}

static void add_modules(struct list *l, const struct profile *p, const char *machine)
{
	char *dir = p->modules ? realpath(p->modules, NULL) : NULL;
	char **paths = dir ? modules_select(dir, machine ? machine : p->machine, NULL) : NULL;

	for (char **m = paths; m && *m; m++)
		add(l, xasprintf("%s/%s", dir, *m));
	modules_free(paths);
	free(dir);
}

static char *find_agent(const struct profile *p)
{
	char exe[PATH_MAX] = "";

	if (!p->inject_agent || readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return NULL;
	return initramfs_find_agent(p, exe, NULL);
}

char **vmm_sources(struct vmm *v, const struct profile *p, const char *machine)
{
	struct list l = { xcalloc(1, sizeof(char *)), 0 };

	add(&l, find_program(vmm_qemu_program(v, p->arch)));
	add(&l, xstrdup(p->kernel));
	add(&l, xstrdup(p->initrd));
	add(&l, find_agent(p));
	add_modules(&l, p, machine);
	return l.v;
}
