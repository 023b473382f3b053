/*
 * What the host has to offer.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "run/hostlimits.h"

struct amount host_pool(const struct args *a)
{
	struct amount total = { a->mem, a->cpus };
	struct sysinfo info;

	if (!total.memory && sysinfo(&info) == 0)
		total.memory = (uint64_t)info.totalram * info.mem_unit / 10 * 8;
	if (!total.cpus)
		total.cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	total.cpus = (unsigned)(total.cpus * a->cpu_overcommit + 0.5);
	if (total.cpus < 1)
		total.cpus = 1;
	return total;
}

void host_raise_descriptors(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

char *host_agent_path(void)
{
	static const char *const places[] = { "provium-agent", "../libexec/provium/provium-agent", NULL };
	char self[PATH_MAX], *slash, *path;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return NULL;
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	for (const char *const *p = places; *p; p++) {
		path = xasprintf("%s/%s", self, *p);
		if (access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}
