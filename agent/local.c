/*
 * On the host, for --vmm local: namespaces where permitted, a private /tmp, nothing left behind.
 *
 * The process that Provium started stays outside: it waits for the first process of the new PID namespace,
 * whose end takes everything in it along. Where there is no such namespace, this process adopts what its
 * descendants leave, and kills it at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

#include "agent.h"
#include "buf.h"

/* All ids stay themselves: only somebody outside of the namespace may write such maps. */
static int map_all_ids(pid_t pid)
{
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)pid);
	err = agent_write_file(path, "0 0 4294967295\n");
	snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)pid);
	return err ? err : agent_write_file(path, "0 0 4294967295\n");
}

/* Our own id becomes root's. */
static void map_own_id(uid_t uid, gid_t gid)
{
	char line[64];

	agent_write_file("/proc/self/setgroups", "deny");
	snprintf(line, sizeof(line), "0 %u 1\n", uid);
	agent_write_file("/proc/self/uid_map", line);
	snprintf(line, sizeof(line), "0 %u 1\n", gid);
	agent_write_file("/proc/self/gid_map", line);
}

/* A process in a user namespace of its own cannot touch the host's clock, modules or power even as root. */
static void enter_user_namespace(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	pid_t helper = -1, self = getpid();
	int go[2], wstatus = 1;
	bool entered;
	char byte;

	if (pipe2(go, O_CLOEXEC) < 0)
		return;
	if (uid == 0)
		helper = fork();
	if (helper == 0) {
		close(go[1]);
		_exit(read(go[0], &byte, 1) == 1 ? -map_all_ids(self) : 1);
	}
	entered = unshare(CLONE_NEWUSER) == 0;
	if (entered && write(go[1], "", 1) < 0)
		entered = false;
	close(go[0]);
	close(go[1]);
	if (helper > 0 && waitpid(helper, &wstatus, 0) < 0)
		wstatus = 1;
	if (entered && wstatus != 0)
		map_own_id(uid, gid);
}

static void enter_namespaces(bool *has_mounts, bool *has_pids)
{
	enter_user_namespace();
	*has_mounts = unshare(CLONE_NEWNS) == 0;
	unshare(CLONE_NEWUTS);
	unshare(CLONE_NEWIPC);
	unshare(CLONE_NEWNET);
	*has_pids = unshare(CLONE_NEWPID) == 0;
}

static void make_tmp_private(const char *dir, bool has_mounts)
{
	if (has_mounts && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount(dir, "/tmp", NULL, MS_BIND, NULL) == 0)
		return;
	agent_env.tmp_dir = xstrdup(dir);
}

/* Everything that became our child by losing its parent; again until none is left. */
static void kill_descendants(void)
{
	char path[64], stat[256], *p;
	struct dirent *d;
	bool found = true;
	int fd, ppid;
	ssize_t n;
	DIR *dir;

	while (found && (dir = opendir("/proc"))) {
		found = false;
		while ((d = readdir(dir))) {
			snprintf(path, sizeof(path), "/proc/%.16s/stat", d->d_name);
			fd = atoi(d->d_name) > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
			n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
			if (fd >= 0)
				close(fd);
			stat[n > 0 ? n : 0] = '\0';
			p = strrchr(stat, ')');
			if (!p || sscanf(p, ") %*c %d", &ppid) != 1 || ppid != getpid())
				continue;
			found = true;
			kill(atoi(d->d_name), SIGKILL);
		}
		closedir(dir);
		while (waitpid(-1, NULL, found ? 0 : WNOHANG) > 0)
			found = true;
	}
}

static int status_code(int wstatus)
{
	return WIFSIGNALED(wstatus) ? 128 + WTERMSIG(wstatus) : WEXITSTATUS(wstatus);
}

/* Waits for the server, or for SIGTERM, which also comes when Provium is gone. */
static void stay_outside(pid_t server, const sigset_t *set)
{
	int sig, wstatus = 0, code = 0;
	pid_t pid;

	for (;;) {
		if (sigwait(set, &sig) != 0)
			continue;
		if (sig == SIGTERM) {
			kill(server, SIGKILL);
			break;
		}
		while ((pid = waitpid(-1, &wstatus, WNOHANG)) > 0) {
			if (pid != server)
				continue;
			code = status_code(wstatus);
			kill_descendants();
			_exit(code);
		}
	}
	kill_descendants();
	_exit(0);
}

static void close_above_stdio(void)
{
	for (int i = 3; i < 1024; i++)
		close(i);
}

void local_prepare(const char *private_tmp)
{
	bool has_mounts, has_pids;
	pid_t server, parent = getppid(), self;
	sigset_t set, old;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &old);
	enter_namespaces(&has_mounts, &has_pids);
	prctl(PR_SET_PDEATHSIG, SIGTERM);	/* new credentials have undone it */
	if (private_tmp)
		make_tmp_private(private_tmp, has_mounts);
	self = getpid();
	server = fork();
	if (server < 0)
		agent_die("cannot fork: %s", strerror(errno));
	if (server > 0) {
		close_above_stdio();
		stay_outside(server, &set);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!has_pids && getppid() != self)
		_exit(1);
	sigprocmask(SIG_SETMASK, &old, NULL);
	setsid();
	if (has_mounts && has_pids &&
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		errno = 0;	/* some containers do not let us: /proc shows the host's processes then */
	if (chdir("/") < 0)
		agent_die("cannot change to /: %s", strerror(errno));
}
