/*
 * Network namespaces: made, entered for a moment, held by a descriptor.
 *
 * The process has one thread, and that thread is where `unshare` and `setns` take effect: nothing else of
 * ours can run while it is away. A namespace is never bound to a path, so there is nothing to clean up after
 * a SIGKILL.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/netns.h"

/* Owned by its maker. */
struct netns {
	int fd;
};

static int home_fd = -1;

int netns_home(void)
{
	if (home_fd < 0)
		home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return home_fd;
}

static int no_way(struct err *e, int code, const char *what)
{
	err_set(e, code, "%s: %s", what, strerror(code));
	if (code == EPERM)
		err_append(e, "; this needs the right CAP_SYS_ADMIN besides CAP_NET_ADMIN: run as root, "
			"or take backend = \"user\"");
	return -code;
}

/* To stay away would be to run the rest of the program in the wrong place. */
static void go_home(void)
{
	INVARIANT(setns(home_fd, CLONE_NEWNET) == 0);
}

struct netns *netns_new(struct err *e)
{
	struct netns *ns;
	int fd;

	if (netns_home() < 0) {
		no_way(e, errno, "open /proc/self/ns/net");
		return NULL;
	}
	if (unshare(CLONE_NEWNET)) {
		no_way(e, errno, "make a network namespace");
		return NULL;
	}
	fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		no_way(e, errno, "open /proc/self/ns/net of a new network namespace");
	go_home();
	if (fd < 0)
		return NULL;
	ns = xcalloc(1, sizeof(*ns));
	ns->fd = fd;
	log_debug("netns", "arm descriptor %d", fd);
	return ns;
}

void netns_free(struct netns *ns)
{
	if (!ns)
		return;
	log_debug("netns", "finish descriptor %d", ns->fd);
	close(ns->fd);
	free(ns);
}

int netns_run(struct netns *ns, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	int rc;

	if (!ns)
		return fn(arg, e);
	if (setns(ns->fd, CLONE_NEWNET))
		return no_way(e, errno, "enter a network namespace");
	rc = fn(arg, e);
	go_home();
	return rc;
}

/* ---- settings: /proc/sys/net/ shows the namespace of whoever opens it ---- */

struct sysctl {
	const char *name, *value;
	char text[32];
};

static int write_inside(void *arg, struct err *e)
{
	struct sysctl *s = arg;
	char path[256];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", s->name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, s->value, strlen(s->value)) < 0)
		rc = err_set(e, errno, "write %s to %s: %s", s->value, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

static int read_inside(void *arg, struct err *e)
{
	struct sysctl *s = arg;
	char path[256];
	ssize_t n = -1;
	int fd;

	(void)e;
	snprintf(path, sizeof(path), "/proc/sys/net/%s", s->name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, s->text, sizeof(s->text) - 1);
	n = n < 0 ? -errno : n;
	if (fd >= 0)
		close(fd);
	return (int)n;
}

int netns_sysctl(struct netns *ns, const char *name, const char *value, struct err *e)
{
	struct sysctl s = { .name = name, .value = value };

	return netns_run(ns, write_inside, &s, e);
}

int netns_read_sysctl(struct netns *ns, const char *name)
{
	struct sysctl s = { .name = name };
	int rc = netns_run(ns, read_inside, &s, NULL);

	return rc < 0 ? rc : atoi(s.text);
}
