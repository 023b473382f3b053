/*
 * Errors as values, allocation that cannot fail, broken invariants.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"

static void *check_alloc(void *p, size_t size)
{
	if (p || size == 0)
		return p;
	fprintf(stderr, "provium: out of memory allocating %zu bytes\n", size);
	abort();
}

void *xmalloc(size_t size)
{
	return check_alloc(malloc(size), size);
}

void *xcalloc(size_t n, size_t size)
{
	return check_alloc(calloc(n, size), n * size);
}

void *xrealloc(void *p, size_t size)
{
	return check_alloc(realloc(p, size), size);
}

char *xstrdup(const char *s)
{
	return s ? check_alloc(strdup(s), strlen(s)) : NULL;
}

char *xstrndup(const char *s, size_t n)
{
	return check_alloc(strndup(s, n), n);
}

char *xvasprintf(const char *fmt, va_list ap)
{
	char *s = NULL;

	if (vasprintf(&s, fmt, ap) < 0)
		check_alloc(NULL, strlen(fmt));
	return s;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = xvasprintf(fmt, ap);
	va_end(ap);
	return s;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	char *msg;

	if (code > 0)
		code = -code;
	if (code == 0)
		code = -EINVAL;
	if (!e)
		return code;
	/* The new message may quote the old one, so that goes last. */
	va_start(ap, fmt);
	msg = xvasprintf(fmt, ap);
	va_end(ap);
	free(e->msg);
	e->msg = msg;
	e->code = code;
	return code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	va_list ap;
	char *context, *msg;

	if (!err_is_set(e))
		return e ? e->code : 0;
	va_start(ap, fmt);
	context = xvasprintf(fmt, ap);
	va_end(ap);
	msg = xasprintf("%s: %s", context, e->msg ? e->msg : "");
	free(context);
	free(e->msg);
	e->msg = msg;
	return e->code;
}

int err_append(struct err *e, const char *fmt, ...)
{
	va_list ap;
	char *more, *msg;

	if (!err_is_set(e))
		return e ? e->code : 0;
	va_start(ap, fmt);
	more = xvasprintf(fmt, ap);
	va_end(ap);
	msg = xasprintf("%s%s", e->msg ? e->msg : "", more);
	free(more);
	free(e->msg);
	e->msg = msg;
	return e->code;
}

void err_copy(struct err *dst, const struct err *src)
{
	if (!dst || dst == src)
		return;
	free(dst->msg);
	dst->code = src ? src->code : 0;
	dst->msg = src ? xstrdup(src->msg) : NULL;
}

void err_move(struct err *dst, struct err *src)
{
	if (dst) {
		free(dst->msg);
		*dst = *src;
	} else {
		free(src->msg);
	}
	*src = (struct err)ERR_INIT;
}

void err_release(struct err *e)
{
	if (!e)
		return;
	free(e->msg);
	*e = (struct err)ERR_INIT;
}

void invariant_failed(const char *cond, const char *file, int line, const char *func)
{
	fprintf(stderr, "provium: %s:%d: %s: broken invariant: %s\n", file, line, func, cond);
	abort();
}
