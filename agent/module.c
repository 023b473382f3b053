/*
 * Loading kernel modules: for the guest's start, and load_module.
 */
#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "ops.h"

#define COMPRESSED_FILE 4	/* MODULE_INIT_COMPRESSED_FILE: the kernel unpacks it */

static int flags_for(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && strcmp(dot, ".ko") != 0 ? COMPRESSED_FILE : 0;
}

int module_load(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, params, flags_for(path)) < 0 && errno != EEXIST)
		err = -errno;
	close(fd);
	return err;
}

void op_load_module(struct call *c)
{
	const char *path = args_text(&c->args, "path");
	const char *params = args_opt_text(&c->args, "params");
	int err;

	if (call_refused(c))
		return;
	if (agent_env.local) {
		call_fail(c, WIRE_UNSUPPORTED, "load_module: not supported by --vmm local");
		return;
	}
	err = module_load(path, params ? params : "");
	if (err)
		call_errno(c, err);
	else
		call_reply_empty(c);
}
