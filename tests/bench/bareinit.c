/*
 * The first process of the bare guest that boot times are compared with: what any init for this kernel must
 * do before it can serve anyone (mounts and the same modules as the agent's), then a marker on the console.
 *
 * With the argument "plain" the marker comes at once.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MARKER "bare guest is up\n"

static void load_modules(void)
{
	FILE *f = fopen("/provium/modules.list", "re");
	char line[1024];
	int fd;

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, " \t\n")] = '\0';
		fd = open(line, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		syscall(SYS_finit_module, fd, "", 0);
		close(fd);
	}
}

int main(int argc, char **argv)
{
	int console;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755");
	if (argc < 2 || strcmp(argv[1], "plain") != 0) {
		mkdir("/proc", 0755);
		mkdir("/sys", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
		mount("sysfs", "/sys", "sysfs", 0, NULL);
		load_modules();
	}
	console = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	if (console < 0 || write(console, MARKER, sizeof(MARKER) - 1) < 0)
		return 1;
	for (;;)
		pause();
}
