/*
 * Checks of a frame's bytes before anything is decoded or allocated, shared by host and agent.
 */
#ifndef PROVIUM_WIRE_H
#define PROVIUM_WIRE_H

#include <stddef.h>
#include <stdint.h>

/* Walks one msgpack object. Returns the bytes it takes, or 0 and *why (static text) when it is
 * truncated, nested deeper than WIRE_DEPTH_MAX, holds more than WIRE_OBJECTS_MAX objects, claims more
 * elements or bytes than follow, or uses the reserved byte. Allocates nothing; recursion is bounded. */
size_t wire_check(const uint8_t *p, size_t n, const char **why);

/* Checks a whole frame body: exactly one array [type, channel, id, body] with a known type, channel and
 * id unsigned 32-bit. 0, or -1 and *why. */
int wire_check_frame(const uint8_t *p, size_t n, const char **why);

struct wire_head { uint32_t type, channel, id; };
/* Reads the first three elements of a frame. Returns where its body begins, or 0 when they are no head. */
size_t wire_head(const uint8_t *p, size_t n, struct wire_head *h);

uint32_t wire_get_u32(const uint8_t *p);	/* big-endian */
void wire_put_u32(uint8_t *p, uint32_t v);

#endif
