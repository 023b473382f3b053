/*
 * Streams of bytes from a guest, a console or a capture, as Lua reads them. Private to src/ops/.
 */
#ifndef PROVIUM_STREAM_H
#define PROVIUM_STREAM_H

#include "ops/openers.h"

#define STREAM_MAX ((size_t)16 << 20)	/* buffered before the source waits */

struct stream;

/* Where the bytes come from. arg is the source's; both are called at most until the stream is closed. */
struct stream_source {
	const char *kind;			/* "file", "process", "console" */
	/* n more bytes have been read, or made room for: credit for the sender. May be NULL. */
	void (*consumed)(void *arg, size_t n);
	/* Closed: stop sending, forget the stream. Once. */
	void (*closed)(void *arg);
	/* What the source could not keep. May be NULL. */
	uint64_t (*dropped)(void *arg);
};

/* Makes a stream of the current scope. In `count` (NULL: nowhere) it is counted while it is open. */
struct stream *stream_new(lua_State *L, const struct stream_source *src, void *arg, unsigned *count);
/* How it was made, for lists of open streams: tail_file("/log"). Else its kind is shown. */
void stream_label(struct stream *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Pushes a line for each open stream that is counted in `count` (NULL: of the file), and returns their number. */
unsigned streams_push_list(lua_State *L, const unsigned *count);
/* Pushes its userdata. The first push makes it: until then the source feeds a stream that nobody has seen. */
void stream_push(lua_State *L, struct stream *s);
void stream_feed(struct stream *s, const void *data, size_t len);
/* Feeds everything in data, of which only `owed` bytes have not been credited to the sender yet. */
void stream_adopt(struct stream *s, struct evbuffer *data, size_t owed);
/* Nothing more will come; e (copied) when something broke, NULL at a regular end. */
void stream_end(struct stream *s, const struct err *e);
/* Closes it from the source's side: no callback any more. */
void stream_close(struct stream *s);

#endif
