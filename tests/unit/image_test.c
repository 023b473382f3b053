/*
 * A snapshot's directory: what is written is read again, and everything that does not fit is refused by name.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/image.h"

static char dir[] = "/tmp/provium-image-test-XXXXXX";
static char *snap;
static struct err result;

static void put(const char *file, size_t size)
{
	char *path = image_path(snap, file);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(ftruncate(fileno(f), (off_t)size), 0);
	fclose(f);
	free(path);
}

static struct image *make(void)
{
	struct image *i = image_new();

	i->id = xstrdup("00112233445566778899aabbccddeeff");
	i->pub.vm_name = xstrdup("a");
	i->pub.profile = xstrdup("guest");
	i->pub.qemu_version = xstrdup("7.2.1 (Debian)");
	i->pub.machine = xstrdup("pc");
	i->pub.accel = xstrdup("tcg");
	i->pub.memory = 1 << 20;
	i->pub.cpus = 2;
	i->arch = xstrdup(host_arch());
	i->cpu = xstrdup(host_cpu());
	i->agent_version = xstrdup("1.0");
	i->paused = true;
	i->consumed = 3;
	i->options.cmdline_append = xstrdup("a=1");
	i->disks = xcalloc(3, sizeof(*i->disks));
	i->disks[0] = xstrdup("disk0");
	i->disks[1] = xstrdup("data");
	i->ncards = 1;
	i->cards = xcalloc(1, sizeof(*i->cards));
	i->cards[0] = (struct image_card){ .slot = 2, .mac = { 2, 0, 0, 0xab, 0xcd, 0xef }, .bridge = xstrdup("lan") };
	return i;
}

/* Writes i with its files, and frees it. */
static void write_image(struct image *i)
{
	assert_int_equal(mkdir(snap, 0700), 0);
	put("ram", 1 << 20);
	put("changes", 100);
	put("state", 5000);
	put("console", 7);
	put("disk-disk0", 10);
	put("disk-data", 0);
	assert_int_equal(image_measure(i, snap, &result), 0);
	assert_int_equal(image_write(i, snap, &result), 0);
	image_unref(i);
}

static const struct image *open_image(void)
{
	struct vm_image *i = vm_image_open(NULL, snap, &result);

	if (!i)
		fail_msg("%s", result.msg);
	return image_of(i);
}

static void refused(int code, const char *text)
{
	struct vm_image *i = vm_image_open(NULL, snap, &result);

	assert_null(i);
	assert_int_equal(result.code, code);
	if (!strstr(result.msg, text) || !strstr(result.msg, snap))
		fail_msg("%s", result.msg);
	err_release(&result);
}

/* Replaces the first `from` in meta.json. */
static void edit(const char *from, const char *to)
{
	char *path = image_path(snap, "meta.json"), text[16384], *at;
	FILE *f = fopen(path, "r");
	size_t n = fread(text, 1, sizeof(text) - 1, f);

	text[n] = 0;
	fclose(f);
	at = strstr(text, from);
	if (!at)
		fail_msg("no `%s` in %s", from, text);
	f = fopen(path, "w");
	fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	fclose(f);
	free(path);
}

static int setup(void **state)
{
	(void)state;
	if (dir[strlen(dir) - 1] == 'X')
		assert_non_null(mkdtemp(dir));
	snap = xasprintf("%s/one.snap", dir);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	err_release(&result);
	free(snap);
	snprintf(command, sizeof(command), "rm -rf %s/*", dir);
	return system(command);
}

