/*
 * Building frames and taking their bodies apart.
 */
#include "frame.h"

#include <string.h>

#include "wire.h"

void frame_begin(struct frame *f, unsigned type, uint32_t channel, uint32_t id)
{
	f->b = (struct buf){0};
	buf_append(&f->b, "\0\0\0\0", 4);
	msgpack_packer_init(&f->pk, &f->b, buf_pack);
	msgpack_pack_array(&f->pk, 4);
	msgpack_pack_uint32(&f->pk, type);
	msgpack_pack_uint32(&f->pk, channel);
	msgpack_pack_uint32(&f->pk, id);
}

struct buf frame_end(struct frame *f)
{
	wire_put_u32(f->b.p, (uint32_t)(f->b.len - 4));
	return f->b;
}

struct buf frame_error(uint32_t channel, uint32_t id, const char *kind, const char *message)
{
	struct frame f;

	frame_begin(&f, WIRE_ERROR, channel, id);
	pack_error(&f.pk, kind, message);
	return frame_end(&f);
}

struct buf frame_errno(uint32_t channel, uint32_t id, int err)
{
	struct frame f;

	frame_begin(&f, WIRE_ERROR, channel, id);
	pack_errno(&f.pk, err);
	return frame_end(&f);
}

struct buf frame_plain(unsigned type, uint32_t channel, uint32_t id)
{
	struct frame f;

	frame_begin(&f, type, channel, id);
	msgpack_pack_nil(&f.pk);
	return frame_end(&f);
}

void pack_str(msgpack_packer *pk, const char *s)
{
	size_t n = strlen(s);

	msgpack_pack_str(pk, n);
	msgpack_pack_str_body(pk, s, n);
}

void pack_bin(msgpack_packer *pk, const void *p, size_t n)
{
	msgpack_pack_bin(pk, n);
	msgpack_pack_bin_body(pk, p, n);
}

void pack_error(msgpack_packer *pk, const char *kind, const char *message)
{
	msgpack_pack_map(pk, 2);
	pack_str(pk, "kind");
	pack_str(pk, kind);
	pack_str(pk, "message");
	pack_str(pk, message);
}

void pack_errno(msgpack_packer *pk, int err)
{
	msgpack_pack_map(pk, 2);
	pack_str(pk, "errno");
	msgpack_pack_int(pk, err);
	pack_str(pk, "message");
	pack_str(pk, strerror(err));
}

bool body_is_stream_end(const uint8_t *p, size_t n, uint32_t *stream)
{
	if (n != 3 || p[0] != 0x92 || p[1] > 0x7f || p[2] != 0xc0)
		return false;
	*stream = p[1];
	return true;
}

bool body_is_op(const uint8_t *p, size_t n, const char *op)
{
	size_t len = strlen(op);

	return n > 2 + len && p[0] == 0x92 && p[1] == (0xa0 | len) && memcmp(p + 2, op, len) == 0;
}
