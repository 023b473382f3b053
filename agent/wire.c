/*
 * Checks of a frame's bytes before anything is decoded or allocated, shared by host and agent.
 */
#include "wire.h"

#include <stdbool.h>

#include "protocol.h"

#define FRAME_FIELDS 4

/* Where the walk is. Every step checks what is left first. */
struct walk {
	const uint8_t *p;
	size_t left;
	size_t objects;		/* how many more may come */
	const char *why;
};

/* How the objects of one format byte are laid out. */
enum layout { FIXED, BYTES, ELEMENTS, PAIRS, RESERVED };

struct format {
	enum layout layout;
	uint8_t prefix;		/* bytes of the length that follows; 0: it is in `n` */
	uint32_t n;		/* payload bytes or elements, besides the prefixed length's */
};

uint32_t wire_get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void wire_put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static struct format format_of(uint8_t b)
{
	if (b <= 0x7f || b >= 0xe0)
		return (struct format){ FIXED, 0, 0 };			/* fixint */
	if (b <= 0x8f)
		return (struct format){ PAIRS, 0, b & 0x0f };
	if (b <= 0x9f)
		return (struct format){ ELEMENTS, 0, b & 0x0f };
	if (b <= 0xbf)
		return (struct format){ FIXED, 0, b & 0x1f };		/* fixstr */
	switch (b) {
	case 0xc0: case 0xc2: case 0xc3:
		return (struct format){ FIXED, 0, 0 };			/* nil, false, true */
	case 0xc4: case 0xc5: case 0xc6:
		return (struct format){ BYTES, (uint8_t)(1u << (b - 0xc4)), 0 };	/* bin */
	case 0xc7: case 0xc8: case 0xc9:
		return (struct format){ BYTES, (uint8_t)(1u << (b - 0xc7)), 1 };	/* ext and its type */
	case 0xca: case 0xcb:
		return (struct format){ FIXED, 0, b == 0xca ? 4 : 8 };	/* float */
	case 0xcc: case 0xcd: case 0xce: case 0xcf:
		return (struct format){ FIXED, 0, 1u << (b - 0xcc) };	/* uint */
	case 0xd0: case 0xd1: case 0xd2: case 0xd3:
		return (struct format){ FIXED, 0, 1u << (b - 0xd0) };	/* int */
	case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
		return (struct format){ FIXED, 0, (1u << (b - 0xd4)) + 1 };	/* fixext */
	case 0xd9: case 0xda: case 0xdb:
		return (struct format){ BYTES, (uint8_t)(1u << (b - 0xd9)), 0 };	/* str */
	case 0xdc: case 0xdd:
		return (struct format){ ELEMENTS, b == 0xdc ? 2 : 4, 0 };
	case 0xde: case 0xdf:
		return (struct format){ PAIRS, b == 0xde ? 2 : 4, 0 };
	}
	return (struct format){ RESERVED, 0, 0 };
}

static bool refuse(struct walk *w, const char *why)
{
	w->why = why;
	return false;
}

static bool skip(struct walk *w, uint64_t n, const char *why)
{
	if (n > w->left)
		return refuse(w, why);
	w->p += n;
	w->left -= (size_t)n;
	return true;
}

/* Takes an n-byte big-endian length. */
static bool take_length(struct walk *w, unsigned n, uint64_t *v)
{
	const uint8_t *p = w->p;

	if (!skip(w, n, "it ends within a length"))
		return false;
	for (*v = 0; n > 0; n--)
		*v = *v << 8 | *p++;
	return true;
}

static bool walk_object(struct walk *w, unsigned depth)
{
	struct format f;
	uint64_t n = 0;

	if (w->left == 0)
		return refuse(w, "it ends where an object should begin");
	if (w->objects-- == 0)
		return refuse(w, "it has too many objects");
	f = format_of(*w->p);
	skip(w, 1, "");
	if (f.prefix && !take_length(w, f.prefix, &n))
		return false;
	n += f.n;
	switch (f.layout) {
	case FIXED:
	case BYTES:
		return skip(w, n, "it ends within a value, or a length claims more bytes than follow");
	case RESERVED:
		return refuse(w, "it has the reserved byte 0xc1");
	case PAIRS:
		n *= 2;
		break;
	case ELEMENTS:
		break;
	}
	/* Every element takes a byte at least. */
	if (n > w->left)
		return refuse(w, "an array or map claims more elements than follow");
	if (depth == WIRE_DEPTH_MAX)
		return refuse(w, "it is nested too deep");
	while (n-- > 0)
		if (!walk_object(w, depth + 1))
			return false;
	return true;
}

size_t wire_check(const uint8_t *p, size_t n, const char **why)
{
	struct walk w = { p, n, WIRE_OBJECTS_MAX, "" };

	if (walk_object(&w, 1))
		return n - w.left;
	*why = w.why;
	return 0;
}

/* Takes an unsigned number of at most 32 bits, in whichever width it was packed. */
static bool take_u32(struct walk *w, uint32_t *v)
{
	uint64_t n;
	uint8_t b;

	if (w->left == 0)
		return false;
	b = *w->p;
	skip(w, 1, "");
	if (b <= 0x7f) {
		*v = b;
		return true;
	}
	if (b < 0xcc || b > 0xce || !take_length(w, 1u << (b - 0xcc), &n))
		return false;
	*v = (uint32_t)n;
	return true;
}

size_t wire_head(const uint8_t *p, size_t n, struct wire_head *h)
{
	struct walk w = { p, n, 0, "" };

	if (n == 0 || *p != (0x90 | FRAME_FIELDS))
		return 0;
	skip(&w, 1, "");
	if (!take_u32(&w, &h->type) || !take_u32(&w, &h->channel) || !take_u32(&w, &h->id))
		return 0;
	return n - w.left;
}

int wire_check_frame(const uint8_t *p, size_t n, const char **why)
{
	size_t size = wire_check(p, n, why);
	struct wire_head h;

	if (size == 0)
		return -1;
	if (size != n) {
		*why = "bytes follow its object";
		return -1;
	}
	if (*p != (0x90 | FRAME_FIELDS)) {
		*why = "it is no array of four elements";
		return -1;
	}
	if (!wire_head(p, n, &h)) {
		*why = "its type, channel or id is no unsigned 32-bit number";
		return -1;
	}
	if (h.type >= WIRE_TYPES) {
		*why = "its type is unknown";
		return -1;
	}
	return 0;
}
