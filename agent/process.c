/*
 * Processes that an executor started: their streams and their end.
 *
 * An exec is answered when the program is reaped and both output streams are at their end. A background
 * process that keeps a stream open must not hang it for ever: LINGER without output after the program's end
 * is taken for the end, and LINGER_MAX in any case, except while the host lets us wait for credit. What such
 * a process writes later is read and dropped, so that it does not die of SIGPIPE.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "executor.h"
#include "sink.h"

#define LINGER 200000000	/* ns */
#define LINGER_MAX 2000000000

#define DRAINS_MAX 64

static void child_ended(void *arg, uint32_t events);
static void output_ready(void *arg, uint32_t events);
static void timed_out(void *arg);
static void lingered(void *arg);
static void input_written(void *arg, size_t n, int err);
static void stdin_written(void *arg, size_t n, int err);
static void waiter_cancel(struct call *c);
static void writer_cancel(struct call *c);

static const struct call_cbs waiter_cbs, writer_cbs;

struct output {
	struct process *p;
	unsigned stream;	/* 1 or 2 */
	struct ev_io io;	/* fd -1: ended */
};

struct waiter {
	LIST_ENTRY(waiter) entry;
	struct call *c;
};

struct process {
	LIST_ENTRY(process) entry;
	struct processes *all;
	enum process_kind kind;
	uint32_t handle;
	pid_t pid;
	bool running, released, was_timed_out, tty;
	bool fed;		/* the call that listens brings its input, too */
	int wstatus;
	int64_t started, ended;
	struct call *call;	/* who gets the output; NULL: nobody, it is dropped */
	struct output out[2];
	struct sink *in;	/* NULL: closed */
	struct ev_timer timeout, linger;
	int64_t linger_until;
	LIST_HEAD(, waiter) waiters;
};

struct processes {
	struct executor *x;
	struct ev *ev;
	struct ev_io children;
	LIST_HEAD(, process) list;
	struct drain *drains;
	unsigned ndrains;
};

struct drain {
	struct processes *all;
	struct ev_io io;
};

struct processes *processes_new(struct executor *x)
{
	struct processes *ps = xcalloc(1, sizeof(*ps));
	sigset_t set;
	int fd;

	ps->x = x;
	ps->ev = executor_ev(x);
	LIST_INIT(&ps->list);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		agent_die("signalfd: %s", strerror(errno));
	ev_io_init(&ps->children, agent_high_fd(fd), child_ended, ps);
	ev_io_set(ps->ev, &ps->children, EPOLLIN);
	return ps;
}

void processes_kill_all(struct processes *ps)
{
	struct process *p;

	LIST_FOREACH(p, &ps->list, entry)
		if (p->running)
			kill(-p->pid, SIGKILL);
}

/* ---- dropping output that nobody is told of ---- */

static void drain_ready(void *arg, uint32_t events)
{
	struct drain *d = arg;
	char scratch[4096];
	ssize_t n = read(d->io.fd, scratch, sizeof(scratch));

	(void)events;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	ev_io_set(d->all->ev, &d->io, 0);
	close(d->io.fd);
	d->all->ndrains--;
	ev_free_later(d->all->ev, d);
}

/* Takes the descriptor. */
static void drain_new(struct processes *ps, int fd)
{
	struct drain *d;

	if (ps->ndrains == DRAINS_MAX) {
		close(fd);
		return;
	}
	d = xcalloc(1, sizeof(*d));
	d->all = ps;
	ps->ndrains++;
	ev_io_init(&d->io, fd, drain_ready, d);
	ev_io_set(ps->ev, &d->io, EPOLLIN);
}

/* ---- start ---- */

static int pipe_for(int fds[2], bool ours_is_read)
{
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	fcntl(fds[!ours_is_read], F_SETFL, O_NONBLOCK);
	return 0;
}

static void close_fds(const int *fds, unsigned n)
{
	while (n--)
		if (fds[n] >= 0)
			close(fds[n]);
}

