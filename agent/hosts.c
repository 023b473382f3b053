/*
 * The marked block in /etc/hosts.
 */
#include "hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "file.h"

#define PATH "/etc/hosts"
#define BEGIN "# provium: begin\n"
#define END "# provium: end\n"
#define SIZE_MAX_READ (1u << 20)

static void read_old(struct buf *b)
{
	int fd = open(PATH, O_RDONLY | O_CLOEXEC);
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

static void cut_block(struct buf *b)
{
	char *begin, *end;

	buf_append(b, "", 1);
	begin = strstr((char *)b->p, BEGIN);
	end = begin ? strstr(begin, END) : NULL;
	b->len--;
	if (!end)
		return;
	end += strlen(END);
	memmove(begin, end, (size_t)((char *)b->p + b->len - end));
	b->len -= (size_t)(end - begin);
}

/* A new file in place of the old one, so that nobody reads half of it; in place where the file is a mount. */
static int store(const struct buf *b)
{
	static const char temp[] = PATH ".provium";
	int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), err;

	if (fd < 0)
		return -errno;
	fchmod(fd, 0644);
	err = file_write_all(fd, b->p, b->len);
	close(fd);
	if (!err && rename(temp, PATH) == 0)
		return 0;
	unlink(temp);
	if (err)
		return err;
	fd = open(PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	err = file_write_all(fd, b->p, b->len);
	close(fd);
	return err;
}

int hosts_write(const char *block)
{
	static const char localhost[] = "127.0.0.1 localhost\n";
	struct buf b = {0};
	int err;

	mkdir("/etc", 0755);
	read_old(&b);
	if (b.len == 0)
		buf_append(&b, localhost, strlen(localhost));
	cut_block(&b);
	if (*block) {
		buf_append(&b, BEGIN, strlen(BEGIN));
		buf_append(&b, block, strlen(block));
		if (block[strlen(block) - 1] != '\n')
			buf_append(&b, "\n", 1);
		buf_append(&b, END, strlen(END));
	}
	err = store(&b);
	buf_free(&b);
	return err;
}
