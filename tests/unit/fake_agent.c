/*
 * A fake guest agent over a socket in the test's own loop.
 */
#include "fake_agent.h"

#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>

#include "agent/protocol.h"
#include "agent/wire.h"

/* Freed by fake_agent_free. */
struct fake_agent {
	struct loop *loop;
	struct bufferevent *bev;
	bool synced, own_hello, gone;
	fake_frame_fn *frame;
	void *arg;
};

static void pack_values(msgpack_sbuffer *b, const char *format, va_list ap)
{
	msgpack_packer pk;
	const void *data;
	size_t len;

	msgpack_packer_init(&pk, b, msgpack_sbuffer_write);
	for (; *format; format++) {
		switch (*format) {
		case '[':
			msgpack_pack_array(&pk, (size_t)(*++format - '0'));
			break;
		case '{':
			msgpack_pack_map(&pk, (size_t)(*++format - '0'));
			break;
		case 'u':
			msgpack_pack_uint32(&pk, va_arg(ap, uint32_t));
			break;
		case 's':
			data = va_arg(ap, const char *);
			msgpack_pack_str_with_body(&pk, data, strlen(data));
			break;
		case 'b':
			data = va_arg(ap, const void *);
			len = va_arg(ap, size_t);
			msgpack_pack_bin_with_body(&pk, data, len);
			break;
		case 'n':
			msgpack_pack_nil(&pk);
		}
	}
}

void fake_pack(msgpack_sbuffer *b, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	pack_values(b, format, ap);
	va_end(ap);
}

void fake_agent_raw(struct fake_agent *fa, const void *data, size_t len)
{
	bufferevent_write(fa->bev, data, len);
}

void fake_agent_send(struct fake_agent *fa, unsigned type, unsigned channel, uint32_t id, const char *format,
	...)
{
	msgpack_sbuffer b;
	va_list ap;

	msgpack_sbuffer_init(&b);
	msgpack_sbuffer_write(&b, "\0\0\0\0", 4);
	fake_pack(&b, "[4uuu", type, channel, id);
	va_start(ap, format);
	pack_values(&b, format, ap);
	va_end(ap);
	wire_put_u32((uint8_t *)b.data, (uint32_t)b.size - 4);
	fake_agent_raw(fa, b.data, b.size);
	msgpack_sbuffer_destroy(&b);
}

/* hello is [op, {protocol_version, nonce}], as agent.c packs it. */
static void answer_hello(struct fake_agent *fa, uint32_t id, const msgpack_object *body)
{
	const msgpack_object *nonce = &body->via.array.ptr[1].via.map.ptr[1].val;

	fake_agent_send(fa, WIRE_REPLY, WIRE_MUX, id, "{8sususssssssss[1ssb", "protocol_version",
		PROTOCOL_VERSION, "extra", 1, "agent_version", "1.0", "kernel", "6.1", "arch", "x86_64",
		"boot_id", "b-1", "features", "tail", "nonce", nonce->via.bin.ptr,
		(size_t)nonce->via.bin.size);
}

static bool is_hello(const msgpack_object *frame)
{
	const msgpack_object *op = &frame[3].via.array.ptr[0];

	return frame[0].via.u64 == WIRE_REQUEST && op->via.str.size == 5 && !memcmp(op->via.str.ptr, "hello", 5);
}

static void fake_read_cb(struct bufferevent *bev, void *arg)
{
	struct fake_agent *fa = arg;
	struct evbuffer *in = bufferevent_get_input(bev);
	const msgpack_object *f;
	msgpack_unpacked u;
	uint32_t len;

	while (!fa->gone && evbuffer_get_length(in) >= (fa->synced ? 4 : WIRE_SYNC_LEN)) {
		if (!fa->synced) {
			fake_agent_raw(fa, evbuffer_pullup(in, WIRE_SYNC_LEN), WIRE_SYNC_LEN);
			evbuffer_drain(in, WIRE_SYNC_LEN);
			fa->synced = true;
			continue;
		}
		len = wire_get_u32(evbuffer_pullup(in, 4));
		if (evbuffer_get_length(in) < len + 4)
			return;
		msgpack_unpacked_init(&u);
		INVARIANT(msgpack_unpack_next(&u, (char *)evbuffer_pullup(in, len + 4) + 4, len, NULL) ==
			MSGPACK_UNPACK_SUCCESS);
		f = u.data.via.array.ptr;
		if (is_hello(f) && !fa->own_hello)
			answer_hello(fa, (uint32_t)f[2].via.u64, &f[3]);
		else
			fa->frame(fa, (unsigned)f[0].via.u64, (unsigned)f[1].via.u64,
				(uint32_t)f[2].via.u64, &f[3], fa->arg);
		msgpack_unpacked_destroy(&u);
		evbuffer_drain(in, len + 4);
	}
}

struct fake_agent *fake_agent_new(struct loop *l, int fd, fake_frame_fn *frame, void *arg)
{
	struct fake_agent *fa = xcalloc(1, sizeof(*fa));

	fa->loop = l;
	fa->frame = frame;
	fa->arg = arg;
	evutil_make_socket_nonblocking(fd);
	fa->bev = bufferevent_socket_new(loop_base(l), fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(fa->bev, fake_read_cb, NULL, NULL, fa);
	bufferevent_enable(fa->bev, EV_READ | EV_WRITE);
	return fa;
}

void fake_agent_own_hello(struct fake_agent *fa, bool own)
{
	fa->own_hello = own;
}

static void fake_destroy(void *arg)
{
	struct fake_agent *fa = arg;

	bufferevent_free(fa->bev);
	free(fa);
}

void fake_agent_free(struct fake_agent *fa)
{
	if (!fa || fa->gone)
		return;
	fa->gone = true;
	loop_defer(fa->loop, fake_destroy, fa);
}
