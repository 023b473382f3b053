/*
 * A guest's memory, saved from and brought back into real processes that map a file as QEMU does.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/image.h"
#include "vmm/ramimage.h"

#define PAGES 64

static char dir[] = "/tmp/provium-ramimage-test-XXXXXX";
static size_t page;
static struct err result;

/* ---- what stands for QEMU ---- */

struct guest {
	pid_t pid;
	uint64_t ram;		/* its address there */
	int fd;			/* the file, as we opened it */
};

/* Maps fd, changes it, and waits to be killed. */
static void guest_main(int fd, int flags, void (*change)(char *ram), int tell)
{
	char *ram = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, flags, fd, 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ram != MAP_FAILED && change)
		change(ram);
	if (write(tell, &ram, sizeof(ram)) != sizeof(ram))
		_exit(1);
	pause();
	_exit(0);
}

static struct guest guest_new(int fd, int flags, void (*change)(char *ram))
{
	struct guest g = { .fd = fd };
	int tell[2];

	assert_int_equal(pipe(tell), 0);
	g.pid = fork();
	if (g.pid == 0)
		guest_main(fd, flags, change, tell[1]);
	assert_int_equal(read(tell[0], &g.ram, sizeof(g.ram)), sizeof(g.ram));
	close(tell[0]);
	close(tell[1]);
	return g;
}

static void guest_free(struct guest *g)
{
	kill(g->pid, SIGKILL);
	waitpid(g->pid, NULL, 0);
	close(g->fd);
}

static char *guest_memory(const struct guest *g)
{
	char path[64], *copy = malloc(PAGES * page);
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)g->pid);
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, copy, PAGES * page, (off_t)g->ram), PAGES * page);
	close(fd);
	return copy;
}

/* A file with every fourth page not zero. */
static int make_ram(const char *name)
{
	char *path = image_path(dir, name), *text = malloc(page);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(PAGES * page)), 0);
	for (size_t i = 0; i < PAGES; i += 4) {
		memset(text, (int)('a' + i % 26), page);
		assert_int_equal(pwrite(fd, text, page, (off_t)(i * page)), page);
	}
	free(text);
	free(path);
	return fd;
}

/* ---- the helpers, in a child as always ---- */

static int open_proc(pid_t pid, const char *what, int flags)
{
	char path[64];
	int fd, high;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	fd = open(path, flags);
	high = fcntl(fd, F_DUPFD, 20);
	close(fd);
	return high;
}

static int run(int (*verb)(int argc, char **argv, struct err *e), const char *arg, const int *fds, size_t nfds)
{
	char *argv[] = { "verb", (char *)arg, NULL }, text[1024] = "";
	struct err e = ERR_INIT;
	int out[2], r, code = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(out), 0);
	pid = fork();
	if (pid == 0) {
		r = fcntl(out[1], F_DUPFD, 30);
		for (int fd = 3; fd < 10; fd++)
			close(fd);
		for (size_t i = 0; i < nfds; i++)
			dup2(fds[i], 3 + (int)i);
		code = verb(arg ? 2 : 1, argv, &e);
		if (write(r, &code, sizeof(code)) < 0 || (e.msg && write(r, e.msg, strlen(e.msg)) < 0))
			_exit(1);
		_exit(0);
	}
	close(out[1]);
	assert_int_equal(read(out[0], &code, sizeof(code)), sizeof(code));
	n = read(out[0], text, sizeof(text) - 1);
	close(out[0]);
	waitpid(pid, NULL, 0);
	err_release(&result);
	if (code < 0)
		err_set(&result, code, "%.*s", (int)n, text);
	return code;
}

static int save_shared(int fd, const char *to)
{
	int high = fcntl(fd, F_DUPFD, 20), r;

	r = run(ram_save_verb, to, &high, 1);
	close(high);
	return r;
}

static int with_guest(int (*verb)(int argc, char **argv, struct err *e), const struct guest *g, const char *arg,
	bool apply)
{
	int fds[4] = { fcntl(g->fd, F_DUPFD, 20), open_proc(g->pid, "mem", O_RDWR) }, r;

	fds[2] = apply ? open_proc(g->pid, "maps", O_RDONLY) : open_proc(g->pid, "pagemap", O_RDONLY);
	fds[3] = open_proc(g->pid, "maps", O_RDONLY);
	r = run(verb, arg, fds, apply ? 3 : 4);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	return r;
}

static int save_private(const struct guest *g, const char *to)
{
	return with_guest(ram_save_verb, g, to, false);
}

