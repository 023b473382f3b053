/*
 * The tree of names that unpacked cpio archives come to.
 *
 * The kernel unpacks a directory over a symbolic link by removing the link. An overlay that just named
 * its parents ("lib", "sbin") would so cut an image with a merged /usr off its libraries; and naming none
 * would lose the files where the parent is missing. Hence this: it knows what is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/tree.h"

#define MAX_LINKS 40

struct node {
	enum tree_type type;
	char *target;		/* a link's */
	char path[];		/* "usr/bin/sh" */
};

/* Freed by who made it. */
struct tree {
	void *root;		/* tsearch of struct node by path */
};

static int node_compare(const void *a, const void *b)
{
	return strcmp(((const struct node *)a)->path, ((const struct node *)b)->path);
}

static void node_free(void *p)
{
	free(((struct node *)p)->target);
	free(p);
}

struct tree *tree_new(void)
{
	return xcalloc(1, sizeof(struct tree));
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	tdestroy(t->root, node_free);
	free(t);
}

static struct node *node_new(const char *path)
{
	struct node *n = xcalloc(1, sizeof(*n) + strlen(path) + 1);

	strcpy(n->path, path);
	return n;
}

static struct node *find(const struct tree *t, const char *path)
{
	struct node *key = node_new(path), **found = tfind(key, &t->root, node_compare);

	free(key);
	return found ? *found : NULL;
}

static void set(struct tree *t, const char *path, enum tree_type type, const char *target)
{
	struct node *n = node_new(path), **found = tsearch(n, &t->root, node_compare);

	if (!found)
		abort();
	if (*found != n) {
		free(n);
		n = *found;
	}
	free(n->target);
	n->target = xstrdup(target);
	n->type = type;
}

/* One step of a walk: real is where it stands, rest what is still to go. Both owned by the walk. */
struct walk {
	char *real, *rest;
	int links;
};

static void walk_down(struct walk *w, const char *name, size_t len)
{
	char *down;

	if (len == 0 || (len == 1 && *name == '.'))
		return;
	if (len == 2 && !memcmp(name, "..", 2)) {
		char *slash = strrchr(w->real, '/');

		*(slash ? slash : w->real) = '\0';
		return;
	}
	down = xasprintf("%s%s%.*s", w->real, *w->real ? "/" : "", (int)len, name);
	free(w->real);
	w->real = down;
}

/* Continues at the link's target instead of at the link. False when there are too many. */
static bool walk_link(struct walk *w, const char *target, const char *rest)
{
	char *slash = strrchr(w->real, '/'), *joined = xasprintf("%s/%s", target, rest);

	*(slash && *target != '/' ? slash : w->real) = '\0';
	free(w->rest);
	w->rest = joined;
	return ++w->links <= MAX_LINKS;
}

/* Follows everything but the last component. NULL when a parent is a file, or links turn in a circle. */
static char *resolve(const struct tree *t, const char *path)
{
	struct walk w = { xstrdup(""), xstrdup(path), 0 };
	size_t len, start;

	for (;;) {
		struct node *n;

		start = strspn(w.rest, "/");
		len = strcspn(w.rest + start, "/");
		walk_down(&w, w.rest + start, len);
		if (w.rest[start + len + strspn(w.rest + start + len, "/")] == '\0')
			break;
		n = *w.real ? find(t, w.real) : NULL;
		if (n && (n->type == TREE_FILE ||
			  (n->type == TREE_LINK && !walk_link(&w, n->target, w.rest + start + len)))) {
			free(w.real);
			w.real = NULL;
			break;
		}
		if (!n || n->type != TREE_LINK)
			memmove(w.rest, w.rest + start + len, strlen(w.rest + start + len) + 1);
	}
	free(w.rest);
	return w.real;
}

void tree_put(struct tree *t, const char *name, enum tree_type type, const char *target)
{
	char *real = resolve(t, name);

	if (real && *real)
		set(t, real, type, type == TREE_LINK ? target : NULL);
	free(real);
}

enum tree_type tree_get(const struct tree *t, const char *path, char **real)
{
	char *r = resolve(t, path);
	struct node *n = r ? find(t, r) : NULL;
	enum tree_type type = r && !*r ? TREE_DIR : n ? n->type : TREE_NONE;

	if (real)
		*real = r;
	else
		free(r);
	return type;
}

/* ---- as bytes: for each node its type's letter, its path and a NUL, a link's target and a NUL ---- */

static void save_node(const void *p, VISIT which, void *arg)
{
	const struct node *n = *(struct node *const *)p;
	struct evbuffer *out = arg;

	if (which != postorder && which != leaf)
		return;
	evbuffer_add_printf(out, "%c%s", "?fdl"[n->type], n->path);
	evbuffer_add(out, "", 1);
	if (n->type == TREE_LINK)
		evbuffer_add(out, n->target, strlen(n->target) + 1);
}

int tree_save(const struct tree *t, const char *path, struct err *e)
{
	struct evbuffer *out = evbuffer_new();
	struct outfile *o;
	size_t len;
	int rc;

	twalk_r(t->root, save_node, out);
	len = evbuffer_get_length(out);
	o = outfile_open(path, len, e);
	rc = !o ? e->code : len ? outfile_write(o, evbuffer_pullup(out, -1), len, e) : 0;
	if (!rc)
		rc = outfile_commit(o, false, e);
	outfile_free(o);
	evbuffer_free(out);
	return rc;
}

static int load_nodes(struct tree *t, const char *p, size_t len)
{
	const char *end = p + len;

	while (p < end) {
		const char *path = p + 1, *target = memchr(p, 0, end - p);
		const char *kind = strchr("?fdl", *p);
		enum tree_type type = kind && *p ? kind - "?fdl" : TREE_NONE;

		if (type == TREE_NONE || !target++)
			return -EINVAL;
		p = target;
		if (type == TREE_LINK && !(p = memchr(target, 0, end - target)))
			return -EINVAL;
		if (type == TREE_LINK)
			p++;
		set(t, path, type, type == TREE_LINK ? target : NULL);
	}
	return 0;
}

int tree_map_file(const char *path, void **map, size_t *len, struct err *e)
{
	int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*map = NULL;
	*len = 0;
	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = err_set(e, errno, "read `%s`: %s", path, strerror(errno));
	} else if (st.st_size > 0) {
		*len = (size_t)st.st_size;
		*map = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
		if (*map == MAP_FAILED)
			rc = err_set(e, errno, "read `%s`: %s", path, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

int tree_load(struct tree *t, const char *path, struct err *e)
{
	void *map;
	size_t len;
	int rc = tree_map_file(path, &map, &len, e);

	if (rc < 0 || !map)
		return rc;
	if (load_nodes(t, map, len) < 0)
		rc = err_set(e, EINVAL, "read `%s`: it is damaged; remove it", path);
	munmap(map, len);
	return rc;
}
