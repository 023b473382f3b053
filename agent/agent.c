/*
 * What every process of the agent knows: how it was started, and how it explains itself.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct agent_env agent_env;

static void complain(const char *fmt, va_list ap)
{
	char text[1024] = "provium-agent: ";
	size_t len = strlen(text);
	int n, fd = -1;

	n = vsnprintf(text + len, sizeof(text) - len - 1, fmt, ap);
	len += n < 0 ? 0 : (size_t)n;
	if (len > sizeof(text) - 2)
		len = sizeof(text) - 2;
	text[len++] = '\n';
	if (agent_env.init) {
		fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	}
	if (write(fd >= 0 ? fd : 2, text, len) < 0)
		errno = 0;
	if (fd >= 0)
		close(fd);
}

void agent_complain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
}

void agent_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
	_exit(1);
}

int64_t agent_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int agent_high_fd(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, AGENT_FD_BASE);

	if (high < 0)
		return fd;
	close(fd);
	return high;
}

void agent_fix_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
		if (fd < 0)
			fd = open("/", O_RDONLY | O_DIRECTORY);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

int agent_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	n = n < 0 ? -errno : 0;
	close(fd);
	return (int)n;
}