static int apply(const struct guest *g, const char *changes)
{
	return with_guest(ram_apply_verb, g, changes, true);
}

/* ---- looking at what was written ---- */

/* A new directory below ours; the caller frees. */
static char *new_snap(const char *name)
{
	char *path = image_path(dir, name);

	assert_int_equal(mkdir(path, 0700), 0);
	return path;
}

static struct stat stat_of(const char *snap, const char *file)
{
	char *path = image_path(snap, file);
	struct stat st = { 0 };

	if (stat(path, &st) < 0)
		st.st_nlink = 0;
	free(path);
	return st;
}

static char *read_file(const char *snap, const char *file, size_t *n)
{
	char *path = image_path(snap, file), *text;
	int fd = open(path, O_RDONLY);
	struct stat st;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	text = malloc((size_t)st.st_size + 1);
	*n = (size_t)read(fd, text, (size_t)st.st_size);
	close(fd);
	free(path);
	return text;
}

static void write_file(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

/* ---- memory that is shared ---- */

static void a_shared_file_is_copied_without_its_zeros(void **state)
{
	int fd = make_ram("shared");
	char *zeros = calloc(PAGES, page), *snap = new_snap("1"), *copy;
	struct stat st;
	size_t n;

	(void)state;
	assert_int_equal(pwrite(fd, zeros, 3 * page, (off_t)page), 3 * page);	/* zeros that take room */
	assert_int_equal(save_shared(fd, snap), 0);
	copy = read_file(snap, "ram", &n);
	assert_int_equal(n, PAGES * page);
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(copy[i * page + 7], i % 4 ? 0 : 'a' + i % 26);
	st = stat_of(snap, "ram");
	assert_true((uint64_t)st.st_blocks * 512 <= (PAGES / 4 + 4) * page);
	free(copy);
	free(zeros);
	free(snap);
	close(fd);
}

static void memory_of_zeros_is_all_hole(void **state)
{
	char *snap = new_snap("2");
	int fd = memfd_create("ram", 0);
	struct stat st;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)(PAGES * page)), 0);
	assert_int_equal(save_shared(fd, snap), 0);
	st = stat_of(snap, "ram");
	assert_int_equal(st.st_size, PAGES * page);
	assert_int_equal(st.st_blocks, 0);
	free(snap);
	close(fd);
}

static void a_copy_is_brought_up_to_date(void **state)
{
	int fd = make_ram("updated"), high = fcntl(fd, F_DUPFD, 20);
	char *zeros = calloc(1, page), *snap = new_snap("3"), *copy;
	size_t n;

	(void)state;
	assert_int_equal(save_shared(fd, snap), 0);
	assert_int_equal(pwrite(fd, "new", 3, (off_t)(5 * page)), 3);		/* was a hole */
	assert_int_equal(pwrite(fd, zeros, page, (off_t)(8 * page)), page);	/* was not */
	assert_int_equal(pwrite(fd, "end", 3, (off_t)(PAGES * page - 3)), 3);
	assert_int_equal(run(ram_update_verb, snap, &high, 1), 0);
	copy = read_file(snap, "ram", &n);
	assert_int_equal(n, PAGES * page);
	assert_memory_equal(copy + 5 * page, "new", 3);
	assert_memory_equal(copy + 8 * page, zeros, page);
	assert_memory_equal(copy + PAGES * page - 3, "end", 3);
	assert_int_equal(copy[12 * page], 'a' + 12);
	free(copy);
	free(zeros);
	free(snap);
	close(fd);
	close(high);
}

/* ---- memory that is private ---- */

static void some_changes(char *ram)
{
	memset(ram + page, 'X', page);
	memset(ram + 2 * page, 'Y', 10);	/* a page in the file's hole, next to it */
	memset(ram + 8 * page, 0, page);	/* was not zero */
	ram[PAGES * page - 1] = 'Z';
}

static void only_changed_pages_are_written(void **state)
{
	struct guest g = guest_new(make_ram("private"), MAP_PRIVATE, some_changes);
	char *snap = new_snap("4");
	struct stat st, own;

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	assert_int_equal(fstat(g.fd, &own), 0);
	st = stat_of(snap, "ram");
	assert_int_equal(st.st_ino, own.st_ino);
	assert_int_equal(st.st_nlink, 2);
	st = stat_of(snap, "changes");
	/* A header, three ranges, four pages. */
	assert_int_equal(st.st_size, 32 + 3 * 16 + 4 * page);
	guest_free(&g);
	free(snap);
}

