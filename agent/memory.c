/*
 * The executor's own memory: read_mem and write_mem.
 *
 * The kernel copies, so that a bad address, or one beyond the end of a mapped file, is an error and not a
 * signal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ops.h"

#define LENGTH_MAX (16u << 20)

/* For kernels without cross-memory calls. The address is an offset there: only the lower half can be had. */
static ssize_t through_proc(void *local, uint64_t addr, size_t n, bool write)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC), err;
	ssize_t got;

	if (fd < 0)
		return -1;
	got = write ? pwrite(fd, local, n, (off_t)addr) : pread(fd, local, n, (off_t)addr);
	err = errno == EIO ? EFAULT : errno;
	close(fd);
	errno = err;
	return got;
}

static int transfer(void *local, uint64_t addr, size_t n, bool write)
{
	struct iovec here = {local, n}, there = {(void *)(uintptr_t)addr, n};
	ssize_t got;

	if (n == 0)
		return 0;
	got = write ? process_vm_writev(getpid(), &here, 1, &there, 1, 0) :
		process_vm_readv(getpid(), &here, 1, &there, 1, 0);
	if (got < 0 && errno == ENOSYS)
		got = through_proc(local, addr, n, write);
	if (got < 0)
		return errno;
	return (size_t)got == n ? 0 : EFAULT;
}

void op_read_mem(struct call *c)
{
	uint64_t addr = args_word(&c->args, "addr");
	size_t n = (size_t)args_int(&c->args, "n", 0, LENGTH_MAX);
	msgpack_packer *pk;
	void *p;
	int err;

	if (call_refused(c))
		return;
	p = malloc(n ? n : 1);
	err = p ? transfer(p, addr, n, false) : ENOMEM;
	if (err) {
		call_errno(c, err);
	} else {
		pk = call_reply(c, 1);
		pack_str(pk, "data");
		pack_bin(pk, p, n);
		call_reply_end(c);
	}
	free(p);
}

void op_write_mem(struct call *c)
{
	uint64_t addr = args_word(&c->args, "addr");
	struct bytes data = args_bytes(&c->args, "data");
	int err;

	if (call_refused(c))
		return;
	err = transfer((void *)data.p, addr, data.n, true);
	if (err)
		call_errno(c, err);
	else
		call_reply_empty(c);
}