static void what_is_written_is_read(void **state)
{
	const struct image *i;

	(void)state;
	write_image(make());
	i = open_image();
	assert_string_equal(i->pub.dir, snap);
	assert_string_equal(i->id, "00112233445566778899aabbccddeeff");
	assert_string_equal(i->pub.vm_name, "a");
	assert_string_equal(i->pub.profile, "guest");
	assert_string_equal(i->pub.qemu_version, "7.2.1 (Debian)");
	assert_string_equal(i->pub.machine, "pc");
	assert_string_equal(i->pub.accel, "tcg");
	assert_int_equal(i->pub.memory, 1 << 20);
	assert_int_equal(i->pub.cpus, 2);
	assert_string_equal(i->agent_version, "1.0");
	assert_true(i->paused);
	assert_int_equal(i->consumed, 3);
	assert_int_equal(i->accel, ACCEL_TCG);
	assert_int_equal(i->options.accel, ACCEL_TCG);
	assert_string_equal(i->options.cmdline_append, "a=1");
	assert_string_equal(i->disks[0], "disk0");
	assert_string_equal(i->disks[1], "data");
	assert_null(i->disks[2]);
	assert_int_equal(i->ram, 1 << 20);
	assert_int_equal(i->changes, 100);
	assert_int_equal(i->state, 5000);
	assert_int_equal(i->console, 7);
	assert_int_equal(i->ncards, 1);
	assert_int_equal(i->cards[0].slot, 2);
	assert_int_equal(i->cards[0].mac[5], 0xef);
	assert_string_equal(i->cards[0].bridge, "lan");
	vm_image_free((struct vm_image *)&i->pub);
}

static void without_changes(void **state)
{
	char *path;

	(void)state;
	write_image(make());
	path = image_path(snap, "changes");
	assert_int_equal(unlink(path), 0);
	refused(-ESTALE, "its file `changes` has 0 bytes and should have 100");
	edit("\"changes\": 100", "\"changes\": 0");
	vm_image_free((struct vm_image *)&open_image()->pub);
	free(path);
}

static void what_is_missing(void **state)
{
	static const char *const files[] = { "ram", "state", "console", "disk-data", "disk-disk0" };

	(void)state;
	refused(-ENOENT, "No such file or directory");
	write_image(make());
	for (size_t n = 0; n < sizeof(files) / sizeof(*files); n++) {
		char *path = image_path(snap, files[n]), *away = image_path(snap, "away"), *text;

		text = xasprintf("its file `%s`: No such file or directory", files[n]);
		assert_int_equal(rename(path, away), 0);
		refused(-ESTALE, text);
		assert_int_equal(mkdir(path, 0700), 0);
		free(text);
		text = xasprintf("its file `%s`: Invalid argument", files[n]);
		refused(-ESTALE, text);
		assert_int_equal(rmdir(path), 0);
		assert_int_equal(rename(away, path), 0);
		free(path);
		free(away);
		free(text);
	}
	vm_image_free((struct vm_image *)&open_image()->pub);
}

static void what_has_another_size(void **state)
{
	(void)state;
	write_image(make());
	put("ram", (1 << 20) - 1);
	refused(-ESTALE, "its file `ram` has 1048575 bytes and should have 1048576");
	put("ram", 1 << 20);
	put("state", 0);
	refused(-ESTALE, "its file `state` has 0 bytes and should have 5000");
	put("state", 5000);
	put("changes", 101);
	refused(-ESTALE, "its file `changes` has 101 bytes and should have 100");
	put("changes", 100);
	put("console", 6);
	refused(-ESTALE, "its file `console` has 6 bytes and should have 7");
	put("console", 7);
	edit("\"memory\": 1048576", "\"memory\": 2097152");
	refused(-ESTALE, "its file `ram` is not as large as the guest's memory");
}

static void meta_that_is_no_meta(void **state)
{
	static const char *const texts[] = { "", "{", "not JSON", "{} {}", "\xff" };

	(void)state;
	write_image(make());
	for (size_t n = 0; n < sizeof(texts) / sizeof(*texts); n++) {
		char *path = image_path(snap, "meta.json");
		FILE *f = fopen(path, "w");

		fputs(texts[n], f);
		fclose(f);
		free(path);
		refused(-ESTALE, "its meta.json is damaged: line ");
	}
}