static void nothing_changed(void **state)
{
	struct guest g = guest_new(make_ram("unchanged"), MAP_PRIVATE, NULL);
	char *snap = new_snap("5");
	struct guest h;

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	assert_int_equal(stat_of(snap, "changes").st_size, 32);
	free(snap);
	snap = image_path(dir, "5/changes");
	h = guest_new(dup(g.fd), MAP_PRIVATE, NULL);
	assert_int_equal(apply(&h, snap), 0);
	guest_free(&g);
	guest_free(&h);
	free(snap);
}

static void changes_come_back_as_they_were(void **state)
{
	struct guest g = guest_new(make_ram("back"), MAP_PRIVATE, some_changes), h;
	char *snap = new_snap("6"), *changes = image_path(snap, "changes"), *was, *is, *file;
	size_t n;

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	h = guest_new(dup(g.fd), MAP_PRIVATE, NULL);
	assert_int_equal(apply(&h, changes), 0);
	was = guest_memory(&g);
	is = guest_memory(&h);
	assert_memory_equal(was, is, PAGES * page);
	assert_int_equal(is[8 * page], 0);
	assert_int_equal(is[PAGES * page - 1], 'Z');
	file = read_file(dir, "back", &n);
	assert_int_equal(file[8 * page], 'a' + 8);	/* the file is nobody's to write */
	free(file);
	free(was);
	free(is);
	free(snap);
	free(changes);
	guest_free(&g);
	guest_free(&h);
}

/* madvise and mprotect make several mappings of one. */
static void split(char *ram)
{
	some_changes(ram);
	mprotect(ram + 2 * page, 3 * page, PROT_READ);
	madvise(ram + 30 * page, 4 * page, MADV_DONTFORK);
}

static void a_mapping_in_parts(void **state)
{
	struct guest g = guest_new(make_ram("parts"), MAP_PRIVATE, split), h;
	char *snap = new_snap("7"), *changes = image_path(snap, "changes"), *was, *is;

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	assert_int_equal(stat_of(snap, "changes").st_size, 32 + 3 * 16 + 4 * page);
	h = guest_new(dup(g.fd), MAP_PRIVATE, NULL);
	assert_int_equal(apply(&h, changes), 0);
	was = guest_memory(&g);
	is = guest_memory(&h);
	assert_memory_equal(was, is, PAGES * page);
	free(was);
	free(is);
	free(snap);
	free(changes);
	guest_free(&g);
	guest_free(&h);
}

static void all_changed(char *ram)
{
	for (size_t i = 0; i < PAGES; i += 2)
		memset(ram + i * page, (int)('A' + i % 26), page);
}

/* The copy has the changes in it. */
static void expect_whole(const struct guest *g, const char *snap)
{
	char *was = guest_memory(g), *copy;
	size_t n;

	assert_int_equal(stat_of(snap, "changes").st_nlink, 0);
	assert_int_equal(stat_of(snap, "ram").st_nlink, 1);
	copy = read_file(snap, "ram", &n);
	assert_int_equal(n, PAGES * page);
	assert_memory_equal(copy, was, n);
	free(copy);
	free(was);
}

static void many_changes_are_a_copy(void **state)
{
	struct guest g = guest_new(make_ram("many"), MAP_PRIVATE, all_changed);
	char *snap = new_snap("8");

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	expect_whole(&g, snap);
	guest_free(&g);
	free(snap);
}

static void a_file_that_has_no_name_is_copied(void **state)
{
	struct guest g = guest_new(make_ram("unlinked"), MAP_PRIVATE, some_changes);
	char *snap = new_snap("9"), *path = image_path(dir, "unlinked");

	(void)state;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(save_private(&g, snap), 0);
	expect_whole(&g, snap);
	guest_free(&g);
	free(snap);
	free(path);
}

static void a_file_of_another_file_system_is_copied(void **state)
{
	struct stat here, there;
	char *snap = new_snap("10");
	struct guest g;
	int shm, ours;

	(void)state;
	if (stat(dir, &here) < 0 || stat("/dev/shm", &there) < 0 || here.st_dev == there.st_dev)
		skip();
	shm = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
	ours = make_ram("for-shm");
	assert_true(shm >= 0);
	for (size_t i = 0; i < PAGES; i++) {
		char buf[65536];

		assert_int_equal(pread(ours, buf, page, (off_t)(i * page)), page);
		assert_int_equal(pwrite(shm, buf, page, (off_t)(i * page)), page);
	}
	close(ours);
	g = guest_new(shm, MAP_PRIVATE, some_changes);
	assert_int_equal(save_private(&g, snap), 0);
	expect_whole(&g, snap);
	guest_free(&g);
	free(snap);
}

