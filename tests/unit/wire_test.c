/*
 * The checks of a frame's bytes (agent/wire.c) that both sides make before they decode anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "agent/protocol.h"
#include "agent/wire.h"

#define BYTES(s) (const uint8_t *)(s), sizeof(s) - 1

static void good(const uint8_t *p, size_t n)
{
	const char *why = NULL;

	assert_int_equal(wire_check(p, n, &why), n);
}

static void bad(const uint8_t *p, size_t n)
{
	const char *why = NULL;

	assert_int_equal(wire_check(p, n, &why), 0);
	assert_non_null(why);
}

static void test_every_format(void **state)
{
	(void)state;
	good(BYTES("\x00"));
	good(BYTES("\x7f"));
	good(BYTES("\xe0"));
	good(BYTES("\xc0"));
	good(BYTES("\xc3"));
	good(BYTES("\xa3" "abc"));
	good(BYTES("\xc4\x02" "ab"));
	good(BYTES("\xc5\x00\x01" "a"));
	good(BYTES("\xc6\x00\x00\x00\x01" "a"));
	good(BYTES("\xc7\x01\x05" "a"));
	good(BYTES("\xc8\x00\x01\x05" "a"));
	good(BYTES("\xc9\x00\x00\x00\x01\x05" "a"));
	good(BYTES("\xca" "abcd"));
	good(BYTES("\xcb" "abcdefgh"));
	good(BYTES("\xcc\xff"));
	good(BYTES("\xcf" "abcdefgh"));
	good(BYTES("\xd0\xff"));
	good(BYTES("\xd3" "abcdefgh"));
	good(BYTES("\xd4\x01" "a"));
	good(BYTES("\xd8\x01" "abcdefghabcdefgh"));
	good(BYTES("\xd9\x01" "a"));
	good(BYTES("\xda\x00\x01" "a"));
	good(BYTES("\xdb\x00\x00\x00\x01" "a"));
	good(BYTES("\xdc\x00\x02\xc0\xc0"));
	good(BYTES("\xdd\x00\x00\x00\x01\xc0"));
	good(BYTES("\xde\x00\x01\x01\x02"));
	good(BYTES("\xdf\x00\x00\x00\x01\x01\x02"));
	good(BYTES("\x82\x01\x91\x02\xa1x\x80"));
}

/* Only the first object is looked at: a frame's check sees to the rest. */
static void test_length_of_the_first(void **state)
{
	const char *why;

	(void)state;
	assert_int_equal(wire_check(BYTES("\x92\x01\x02\xc1\xc1"), &why), 3);
}

static void test_every_prefix_is_refused(void **state)
{
	static const char whole[] = "\x84\xa1" "a\xc4\x03xyz\xa1" "b\x92\xcd\x01\x00\xcb"
		"12345678\xa1" "c\xde\x00\x01\x01" "\xd9\x02hi\xa1" "d\xc7\x02\x01zz";

	(void)state;
	good(BYTES(whole));
	for (size_t n = 0; n < sizeof(whole) - 1; n++)
		bad((const uint8_t *)whole, n);
}

static void test_lies(void **state)
{
	(void)state;
	bad(BYTES("\xc1"));
	bad(BYTES("\x92\xc0\xc1"));
	bad(BYTES("\xdb\xff\xff\xff\xff" "abc"));
	bad(BYTES("\xc6\x7f\xff\xff\xff"));
	bad(BYTES("\xdd\xff\xff\xff\xff\xc0\xc0"));
	bad(BYTES("\xdf\xff\xff\xff\xff\xc0\xc0"));
	bad(BYTES("\xdd\x00\x00\x00\x03\xc0\xc0"));
	bad(BYTES("\xdf\x80\x00\x00\x01\xc0\xc0"));
	bad(BYTES("\xc9\xff\xff\xff\xff\x01"));
}

