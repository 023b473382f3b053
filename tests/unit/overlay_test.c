/*
 * Initramfs overlays: what lies in an initrd, what is put behind it, the cache, and errors.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/initramfs.h"
#include "vmm/tree.h"

struct world {
	struct loop *loop;
	struct vmm *vmm;
	char dir[64];
	struct profile profile;
	struct vm_options options;
	struct file_spec files[8];
	char *path;		/* of the last build */
	struct err err;
	int calls, wanted;
};

struct member { const char *path, *target; mode_t mode; const char *content; };

static const struct member merged_usr[] = {
	{ "usr", NULL, S_IFDIR | 0755, NULL },
	{ "usr/bin", NULL, S_IFDIR | 0755, NULL },
	{ "usr/bin/sh", NULL, S_IFREG | 0755, "shell" },
	{ "usr/sbin", NULL, S_IFDIR | 0755, NULL },
	{ "usr/lib", NULL, S_IFDIR | 0755, NULL },
	{ "bin", "usr/bin", S_IFLNK | 0777, NULL },
	{ "sbin", "/usr/sbin", S_IFLNK | 0777, NULL },
	{ "lib", "usr/lib", S_IFLNK | 0777, NULL },
	{ "loop", "loop", S_IFLNK | 0777, NULL },
	{ "init", NULL, S_IFREG | 0755, "#!/bin/sh" },
	{ NULL, NULL, 0, NULL },
};

static char *in(struct world *w, const char *name)
{
	return xasprintf("%s/%s", w->dir, name);
}

static void put_text(struct world *w, const char *name, const char *text)
{
	char *path = in(w, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

/* Writes (or appends) an archive as found in the wild; filter is ARCHIVE_FILTER_*. */
static void put_archive(struct world *w, const char *name, const struct member *m, int filter, bool append)
{
	struct archive *a = archive_write_new();
	char *path = in(w, name);
	int fd = open(path, O_CREAT | O_WRONLY | (append ? O_APPEND : O_TRUNC), 0644);

	archive_write_set_format_cpio_newc(a);
	archive_write_add_filter(a, filter);
	archive_write_set_bytes_in_last_block(a, 1);
	assert_int_equal(archive_write_open_fd(a, fd), ARCHIVE_OK);
	for (; m->path; m++) {
		struct archive_entry *entry = archive_entry_new();

		archive_entry_set_pathname(entry, m->path);
		archive_entry_set_mode(entry, m->mode);
		archive_entry_set_size(entry, m->content ? strlen(m->content) : 0);
		if (m->target)
			archive_entry_set_symlink(entry, m->target);
		assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
		if (m->content)
			archive_write_data(a, m->content, strlen(m->content));
		archive_entry_free(entry);
	}
	archive_write_free(a);
	close(fd);
	free(path);
}

/* The members of the archive that begins at offset: "drwx usr, -rwx usr/x=content, ..." by mode in octal. */
static char *list_archive(const char *path, off_t offset)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	char *all = xstrdup(""), content[256], *more;
	int fd = open(path, O_RDONLY);

	archive_read_support_format_cpio(a);
	lseek(fd, offset, SEEK_SET);
	assert_int_equal(archive_read_open_fd(a, fd, 512), ARCHIVE_OK);
	while (archive_read_next_header(a, &entry) == ARCHIVE_OK) {
		la_ssize_t n = archive_read_data(a, content, sizeof(content) - 1);

		content[n > 0 ? n : 0] = '\0';
		more = xasprintf("%s%o %s%s%s\n", all, (unsigned)archive_entry_mode(entry),
			archive_entry_pathname(entry), n > 0 ? "=" : "", content);
		free(all);
		all = more;
	}
	archive_read_free(a);
	close(fd);
	return all;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct vmm_config c = { .kind = VMM_QEMU };
	char *cache;

	strcpy(w->dir, "/tmp/provium-overlay-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	setenv("TMPDIR", w->dir, 1);
	unsetenv("PROVIUM_OVERLAY");
	cache = in(w, "cache");
	c.cache_dir = cache;
	w->loop = loop_new();
	w->vmm = vmm_new(w->loop, &c, NULL);
	assert_non_null(w->vmm);
	w->profile.name = "test";
	w->profile.machine = "pc";
	w->options.files = w->files;
	free(cache);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];

	vmm_free(w->vmm);
	loop_free(w->loop);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w->profile.initrd);
	free(w->profile.modules);
	free(w->profile.agent_overlay_path);
	err_release(&w->err);
	free(w->path);
	free(w);
	return 0;
}

