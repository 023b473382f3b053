/*
 * Eras: what is still there after boots, resets, snapshots and restores in any order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/eras.h"

static void a_boot_ends_all_before_it(void **state)
{
	struct eras e = { 0 };
	unsigned first;

	(void)state;
	eras_boot(&e, "the VM was booted again");
	first = e.current;
	assert_true(eras_alive(&e, first));
	eras_boot(&e, "the VM was reset");
	assert_false(eras_alive(&e, first));
	assert_true(eras_alive(&e, e.current));
	assert_string_equal(e.began, "the VM was reset");
	eras_release(&e);
}

static void a_snapshot_ends_none(void **state)
{
	struct eras e = { 0 };
	unsigned before;

	(void)state;
	eras_boot(&e, "booted");
	before = e.current;
	eras_save(&e, "one");
	assert_int_not_equal(e.current, before);
	assert_true(eras_alive(&e, before));
	assert_true(eras_alive(&e, e.current));
	eras_release(&e);
}

static void a_restore_brings_back_what_the_snapshot_saw(void **state)
{
	struct eras e = { 0 };
	unsigned before, after, restored;

	(void)state;
	eras_boot(&e, "booted");
	before = e.current;
	eras_save(&e, "one");
	after = e.current;
	eras_restore(&e, "one");
	restored = e.current;
	assert_true(eras_alive(&e, before));
	assert_false(eras_alive(&e, after));
	assert_true(eras_alive(&e, restored));
	assert_string_equal(e.began, "the VM was restored from a snapshot");
	/* Over a boot, too. */
	eras_boot(&e, "reset");
	assert_false(eras_alive(&e, before));
	eras_restore(&e, "one");
	assert_true(eras_alive(&e, before));
	assert_false(eras_alive(&e, restored));
	eras_release(&e);
}

static void chains(void **state)
{
	struct eras e = { 0 };
	unsigned first, second, third;

	(void)state;
	eras_boot(&e, "booted");
	first = e.current;
	eras_save(&e, "one");
	second = e.current;
	eras_save(&e, "two");
	third = e.current;
	eras_restore(&e, "one");
	assert_true(eras_alive(&e, first) && !eras_alive(&e, second) && !eras_alive(&e, third));
	eras_restore(&e, "two");
	assert_true(eras_alive(&e, first) && eras_alive(&e, second) && !eras_alive(&e, third));
	eras_save(&e, "three");
	eras_restore(&e, "three");
	assert_true(eras_alive(&e, first) && eras_alive(&e, second) && !eras_alive(&e, third));
	eras_release(&e);
}

static void another_vms_snapshot_knows_nothing_of_this_one(void **state)
{
	struct eras e = { 0 };
	unsigned before;

	(void)state;
	eras_boot(&e, "booted");
	before = e.current;
	eras_restore(&e, "a stranger's");
	assert_false(eras_alive(&e, before));
	assert_true(eras_alive(&e, e.current));
	eras_release(&e);
}

static void never_booted(void **state)
{
	struct eras e = { 0 };

	(void)state;
	assert_true(eras_alive(&e, 0));
	assert_false(eras_alive(&e, 1));
	eras_restore(&e, "one");
	assert_true(eras_alive(&e, e.current));
	assert_false(eras_alive(&e, 0));
	eras_release(&e);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_boot_ends_all_before_it),
		cmocka_unit_test(a_snapshot_ends_none),
		cmocka_unit_test(a_restore_brings_back_what_the_snapshot_saw),
		cmocka_unit_test(chains),
		cmocka_unit_test(another_vms_snapshot_knows_nothing_of_this_one),
		cmocka_unit_test(never_booted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
