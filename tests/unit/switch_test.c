/*
 * The switch: learning, flooding, aging, pinned addresses, blocked pairs.
 */
#include "rig.h"

#include "net/switch.h"

#define PORTS 4
#define SECOND INT64_C(1000000000)

struct bench {
	struct vswitch *sw;
	struct swport ports[PORTS];
	unsigned got[PORTS], paths, dropped;
};

static struct bench *current;

static void output_cb(struct swport *p, struct frame *f)
{
	(void)f;
	current->got[p - current->ports]++;
}

static void path_cb(void *arg, struct swport *from, struct swport *to, struct frame *f)
{
	struct bench *b = arg;

	(void)from;
	b->paths++;
	to->output(to, f);
}

static void dropped_cb(void *arg, struct swport *from)
{
	(void)from;
	((struct bench *)arg)->dropped++;
}

static const struct switch_events events = { .path = path_cb, .dropped = dropped_cb };

static int open_bench(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	struct bench *b = xcalloc(1, sizeof(*b));

	b->sw = switch_new(&events, b);
	for (unsigned i = 0; i < PORTS; i++) {
		b->ports[i].name = names[i];
		b->ports[i].output = output_cb;
		switch_add(b->sw, &b->ports[i]);
	}
	*state = current = b;
	return 0;
}

static int close_bench(void **state)
{
	struct bench *b = *state;

	for (unsigned i = 0; i < PORTS; i++)
		if (b->ports[i].sw)
			switch_remove(&b->ports[i]);
	switch_free(b->sw);
	free(b);
	return 0;
}

/* dst, src: the last byte of an address; 255 is the broadcast. Returns who got it: "abd". */
static const char *send_at(struct bench *b, unsigned port, unsigned src, unsigned dst, int64_t now)
{
	static char who[PORTS + 1];
	uint8_t data[60] = { 0x52, 0x54, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 0, 8, 0 };
	struct frame *f;
	char *w = who;

	data[5] = (uint8_t)dst;
	data[11] = (uint8_t)src;
	if (dst == 255)
		memset(data, 255, 6);
	f = frame_of(data, sizeof(data));
	memset(b->got, 0, sizeof(b->got));
	switch_input(&b->ports[port], f, now);
	assert_int_equal(f->refs, 1);
	frame_unref(f);
	for (unsigned i = 0; i < PORTS; i++)
		if (b->got[i])
			*w++ = (char)('a' + i);
	*w = 0;
	return who;
}

static void test_learning(void **state)
{
	struct bench *b = *state;

	assert_string_equal(send_at(b, 0, 1, 2, 0), "bcd");	/* nobody knows 2 */
	assert_string_equal(send_at(b, 1, 2, 1, 0), "a");
	assert_string_equal(send_at(b, 0, 1, 2, 0), "b");
	assert_string_equal(send_at(b, 0, 1, 255, 0), "bcd");
	assert_string_equal(send_at(b, 0, 3, 1, 0), "");		/* 1 is where this came from */
	/* It moved. */
	assert_string_equal(send_at(b, 3, 2, 255, 0), "abc");
	assert_string_equal(send_at(b, 0, 1, 2, 0), "d");
}

static void test_aging(void **state)
{
	struct bench *b = *state;

	send_at(b, 1, 2, 255, 0);
	assert_string_equal(send_at(b, 0, 1, 2, 299 * SECOND), "b");
	assert_string_equal(send_at(b, 0, 1, 2, 301 * SECOND), "bcd");
	send_at(b, 1, 2, 255, 301 * SECOND);
	assert_string_equal(send_at(b, 0, 1, 2, 302 * SECOND), "b");
}

