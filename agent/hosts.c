/*
 * The marked blocks in files of /etc that tell names: hosts and resolv.conf.
 */
#include "hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "file.h"

#define BEGIN "# provium: begin\n"
#define END "# provium: end\n"
#define SIZE_MAX_READ (1u << 20)

static void read_old(struct buf *b, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	while (fd >= 0 && n > 0 && b->len < SIZE_MAX_READ) {
		buf_reserve(b, 4096);
		n = read(fd, b->p + b->len, 4096);
		b->len += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	if (b->len && b->p[b->len - 1] != '\n')
		buf_append(b, "\n", 1);
}

/* Returns whether there was one. */
static bool cut_block(struct buf *b)
{
	char *begin, *end;

	buf_append(b, "", 1);
	begin = strstr((char *)b->p, BEGIN);
	end = begin ? strstr(begin, END) : NULL;
	b->len--;
	if (!end)
		return false;
	end += strlen(END);
	memmove(begin, end, (size_t)((char *)b->p + b->len - end));
	b->len -= (size_t)(end - begin);
	return true;
}

/* A new file in place of the old one, so that nobody reads half of it; in place where the file is a mount. */
static int store(const struct buf *b, const char *path)
{
	char temp[64];
	int fd, err;

	snprintf(temp, sizeof(temp), "%s.provium", path);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	fchmod(fd, 0644);
	err = file_write_all(fd, b->p, b->len);
	close(fd);
	if (!err && rename(temp, path) == 0)
		return 0;
	unlink(temp);
	if (err)
		return err;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	err = file_write_all(fd, b->p, b->len);
	close(fd);
	return err;
}

static void add_block(struct buf *b, const char *block)
{
	if (!*block)
		return;
	buf_append(b, BEGIN, strlen(BEGIN));
	buf_append(b, block, strlen(block));
	if (block[strlen(block) - 1] != '\n')
		buf_append(b, "\n", 1);
	buf_append(b, END, strlen(END));
}

/* first: our block comes before the rest, because the first line counts. */
static int replace_block(const char *path, const char *block, const char *initial, bool first)
{
	struct buf old = {0}, b = {0};
	bool had;
	int err = 0;

	read_old(&old, path);
	had = cut_block(&old);
	if (!had && !*block)
		goto out;
	mkdir("/etc", 0755);
	if (old.len == 0)
		buf_append(&old, initial, strlen(initial));
	if (first)
		add_block(&b, block);
	buf_append(&b, old.p, old.len);
	if (!first)
		add_block(&b, block);
	err = store(&b, path);
out:
	buf_free(&old);
	buf_free(&b);
	return err;
}

int hosts_write(const char *block)
{
	return replace_block("/etc/hosts", block, "127.0.0.1 localhost\n", false);
}

int resolv_write(const char *block)
{
	return replace_block("/etc/resolv.conf", block, "", true);
}
