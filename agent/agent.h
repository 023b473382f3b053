/*
 * What every process of the agent knows: how it was started, and how it explains itself.
 */
#ifndef PROVIUM_AGENT_H
#define PROVIUM_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unreleased"
#endif

/* Descriptors of the agent live up here, so that those which a guest's system calls open are low and
 * predictable. */
#define AGENT_FD_BASE 960

/* Shared by the mux and all executors, in a page of its own. */
struct agent_shared {
	int64_t clock_offset;		/* ns, what clock_set has moved a clock that must not be touched */
	_Atomic int64_t asked_ns;	/* when the mux handed on the host's last request, as of agent_now() */
};

struct agent_env {
	bool init;			/* started by the kernel as the first process */
	bool local;			/* on the host, for --vmm local */
	char *tmp_dir;			/* local: TMPDIR for commands, when /tmp could not be made private */
	struct agent_shared *shared;
};
extern struct agent_env agent_env;

/* Explains a failure: on the console when it runs as a guest's first process, else on stderr. */
void agent_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, then ends this process. */
void agent_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

int64_t agent_now(void);		/* CLOCK_MONOTONIC, ns */
/* Moves a descriptor out of the way of the guest's own. Returns the new one, close-on-exec. */
int agent_high_fd(int fd);
/* Makes sure that 0, 1 and 2 are open on something harmless. */
void agent_fix_stdio(void);
/* Writes a small file in one go: 0 or -errno. */
int agent_write_file(const char *path, const char *text);

/* Started by the kernel: prepares the guest, returns in the process that serves it (init.c). */
void init_prepare(int argc, char **argv);
/* Enters the namespaces of --local, returns in the process that serves (local.c). */
void local_prepare(const char *private_tmp);

#endif
