/*
 * Starting a program: what it gets and how it is set up between fork and exec.
 */
#ifndef PROVIUM_AGENT_LAUNCH_H
#define PROVIUM_AGENT_LAUNCH_H

#include <stdbool.h>

#include "args.h"
#include "user.h"

struct launch {
	char **argv, **env;		/* NULL-terminated; in the request's zone, as all strings here */
	char **paths;			/* files to try, in order */
	const char *cwd;		/* NULL: the executor's */
	bool has_user;
	struct user user;
	bool tty;			/* descriptor 0 becomes the controlling terminal */
	int fds[3];			/* >= 3 each; stay the caller's */
};

/* Fills all but fds from a request's argv, env, env_clear, cwd, user and tty. Problems go into a. */
void launch_parse(struct launch *l, struct args *a);
/* The process, leader of its own session and group; or -errno when it could not be started or executed. */
pid_t launch_start(struct launch *l);

/* A terminal: its master, and its other end in *slave. -errno on failure. */
int launch_open_tty(int *slave);

#endif
