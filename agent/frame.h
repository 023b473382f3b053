/*
 * Building frames and taking their bodies apart.
 */
#ifndef PROVIUM_AGENT_FRAME_H
#define PROVIUM_AGENT_FRAME_H

#include <msgpack.h>
#include <stdbool.h>

#include "buf.h"
#include "protocol.h"

/* Between mux and executors only: drop what the former connection asked for; id is a generation. The executor
 * sends it back when it has. */
#define FRAME_RESET WIRE_TYPES

struct frame {
	struct buf b;		/* 4 bytes of length, then the array */
	msgpack_packer pk;
};

/* What follows packs one object, the body; frame_end fills in the length. The buffer is the caller's. */
void frame_begin(struct frame *f, unsigned type, uint32_t channel, uint32_t id);
struct buf frame_end(struct frame *f);

/* Whole frames. */
struct buf frame_error(uint32_t channel, uint32_t id, const char *kind, const char *message);
struct buf frame_errno(uint32_t channel, uint32_t id, int err);
struct buf frame_plain(unsigned type, uint32_t channel, uint32_t id);	/* body nil */

/* Pieces of bodies. */
void pack_str(msgpack_packer *pk, const char *s);
void pack_bin(msgpack_packer *pk, const void *p, size_t n);
void pack_error(msgpack_packer *pk, const char *kind, const char *message);
void pack_errno(msgpack_packer *pk, int err);

/* Of a body [stream, data] that was checked: whether it ends the stream. */
bool body_is_stream_end(const uint8_t *p, size_t n, uint32_t *stream);
/* Of a body [op, {}]: whether the op is this one. */
bool body_is_op(const uint8_t *p, size_t n, const char *op);

#endif
