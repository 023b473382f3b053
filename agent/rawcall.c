/*
 * One system call by number, as the kernel takes and answers it.
 */
#include "rawcall.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool makes_process(long nr)
{
#ifdef SYS_fork
	if (nr == SYS_fork || nr == SYS_vfork)
		return true;
#endif
#ifdef SYS_clone3
	if (nr == SYS_clone3)
		return true;
#endif
	return nr == SYS_clone;
}

/* The new process may share this one's memory and have a stack of its own, or none: it must not touch
 * either. */
#if defined(__x86_64__)

static long forking_call(long nr, const long args[6])
{
	register long r10 __asm__("r10") = args[3];
	register long r8 __asm__("r8") = args[4];
	register long r9 __asm__("r9") = args[5];
	long ret;

	__asm__ volatile(
		"syscall\n\t"
		"test %%rax, %%rax\n\t"
		"jnz 1f\n\t"
		"mov %[end], %%eax\n\t"
		"xor %%edi, %%edi\n\t"
		"syscall\n\t"
		"1:"
		: "=a"(ret)
		: "a"(nr), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8), "r"(r9),
		  [end] "i"(SYS_exit)
		: "rcx", "r11", "memory", "cc");
	return ret;
}

#elif defined(__aarch64__)

static long forking_call(long nr, const long args[6])
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = args[0];
	register long x1 __asm__("x1") = args[1];
	register long x2 __asm__("x2") = args[2];
	register long x3 __asm__("x3") = args[3];
	register long x4 __asm__("x4") = args[4];
	register long x5 __asm__("x5") = args[5];

	__asm__ volatile(
		"svc #0\n\t"
		"cbnz x0, 1f\n\t"
		"mov x8, %[end]\n\t"
		"svc #0\n\t"
		"1:"
		: "+r"(x0), "+r"(x8)
		: "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), [end] "i"(SYS_exit)
		: "memory", "cc");
	return x0;
}

#else
#error "system calls that make processes need a few lines of assembly for this processor"
#endif

long raw_call(long nr, const long args[6])
{
	long ret;

	if (makes_process(nr))
		return forking_call(nr, args);
	ret = syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	return ret == -1 ? -errno : ret;
}
