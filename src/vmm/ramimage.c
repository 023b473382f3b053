/*
 * A guest's memory, into a snapshot and out of it: what runs in the helpers (ramimage.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "vmm/image.h"
#include "vmm/ramimage.h"

#define MAGIC "PROVRAM1"
#define BATCH 256			/* pages moved at a time */
#define RUN_MAX ((size_t)1 << 20)

/* pagemap: the page is in memory; it is in swap; it is the file's (or shared), not the process's own. */
#define PM_PRESENT ((uint64_t)1 << 63)
#define PM_SWAP ((uint64_t)1 << 62)
#define PM_FILE ((uint64_t)1 << 61)

struct header {
	char magic[8];
	uint64_t page, nranges, npages;
};

struct range { uint64_t first, count; };	/* pages of guest RAM */

struct ranges {
	struct range *v;
	size_t n, npages;
};

/* Where a part of the file is mapped: bytes. */
struct mapping { uint64_t start, end, offset; };

struct mappings {
	struct mapping *v;
	size_t n;
};

int ram_open_proc(pid_t pid, const char *what, int flags, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		err_set(e, errno, "cannot open `%s`: %s", path, strerror(errno));
	return fd;
}

/* ---- a shared file: copied without its zeros ---- */

static bool is_zero(const char *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static int write_at(struct outfile *o, const char *data, size_t n, off_t at, struct err *e)
{
	while (n > 0) {
		ssize_t w = pwrite(outfile_fd(o), data, n, at);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return outfile_failed(o, errno, e);
		data += w;
		at += w;
		n -= (size_t)w;
	}
	return 0;
}

/* Writes what is not zero of a stretch of memory, in runs. */
static int copy_stretch(struct outfile *o, const char *ram, off_t from, off_t to, size_t page, struct err *e)
{
	while (from < to) {
		off_t end;

		if (is_zero(ram + from, page)) {
			from += (off_t)page;
			continue;
		}
		for (end = from + (off_t)page; end < to && end - from < (off_t)RUN_MAX; end += (off_t)page)
			if (is_zero(ram + end, page))
				break;
		if (write_at(o, ram + from, (size_t)(end - from), from, e) < 0)
			return e->code;
		from = end;
	}
	return 0;
}

static int copy_shared(const char *dir, const struct stat *st, struct err *e)
{
	char *path = image_path(dir, "ram");
	struct outfile *o = outfile_open(path, (uint64_t)st->st_blocks * 512, e);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const char *ram = MAP_FAILED;
	off_t data, hole = 0;
	int r = o ? 0 : e->code;

	if (r == 0) {
		ram = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_SHARED, RAM_FD, 0);
		if (ram == MAP_FAILED)
			r = err_set(e, errno, "cannot map the guest's memory: %s", strerror(errno));
	}
	while (r == 0 && (data = lseek(RAM_FD, hole, SEEK_DATA)) >= 0) {
		hole = lseek(RAM_FD, data, SEEK_HOLE);
		r = copy_stretch(o, ram, data, hole, page, e);
	}
	if (r == 0 && ftruncate(outfile_fd(o), st->st_size) < 0)
		r = outfile_failed(o, errno, e);
	if (r == 0)
		r = outfile_commit(o, false, e);
	if (ram != MAP_FAILED)
		munmap((void *)ram, (size_t)st->st_size);
	outfile_free(o);
	free(path);
	return r;
}

/* ---- a shared file: its copy brought up to date ---- */

/* What is missing of n bytes is zero: the copy has holes. */
static int read_copy(int fd, const char *path, char *buf, size_t n, off_t at, struct err *e)
{
	ssize_t got = 0;

	for (size_t have = 0; have < n; have += (size_t)got) {
		got = pread(fd, buf + have, n - have, at + (off_t)have);
		if (got < 0 && errno == EINTR)
			got = 0;
		else if (got <= 0)
			return err_set(e, got < 0 ? errno : EIO, "read `%s`: %s", path,
				got < 0 ? strerror(errno) : "it is too short");
	}
	return 0;
}

static int write_page(int fd, const char *path, const char *data, size_t page, off_t at, struct err *e)
{
	ssize_t n = pwrite(fd, data, page, at);

	if (n == (ssize_t)page)
		return 0;
	return err_set(e, n < 0 ? errno : ENOSPC, "write `%s`: %s", path, strerror(n < 0 ? errno : ENOSPC));
}

/* Copies the pages of a stretch that differ. Most do not, so a megabyte is compared first. The copy is read, not
 * mapped: looking at a hole of a mapped file takes room on a tmpfs, and kills when there is none. */
