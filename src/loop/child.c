/*
 * Child processes: started by vfork and exec, watched by a pidfd, done when reaped and at EOF.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/loop.h"

#define CAPTURE_DEFAULT ((size_t)1 << 20)

static void pidfd_cb(evutil_socket_t fd, short what, void *arg);
static void capture_readable_cb(evutil_socket_t fd, short what, void *arg);
static void grace_cb(evutil_socket_t fd, short what, void *arg);

struct child;
static void cut_captures(struct child *c);

/* One captured stream. */
struct capture {
	struct child *child;
	int fd;
	struct event *readable;		/* NULL at EOF */
	struct evbuffer *kept;
	size_t max;
};

/* Freed by child_free; one that still runs then is killed and kept until it is reaped. */
struct child {
	struct loop *loop;
	pid_t pid;
	int pidfd;
	struct event *reaper;
	struct event *grace;
	struct capture out, err;
	bool own_group, reaped, forgotten, told;
	bool killed;			/* by child_stop: its streams are waited for no longer */
	siginfo_t info;
	void (*done)(void *arg, const struct child_result *r);
	void *arg;
};

static void capture_close(struct capture *cap)
{
	if (!cap->readable)
		return;
	event_free(cap->readable);
	cap->readable = NULL;
	close(cap->fd);
}

static void free_now(void *arg)
{
	struct child *c = arg;

	timer_stop(&c->grace);
	if (c->reaper)
		event_free(c->reaper);
	if (c->pidfd >= 0)
		close(c->pidfd);
	capture_close(&c->out);
	capture_close(&c->err);
	if (c->out.kept)
		evbuffer_free(c->out.kept);
	if (c->err.kept)
		evbuffer_free(c->err.kept);
	free(c);
}

static void tell_if_done(struct child *c)
{
	struct child_result r;
	char text[64];

	if (!c->reaped || c->told)
		return;
	if (c->forgotten) {
		c->told = true;
		loop_ending(c->loop, -1);
		loop_defer(c->loop, free_now, c);
		return;
	}
	if (c->out.readable || c->err.readable)
		return;
	c->told = true;
	timer_stop(&c->grace);
	r = (struct child_result){
		.signalled = c->info.si_code != CLD_EXITED, .code = c->info.si_status,
		.out = c->out.kept, .err = c->err.kept,
	};
	log_debug("child", "finish pid %d: %s", c->pid, child_result_text(&r, text, sizeof(text)));
	if (c->done)
		c->done(c->arg, &r);
}

static void pidfd_cb(evutil_socket_t fd, short what, void *arg)
{
	struct child *c = arg;

	(void)what;
	memset(&c->info, 0, sizeof(c->info));
	if (waitid(P_PIDFD, fd, &c->info, WEXITED | WNOHANG) < 0 || c->info.si_pid == 0)
		return;
	log_debug("child", "reap pid %d", c->pid);
	c->reaped = true;
	event_del(c->reaper);
	if (c->killed)
		cut_captures(c);
	tell_if_done(c);
}

/* What evbuffer_read returns: bytes, 0 at EOF, or -1 and errno. */
static int capture_read(struct capture *cap)
{
	int r = evbuffer_read(cap->kept, cap->fd, -1);
	size_t n = evbuffer_get_length(cap->kept);

	if (n > cap->max)
		evbuffer_drain(cap->kept, n - cap->max);
	return r;
}

/* Takes what has been written and closes: someone who outlives the child may hold the other end for ever. */
static void cut_captures(struct child *c)
{
	for (struct capture *cap = &c->out; cap; cap = cap == &c->out ? &c->err : NULL) {
		while (cap->readable && capture_read(cap) > 0)
			;
		capture_close(cap);
	}
}