static void built(void *arg, const char *path, const struct err *e)
{
	struct world *w = arg;

	free(w->path);
	w->path = xstrdup(path);
	err_release(&w->err);
	if (e)
		err_copy(&w->err, e);
	if (++w->calls >= w->wanted)
		loop_stop(w->loop);
}

/* The path, or NULL and w->err. */
static const char *build(struct world *w)
{
	struct initramfs_job *job;

	w->calls = 0;
	w->wanted = 1;
	err_release(&w->err);
	free(w->path);
	w->path = NULL;
	job = initramfs_build(w->vmm, &w->profile, &w->options, built, w, &w->err);
	if (!job)
		return NULL;
	assert_int_equal(w->calls, 0);
	loop_run(w->loop);
	initramfs_job_free(job);
	return w->path;
}

static void add_file(struct world *w, const char *path, const char *content, unsigned mode)
{
	w->files[w->options.nfiles++] = (struct file_spec){
		.path = (char *)path, .content = (char *)content, .content_len = strlen(content),
		.mode = mode,
	};
}

static void add_host(struct world *w, const char *path, const char *host, unsigned mode)
{
	w->files[w->options.nfiles++] = (struct file_spec){
		.path = (char *)path, .host = (char *)host, .mode = mode,
	};
}

static void expect_failure(struct world *w, const char *format, const char *arg)
{
	char *want = xasprintf(format, arg);

	assert_null(build(w));
	assert_true(err_is_set(&w->err));
	assert_string_equal(w->err.msg, want);
	w->options.nfiles = 0;
	free(want);
}

/* ---- what lies in an initrd ---- */

static void expect_tree(struct tree *t, const char *path, enum tree_type type, const char *real)
{
	char *got;

	assert_int_equal(tree_get(t, path, &got), type);
	if (real)
		assert_string_equal(got, real);
	else
		assert_null(got);
	free(got);
}

static void expect_merged_usr(struct tree *t)
{
	expect_tree(t, "/", TREE_DIR, "");
	expect_tree(t, "/lib", TREE_LINK, "lib");
	expect_tree(t, "/lib/x", TREE_NONE, "usr/lib/x");
	expect_tree(t, "/bin/sh", TREE_FILE, "usr/bin/sh");
	expect_tree(t, "/sbin/../bin//./sh", TREE_FILE, "usr/bin/sh");
	expect_tree(t, "/new/bin/sh", TREE_NONE, "new/bin/sh");
	expect_tree(t, "/init/x", TREE_NONE, NULL);
	expect_tree(t, "/loop/x", TREE_NONE, NULL);
}

static void names_are_read_from_any_initrd(void **state)
{
	static const struct { int first, second; } kinds[] = {
		{ ARCHIVE_FILTER_NONE, -1 }, { ARCHIVE_FILTER_GZIP, -1 }, { ARCHIVE_FILTER_ZSTD, -1 },
		{ ARCHIVE_FILTER_XZ, -1 }, { ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP },
		{ ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_NONE }, { ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_GZIP },
	};
	static const struct member microcode[] = {
		{ "kernel", NULL, S_IFDIR | 0755, NULL },
		{ "kernel/x86", NULL, S_IFREG | 0644, "xyz" },
		{ NULL, NULL, 0, NULL },
	};
	struct world *w = *state;
	char *path = in(w, "initrd");
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		struct tree *t = tree_new();

		put_archive(w, "initrd", kinds[i].second < 0 ? merged_usr : microcode, kinds[i].first, false);
		if (kinds[i].second >= 0)
			put_archive(w, "initrd", merged_usr, kinds[i].second, true);
		assert_int_equal(tree_read_initrd(t, path, NULL), 0);
		expect_merged_usr(t);
		if (kinds[i].second >= 0)
			expect_tree(t, "/kernel/x86", TREE_FILE, "kernel/x86");
		tree_free(t);
	}
	free(path);
}