static int update_stretch(int fd, const char *path, const char *ram, char *buf, off_t from, off_t to, size_t page,
	struct err *e)
{
	for (off_t end; from < to; from = end) {
		end = to - from > (off_t)RUN_MAX ? from + (off_t)RUN_MAX : to;
		if (read_copy(fd, path, buf, (size_t)(end - from), from, e) < 0)
			return e->code;
		if (memcmp(ram + from, buf, (size_t)(end - from)) == 0)
			continue;
		for (off_t at = from; at < end; at += (off_t)page)
			if (memcmp(ram + at, buf + (at - from), page) != 0 &&
			    write_page(fd, path, ram + at, page, at, e) < 0)
				return e->code;
	}
	return 0;
}

static int update_shared(const char *dir, const struct stat *st, struct err *e)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (size_t)st->st_size;
	char *path = image_path(dir, "ram"), *ram = MAP_FAILED, *buf = xmalloc(RUN_MAX);
	int fd = open(path, O_RDWR | O_CLOEXEC), r = 0;
	off_t data, hole = 0;

	if (fd >= 0)
		ram = mmap(NULL, size, PROT_READ, MAP_SHARED, RAM_FD, 0);
	if (ram == MAP_FAILED)
		r = err_set(e, errno, "cannot look at `%s` again: %s", path, strerror(errno));
	while (r == 0 && (data = lseek(RAM_FD, hole, SEEK_DATA)) >= 0) {
		hole = lseek(RAM_FD, data, SEEK_HOLE);
		r = update_stretch(fd, path, ram, buf, data, hole, page, e);
	}
	if (ram != MAP_FAILED)
		munmap(ram, size);
	if (fd >= 0)
		close(fd);
	free(buf);
	free(path);
	return r;
}

/* ---- a private mapping: which pages, and where ---- */

/* Whether a line of maps with the same inode is of the same file: on some file systems stat tells another device, so
 * that the name decides. */
static bool same_file(unsigned major, unsigned minor, const char *name, const struct stat *st)
{
	char self[32], path[PATH_MAX];
	ssize_t n;

	if (makedev(major, minor) == st->st_dev)
		return true;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", RAM_FD);
	n = readlink(self, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = 0;
	return n > 0 && strcmp(path, name) == 0;
}

/* Reads /proc/PID/maps from fd: the mappings of the file that RAM_FD is. */
static int find_mappings(int fd, const struct stat *st, struct mappings *m, struct err *e)
{
	FILE *f = fdopen(fd, "r");
	char *line = NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0) {
		uint64_t start, end, offset, inode;
		unsigned major, minor;
		int name = 0;

		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64 " %n", &start, &end, &offset, &major,
		    &minor, &inode, &name) != 6 || inode != st->st_ino || !same_file(major, minor, line + name, st))
			continue;
		m->v = xrealloc(m->v, (m->n + 1) * sizeof(*m->v));
		m->v[m->n++] = (struct mapping){ start, end, offset };
	}
	free(line);
	if (f)
		fclose(f);
	if (m->n == 0)
		return err_set(e, ESRCH, "cannot find the guest's memory in QEMU");
	return 0;
}

static void add_page(struct ranges *r, uint64_t page)
{
	struct range *last = r->n ? &r->v[r->n - 1] : NULL;

	r->npages++;
	if (last && last->first + last->count == page) {
		last->count++;
		return;
	}
	if ((r->n & (r->n + 1)) == 0)
		r->v = xrealloc(r->v, (r->n + 1) * 2 * sizeof(*r->v));
	r->v[r->n++] = (struct range){ page, 1 };
}