static void keys_that_are_missing_or_wrong(void **state)
{
	static const char *const changes[][3] = {
		{ "\"format\": 1", "\"format\": 2", "it has format 2, made by a newer Provium; this one reads format 1" },
		{ "\"format\": 1", "\"format\": 0", "its meta.json has no format" },
		{ "\"format\": 1", "\"format\": \"1\"", "its meta.json has no format" },
		{ "\"id\": ", "\"di\": ", "its meta.json has no string `id`" },
		{ "\"vm\": \"a\"", "\"vm\": 5", "its meta.json has no string `vm`" },
		{ "\"profile\": ", "\"x\": ", "its meta.json has no string `profile`" },
		{ "\"qemu\": ", "\"x\": ", "its meta.json has no string `qemu`" },
		{ "\"machine\": ", "\"x\": ", "its meta.json has no string `machine`" },
		{ "\"accel\": ", "\"x\": ", "its meta.json has no string `accel`" },
		{ "\"arch\": ", "\"x\": ", "its meta.json has no string `arch`" },
		{ "\"cpu\": ", "\"x\": ", "its meta.json has no string `cpu`" },
		{ "\"agent\": ", "\"x\": ", "its meta.json has no string `agent`" },
		{ "\"memory\": 1048576", "\"memory\": -1", "its meta.json has no number `memory`" },
		{ "\"memory\": 1048576", "\"memory\": 1.5", "its meta.json has no number `memory`" },
		{ "\"cpus\": 2", "\"cpus\": null", "its meta.json has no number `cpus`" },
		{ "\"console_consumed\": ", "\"x\": ", "its meta.json has no number `console_consumed`" },
		{ "\"files\": ", "\"elif\": ", "its meta.json has no number `ram`" },
		{ "\"state\": 5000", "\"etats\": 5000", "its meta.json has no number `state`" },
		{ "\"options\": ", "\"x\": ", "its boot options are missing" },
	};

	for (size_t n = 0; n < sizeof(changes) / sizeof(*changes); n++) {
		write_image(make());
		edit(changes[n][0], changes[n][1]);
		refused(-ESTALE, changes[n][2]);
		teardown(state);
		setup(state);
	}
}

static void another_host(void **state)
{
	struct image *i = make();

	/* Emulated, the processor does not matter. */
	free(i->cpu);
	free(i->arch);
	i->cpu = xstrdup("Another 1000");
	i->arch = xstrdup("riscv128");
	write_image(i);
	vm_image_free((struct vm_image *)&open_image()->pub);
	edit("\"accel\": \"tcg\"", "\"accel\": \"kvm\"");
	refused(-ESTALE, "it was made on riscv128, this is ");
	teardown(state);
	setup(state);

	i = make();
	free(i->cpu);
	free(i->pub.accel);
	i->cpu = xstrdup("Another 1000");
	i->pub.accel = xstrdup("kvm");
	write_image(i);
	refused(-ESTALE, "it was made on the processor `Another 1000`, this is `");
}

static void names_that_are_not_utf8(void **state)
{
	struct image *i = make();

	(void)state;
	free(i->pub.vm_name);
	i->pub.vm_name = xstrdup("\xff\xfe");
	assert_int_equal(mkdir(snap, 0700), 0);
	assert_int_equal(image_write(i, snap, &result), -EILSEQ);
	image_unref(i);
}

static void sizes_and_removal(void **state)
{
	char *argv[] = { "remove", snap, NULL };

	(void)state;
	assert_int_equal(vm_image_size(snap), 0);
	write_image(make());
	assert_true(vm_image_size(snap) > 0 && vm_image_size(snap) < 65536);	/* all of it holes, but for meta.json */
	assert_int_equal(image_remove_verb(2, argv, &result), 0);
	assert_int_equal(access(snap, F_OK), -1);
	assert_int_equal(image_remove_verb(2, argv, &result), 0);
	assert_int_equal(image_remove_verb(1, argv, &result), -EINVAL);
}

static void versions_of_qemu(void **state)
{
	json_t *j = json_loads("{\"qemu\": {\"major\": 9, \"minor\": 1, \"micro\": 3}, \"package\": \"\"}", 0, NULL);
	char *text = image_qemu_version(j);

	(void)state;
	assert_string_equal(text, "9.1.3");
	free(text);
	json_decref(j);
	text = image_qemu_version(NULL);
	assert_string_equal(text, "0.0.0");
	free(text);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read), TEST(without_changes), TEST(what_is_missing), TEST(what_has_another_size),
		TEST(meta_that_is_no_meta), TEST(keys_that_are_missing_or_wrong), TEST(another_host),
		TEST(names_that_are_not_utf8), TEST(sizes_and_removal), TEST(versions_of_qemu),
	};
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	rmdir(dir);
	return r;
}