static void garbage_is_no_error(void **state)
{
	struct world *w = *state;
	char *path = in(w, "initrd");
	struct tree *t = tree_new();

	put_text(w, "initrd", "");
	assert_int_equal(tree_read_initrd(t, path, NULL), 0);
	put_text(w, "initrd", "070701 and not much more");
	assert_int_equal(tree_read_initrd(t, path, NULL), 0);
	put_archive(w, "initrd", merged_usr, ARCHIVE_FILTER_NONE, false);
	assert_int_equal(truncate(path, 600), 0);
	assert_int_equal(tree_read_initrd(t, path, NULL), 0);
	expect_tree(t, "/usr", TREE_DIR, "usr");
	put_archive(w, "initrd", merged_usr, ARCHIVE_FILTER_GZIP, false);
	assert_int_equal(truncate(path, 60), 0);
	assert_int_equal(tree_read_initrd(t, path, NULL), 0);
	tree_free(t);
	free(path);
}

static void trees_are_saved_and_loaded(void **state)
{
	struct world *w = *state;
	struct tree *a = tree_new(), *b = tree_new();
	char *path = in(w, "initrd"), *saved = in(w, "names");

	put_archive(w, "initrd", merged_usr, ARCHIVE_FILTER_NONE, false);
	tree_read_initrd(a, path, NULL);
	assert_int_equal(tree_save(a, saved, NULL), 0);
	assert_int_equal(tree_load(b, saved, NULL), 0);
	expect_merged_usr(b);
	put_text(w, "names", "lusr");
	assert_int_equal(tree_load(b, saved, NULL), -EINVAL);
	tree_free(a);
	tree_free(b);
	free(path);
	free(saved);
}

/* ---- what is put behind it ---- */

static void files_come_with_their_parents(void **state)
{
	struct world *w = *state;
	char *host = in(w, "host.sh"), *got;

	put_text(w, "host.sh", "#!/bin/sh");
	chmod(host, 0750);
	add_file(w, "/etc/a/b", "one", 0);
	add_file(w, "/etc/a/c", "", 0600);
	add_file(w, "/tmp/\xc3\xbc", "umlaut", 0);
	add_host(w, "/bin/h", host, 0);
	add_host(w, "/bin/i", host, 0444);
	assert_non_null(build(w));
	got = list_archive(w->path, 0);
	assert_string_equal(got, "40755 etc\n40755 etc/a\n100644 etc/a/b=one\n100600 etc/a/c\n41777 tmp\n"
		"100644 tmp/\xc3\xbc=umlaut\n40755 bin\n100750 bin/h=#!/bin/sh\n100444 bin/i=#!/bin/sh\n");
	free(got);
	free(host);
}

static void an_initrd_stays_as_it_is(void **state)
{
	struct world *w = *state;
	struct stat st;
	char *got;

	w->profile.initrd = in(w, "initrd");
	put_archive(w, "initrd", merged_usr, ARCHIVE_FILTER_GZIP, false);
	add_file(w, "/lib/firmware/x", "fw", 0);
	add_file(w, "/sbin/y", "y", 0755);
	add_file(w, "/init", "mine", 0755);
	add_file(w, "/bin", "was a link", 0);
	assert_non_null(build(w));
	stat(w->profile.initrd, &st);
	got = list_archive(w->path, (st.st_size + 3) / 4 * 4);
	assert_string_equal(got, "40755 usr/lib/firmware\n100644 usr/lib/firmware/x=fw\n100755 usr/sbin/y=y\n"
		"100755 init=mine\n100644 bin=was a link\n");
	free(got);
}

