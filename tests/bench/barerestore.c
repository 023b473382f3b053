/*
 * Starts a QEMU that is to be loaded, and tells how long it took until its guest had done a command:
 *
 *	barerestore STATE PROGRAM [ARGUMENT]...
 *
 * STATE is a file with device state to load by QMP, or - when the arguments make QEMU load by itself. QEMU inherits a
 * QMP socket as descriptor 10, the guest's hvc0 as 11 and STATE as 12. The guest must have a shell on hvc0: it gets
 * one line, which runs /bin/true and then answers. Prints "WALL CPU" in nanoseconds, from before the fork to that
 * answer; kills QEMU.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { QMP_FD = 10, HVC_FD = 11, STATE_FD = 12 };

#define COMMAND "/bin/true; echo answer-$((40+2))\n"
#define ANSWER "answer-42"

static const char load[] =
	"{\"execute\":\"qmp_capabilities\"}\n"
	"{\"execute\":\"migrate-set-capabilities\",\"arguments\":"
	"{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}}\n"
	"{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:12\"}}\n";
static const char cont[] = "{\"execute\":\"cont\"}\n";

static char said[2][1 << 16];
static size_t len[2];

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void say(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0)
		perror("write");
}

static pid_t start(const char *state, char **argv, int *qmp, int *hvc)
{
	int q[2], h[2], s = -1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, q) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, h) < 0)
		return -1;
	if (strcmp(state, "-") != 0 && (s = open(state, O_RDONLY)) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		/* Out of the way of one another's numbers first. */
		int from[3] = { fcntl(q[1], F_DUPFD, 20), fcntl(h[1], F_DUPFD, 20), s < 0 ? -1 : fcntl(s, F_DUPFD, 20) };

		for (int i = 0; i < 3; i++)
			if (from[i] >= 0)
				dup2(from[i], QMP_FD + i);
		execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	close(q[1]);
	close(h[1]);
	*qmp = q[0];
	*hvc = h[0];
	return pid;
}

/* Reads what one of the two has to say until it has said text; -1 at its end, or after a minute. */
static int hear(struct pollfd *p, int which, const char *text)
{
	while (!strstr(said[which], text)) {
		if (poll(p, 2, 60000) <= 0)
			return -1;
		for (int i = 0; i < 2; i++) {
			ssize_t n;

			if (!p[i].revents)
				continue;
			n = read(p[i].fd, said[i] + len[i], sizeof(said[i]) - 1 - len[i]);
			if (n <= 0)
				return -1;
			len[i] += (size_t)n;
			said[i][len[i]] = 0;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct pollfd p[2];
	struct rusage ru;
	long long began = now(), took;
	int qmp, hvc, heard;
	pid_t pid;

	if (argc < 3)
		return 2;
	pid = start(argv[1], argv + 2, &qmp, &hvc);
	if (pid < 0) {
		perror(argv[1]);
		return 1;
	}
	p[0] = (struct pollfd){ .fd = qmp, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = hvc, .events = POLLIN };
	if (strcmp(argv[1], "-") != 0) {
		say(qmp, load);
		heard = hear(p, 0, "\"completed\"");
		say(qmp, cont);
	}
	say(hvc, COMMAND);
	heard = hear(p, 1, ANSWER);
	took = now() - began;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (heard < 0) {
		fprintf(stderr, "%s did not answer; QMP: %s\n", argv[2], said[0]);
		return 1;
	}
	getrusage(RUSAGE_CHILDREN, &ru);
	printf("%lld %lld\n", took, (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000000LL +
		(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) * 1000LL);
	return 0;
}