static void test_full_table(void **state)
{
	struct bench *b = *state;
	uint8_t data[60] = { 0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 1 };
	uint8_t first[6] = { 0x52, 0x54, 1, 0, 0, 0 }, late[6] = { 0x52, 0x54, 1, 0x7f, 0, 0 };

	for (unsigned i = 0; i < SWITCH_ADDRESSES + 100; i++) {
		struct frame *f = frame_of(data, sizeof(data));

		f->data[10] = (uint8_t)(i >> 8);
		f->data[11] = (uint8_t)i;
		switch_input(&b->ports[0], f, SECOND);
		frame_unref(f);
	}
	assert_ptr_equal(switch_lookup(b->sw, first, SECOND), &b->ports[0]);
	memcpy(data + 6, late, 6);
	for (int pass = 0; pass < 2; pass++) {
		struct frame *f = frame_of(data, sizeof(data));

		/* No room, until the old ones have aged. */
		switch_input(&b->ports[1], f, pass ? 302 * SECOND : SECOND);
		frame_unref(f);
		assert_ptr_equal(switch_lookup(b->sw, late, 302 * SECOND), pass ? &b->ports[1] : NULL);
	}
}

static void test_pinned(void **state)
{
	struct bench *b = *state;
	uint8_t mac[6] = { 0x52, 0x54, 0, 0, 0, 9 };

	switch_pin(&b->ports[2], mac);
	assert_string_equal(send_at(b, 1, 9, 255, 0), "acd");	/* somebody pretends */
	assert_string_equal(send_at(b, 0, 1, 9, 1000 * SECOND), "c");
}

static void test_not_forwarded(void **state)
{
	struct bench *b = *state;
	uint8_t pause[60] = { 0x01, 0x80, 0xc2, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 1 };
	uint8_t bad_source[60] = { 0x52, 0x54, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct frame *f = frame_of(pause, sizeof(pause)), *g = frame_of(bad_source, sizeof(bad_source));
	struct frame *shorter = frame_of(pause, 13);

	switch_input(&b->ports[0], f, 0);
	switch_input(&b->ports[0], g, 0);
	switch_input(&b->ports[0], shorter, 0);
	assert_int_equal(b->dropped, 3);
	for (unsigned i = 0; i < PORTS; i++)
		assert_int_equal(b->got[i], 0);
	frame_unref(f);
	frame_unref(g);
	frame_unref(shorter);
}

static void test_blocks(void **state)
{
	struct bench *b = *state;

	send_at(b, 1, 2, 255, 0);
	assert_string_equal(send_at(b, 0, 1, 2, 0), "b");
	switch_block(b->sw, &b->ports[0], &b->ports[1]);
	assert_string_equal(send_at(b, 0, 1, 2, 0), "");		/* a known flow stops at once */
	assert_string_equal(send_at(b, 0, 1, 255, 0), "cd");	/* broadcasts pair by pair */
	assert_string_equal(send_at(b, 1, 2, 1, 0), "a");		/* the other direction does not */
	assert_int_equal(b->dropped, 2);
	switch_unblock_all(b->sw);
	assert_string_equal(send_at(b, 0, 1, 2, 0), "b");
	switch_block(b->sw, &b->ports[2], NULL);
	assert_string_equal(send_at(b, 2, 3, 255, 0), "");
	assert_string_equal(send_at(b, 0, 1, 255, 0), "bcd");
}

static void test_slots_are_reused(void **state)
{
	struct bench *b = *state;

	switch_block(b->sw, &b->ports[0], &b->ports[1]);
	send_at(b, 1, 2, 255, 0);
	switch_remove(&b->ports[1]);
	assert_string_equal(send_at(b, 0, 1, 2, 0), "cd");	/* its addresses went with it */
	switch_add(b->sw, &b->ports[1]);
	assert_int_equal(b->ports[1].slot, 1);
	assert_string_equal(send_at(b, 0, 1, 2, 0), "bcd");	/* and its blocks */
}

static void test_impaired(void **state)
{
	struct bench *b = *state;

	send_at(b, 0, 1, 255, 0);
	assert_int_equal(b->paths, 0);
	switch_set_impaired(b->sw, true);
	assert_string_equal(send_at(b, 0, 1, 255, 0), "bcd");
	assert_int_equal(b->paths, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_learning, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_aging, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_full_table, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_pinned, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_not_forwarded, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_blocks, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_slots_are_reused, open_bench, close_bench),
		cmocka_unit_test_setup_teardown(test_impaired, open_bench, close_bench),
	};

	return cmocka_run_group_tests_name("switch", tests, NULL, NULL);
}