static void a_process_without_it(void **state)
{
	struct guest g = guest_new(make_ram("mapped"), MAP_PRIVATE, NULL);
	char *snap = new_snap("11");

	(void)state;
	close(g.fd);
	g.fd = make_ram("not-mapped");
	assert_int_equal(save_private(&g, snap), -ESRCH);
	assert_non_null(strstr(result.msg, "cannot find the guest's memory in QEMU"));
	guest_free(&g);
	free(snap);
}

/* ---- damage ---- */

struct header { char magic[8]; uint64_t page, nranges, npages; };

static void refused(const struct guest *g, const void *data, size_t n, const char *expected)
{
	char *path = image_path(dir, "damaged");

	write_file(path, data, n);
	assert_true(apply(g, path) < 0);
	if (!strstr(result.msg, expected))
		fail_msg("%zu bytes: %s", n, result.msg);
	free(path);
}

static void damaged_changes_are_refused(void **state)
{
	struct guest g = guest_new(make_ram("whole"), MAP_PRIVATE, some_changes), h;
	char *snap = new_snap("12"), *good, *bad;
	uint64_t *range;
	struct header *head;
	size_t n;

	(void)state;
	assert_int_equal(save_private(&g, snap), 0);
	good = read_file(snap, "changes", &n);
	bad = malloc(n);
	head = (struct header *)bad;
	range = (uint64_t *)(bad + sizeof(*head));
	h = guest_new(dup(g.fd), MAP_PRIVATE, NULL);
	for (size_t cut = 0; cut < n; cut += cut < 96 ? 5 : 3001)
		refused(&h, good, cut, "the file is too short");
#define DAMAGE(what, text) do { \
		memcpy(bad, good, n); \
		what; \
		refused(&h, bad, n, text); \
	} while (0)
	DAMAGE(head->magic[0] = 'X', "damaged or of another host");
	DAMAGE(head->page = 2 * page, "damaged or of another host");
	DAMAGE(head->npages = PAGES + 1, "damaged or of another host");
	DAMAGE(head->npages = UINT64_MAX, "damaged or of another host");
	DAMAGE(head->nranges = head->npages + 1, "damaged or of another host");
	DAMAGE(head->nranges = UINT64_MAX, "damaged or of another host");
	DAMAGE(head->npages--, "their number is wrong");
	DAMAGE(range[0] = PAGES, "one is beyond the guest's memory");
	DAMAGE(range[0] = UINT64_MAX, "one is beyond the guest's memory");
	DAMAGE(range[1] = UINT64_MAX, "one is beyond the guest's memory");
	DAMAGE(range[1] = PAGES, "one is beyond the guest's memory");
	assert_true(apply(&h, "/nonexistent/changes") == -ENOENT);
	free(good);
	free(bad);
	free(snap);
	guest_free(&g);
	guest_free(&h);
}

static void arguments_are_checked(void **state)
{
	(void)state;
	assert_int_equal(run(ram_save_verb, NULL, NULL, 0), -EINVAL);
	assert_int_equal(run(ram_update_verb, NULL, NULL, 0), -EINVAL);
	assert_int_equal(run(ram_apply_verb, NULL, NULL, 0), -EINVAL);
	assert_int_equal(run(ram_save_verb, dir, NULL, 0), -EBADF);
	assert_int_equal(run(ram_update_verb, dir, NULL, 0), -EBADF);
	assert_true(run(ram_apply_verb, dir, NULL, 0) < 0);
}

static int make_dir(void **state)
{
	(void)state;
	page = (size_t)sysconf(_SC_PAGESIZE);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	err_release(&result);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shared_file_is_copied_without_its_zeros),
		cmocka_unit_test(memory_of_zeros_is_all_hole),
		cmocka_unit_test(a_copy_is_brought_up_to_date),
		cmocka_unit_test(only_changed_pages_are_written),
		cmocka_unit_test(nothing_changed),
		cmocka_unit_test(changes_come_back_as_they_were),
		cmocka_unit_test(a_mapping_in_parts),
		cmocka_unit_test(many_changes_are_a_copy),
		cmocka_unit_test(a_file_that_has_no_name_is_copied),
		cmocka_unit_test(a_file_of_another_file_system_is_copied),
		cmocka_unit_test(a_process_without_it),
		cmocka_unit_test(damaged_changes_are_refused),
		cmocka_unit_test(arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