static void agent_and_modules(void **state)
{
	static const struct member agent[] = {
		{ "sbin", NULL, S_IFDIR | 0755, NULL },
		{ "sbin/provium-agent", NULL, S_IFREG | 0755, "agent" },
		{ NULL, NULL, 0, NULL },
	};
	struct world *w = *state;
	struct archive *a;
	struct archive_entry *entry = archive_entry_new();
	char *xz, *got, *vdir = in(w, "6.1");

	assert_int_equal(mkdir(vdir, 0755), 0);
	put_text(w, "6.1/modules.dep", "virtio_pci.ko: virtio.ko.xz\nvirtio.ko.xz:\n");
	put_text(w, "6.1/virtio_pci.ko", "ELF pci");
	a = archive_write_new();
	archive_write_set_format_raw(a);
	archive_write_add_filter_xz(a);
	xz = in(w, "6.1/virtio.ko.xz");
	archive_write_open_filename(a, xz);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_write_header(a, entry);
	archive_write_data(a, "ELF virtio", 10);
	archive_write_free(a);
	archive_entry_free(entry);

	put_archive(w, "agent.cpio.gz", agent, ARCHIVE_FILTER_GZIP, false);
	w->profile.inject_agent = true;
	w->profile.agent_overlay_path = in(w, "agent.cpio.gz");
	w->profile.modules = vdir;
	add_file(w, "/sbin/provium-agent", "other", 0);
	if (!build(w))
		fail_msg("%s", w->err.msg);
	got = list_archive(w->path, 0);
	assert_string_equal(got, "40755 lib\n40755 lib/modules\n40755 lib/modules/6.1\n"
		"100644 lib/modules/6.1/virtio.ko=ELF virtio\n100644 lib/modules/6.1/virtio_pci.ko=ELF pci\n"
		"40755 provium\n100644 provium/modules.list=/lib/modules/6.1/virtio.ko\n"
		"/lib/modules/6.1/virtio_pci.ko\n\n"
		"40755 sbin\n100755 sbin/provium-agent=agent\n100644 sbin/provium-agent=other\n");
	free(got);
	free(xz);
}

static void nothing_to_add(void **state)
{
	struct world *w = *state;
	struct stat before, after;

	assert_null(build(w));
	assert_false(err_is_set(&w->err));
	assert_int_equal(w->calls, 1);
	w->profile.initrd = in(w, "initrd");
	put_text(w, "initrd", "anything");
	stat(w->profile.initrd, &before);
	assert_string_equal(build(w), w->profile.initrd);
	stat(w->profile.initrd, &after);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
}

/* ---- the cache ---- */

static void same_content_is_made_once(void **state)
{
	struct world *w = *state;
	struct initramfs_job *jobs[3];
	struct stat first, again;
	char *path, *input;
	int i;

	add_file(w, "/a", "one", 0);
	w->wanted = 3;
	for (i = 0; i < 3; i++)
		jobs[i] = initramfs_build(w->vmm, &w->profile, &w->options, built, w, NULL);
	loop_run(w->loop);
	for (i = 0; i < 3; i++)
		initramfs_job_free(jobs[i]);
	assert_int_equal(w->calls, 3);
	path = xstrdup(w->path);
	input = xasprintf("%s/initramfs-0.description", vmm_run_dir(w->vmm));
	assert_int_equal(access(input, F_OK), -1);

	stat(path, &first);
	assert_string_equal(build(w), path);
	stat(path, &again);
	assert_int_equal(first.st_ino, again.st_ino);
	w->files[0].content = "two";
	assert_string_not_equal(build(w), path);
	free(path);
	free(input);
}

