/*
 * Started by the kernel: mounts, modules, then a child that serves while this process becomes /init.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "module.h"

#define MODULES_LIST "/provium/modules.list"
#define NEXT_INIT "/init"
#define RESTARTS_MAX 5

extern char **environ;

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *d;
	bool empty = true;

	if (!dir)
		return false;
	while (empty && (d = readdir(dir)))
		empty = d->d_name[0] == '.' && (!d->d_name[1] || strcmp(d->d_name, "..") == 0);
	closedir(dir);
	return empty;
}

/* A kernel without such a file system, or one that is mounted already, is nothing to complain of. */
static void mount_on(const char *type, const char *path, unsigned long flags, const char *options)
{
	mkdir(path, 0755);
	if (mount(type, path, type, flags, options) < 0 && errno != EBUSY && errno != ENODEV)
		agent_complain("cannot mount %s on %s: %s", type, path, strerror(errno));
}

/* Files of a profile may be in /tmp and /dev already: those must stay visible. */
static void mount_all(void)
{
	mount_on("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_on("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_on("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_on("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666");
	mkdir("/tmp", 01777);
	if (is_empty("/tmp"))
		mount_on("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
}

static void load_modules(void)
{
	FILE *f = fopen(MODULES_LIST, "re");
	char line[1024], *params;
	int err;

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		params = line + strcspn(line, " \t");
		if (*params)
			*params++ = '\0';
		if (!*line || *line == '#')
			continue;
		err = module_load(line, params);
		if (err)
			agent_complain("cannot load the module %s: %s", line, strerror(-err));
	}
	if (f)
		fclose(f);
}

/* /init may be this program under another name: that would go round for ever. */
static bool has_next_init(void)
{
	struct stat self, next;

	if (stat(NEXT_INIT, &next) < 0)
		return false;
	return stat("/proc/self/exe", &self) < 0 || self.st_dev != next.st_dev || self.st_ino != next.st_ino;
}

static pid_t start_server(char **argv)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	setsid();
	/* An init that clears the deck before it changes the root spares what is marked like this. */
	argv[0][0] = '@';
	return 0;
}

/* Without an /init there is nobody else: reaps, and keeps the server alive. Returns in a new server. */
static void be_init(pid_t server, char **argv)
{
	int wstatus, restarts = 0;
	pid_t pid;

	for (;;) {
		pid = waitpid(-1, &wstatus, 0);
		if (pid < 0 && errno == ECHILD)
			pause();
		if (pid != server)
			continue;
		agent_complain("the agent ended: %s %d%s", WIFSIGNALED(wstatus) ? "signal" : "exit code",
			WIFSIGNALED(wstatus) ? WTERMSIG(wstatus) : WEXITSTATUS(wstatus),
			restarts < RESTARTS_MAX ? ", starting it again" : "");
		if (restarts++ >= RESTARTS_MAX)
			continue;
		server = start_server(argv);
		if (server == 0)
			return;
	}
}

/* The kernel opens no console before /dev is there; the next init should have one all the same. */
static void open_console(void)
{
	int fd;

	if (fcntl(2, F_GETFD) >= 0)
		return;
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	while (fd >= 0 && fd < 2)
		fd = dup(fd);
}

void init_prepare(int argc, char **argv)
{
	pid_t server;

	(void)argc;
	mount_all();
	open_console();
	load_modules();
	server = start_server(argv);
	if (server == 0)
		return;
	if (server < 0)
		agent_complain("cannot fork: %s", strerror(errno));
	if (has_next_init()) {
		argv[0] = NEXT_INIT;
		execve(NEXT_INIT, argv, environ);
		agent_complain("cannot execute %s: %s; staying the first process instead", NEXT_INIT,
			strerror(errno));
	}
	be_init(server, argv);
}
