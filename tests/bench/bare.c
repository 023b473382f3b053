/*
 * Starts a program and tells how long it took to print a marker: bare MARKER PROGRAM [ARGUMENT]...
 *
 * Prints "WALL CPU", nanoseconds from before the fork to the marker on the program's standard output, and the
 * processor time that the program had used by then; kills the program.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char seen[1 << 20];

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static pid_t start(char **argv, int *out)
{
	int pipefd[2];
	pid_t pid;

	if (pipe(pipefd) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		dup2(pipefd[1], 1);
		close(pipefd[0]);
		close(pipefd[1]);
		execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	close(pipefd[1]);
	*out = pipefd[0];
	return pid;
}

static int find(int fd, const char *marker)
{
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(seen) - 1 && (n = read(fd, seen + len, sizeof(seen) - 1 - len)) > 0) {
		len += (size_t)n;
		seen[len] = '\0';
		if (strstr(seen, marker))
			return 0;
	}
	return -1;
}

int main(int argc, char **argv)
{
	long long start_ns, wall, cpu;
	struct rusage ru;
	int fd, found;
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: bare MARKER PROGRAM [ARGUMENT]...\n");
		return 2;
	}
	alarm(120);
	start_ns = now();
	pid = start(argv + 2, &fd);
	found = pid < 0 ? -1 : find(fd, argv[1]);
	wall = now() - start_ns;
	if (pid > 0)
		kill(pid, SIGKILL);
	if (pid < 0 || wait4(pid, NULL, 0, &ru) != pid || found < 0) {
		fprintf(stderr, "bare: `%s` did not appear in what the program printed:\n%s\n", argv[1], seen);
		return 1;
	}
	cpu = (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000LL +
		(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000LL;
	printf("%lld %lld\n", wall, cpu);
	return 0;
}
