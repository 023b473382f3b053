/*
 * Starting a program: what it gets and how it is set up between fork and exec.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

static void *zalloc(struct args *a, size_t n)
{
	void *p = msgpack_zone_malloc(a->zone, n);

	if (!p)
		agent_die("out of memory");
	return p;
}

static char *join(struct args *a, const char *first, char separator, const char *second)
{
	size_t n = strlen(first), m = strlen(second);
	char *s = zalloc(a, n + m + 2);

	memcpy(s, first, n);
	s[n] = separator;
	memcpy(s + n + 1, second, m + 1);
	return s;
}

/* ---- what it gets ---- */

static void parse_argv(struct launch *l, struct args *a)
{
	const msgpack_object_array *argv = args_opt_array(a, "argv");

	if (!argv || argv->size == 0) {
		args_refuse(a, "`argv` should be a list with at least the program's name");
		return;
	}
	l->argv = zalloc(a, (argv->size + 1) * sizeof(*l->argv));
	for (uint32_t i = 0; i < argv->size; i++)
		l->argv[i] = (char *)args_as_text(a, &argv->ptr[i], "argv");
	l->argv[argv->size] = NULL;
}

static void set_env(char **env, size_t *n, char *pair)
{
	size_t key = strcspn(pair, "=") + 1;

	for (size_t i = 0; i < *n; i++) {
		if (strncmp(env[i], pair, key) == 0) {
			env[i] = pair;
			return;
		}
	}
	env[(*n)++] = pair;
}

static const char *find_env(char *const *env, const char *key)
{
	size_t n = strlen(key);

	for (; *env; env++)
		if (strncmp(*env, key, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* What the agent itself got, then the user's own, then the request's. */
static void parse_env(struct launch *l, struct args *a)
{
	const msgpack_object_map *map = args_opt_map(a, "env");
	bool clear = args_flag(a, "env_clear");
	size_t n = 0, max = 8 + (map ? map->size : 0);
	const char *key;

	for (char **e = environ; *e && !clear; e++)
		max++;
	l->env = zalloc(a, max * sizeof(*l->env));
	for (char **e = environ; *e && !clear; e++)
		l->env[n++] = *e;
	l->env[n] = NULL;
	if (!clear && !find_env(l->env, "PATH"))
		l->env[n++] = "PATH=" DEFAULT_PATH;
	if (!clear && agent_env.tmp_dir)
		set_env(l->env, &n, join(a, "TMPDIR", '=', agent_env.tmp_dir));
	if (!clear && l->has_user && l->user.name[0]) {
		set_env(l->env, &n, join(a, "USER", '=', l->user.name));
		set_env(l->env, &n, join(a, "LOGNAME", '=', l->user.name));
		set_env(l->env, &n, join(a, "HOME", '=', l->user.home));
		set_env(l->env, &n, join(a, "SHELL", '=', l->user.shell));
	}
	for (uint32_t i = 0; map && i < map->size; i++) {
		key = args_as_text(a, &map->ptr[i].key, "env");
		if (!*key || strchr(key, '='))
			args_refuse(a, "`env`: `%.64s` cannot be a variable's name", key);
		set_env(l->env, &n, join(a, key, '=', args_as_text(a, &map->ptr[i].val, "env")));
	}
	l->env[n] = NULL;
}

/* A name without a slash is looked for in the PATH that the program will have. */
static void find_paths(struct launch *l, struct args *a)
{
	const char *path = find_env(l->env, "PATH"), *name = l->argv[0];
	size_t n = 0, max = 2;
	char *dir;

	path = path ? path : DEFAULT_PATH;
	for (const char *p = path; *p; p++)
		max += *p == ':';
	l->paths = zalloc(a, (max + 1) * sizeof(*l->paths));
	if (strchr(name, '/')) {
		l->paths[n++] = (char *)name;
		path = "";
	}
	while (*name && *path) {
		size_t len = strcspn(path, ":");

		dir = zalloc(a, len + 2);
		memcpy(dir, len ? path : ".", len ? len : 1);
		dir[len ? len : 1] = '\0';
		l->paths[n++] = join(a, dir, '/', name);
		path += len + (path[len] == ':');
	}
	l->paths[n] = NULL;
}

void launch_parse(struct launch *l, struct args *a)
{
	const char *user = args_opt_text(a, "user");

	memset(l, 0, sizeof(*l));
	l->cwd = args_opt_text(a, "cwd");
	l->tty = args_flag(a, "tty");
	l->has_user = user != NULL;
	if (user && user_find(user, &l->user) < 0)
		args_refuse(a, "`user`: `%.64s` is neither in /etc/passwd nor a number", user);
	parse_argv(l, a);
	parse_env(l, a);
	if (!a->problem[0])
		find_paths(l, a);
}

/* ---- between fork and exec ---- */

/* The C library's own functions would change all threads; only this process is meant. */
static int become(const struct user *u)
{
	if (syscall(SYS_setgroups, u->ngroups, u->groups) < 0 ||
	    syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0 ||
	    syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		return -1;
	return 0;
}

static int exec_first(struct launch *l)
{
	int err = ENOENT;

	for (char **p = l->paths; *p; p++) {
		execve(*p, l->argv, l->env);
		if (errno == EACCES)
			err = EACCES;	/* another directory may have one that can be executed */
		else if (errno != ENOENT && errno != ENOTDIR)
			return errno;
		else if (!p[1] && p == l->paths)
			return errno;
	}
	return err;
}

/* Runs in the parent's memory while the parent waits (vfork): calls nothing that keeps state. */
static int child(struct launch *l)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;
	int fd;

	sigaction(SIGPIPE, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	for (int i = 0; i < 3; i++)
		if (dup2(l->fds[i], i) < 0)
			return errno;
	if (l->tty)
		ioctl(0, TIOCSCTTY, 0);
	fd = agent_env.local ? -1 : open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "0", 1) < 0)
			errno = 0;	/* it then just stays protected */
		close(fd);
	}
	if (l->has_user && become(&l->user) < 0)
		return errno;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (l->cwd && chdir(l->cwd) < 0)
		return errno;
	return exec_first(l);
}

pid_t launch_start(struct launch *l)
{
	volatile int err = 0;
	pid_t pid = vfork();

	if (pid == 0) {
		err = child(l);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	if (err == 0)
		return pid;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return -err;
}

int launch_open_tty(int *slave)
{
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0, n, err;
	char path[32];

	if (master < 0)
		return -errno;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &n) < 0) {
		err = -errno;
		close(master);
		return err;
	}
	snprintf(path, sizeof(path), "/dev/pts/%d", n);
#ifdef TIOCGPTPEER
	*slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
#endif
		*slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0) {
		err = -errno;
		close(master);
		return err;
	}
	ioctl(*slave, TIOCSWINSZ, &size);
	return master;
}
