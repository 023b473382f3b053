/*
 * The names in an initrd: one or more newc archives, plain or compressed, one after the other.
 *
 * libarchive decompresses; the archives themselves are read here, because its cpio reader ends at the
 * first trailer and cannot say where that was.
 */
#include <archive.h>
#include <archive_entry.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/tree.h"

#define NEWC_HEADER 110

/* A stream of decompressed bytes. */
struct source {
	struct archive *a;
	const unsigned char *block;	/* libarchive's */
	size_t left;			/* of the block */
	uint64_t offset;		/* bytes taken so far */
	bool plain;			/* it was not compressed */
};

struct member {
	char name[PATH_MAX + 1], target[PATH_MAX + 1];
	unsigned mode;
	size_t size, name_size;
};

static bool source_open(struct source *s, const void *data, size_t len)
{
	struct archive_entry *entry;

	memset(s, 0, sizeof(*s));
	s->a = archive_read_new();
	archive_read_support_filter_gzip(s->a);
	archive_read_support_filter_bzip2(s->a);
	archive_read_support_filter_xz(s->a);
	archive_read_support_filter_lzma(s->a);
	archive_read_support_filter_lz4(s->a);
	archive_read_support_filter_zstd(s->a);
	archive_read_support_format_raw(s->a);
	if (archive_read_open_memory(s->a, data, len) != ARCHIVE_OK ||
	    archive_read_next_header(s->a, &entry) != ARCHIVE_OK)
		return false;
	s->plain = archive_filter_code(s->a, 0) == ARCHIVE_FILTER_NONE;
	return true;
}

static bool source_fill(struct source *s)
{
	const void *block;
	la_int64_t at;
	int rc = ARCHIVE_OK;

	while (s->left == 0 && rc == ARCHIVE_OK) {
		rc = archive_read_data_block(s->a, &block, &s->left, &at);
		s->block = block;
		if (rc != ARCHIVE_OK)
			s->left = 0;
	}
	return s->left > 0;
}

/* Takes len bytes; buf NULL skips them. */
static bool source_take(struct source *s, void *buf, size_t len)
{
	char *out = buf;

	while (len > 0) {
		size_t n;

		if (!source_fill(s))
			return false;
		n = len < s->left ? len : s->left;
		if (out) {
			memcpy(out, s->block, n);
			out += n;
		}
		s->block += n;
		s->left -= n;
		s->offset += n;
		len -= n;
	}
	return true;
}

static void source_skip_zeros(struct source *s)
{
	while (source_fill(s) && *s->block == 0)
		source_take(s, NULL, 1);
}

static bool header_field(const char *header, int index, size_t *value)
{
	char text[9] = "", *end;

	memcpy(text, header + 6 + 8 * index, 8);
	*value = strtoul(text, &end, 16);
	return end == text + 8;
}

static size_t padding(size_t n)
{
	return (4 - n % 4) % 4;
}

/* False at the end of the stream, or when what comes is no archive member. */
static bool read_member(struct source *s, struct member *m)
{
	char header[NEWC_HEADER];
	size_t mode;

	if (!source_take(s, header, sizeof(header)))
		return false;
	if (memcmp(header, "070701", 6) && memcmp(header, "070702", 6))
		return false;
	if (!header_field(header, 1, &mode) || !header_field(header, 6, &m->size) ||
	    !header_field(header, 11, &m->name_size) || m->name_size == 0 || m->name_size > PATH_MAX)
		return false;
	m->mode = mode;
	if (!source_take(s, m->name, m->name_size) ||
	    !source_take(s, NULL, padding(NEWC_HEADER + m->name_size)))
		return false;
	m->name[m->name_size] = '\0';
	m->target[0] = '\0';
	if (!S_ISLNK(m->mode) || m->size > PATH_MAX)
		return source_take(s, NULL, m->size) && source_take(s, NULL, padding(m->size));
	m->target[m->size] = '\0';
	return source_take(s, m->target, m->size) && source_take(s, NULL, padding(m->size));
}

/* Reads archives until something else comes. Returns where that begins. */
static uint64_t read_archives(struct tree *t, struct source *s)
{
	struct member *m = xmalloc(sizeof(*m));
	uint64_t start = 0;

	for (;;) {
		source_skip_zeros(s);
		start = s->offset;
		if (!read_member(s, m))
			break;
		if (!strcmp(m->name, "TRAILER!!!"))
			continue;
		tree_put(t, m->name, S_ISDIR(m->mode) ? TREE_DIR : S_ISLNK(m->mode) ? TREE_LINK : TREE_FILE,
			m->target);
	}
	free(m);
	return start;
}

static void read_all(struct tree *t, const char *data, size_t len)
{
	bool more = true;

	/* Plain archives (microcode, usually) may come before one compressed stream, which is the rest. */
	while (more && len > 0) {
		struct source s;
		uint64_t used = 0;

		more = source_open(&s, data, len);
		if (more)
			used = read_archives(t, &s);
		more = more && s.plain && used > 0 && used < len;
		archive_read_free(s.a);
		data += used;
		len -= more ? used : 0;
	}
}

int tree_read_initrd(struct tree *t, const char *path, struct err *e)
{
	void *map;
	size_t len;
	int rc = tree_map_file(path, &map, &len, e);

	if (rc < 0 || !map)
		return rc;
	read_all(t, map, len);
	munmap(map, len);
	return 0;
}
