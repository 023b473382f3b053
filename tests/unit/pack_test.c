/*
 * Entries of msgpack maps: what is packed is found again (src/loop/pack.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loop/pack.h"

static void test_round_trip(void **state)
{
	msgpack_unpacked u;
	msgpack_sbuffer b;
	msgpack_packer pk;
	const msgpack_object *o;

	(void)state;
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 6);
	pack_str(&pk, "s", "text");
	pack_bin(&pk, "b", "\0\xff", 2);
	pack_int(&pk, "i", INT64_MIN);
	pack_bool(&pk, "t", true);
	pack_bool(&pk, "f", false);
	pack_key(&pk, "ss");
	pack_text(&pk, "");
	msgpack_unpacked_init(&u);
	assert_int_equal(msgpack_unpack_next(&u, b.data, b.size, NULL), MSGPACK_UNPACK_SUCCESS);
	o = map_get(&u.data, "s");
	assert_non_null(o);
	assert_int_equal(o->via.str.size, 4);
	assert_memory_equal(o->via.str.ptr, "text", 4);
	o = map_get(&u.data, "b");
	assert_int_equal(o->type, MSGPACK_OBJECT_BIN);
	assert_memory_equal(o->via.bin.ptr, "\0\xff", 2);
	assert_true(map_get(&u.data, "i")->via.i64 == INT64_MIN);
	assert_true(map_get(&u.data, "t")->via.boolean);
	assert_false(map_get(&u.data, "f")->via.boolean);
	assert_int_equal(map_get(&u.data, "ss")->via.str.size, 0);	/* a key's start is no key */
	assert_null(map_get(&u.data, ""));
	assert_null(map_get(&u.data, "x"));
	assert_null(map_get(map_get(&u.data, "s"), "s"));
	assert_null(map_get(NULL, "s"));
	msgpack_unpacked_destroy(&u);
	msgpack_sbuffer_destroy(&b);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
