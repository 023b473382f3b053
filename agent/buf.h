/*
 * Growing byte buffers and checked allocation for the agent.
 */
#ifndef PROVIUM_AGENT_BUF_H
#define PROVIUM_AGENT_BUF_H

#include <stddef.h>
#include <stdint.h>

/* Release with buf_free; all zero is an empty one. */
struct buf {
	uint8_t *p;
	size_t len, cap;
};

/* These end the process when memory is out: a request's own large sizes are checked before they get here. */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Room for n more bytes at p + len. */
void buf_reserve(struct buf *b, size_t n);
void buf_append(struct buf *b, const void *data, size_t n);
/* The same with the signature msgpack's packer wants; always 0. */
int buf_pack(void *b, const char *data, size_t n);
/* Forgets the first n bytes. */
void buf_consume(struct buf *b, size_t n);
void buf_free(struct buf *b);

#endif