static void test_depth(void **state)
{
	uint8_t deep[1000];

	(void)state;
	memset(deep, 0x91, sizeof(deep));
	deep[20] = 0xc0;
	good(deep, 21);
	deep[20] = 0x91;
	deep[sizeof(deep) - 1] = 0xc0;
	bad(deep, sizeof(deep));
}

static void test_objects(void **state)
{
	size_t n = WIRE_OBJECTS_MAX + 16;
	uint8_t *p = malloc(n);

	(void)state;
	memset(p, 0xc0, n);
	p[0] = 0xdd;
	wire_put_u32(p + 1, WIRE_OBJECTS_MAX - 1);
	good(p, 5 + WIRE_OBJECTS_MAX - 1);
	wire_put_u32(p + 1, WIRE_OBJECTS_MAX);
	bad(p, 5 + WIRE_OBJECTS_MAX);
	free(p);
}

static void frame_is(int result, const uint8_t *p, size_t n)
{
	const char *why = NULL;

	assert_int_equal(wire_check_frame(p, n, &why), result);
	if (result < 0)
		assert_non_null(why);
}

static void test_frames(void **state)
{
	struct wire_head h;

	(void)state;
	frame_is(0, BYTES("\x94\x00\x01\x02\xc0"));
	frame_is(0, BYTES("\x94\x05\xcd\x01\x00\xce\xff\xff\xff\xff\x92\x00\x01"));
	frame_is(-1, BYTES(""));
	frame_is(-1, BYTES("\xc0"));
	frame_is(-1, BYTES("\x93\x00\x01\x02"));
	frame_is(-1, BYTES("\x95\x00\x01\x02\xc0\xc0"));
	frame_is(-1, BYTES("\x94\x06\x01\x02\xc0"));
	frame_is(-1, BYTES("\x94\xff\x01\x02\xc0"));
	frame_is(-1, BYTES("\x94\x00\xa1x\x02\xc0"));
	frame_is(-1, BYTES("\x94\x00\x01\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xc0"));
	frame_is(-1, BYTES("\x94\x00\x01\x02\xc0\xc0"));
	assert_int_equal(wire_head(BYTES("\x94\x05\xcd\x01\x00\xce\x00\x01\x00\x02\x92\x00\x01"), &h), 10);
	assert_int_equal(h.type, WIRE_CREDIT);
	assert_int_equal(h.channel, 256);
	assert_int_equal(h.id, 65538);
	assert_int_equal(wire_head(BYTES("\x94\x05\xcd\x01"), &h), 0);
}

/* What passes can be decoded, and takes all the bytes that were promised. */
static void test_agrees_with_the_decoder(void **state)
{
	uint8_t p[64];
	const char *why;
	msgpack_unpacked u;
	unsigned passed = 0;
	uint32_t seed = 1;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		size_t n, off = 0;

		for (n = 0; n < sizeof(p); n++) {
			seed = seed * 1664525 + 1013904223;
			p[n] = (uint8_t)(seed >> 24);
		}
		n = wire_check(p, sizeof(p), &why);
		if (!n)
			continue;
		passed++;
		msgpack_unpacked_init(&u);
		assert_int_equal(msgpack_unpack_next(&u, (char *)p, n, &off), MSGPACK_UNPACK_SUCCESS);
		assert_int_equal(off, n);
		msgpack_unpacked_destroy(&u);
	}
	assert_true(passed > 1000);
}

static void test_u32(void **state)
{
	uint8_t p[4];

	(void)state;
	wire_put_u32(p, 0x01020304);
	assert_memory_equal(p, "\x01\x02\x03\x04", 4);
	assert_int_equal(wire_get_u32((const uint8_t *)"\xff\x00\x00\x01"), 0xff000001u);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_format),
		cmocka_unit_test(test_length_of_the_first),
		cmocka_unit_test(test_every_prefix_is_refused),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_agrees_with_the_decoder),
		cmocka_unit_test(test_u32),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