static void a_changed_host_file_is_read_again(void **state)
{
	struct world *w = *state;
	char *host = in(w, "host"), *path, *got;

	put_text(w, "host", "one");
	add_host(w, "/a", host, 0);
	path = xstrdup(build(w));
	put_text(w, "host", "three");
	assert_string_not_equal(build(w), path);
	got = list_archive(w->path, 0);
	assert_string_equal(got, "100644 a=three\n");
	free(got);
	free(path);
	free(host);
}

static void stop_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	loop_stop(arg);
}

static void cancelled_while_pending(void **state)
{
	struct world *w = *state;
	struct initramfs_job *a, *b;
	struct event *ev = NULL;
	int before;

	add_file(w, "/cancelled", "x", 0);
	a = initramfs_build(w->vmm, &w->profile, &w->options, built, w, NULL);
	initramfs_job_free(a);
	a = initramfs_build(w->vmm, &w->profile, &w->options, built, w, NULL);
	b = initramfs_build(w->vmm, &w->profile, &w->options, built, w, NULL);
	timer_start(w->loop, &ev, 1, stop_cb, w->loop);	/* both wait for one helper now */
	w->wanted = 99;
	loop_run(w->loop);
	before = w->calls;	/* on a busy machine the helper may have been as quick as the timer */
	initramfs_job_free(a);
	initramfs_job_free(b);
	timer_stop(&ev);
	timer_start(w->loop, &ev, 200000000, stop_cb, w->loop);
	loop_run(w->loop);
	timer_stop(&ev);
	assert_int_equal(w->calls, before);
	assert_non_null(build(w));
}

static void set_age(struct world *w, const char *name, time_t age)
{
	struct timespec ts[2] = { { time(NULL) - age, 0 }, { time(NULL) - age, 0 } };
	char *path = in(w, name);

	put_text(w, name, "x");
	assert_int_equal(utimensat(AT_FDCWD, path, ts, 0), 0);
	free(path);
}

static bool there(struct world *w, const char *name)
{
	char *path = in(w, name);
	bool yes = access(path, F_OK) == 0;

	free(path);
	return yes;
}

static void sweeping_removes_what_is_old(void **state)
{
	struct world *w = *state;
	char name[32];
	int i;

	set_age(w, "x.cpio.tmp-1-0", 2 * 3600);
	set_age(w, "y.cpio.tmp-1-0", 60);
	set_age(w, "old.cpio", 8 * 24 * 3600);
	cache_sweep(w->dir);
	assert_false(there(w, "x.cpio.tmp-1-0"));
	assert_true(there(w, "y.cpio.tmp-1-0"));
	assert_true(there(w, "old.cpio"));	/* there are few */
	for (i = 0; i < 70; i++) {
		snprintf(name, sizeof(name), "%d.cpio", i);
		set_age(w, name, 24 * 3600);
	}
	cache_sweep(w->dir);
	assert_false(there(w, "old.cpio"));
	assert_true(there(w, "0.cpio"));
}

/* ---- what is wrong ---- */

static void bad_paths_are_refused(void **state)
{
	static const char *const bad[][2] = {
		{ "etc/x", "files: `%s`: expected an absolute path" },
		{ "", "files: `%s`: expected an absolute path" },
		{ "/etc/../x", "files: `%s`: `.` and `..` are not allowed in it" },
		{ "/./x", "files: `%s`: `.` and `..` are not allowed in it" },
		{ "/etc/", "files: `%s`: names a directory, expected a file" },
		{ "/", "files: `%s`: names a directory, expected a file" },
		{ "//x", "files: `%s`: has an empty component" },
	};
	struct world *w = *state;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		add_file(w, bad[i][0], "x", 0);
		expect_failure(w, bad[i][1], bad[i][0]);
	}
}

