/*
 * Boot options through JSON and back: everything that can be set, nothing that is not, and damaged ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/optionsjson.h"

static struct vm_options full(void)
{
	struct vm_options o = {
		.memory = UINT64_C(5) << 30, .cpus = 3, .cmdline = xstrdup("quiet \xff not UTF-8"),
		.cmdline_append = xstrdup("a=1"), .has_rng_seed = true, .rng_seed = UINT64_MAX - 1,
		.has_initial_time = true, .initial_time = -1.5, .agent_timeout = INT64_C(90000000000),
		.expect = xstrdup("login:"), .machine = xstrdup("q35"),
	};

	o.files = xcalloc(3, sizeof(*o.files));
	o.nfiles = 2;
	o.files[0] = (struct file_spec){ .path = xstrdup("/etc/\xfe"), .content = xmalloc(4), .content_len = 4, .mode = 0750 };
	memcpy(o.files[0].content, "a\0b\xff", 4);
	o.files[1] = (struct file_spec){ .path = xstrdup("/b"), .host = xstrdup("/host/b") };
	o.disks = xcalloc(4, sizeof(*o.disks));
	o.ndisks = 3;
	o.disks[0] = (struct disk_spec){ .id = xstrdup("one"), .path = xstrdup("/p"), .format = xstrdup("qcow2"),
		.readonly = true };
	o.disks[1] = (struct disk_spec){ .scratch = 1 << 20, .direct = true };
	o.disks[2] = (struct disk_spec){ .template = xstrdup("/t") };
	o.qemu_args = xcalloc(3, sizeof(*o.qemu_args));
	o.qemu_args[0] = xstrdup("-device");
	o.qemu_args[1] = xstrdup("x");
	return o;
}

/* As text, so that nothing is shared. */
static int through(const struct vm_options *from, struct vm_options *to, struct err *e)
{
	json_t *j = options_to_json(from), *read;
	char *text = json_dumps(j, 0);
	int r;

	assert_non_null(text);
	read = json_loads(text, 0, NULL);
	assert_non_null(read);
	r = options_from_json(to, read, e);
	json_decref(j);
	json_decref(read);
	free(text);
	return r;
}

static void everything_goes_there_and_back(void **state)
{
	struct vm_options from = full(), to = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(through(&from, &to, &e), 0);
	assert_int_equal(to.memory, from.memory);
	assert_int_equal(to.cpus, 3);
	assert_string_equal(to.cmdline, from.cmdline);
	assert_string_equal(to.cmdline_append, "a=1");
	assert_true(to.has_rng_seed && to.rng_seed == UINT64_MAX - 1);
	assert_true(to.has_initial_time && to.initial_time == -1.5);
	assert_int_equal(to.agent_timeout, from.agent_timeout);
	assert_string_equal(to.expect, "login:");
	assert_string_equal(to.machine, "q35");
	assert_int_equal(to.nfiles, 2);
	assert_string_equal(to.files[0].path, "/etc/\xfe");
	assert_int_equal(to.files[0].content_len, 4);
	assert_memory_equal(to.files[0].content, "a\0b\xff", 4);
	assert_null(to.files[0].host);
	assert_int_equal(to.files[0].mode, 0750);
	assert_string_equal(to.files[1].host, "/host/b");
	assert_null(to.files[1].content);
	assert_int_equal(to.ndisks, 3);
	assert_string_equal(to.disks[0].id, "one");
	assert_string_equal(to.disks[0].path, "/p");
	assert_string_equal(to.disks[0].format, "qcow2");
	assert_true(to.disks[0].readonly && !to.disks[0].direct);
	assert_null(to.disks[1].id);
	assert_int_equal(to.disks[1].scratch, 1 << 20);
	assert_true(to.disks[1].direct && !to.disks[1].readonly);
	assert_string_equal(to.disks[2].template, "/t");
	assert_string_equal(to.qemu_args[0], "-device");
	assert_string_equal(to.qemu_args[1], "x");
	assert_null(to.qemu_args[2]);
	vm_options_release(&from);
	vm_options_release(&to);
}

static void what_is_unset_is_left_out(void **state)
{
	struct vm_options from = { 0 }, to = { 0 };
	json_t *j = options_to_json(&from);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(json_object_size(j), 0);
	json_decref(j);
	assert_int_equal(through(&from, &to, &e), 0);
	assert_false(to.memory || to.cpus || to.cmdline || to.cmdline_append || to.has_rng_seed || to.has_initial_time ||
		to.nfiles || to.ndisks || to.agent_timeout || to.expect || to.machine || to.qemu_args);
	vm_options_release(&to);
}

static void a_seed_and_a_time_of_zero_are_set(void **state)
{
	struct vm_options from = { .has_rng_seed = true, .has_initial_time = true }, to = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(through(&from, &to, &e), 0);
	assert_true(to.has_rng_seed && to.rng_seed == 0);
	assert_true(to.has_initial_time && to.initial_time == 0);
	vm_options_release(&to);
}

static void an_empty_file_is_a_file(void **state)
{
	struct vm_options from = { .nfiles = 1 }, to = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	from.files = xcalloc(1, sizeof(*from.files));
	from.files[0] = (struct file_spec){ .path = xstrdup("/empty"), .content = xstrdup("") };
	assert_int_equal(through(&from, &to, &e), 0);
	assert_int_equal(to.nfiles, 1);
	assert_non_null(to.files[0].content);
	assert_int_equal(to.files[0].content_len, 0);
	vm_options_release(&from);
	vm_options_release(&to);
}

static void refused(const char *text, const char *expected)
{
	json_t *j = text ? json_loads(text, 0, NULL) : NULL;
	struct vm_options o = { 0 };
	struct err e = ERR_INIT;

	assert_true(!text || j);
	assert_true(options_from_json(&o, j, &e) < 0);
	if (!strstr(e.msg, expected))
		fail_msg("%s: %s", text ? text : "nothing", e.msg);
	err_release(&e);
	vm_options_release(&o);
	json_decref(j);
}

static void damaged_options_are_refused(void **state)
{
	(void)state;
	refused(NULL, "boot options are missing");
	refused("[]", "boot options are missing");
	refused("{\"files\": [{}]}", "a file of its boot options is damaged");
	refused("{\"files\": [{\"path\": \"L2E=\"}]}", "a file of its boot options is damaged");
	refused("{\"files\": [{\"path\": \"L2E=\", \"content\": \"***\"}]}", "a file of its boot options is damaged");
	refused("{\"files\": [7]}", "a file of its boot options is damaged");
	refused("{\"disks\": [{\"id\": \"YQ==\"}]}", "a disk of its boot options is damaged");
	refused("{\"disks\": [null]}", "a disk of its boot options is damaged");
	refused("{\"qemu_args\": [\"LXg=\", 5]}", "an argument for QEMU in its boot options is damaged");
	refused("{\"qemu_args\": [\"not base64!\"]}", "an argument for QEMU in its boot options is damaged");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_goes_there_and_back),
		cmocka_unit_test(what_is_unset_is_left_out),
		cmocka_unit_test(a_seed_and_a_time_of_zero_are_set),
		cmocka_unit_test(an_empty_file_is_a_file),
		cmocka_unit_test(damaged_options_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
