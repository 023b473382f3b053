/*
 * Which modules are chosen from a modules.dep, and in which order.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/initramfs.h"

static const char stock[] =
	"kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n"
	"kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko "
	"kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n"
	"kernel/net/core/failover.ko:\n"
	"kernel/drivers/virtio/virtio.ko:\n"
	"kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n"
	"kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko "
	"kernel/drivers/virtio/virtio.ko\n"
	"kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio_ring.ko "
	"kernel/drivers/virtio/virtio.ko\n"
	"kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko\n"
	"kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio.ko\n"
	"kernel/drivers/char/virtio_console_fake.ko:\n"
	"kernel/sound/snd.ko:\n";

static char dir[64];

static void put(const char *path, const char *content)
{
	char *full = xasprintf("%s/%s", dir, path), *parent = xstrdup(full);
	FILE *f;

	*strrchr(parent, '/') = '\0';
	assert_int_equal(make_dirs(parent, 0755, NULL), 0);
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
	free(full);
	free(parent);
}

/* A modules.dep, and a file for each of its lines. */
static void put_tree(const char *dep)
{
	char *copy = xstrdup(dep), *save = NULL, *line;

	put("modules.dep", dep);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		*strchr(line, ':') = '\0';
		put(line, "ELF");
	}
	free(copy);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/provium-modules-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* The base names in order, with blanks between. */
static char *chosen(const char *machine, struct err *e)
{
	char **paths = modules_select(dir, machine, e), **p, *all = xstrdup("");

	for (p = paths; p && *p; p++) {
		char *more = xasprintf("%s%s%s", all, *all ? " " : "", strrchr(*p, '/') + 1);

		free(all);
		all = more;
	}
	if (!paths) {
		free(all);
		all = NULL;
	}
	modules_free(paths);
	return all;
}

static void dependencies_come_first(void **state)
{
	char *got;

	(void)state;
	put_tree(stock);
	got = chosen("pc", NULL);
	assert_string_equal(got, "virtio.ko virtio_ring.ko virtio_pci.ko virtio_console.ko failover.ko "
		"net_failover.ko virtio_net.ko virtio-rng.ko.xz");
	free(got);
}

static void microvm_has_no_pci(void **state)
{
	char *got;

	(void)state;
	put_tree(stock);
	got = chosen("microvm", NULL);
	assert_string_equal(got, "virtio.ko virtio_ring.ko virtio_mmio.ko virtio_console.ko failover.ko "
		"net_failover.ko virtio_net.ko virtio-rng.ko.xz");
	free(got);
}

static void any_order_of_a_line_is_right(void **state)
{
	char *got;

	(void)state;
	put_tree("a/virtio_pci.ko: a/virtio.ko a/virtio_ring.ko\n"
		"a/virtio_ring.ko: a/virtio.ko\na/virtio.ko:\n");
	got = chosen("pc", NULL);
	assert_string_equal(got, "virtio.ko virtio_ring.ko virtio_pci.ko");
	free(got);
}

static void whole_paths_are_understood(void **state)
{
	char *got;

	(void)state;
	put("modules.dep", "/lib/modules/4.4.0/a/virtio_pci.ko: /lib/modules/4.4.0/a/virtio_ring.ko "
		"/lib/modules/4.4.0/a/virtio.ko\n/lib/modules/4.4.0/a/virtio_ring.ko:\n"
		"/lib/modules/4.4.0/a/virtio.ko:\n");
	put("a/virtio_pci.ko", "");
	put("a/virtio_ring.ko", "");
	put("a/virtio.ko", "");
	got = chosen("pc", NULL);
	assert_string_equal(got, "virtio.ko virtio_ring.ko virtio_pci.ko");
	free(got);
}

static void what_is_built_in_is_left_out(void **state)
{
	char *got;

	(void)state;
	put("modules.dep", "");
	got = chosen("pc", NULL);
	assert_string_equal(got, "");
	free(got);
	put("modules.dep", "kernel/virtio_pci.ko: kernel/virtio.ko\nkernel/virtio.ko:\n");
	got = chosen("pc", NULL);	/* cut from the tree */
	assert_string_equal(got, "");
	free(got);
}

static void circles_end(void **state)
{
	char *got;

	(void)state;
	put_tree("a/virtio_pci.ko: a/virtio.ko\na/virtio.ko: a/virtio_pci.ko\n");
	got = chosen("pc", NULL);
	assert_string_equal(got, "virtio.ko virtio_pci.ko");
	free(got);
}

static void expect_error(const char *what)
{
	struct err e = ERR_INIT;

	assert_null(chosen("pc", &e));
	if (strncmp(e.msg, "modules: ", 9) || !strstr(e.msg, dir) || !strstr(e.msg, what))
		fail_msg("%s: does not say: %s", e.msg, what);
	err_release(&e);
}

static void what_is_missing_is_named(void **state)
{
	(void)state;
	expect_error("/modules.dep`: No such file or directory; ");
	put("modules.dep", "a/virtio_pci.ko: a/virtio.ko\n");
	put("a/virtio_pci.ko", "");
	expect_error("`a/virtio_pci.ko` needs `a/virtio.ko`, which it does not list");
	put("modules.dep", "a/virtio_pci.ko: a/virtio.ko\na/virtio.ko:\n");
	expect_error("/a/virtio.ko`: No such file or directory");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(dependencies_come_first, setup, teardown),
		cmocka_unit_test_setup_teardown(microvm_has_no_pci, setup, teardown),
		cmocka_unit_test_setup_teardown(any_order_of_a_line_is_right, setup, teardown),
		cmocka_unit_test_setup_teardown(whole_paths_are_understood, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_built_in_is_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(circles_end, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_missing_is_named, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