/* theirs: 0, 1, 2 of the program; ours: our ends, -1 for none. */
static int open_pipes(bool with_stdin, int theirs[3], int ours[3])
{
	int pair[2], err = 0;

	for (unsigned i = 0; i < 3 && !err; i++) {
		if (i == 0 && !with_stdin) {
			theirs[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
			if (theirs[0] < 0)	/* what agent_fix_stdio found instead */
				theirs[0] = fcntl(0, F_DUPFD_CLOEXEC, 3);
			err = theirs[0] < 0 ? -errno : 0;
			continue;
		}
		err = pipe_for(pair, i != 0);
		if (!err) {
			ours[i] = pair[i == 0];
			theirs[i] = pair[i != 0];
		}
	}
	return err;
}

static int open_tty(int theirs[3], int ours[3])
{
	int slave, master = launch_open_tty(&slave);

	if (master < 0)
		return master;
	fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
	for (unsigned i = 0; i < 3; i++)
		theirs[i] = i ? fcntl(slave, F_DUPFD_CLOEXEC, 3) : slave;
	ours[0] = fcntl(master, F_DUPFD_CLOEXEC, 3);
	ours[1] = master;
	return theirs[1] < 0 || theirs[2] < 0 || ours[0] < 0 ? -EMFILE : 0;
}

static struct process *process_new(struct call *c, enum process_kind kind, pid_t pid, const int ours[3])
{
	struct processes *ps = executor_processes(c->x);
	struct process *p = xcalloc(1, sizeof(*p));

	p->all = ps;
	p->kind = kind;
	p->pid = pid;
	p->running = true;
	p->started = agent_now();
	p->call = c;
	LIST_INIT(&p->waiters);
	ev_timer_init(&p->timeout, timed_out, p);
	ev_timer_init(&p->linger, lingered, p);
	for (unsigned i = 0; i < 2; i++) {
		p->out[i].p = p;
		p->out[i].stream = i + 1;
		ev_io_init(&p->out[i].io, ours[i + 1], output_ready, &p->out[i]);
		if (ours[i + 1] >= 0)
			ev_io_set(ps->ev, &p->out[i].io, EPOLLIN);
	}
	if (ours[0] >= 0)
		p->in = sink_new(ps->ev, ours[0], false);
	LIST_INSERT_HEAD(&ps->list, p, entry);
	return p;
}

int process_start(struct call *c, struct launch *l, enum process_kind kind, bool with_stdin,
	struct process **out)
{
	int theirs[3] = {-1, -1, -1}, ours[3] = {-1, -1, -1};
	pid_t pid;
	int err;

	err = l->tty ? open_tty(theirs, ours) : open_pipes(with_stdin, theirs, ours);
	memcpy(l->fds, theirs, sizeof(theirs));
	pid = err ? err : launch_start(l);
	close_fds(theirs, 3);
	if (pid < 0) {
		close_fds(ours, 3);
		return pid;
	}
	*out = process_new(c, kind, pid, ours);
	(*out)->tty = l->tty;
	if (kind == PROCESS_SPAWN)
		(*out)->handle = executor_new_handle(c->x);
	c->state = *out;
	return 0;
}

uint32_t process_handle(const struct process *p)
{
	return p->handle;
}

pid_t process_pid(const struct process *p)
{
	return p->pid;
}

void process_set_timeout(struct process *p, int64_t ns)
{
	ev_timer_set(p->all->ev, &p->timeout, ns);
}

/* ---- end ---- */

static bool outputs_ended(const struct process *p)
{
	return p->out[0].io.fd < 0 && p->out[1].io.fd < 0;
}

static void close_output(struct output *o, bool drain)
{
	int fd = o->io.fd;

	if (fd < 0)
		return;
	ev_io_set(o->p->all->ev, &o->io, 0);
	o->io.fd = -1;
	if (drain)
		drain_new(o->p->all, fd);
	else
		close(fd);
}

static void destroy(struct process *p)
{
	LIST_REMOVE(p, entry);
	ev_timer_clear(&p->timeout);
	ev_timer_clear(&p->linger);
	close_output(&p->out[0], false);
	close_output(&p->out[1], false);
	sink_free(p->in);
	ev_free_later(p->all->ev, p);
}

void process_pack_status(const struct process *p, msgpack_packer *pk)
{
	bool signalled = WIFSIGNALED(p->wstatus);

	pack_str(pk, "status");
	pack_str(pk, p->was_timed_out ? "timed_out" : signalled ? "signalled" : "exited");
	pack_str(pk, "code");
	msgpack_pack_int(pk, p->was_timed_out ? -2 : signalled ? -1 : WEXITSTATUS(p->wstatus));
	pack_str(pk, "signal");
	msgpack_pack_int(pk, signalled ? WTERMSIG(p->wstatus) : 0);
}

static void reply_ended(const struct process *p, struct call *c)
{
	msgpack_packer *pk = call_reply(c, 4);

	process_pack_status(p, pk);
	pack_str(pk, "duration");
	msgpack_pack_int64(pk, p->ended - p->started);
	call_reply_end(c);
}

/* Whoever waits for what has happened by now is told. */
static void check_done(struct process *p)
{
	struct call *c = p->call;

	if (!c || !outputs_ended(p))
		return;
	if (p->kind == PROCESS_SPAWN && c->replied) {
		p->call = NULL;
		call_end(c);
	} else if (p->kind == PROCESS_EXEC && !p->running) {
		p->call = NULL;
		reply_ended(p, c);
		destroy(p);
	}
}

static void end_output(struct output *o, bool drain)
{
	if (o->io.fd < 0)
		return;
	close_output(o, drain);
	if (o->p->call)
		call_send_end(o->p->call, o->stream);
}


static void lingered(void *arg)
{
	struct process *p = arg;

	for (unsigned i = 0; i < 2; i++) {
		if (p->out[i].io.fd < 0 || !p->call || call_room(p->call, i + 1) > 0)
			continue;
		p->linger_until = agent_now() + LINGER_MAX;
		ev_timer_set(p->all->ev, &p->linger, LINGER);
		return;
	}
	end_output(&p->out[0], true);
	end_output(&p->out[1], true);
	check_done(p);
}

static void process_ended(struct process *p, int wstatus)
{
	struct waiter *w;

	p->running = false;
	p->wstatus = wstatus;
	p->ended = agent_now();
	ev_timer_clear(&p->timeout);
	while ((w = LIST_FIRST(&p->waiters))) {
		LIST_REMOVE(w, entry);
		reply_ended(p, w->c);
		free(w);
	}
	if (p->released || (p->kind == PROCESS_EXEC && !p->call)) {
		destroy(p);
		return;
	}
	if (p->kind == PROCESS_EXEC && !outputs_ended(p)) {
		p->linger_until = p->ended + LINGER_MAX;
		ev_timer_set(p->all->ev, &p->linger, LINGER);
	}
	check_done(p);
}

/* Only processes that are ours: a guest's system calls may have started others, and wait for them. */
static void child_ended(void *arg, uint32_t events)
{
	struct processes *ps = arg;
	struct signalfd_siginfo info;
	struct process *p, *next;
	int wstatus;

	(void)events;
	while (read(ps->children.fd, &info, sizeof(info)) > 0)
		;
	for (p = LIST_FIRST(&ps->list); p; p = next) {
		next = LIST_NEXT(p, entry);
		if (p->running && waitpid(p->pid, &wstatus, WNOHANG) == p->pid)
			process_ended(p, wstatus);
	}
}

static void timed_out(void *arg)
{
	struct process *p = arg;

	p->was_timed_out = true;
	kill(-p->pid, SIGKILL);
}

/* ---- streams ---- */

static void output_ready(void *arg, uint32_t events)
{
	static char scratch[WIRE_PIECE];
	struct output *o = arg;
	struct process *p = o->p;
	size_t room = p->call ? call_room(p->call, o->stream) : sizeof(scratch);
	ssize_t n;

	(void)events;
	if (room == 0) {
		ev_io_set(p->all->ev, &o->io, 0);
		return;
	}
	n = read(o->io.fd, scratch, room < sizeof(scratch) ? room : sizeof(scratch));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {		/* EIO: nobody has the terminal open any more */
		end_output(o, false);
		check_done(p);
		return;
	}
	if (p->call)
		call_send(p->call, o->stream, scratch, (size_t)n);
	if (p->linger.armed && agent_now() < p->linger_until)
		ev_timer_set(p->all->ev, &p->linger, LINGER);
}

void process_call_credit(struct call *c, unsigned stream)
{
	struct process *p = c->state;

	if (stream >= 1 && p->out[stream - 1].io.fd >= 0)
		ev_io_set(p->all->ev, &p->out[stream - 1].io, EPOLLIN);
}

/* A program that closed its input gets nothing more, but the host may finish. */
static void input_written(void *arg, size_t n, int err)
{
	struct process *p = arg;

	(void)err;
	if (p->call && p->fed)
		call_consumed(p->call, n);
}

static void end_input(struct process *p)
{
	if (!p->in)
		return;
	if (p->tty)
		sink_write(p->in, "\004", 1, NULL, NULL);
	else
		sink_end(p->in);
}

void process_call_event(struct call *c, const void *data, size_t n)
{
	struct process *p = c->state;

	p->fed = true;
	if (!data)
		end_input(p);
	else if (p->in)
		sink_write(p->in, data, n, input_written, p);
}

/* ---- a call lets go ---- */

void process_call_cancel(struct call *c)
{
	struct process *p = c->state;

	p->call = NULL;
	kill(-p->pid, SIGKILL);
	if (p->kind == PROCESS_SPAWN)
		process_call_credit(c, 1), process_call_credit(c, 2);
	else if (!p->running)
		destroy(p);
	else
		close_output(&p->out[0], false), close_output(&p->out[1], false);
}

/* Its output is dropped from now on. */
void process_call_forget(struct call *c)
{
	struct process *p = c->state;

	p->call = NULL;
	process_call_credit(c, 1);
	process_call_credit(c, 2);
}

void process_call_unsubscribe(struct call *c)
{
	struct process *p = c->state;

	for (unsigned i = 0; i < 2; i++)
		if (p->out[i].io.fd >= 0)
			call_send_end(c, i + 1);
	process_call_forget(c);
	call_end(c);
}

bool process_attach(struct process *p, struct call *c)
{
	if (p->call)
		return false;
	p->call = c;
	p->fed = false;
	c->state = p;
	call_reply(c, 0);
	call_reply_keep(c);
	for (unsigned i = 0; i < 2; i++)
		if (p->out[i].io.fd < 0)
			call_send_end(c, i + 1);
		else
			ev_io_set(p->all->ev, &p->out[i].io, EPOLLIN);
	check_done(p);
	return true;
}

/* ---- by handle ---- */

struct process *process_find(struct call *c, uint32_t handle)
{
	struct process *p;

	LIST_FOREACH(p, &executor_processes(c->x)->list, entry)
		if (p->handle == handle && handle && !p->released)
			return p;
	call_fail(c, WIRE_UNKNOWN_HANDLE, "no process has the handle %u", handle);
	return NULL;
}

void process_free(struct process *p)
{
	if (p->call)
		process_call_unsubscribe(p->call);
	p->released = true;
	if (p->running)
		kill(-p->pid, SIGKILL);
	else
		destroy(p);
}

bool process_running(const struct process *p)
{
	return p->running;
}

int process_signal(struct process *p, int sig, bool group)
{
	if (!p->running)
		return -ESRCH;
	return kill(group ? -p->pid : p->pid, sig) < 0 ? -errno : 0;
}

static void stdin_written(void *arg, size_t n, int err)
{
	struct call *c = arg;
	msgpack_packer *pk;

	if (err) {
		call_errno(c, err);
		return;
	}
	pk = call_reply(c, 1);
	pack_str(pk, "written");
	msgpack_pack_uint64(pk, n);
	call_reply_end(c);
}

void process_write(struct process *p, struct call *c, const void *data, size_t n, bool eof)
{
	/* Ended twice is ended; what was written before may still be on its way. */
	if (p->in && n == 0 && eof && !sink_open(p->in)) {
		stdin_written(c, 0, 0);
		return;
	}
	if (!p->in || !sink_open(p->in)) {
		call_errno(c, EPIPE);
		return;
	}
	c->state = p->in;
	c->cbs = &writer_cbs;
	sink_write(p->in, data, n, stdin_written, c);
	if (eof)
		end_input(p);
}

static void writer_cancel(struct call *c)
{
	sink_forget(c->state, c);
}

void process_wait(struct process *p, struct call *c)
{
	struct waiter *w;

	if (!p->running) {
		reply_ended(p, c);
		return;
	}
	w = xcalloc(1, sizeof(*w));
	w->c = c;
	c->state = w;
	c->cbs = &waiter_cbs;
	LIST_INSERT_HEAD(&p->waiters, w, entry);
}

static void waiter_cancel(struct call *c)
{
	struct waiter *w = c->state;

	LIST_REMOVE(w, entry);
	free(w);
}

static const struct call_cbs waiter_cbs = {.cancel = waiter_cancel};
static const struct call_cbs writer_cbs = {.cancel = writer_cancel};