static void capture_readable_cb(evutil_socket_t fd, short what, void *arg)
{
	struct capture *cap = arg;
	int r = capture_read(cap);

	(void)fd, (void)what;
	if (r > 0 || (r < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	capture_close(cap);
	tell_if_done(cap->child);
}

/* A pipe: the child may open its /dev/stderr anew, which a socket refuses. */
static int capture_open(struct child *c, struct capture *cap, size_t max, int *theirs)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	evutil_make_socket_nonblocking(p[0]);
	cap->child = c;
	cap->max = max ? max : CAPTURE_DEFAULT;
	cap->kept = evbuffer_new();
	cap->fd = p[0];
	cap->readable = event_new(loop_base(c->loop), p[0], EV_READ | EV_PERSIST, capture_readable_cb, cap);
	INVARIANT(cap->kept && cap->readable);
	event_add(cap->readable, NULL);
	*theirs = p[1];
	return 0;
}

/* What the child needs of the parent, made before vfork: the child may not allocate. */
struct plan {
	const struct child_spec *spec;
	char **candidates;		/* paths to try in order */
	int in, out, err;
	int *parked;			/* fds[] moved above every number that is a target */
	int park_from;
	pid_t parent;
	volatile int exec_errno;
};

static int park(int *parked, int fd, int from)
{
	*parked = fcntl(fd, F_DUPFD_CLOEXEC, from);
	return *parked;
}

/* In the child, sharing the parent's memory until exec: async-signal-safe calls only. */
static void child_exec(struct plan *p)
{
	const struct child_spec *s = p->spec;
	static const unsigned char dfl[64];	/* the kernel's struct sigaction, larger on no architecture */
	const struct sched_param prio = { 0 };
	int obstacle = 0;
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != p->parent)
		_exit(127);
	/* Past the C library, which leaves out the two it uses itself, even when they came to us ignored. */
	for (int sig = 1; sig < NSIG; sig++)
		syscall(SYS_rt_sigaction, sig, dfl, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (s->own_group)
		setpgid(0, 0);
	if (s->batch)
		sched_setscheduler(0, SCHED_BATCH, &prio);
	if (s->cwd && chdir(s->cwd) < 0)
		goto failed;
	/* Ours close on exec anyway, but whoever started us may have left some open (Linux 5.11). */
	syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	/* Targets may be numbers that sources have: park all sources out of the way first. */
	if (park(&p->in, p->in, p->park_from) < 0 || park(&p->out, p->out, p->park_from) < 0 ||
	    park(&p->err, p->err, p->park_from) < 0)
		goto failed;
	for (size_t i = 0; i < s->nfds; i++)
		if (park(&p->parked[i], s->fds[i].fd, p->park_from) < 0)
			goto failed;
	if (dup2(p->in, 0) < 0 || dup2(p->out, 1) < 0 || dup2(p->err, 2) < 0)
		goto failed;
	for (size_t i = 0; i < s->nfds; i++)
		if (dup2(p->parked[i], s->fds[i].as) < 0)
			goto failed;
	for (char **c = p->candidates; *c; c++) {
		execve(*c, (char *const *)s->argv, s->envp ? (char *const *)s->envp : environ);
		/* The first real obstacle is the one to report, not a missing file further on. */
		if (!obstacle || obstacle == ENOENT)
			obstacle = errno;
	}
	/* Only now: the parent shares this memory, and a later candidate might have run. */
	p->exec_errno = obstacle;
	_exit(127);
failed:
	p->exec_errno = errno;
	_exit(127);
}

/* argv[0] as it is when it has a slash, else below each directory of PATH. */
static char **exec_candidates(const char *name)
{
	const char *path = getenv("PATH"), *end;
	char **list;
	size_t n = 0;

	list = xcalloc(2, sizeof(*list));
	if (strchr(name, '/')) {
		list[0] = xstrdup(name);
		return list;
	}
	if (!path || !*path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	for (;; path = end + 1) {
		end = strchrnul(path, ':');
		list = xrealloc(list, (n + 2) * sizeof(*list));
		list[n++] = end == path ? xasprintf("./%s", name)
			: xasprintf("%.*s/%s", (int)(end - path), path, name);
		list[n] = NULL;
		if (!*end)
			return list;
	}
}

static void candidates_free(char **list)
{
	for (char **c = list; *c; c++)
		free(*c);
	free(list);
}

static int spawn(struct child *c, struct plan *p, struct err *e)
{
	const struct child_spec *s = p->spec;
	struct sigaction sa;
	sigset_t all, old;
	pid_t pid;

	p->parent = getpid();
	p->park_from = 3;
	for (size_t i = 0; i < s->nfds; i++)
		if (s->fds[i].as >= p->park_from)
			p->park_from = s->fds[i].as + 1;
	/* Whoever started us may have left SIGCHLD ignored, and then a child leaves no status. */
	if (sigaction(SIGCHLD, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
		signal(SIGCHLD, SIG_DFL);
	/* A signal may not run our handlers in the child, which has our memory until it executes. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = vfork();
	if (pid == 0)
		child_exec(p);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (pid < 0)
		return err_set(e, errno, "cannot start `%s`: fork: %s", s->argv[0], strerror(errno));
	if (p->exec_errno) {
		waitpid(pid, NULL, 0);	/* it has called _exit already */
		return err_set(e, p->exec_errno, "cannot execute `%s`: %s", s->argv[0], strerror(p->exec_errno));
	}
	c->pid = pid;
	c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (c->pidfd < 0) {
		int code = err_set(e, errno, "cannot watch `%s`: pidfd_open: %s (Linux 5.4 or newer is needed)",
			s->argv[0], strerror(errno));

		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return code;
	}
	fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
	c->reaper = event_new(loop_base(c->loop), c->pidfd, EV_READ | EV_PERSIST, pidfd_cb, c);
	event_add(c->reaper, NULL);
	log_debug("child", "arm pid %d: %s", pid, s->argv[0]);
	return 0;
}

struct child *child_spawn(struct loop *l, const struct child_spec *spec, struct err *e)
{
	struct child *c = xcalloc(1, sizeof(*c));
	struct plan p = { .spec = spec, .in = -1, .out = 2, .err = 2 };
	int devnull = -1, out = -1, err = -1, r = 0;

	c->loop = l;
	c->pidfd = -1;
	c->own_group = spec->own_group;
	c->done = spec->done;
	c->arg = spec->arg;
	p.candidates = exec_candidates(spec->argv[0]);
	p.parked = xcalloc(spec->nfds + 1, sizeof(*p.parked));

	if (spec->stdin_fd > 0)
		p.in = spec->stdin_fd;
	else if ((p.in = devnull = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
		r = -errno;
	if (r == 0 && spec->capture_out && (r = capture_open(c, &c->out, spec->capture_max, &out)) == 0)
		p.out = out;
	if (r == 0 && spec->capture_err && (r = capture_open(c, &c->err, spec->capture_max, &err)) == 0)
		p.err = err;
	if (r < 0)
		err_set(e, r, "cannot start `%s`: %s", spec->argv[0], strerror(-r));
	else
		r = spawn(c, &p, e);

	candidates_free(p.candidates);
	free(p.parked);
	for (int *fd = (int []){ devnull, out, err, -2 }; *fd != -2; fd++)
		if (*fd >= 0)
			close(*fd);
	if (r < 0) {
		free_now(c);
		return NULL;
	}
	return c;
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

/* Whether others of its group may be left: a group of our making whose captured streams are still open. */
static bool group_lives(const struct child *c)
{
	return c->own_group && (!c->reaped || c->out.readable || c->err.readable);
}

void child_signal(struct child *c, int sig)
{
	if (group_lives(c))
		kill(-c->pid, sig);
	/* The pidfd also reaches a child that has not made its group yet. */
	if (!c->reaped)
		syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0);
}

static void grace_cb(evutil_socket_t fd, short what, void *arg)
{
	struct child *c = arg;

	(void)fd, (void)what;
	c->killed = true;
	child_signal(c, SIGKILL);
	if (!c->reaped)
		return;
	cut_captures(c);
	tell_if_done(c);
}

void child_stop(struct child *c, int64_t grace_ns)
{
	if (c->told)
		return;
	child_signal(c, SIGTERM);
	timer_start(c->loop, &c->grace, grace_ns, grace_cb, c);
}

struct evbuffer *child_stderr(struct child *c)
{
	return c->err.kept;
}

void child_free(struct child *c)
{
	if (!c)
		return;
	c->forgotten = true;
	if (c->told) {
		loop_defer(c->loop, free_now, c);
		return;
	}
	loop_ending(c->loop, 1);
	child_signal(c, SIGKILL);
	tell_if_done(c);
}

const char *child_result_text(const struct child_result *r, char *buf, size_t size)
{
	if (r->signalled)
		snprintf(buf, size, "signal %d (%s)", r->code, strsignal(r->code));
	else
		snprintf(buf, size, "exit status %d", r->code);
	return buf;
}