static void missing_inputs_are_named(void **state)
{
	struct world *w = *state;
	char *none = in(w, "none");

	add_host(w, "/a", none, 0);
	expect_failure(w, "files: `/a`: `%s`: No such file or directory", none);
	add_host(w, "/a", w->dir, 0);
	expect_failure(w, "files: `/a`: `%s`: a directory, expected a file", w->dir);
	w->profile.modules = none;
	expect_failure(w, "modules: `%s`: No such file or directory", none);
	w->profile.modules = NULL;
	w->profile.initrd = none;
	expect_failure(w, "initrd: `%s`: No such file or directory", none);
	w->profile.initrd = NULL;
	w->profile.inject_agent = true;
	w->profile.agent_overlay_path = none;
	expect_failure(w, "agent_overlay_path: `%s`: No such file or directory", none);
	w->profile.agent_overlay_path = NULL;
	setenv("PROVIUM_OVERLAY", none, 1);
	expect_failure(w, "$PROVIUM_OVERLAY: `%s`: No such file or directory", none);
	free(none);
}

static void places_that_cannot_be(void **state)
{
	struct world *w = *state;

	w->profile.initrd = in(w, "initrd");
	put_archive(w, "initrd", merged_usr, ARCHIVE_FILTER_NONE, false);
	add_file(w, "/usr/lib", "x", 0);
	expect_failure(w, "initramfs: `%s`: the initrd has a directory there", "/usr/lib");
	add_file(w, "/init/x", "x", 0);
	expect_failure(w, "initramfs: `%s`: a directory on its way is a file in the initrd", "/init/x");
}

static void the_agent_is_searched(void **state)
{
	struct world *w = *state;
	struct err e = ERR_INIT;
	char *exe = in(w, "tree/build/bin/provium"), *dirs[] = {
		in(w, "tree/build/bin"), in(w, "tree/dist"), in(w, "tree/build/share/provium"),
	}, *got, *want;
	size_t i;

	for (i = 0; i < 3; i++)
		make_dirs(dirs[i], 0755, NULL);
	got = initramfs_find_agent(&w->profile, "/nowhere/bin/provium", &e);
	if (!got) {	/* unless the machine has a /dist */
		assert_int_equal(e.code, -ENOENT);
		assert_non_null(strstr(e.msg, "`/nowhere/bin/provium`"));
	}
	free(got);
	put_text(w, "tree/dist/agent-overlay.cpio.gz", "x");
	got = initramfs_find_agent(&w->profile, exe, NULL);
	want = in(w, "tree/dist/agent-overlay.cpio.gz");
	assert_string_equal(got, want);
	free(got);
	free(want);
	put_text(w, "tree/build/share/provium/agent-overlay.cpio.gz", "x");
	got = initramfs_find_agent(&w->profile, exe, NULL);
	want = in(w, "tree/build/bin/../share/provium/agent-overlay.cpio.gz");
	assert_string_equal(got, want);
	free(got);
	free(want);
	for (i = 0; i < 3; i++)
		free(dirs[i]);
	free(exe);
	err_release(&e);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_are_read_from_any_initrd, setup, teardown),
		cmocka_unit_test_setup_teardown(garbage_is_no_error, setup, teardown),
		cmocka_unit_test_setup_teardown(trees_are_saved_and_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(files_come_with_their_parents, setup, teardown),
		cmocka_unit_test_setup_teardown(an_initrd_stays_as_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(agent_and_modules, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_to_add, setup, teardown),
		cmocka_unit_test_setup_teardown(same_content_is_made_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_changed_host_file_is_read_again, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_while_pending, setup, teardown),
		cmocka_unit_test_setup_teardown(sweeping_removes_what_is_old, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_paths_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_inputs_are_named, setup, teardown),
		cmocka_unit_test_setup_teardown(places_that_cannot_be, setup, teardown),
		cmocka_unit_test_setup_teardown(the_agent_is_searched, setup, teardown),
	};

	helper_register(vmm_helper_verbs);
	if (argc > 1 && !strcmp(argv[1], "--helper"))
		return helper_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
