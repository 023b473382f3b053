/*
 * The debug log: one line an event, to the file that PROVIUM_LOG names.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "loop/loop.h"

static FILE *log_file;

void log_open(const char *path)
{
	if (log_file && log_file != stderr)
		fclose(log_file);
	log_file = NULL;
	if (!path || !*path)
		return;
	log_file = strcmp(path, "-") == 0 ? stderr : fopen(path, "ae");
	if (!log_file)
		fprintf(stderr, "provium: cannot open the log `%s`: %m\n", path);
	else
		setvbuf(log_file, NULL, _IOLBF, 0);
}

bool log_enabled(void)
{
	return log_file != NULL;
}

void log_write(const char *tag, const char *func, const char *fmt, ...)
{
	struct timespec ts;
	va_list ap;

	if (!log_file)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	fprintf(log_file, "%lld.%06ld %s %s: ", (long long)ts.tv_sec, ts.tv_nsec / 1000, tag, func);
	va_start(ap, fmt);
	vfprintf(log_file, fmt, ap);
	va_end(ap);
	fputc('\n', log_file);
}