/* The pages of one mapping that are the process's own. */
static int scan_mapping(const struct mapping *m, size_t page, struct ranges *r, struct err *e)
{
	uint64_t entries[8192], at = m->start / page, end = m->end / page, first = m->offset / page;

	while (at < end) {
		size_t want = end - at < 8192 ? (size_t)(end - at) : 8192;
		ssize_t n = pread(RAM_PAGEMAP_FD, entries, want * sizeof(*entries), (off_t)(at * sizeof(*entries)));

		if (n < (ssize_t)sizeof(*entries))
			return err_set(e, n < 0 ? errno : EIO, "cannot read QEMU's page map: %s",
				n < 0 ? strerror(errno) : "it is too short");
		n /= (ssize_t)sizeof(*entries);
		for (ssize_t i = 0; i < n; i++)
			if (entries[i] & PM_SWAP || (entries[i] & PM_PRESENT && !(entries[i] & PM_FILE)))
				add_page(r, at + (uint64_t)i - m->start / page + first);
		at += (uint64_t)n;
	}
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct mapping *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The address in QEMU of a page of guest RAM, and in *run for how many pages it goes on; 0: nowhere. */
static uint64_t address_of(const struct mappings *m, uint64_t page_no, size_t page, uint64_t *run)
{
	uint64_t offset = page_no * page;

	for (const struct mapping *v = m->v; v < m->v + m->n; v++)
		if (offset >= v->offset && offset - v->offset < v->end - v->start) {
			*run = (v->end - v->start - (offset - v->offset)) / page;
			return v->start + (offset - v->offset);
		}
	return 0;
}

/* Moves the pages of every range, up to BATCH at a time, between QEMU's memory and move(). */
static int each_batch(const struct ranges *r, const struct mappings *m, size_t page,
	int (*move)(void *arg, uint64_t page_no, uint64_t address, size_t n, struct err *e), void *arg, struct err *e)
{
	for (size_t i = 0; i < r->n; i++)
		for (uint64_t done = 0, run; done < r->v[i].count; done += run) {
			uint64_t page_no = r->v[i].first + done, address = address_of(m, page_no, page, &run);
			int rc;

			if (!address)
				return err_set(e, EINVAL, "page %" PRIu64 " is not in the guest's memory", page_no);
			if (run > r->v[i].count - done)
				run = r->v[i].count - done;
			if (run > BATCH)
				run = BATCH;
			rc = move(arg, page_no, address, (size_t)run, e);
			if (rc < 0)
				return rc;
		}
	return 0;
}

/* ---- a private mapping: saved ---- */

struct saving {
	struct outfile *out;
	bool whole;			/* into a copy of the file, each page at its place */
	size_t page;
	char *buf;
};

static int save_batch(void *arg, uint64_t page_no, uint64_t address, size_t n, struct err *e)
{
	struct saving *s = arg;
	ssize_t got = pread(RAM_MEM_FD, s->buf, n * s->page, (off_t)address);

	if (got != (ssize_t)(n * s->page))
		return err_set(e, got < 0 ? errno : EIO, "cannot read the guest's memory: %s",
			got < 0 ? strerror(errno) : "it is too short");
	if (s->whole)
		return write_at(s->out, s->buf, (size_t)got, (off_t)(page_no * s->page), e);
	return outfile_write(s->out, s->buf, (size_t)got, e);
}

/* Gives the file a second name in the snapshot. It may have none any more, or be on another file system. */
static bool link_ram(const char *path)
{
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", RAM_FD);
	return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
}

static int write_header(struct outfile *o, const struct ranges *r, size_t page, struct err *e)
{
	struct header h = { .page = page, .nranges = r->n, .npages = r->npages };

	memcpy(h.magic, MAGIC, sizeof(h.magic));
	if (outfile_write(o, &h, sizeof(h), e) < 0)
		return e->code;
	return outfile_write(o, r->v, r->n * sizeof(*r->v), e);
}

/* The file once more with the changes in it, or the changes alone. */
static int write_private(const char *path, bool whole, const struct ranges *r, const struct mappings *m,
	const struct stat *st, struct err *e)
{
	struct saving s = { .whole = whole, .page = (size_t)sysconf(_SC_PAGESIZE) };
	uint64_t need = r->npages * s.page + (whole ? (uint64_t)st->st_blocks * 512 : 0);
	int rc;

	s.out = outfile_open(path, need, e);
	if (!s.out)
		return e->code;
	s.buf = xmalloc(BATCH * s.page);
	rc = whole ? outfile_append(s.out, RAM_FD, "the snapshot's ram", e) : write_header(s.out, r, s.page, e);
	if (rc == 0)
		rc = each_batch(r, m, s.page, save_batch, &s, e);
	if (rc == 0)
		rc = outfile_commit(s.out, false, e);
	free(s.buf);
	outfile_free(s.out);
	return rc;
}

/* Many changes are slower to bring back than to share the rest is worth. */
static bool too_many(const struct ranges *r, const struct stat *st)
{
	return r->npages * (uint64_t)sysconf(_SC_PAGESIZE) * 2 > (uint64_t)st->st_blocks * 512;
}

static int save_private(const char *dir, const struct stat *st, struct err *e)
{
	char *ram = image_path(dir, "ram"), *changes = image_path(dir, "changes");
	struct mappings m = { NULL, 0 };
	struct ranges r = { NULL, 0, 0 };
	bool whole;
	int rc = find_mappings(RAM_MAPS_FD, st, &m, e);

	if (rc == 0)
		qsort(m.v, m.n, sizeof(*m.v), by_offset);
	for (size_t i = 0; rc == 0 && i < m.n; i++)
		rc = scan_mapping(&m.v[i], (size_t)sysconf(_SC_PAGESIZE), &r, e);
	if (rc == 0) {
		whole = too_many(&r, st) || !link_ram(ram);
		rc = write_private(whole ? ram : changes, whole, &r, &m, st, e);
	}
	free(m.v);
	free(r.v);
	free(ram);
	free(changes);
	return rc;
}

int ram_save_verb(int argc, char **argv, struct err *e)
{
	struct stat st;

	if (argc != 2)
		return err_set(e, EINVAL, "expected ram-save DIR");
	if (fstat(RAM_FD, &st) < 0)
		return err_set(e, errno, "cannot look at the guest's memory: %s", strerror(errno));
	return fcntl(RAM_MAPS_FD, F_GETFD) < 0 ? copy_shared(argv[1], &st, e) : save_private(argv[1], &st, e);
}

int ram_update_verb(int argc, char **argv, struct err *e)
{
	struct stat st;

	if (argc != 2)
		return err_set(e, EINVAL, "expected ram-update DIR");
	if (fstat(RAM_FD, &st) < 0)
		return err_set(e, errno, "cannot look at the guest's memory: %s", strerror(errno));
	return update_shared(argv[1], &st, e);
}

/* ---- a private mapping: brought back ---- */

struct applying {
	int fd;
	size_t page;
	char *buf;
};

static int read_whole(int fd, void *to, size_t n, struct err *e)
{
	for (size_t have = 0; have < n; ) {
		ssize_t r = read(fd, (char *)to + have, n - have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return err_set(e, r < 0 ? errno : ESTALE, "cannot read the changed pages: %s",
				r < 0 ? strerror(errno) : "the file is too short");
		have += (size_t)r;
	}
	return 0;
}

static int apply_batch(void *arg, uint64_t page_no, uint64_t address, size_t n, struct err *e)
{
	struct applying *a = arg;
	ssize_t w;

	(void)page_no;
	if (read_whole(a->fd, a->buf, n * a->page, e) < 0)
		return e->code;
	w = pwrite(RAM_MEM_FD, a->buf, n * a->page, (off_t)address);
	if (w != (ssize_t)(n * a->page))
		return err_set(e, w < 0 ? errno : EIO, "cannot write the guest's memory: %s",
			w < 0 ? strerror(errno) : "not all was taken");
	return 0;
}

static int read_header(int fd, size_t page, uint64_t ram, struct ranges *r, struct err *e)
{
	struct header h;
	uint64_t sum = 0;

	if (read_whole(fd, &h, sizeof(h), e) < 0)
		return e->code;
	if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0 || h.page != page || h.npages > ram / page ||
	    h.nranges > h.npages)
		return err_set(e, ESTALE, "the changed pages are damaged or of another host");
	r->n = (size_t)h.nranges;
	r->npages = (size_t)h.npages;
	r->v = xcalloc(r->n + 1, sizeof(*r->v));
	if (read_whole(fd, r->v, r->n * sizeof(*r->v), e) < 0)
		return e->code;
	for (size_t i = 0; i < r->n; i++) {
		if (r->v[i].first > ram / page || r->v[i].count > ram / page - r->v[i].first)
			return err_set(e, ESTALE, "the changed pages are damaged: one is beyond the guest's memory");
		sum += r->v[i].count;
	}
	return sum == h.npages ? 0 : err_set(e, ESTALE, "the changed pages are damaged: their number is wrong");
}

int ram_apply_verb(int argc, char **argv, struct err *e)
{
	struct applying a = { .fd = -1, .page = (size_t)sysconf(_SC_PAGESIZE) };
	struct mappings m = { NULL, 0 };
	struct ranges r = { NULL, 0, 0 };
	struct stat st;
	int rc;

	if (argc != 2)
		return err_set(e, EINVAL, "expected ram-apply FILE");
	a.fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (a.fd < 0 || fstat(RAM_FD, &st) < 0)
		return err_set(e, errno, "cannot read `%s`: %s", argv[1], strerror(errno));
	rc = read_header(a.fd, a.page, (uint64_t)st.st_size, &r, e);
	if (rc == 0)
		rc = find_mappings(RAM_APPLY_MAPS_FD, &st, &m, e);
	a.buf = xmalloc(BATCH * a.page);
	if (rc == 0)
		rc = each_batch(&r, &m, a.page, apply_batch, &a, e);
	free(a.buf);
	free(m.v);
	free(r.v);
	close(a.fd);
	return rc;
}
