/*
 * The guest agent's command line: which transports it serves, and as what it was started.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"
#include "mux.h"

static const struct option options[8];

struct settings {
	struct transport_options transports;
	const char *private_tmp;
};

static void usage(int status)
{
	fprintf(status ? stderr : stdout,
		"Usage: provium-agent [--port N] [--socket PATH] [--fd N] [--local [--private-tmp DIR]]\n"
		"\n"
		"Serves a Provium host. Without --socket and --fd: on vsock port N (%u) and on the\n"
		"virtio-serial port %s.\n"
		"  --socket PATH      listen on a unix socket\n"
		"  --fd N             serve one connection on an inherited socket, then exit\n"
		"  --local            in namespaces of its own, on the host\n"
		"  --private-tmp DIR  what is /tmp then\n"
		"  --version\n",
		AGENT_VSOCK_PORT, AGENT_SERIAL_PORT);
	exit(status);
}

static unsigned number(const char *what, const char *s, unsigned max)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno || v > max)
		agent_die("%s: expected a number up to %u, got `%s`", what, max, s);
	return (unsigned)v;
}

static void parse(int argc, char **argv, struct settings *s)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case 'p': s->transports.port = number("--port", optarg, 0xfffffffe); break;
		case 's': s->transports.socket = optarg; break;
		case 'f': s->transports.fd = (int)number("--fd", optarg, 1 << 20); break;
		case 'l': agent_env.local = true; break;
		case 't': s->private_tmp = optarg; break;
		case 'V':
			printf("provium-agent %s (protocol %d)\n", PACKAGE_VERSION, PROTOCOL_VERSION);
			exit(0);
		case 'h': usage(0); break;
		default: usage(2);
		}
	}
	if (optind < argc)
		agent_die("unexpected argument `%s`; see --help", argv[optind]);
	if (s->private_tmp && !agent_env.local)
		agent_die("--private-tmp is for --local");
	if (s->transports.fd >= 0 && fcntl(s->transports.fd, F_GETFD) < 0)
		agent_die("--fd %d: no such descriptor was inherited", s->transports.fd);
	s->transports.guest = s->transports.fd < 0 && !s->transports.socket;
}

/* One agent for a guest: a name that goes with its process, in no file system. */
static void claim_guest(void)
{
	static const char name[] = "\0provium-agent";
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof(name) - 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;	/* without unix sockets there can be no executors either: that is told later */
	memcpy(addr.sun_path, name, sizeof(name) - 1);
	fd = agent_high_fd(fd);
	if (bind(fd, (struct sockaddr *)&addr, len) < 0 && errno == EADDRINUSE)
		agent_die("another provium-agent serves this guest already; this one ends");
}

/* What whoever started us ignores is not to reach commands. The C library would leave out its own two. */
static void default_signals(void)
{
	static const unsigned char dfl[64];	/* the kernel's struct sigaction, larger on no architecture */

	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, dfl, NULL, 8);
}

static void protect(void)
{
	default_signals();
	signal(SIGPIPE, SIG_IGN);
	if (!agent_env.local)
		agent_write_file("/proc/self/oom_score_adj", "-1000");
	agent_env.shared = mmap(NULL, sizeof(*agent_env.shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (agent_env.shared == MAP_FAILED)
		agent_die("out of memory");
}

/* The kernel hands its first process words of its own command line: those are for the next init. */
static bool started_by_kernel(int argc, char **argv)
{
	return getpid() == 1 && !(argc > 1 && strncmp(argv[1], "--", 2) == 0);
}

int main(int argc, char **argv)
{
	struct settings s = {.transports = {.fd = -1, .port = AGENT_VSOCK_PORT, .guest = true}};
	struct mux *m;

	agent_env.init = started_by_kernel(argc, argv);
	if (agent_env.init)
		init_prepare(argc, argv);
	else
		parse(argc, argv, &s);
	agent_fix_stdio();
	if (s.transports.fd > 2)
		s.transports.fd = agent_high_fd(s.transports.fd);
	if (agent_env.local)
		local_prepare(s.private_tmp);
	protect();
	if (s.transports.guest)
		claim_guest();
	m = mux_new();
	mux_set_transports(m, transports_new(m, &s.transports));
	return mux_run(m);
}

static const struct option options[8] = {
	{"port", required_argument, NULL, 'p'},
	{"socket", required_argument, NULL, 's'},
	{"fd", required_argument, NULL, 'f'},
	{"local", no_argument, NULL, 'l'},
	{"private-tmp", required_argument, NULL, 't'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0}
};
