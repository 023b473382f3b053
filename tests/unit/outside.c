/*
 * outside COMMAND...: runs a command in a network namespace whose default route leads to another one, which
 * stands for the outside world: at 203.0.113.2 there are a page that says who asks (HTTP, port 80) and a
 * resolver that knows `page.example` and nothing else, and is the one in /etc/resolv.conf. Nothing leaves
 * this machine. Needs root.
 *
 * For the end-to-end tests of uplinks, which run Provium as the command.
 */
#include "netguest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDRESS "203.0.113.2"
#define NAME "\4page\7example"
#define HEADER 12

static void serve_page(int listener)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	int fd = accept(listener, (struct sockaddr *)&from, &len);
	char request[1024];

	if (fd < 0)
		return;
	/* What it asks for does not matter; it comes in one piece. */
	if (read(fd, request, sizeof(request)) > 0)
		dprintf(fd, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nfrom the outside to %s\n",
			inet_ntoa(from.sin_addr));
	shutdown(fd, SHUT_WR);
	close(fd);
}

static void serve_name(int fd)
{
	static const uint8_t record[] = { 0xc0, HEADER, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 2 };
	uint8_t m[512 + sizeof(record)];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(fd, m, 512, 0, (struct sockaddr *)&from, &len);
	size_t end = HEADER;
	bool known, address;

	if (n < HEADER + 5)
		return;
	while (end < (size_t)n && m[end])
		end += m[end] + 1u;
	end += 5;
	if (end > (size_t)n)
		return;
	known = !memcmp(m + HEADER, NAME, sizeof(NAME));
	address = known && m[end - 3] == 1;	/* type A */
	memcpy(m + 2, (uint8_t[]){ 0x81, known ? 0x80 : 0x83, 0, 1, 0, address, 0, 0, 0, 0 }, 10);
	if (address)
		memcpy(m + end, record, sizeof(record));
	sendto(fd, m, end + (address ? sizeof(record) : 0), 0, (struct sockaddr *)&from, len);
}

static void serve(struct netns *ns)
{
	struct pollfd p[] = {
		{ .fd = netguest_socket(ns, SOCK_STREAM, ADDRESS, 80), .events = POLLIN },
		{ .fd = netguest_socket(ns, SOCK_DGRAM, ADDRESS, 53), .events = POLLIN },
	};

	/* A connection that was accepted may block: there is nothing else to do. */
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "outside-server");
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	while (poll(p, 2, -1) > 0) {
		if (p[0].revents)
			serve_page(p[0].fd);
		if (p[1].revents)
			serve_name(p[1].fd);
	}
	_exit(0);
}

static void replace_resolver(void)
{
	const char *dir = getenv("TMPDIR");
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/provium-resolv-XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd < 0 || dprintf(fd, "nameserver " ADDRESS "\n") < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE,
		NULL) ||
		mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL)) {
		perror("outside: /etc/resolv.conf");
		exit(2);
	}
	close(fd);
	unlink(path);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: outside COMMAND...\n");
		return 2;
	}
	if (unshare(CLONE_NEWNET | CLONE_NEWNS)) {
		perror("outside: it takes root");
		return 2;
	}
	replace_resolver();
	serve(netguest_outside());
	execvp(argv[1], argv + 1);
	fprintf(stderr, "outside: %s: %s\n", argv[1], strerror(errno));
	return 2;
}
