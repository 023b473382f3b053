/*
 * A client of the QEMU guest agent that times its calls: qga SOCKET PINGS EXECS
 *
 * Prints "ping NS" for each guest-ping and "exec NS" for each guest-exec of /bin/true together with the
 * guest-exec-status calls until it has exited; the status is asked for without pauses, as nothing tells
 * when it is worth asking.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int sock;

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Sends one command and reads one line. */
static const char *ask(const char *command)
{
	static char line[65536];
	size_t len = 0;
	ssize_t n;

	if (write(sock, command, strlen(command)) < 0)
		die("qga: write");
	while (len < sizeof(line) - 1 && (n = read(sock, line + len, sizeof(line) - 1 - len)) > 0) {
		len += (size_t)n;
		line[len] = '\0';
		if (line[len - 1] == '\n')
			return line;
	}
	die("qga: read");
	return NULL;
}

static void ping(void)
{
	long long start = now();

	if (!strstr(ask("{\"execute\":\"guest-ping\"}\n"), "return"))
		die("qga: guest-ping failed");
	printf("ping %lld\n", now() - start);
}

static void exec_true(void)
{
	long long start = now();
	const char *pid = strstr(ask("{\"execute\":\"guest-exec\",\"arguments\":{\"path\":\"/bin/true\","
		"\"capture-output\":true}}\n"), "\"pid\": ");
	char status[128];

	if (!pid)
		die("qga: guest-exec failed");
	snprintf(status, sizeof(status), "{\"execute\":\"guest-exec-status\",\"arguments\":{\"pid\":%d}}\n",
		atoi(pid + 7));
	while (!strstr(ask(status), "\"exited\": true"))
		;
	printf("exec %lld\n", now() - start);
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int pings, execs;

	if (argc != 4 || strlen(argv[1]) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "usage: qga SOCKET PINGS EXECS\n");
		return 2;
	}
	strcpy(addr.sun_path, argv[1]);
	pings = atoi(argv[2]);
	execs = atoi(argv[3]);
	alarm(120);
	sock = socket(AF_UNIX, SOCK_STREAM, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("qga: connect");
	ask("{\"execute\":\"guest-ping\"}\n");	/* the connection is warm from here on */
	while (pings-- > 0)
		ping();
	while (execs-- > 0)
		exec_true();
	return 0;
}
