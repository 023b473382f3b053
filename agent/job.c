/*
 * Jobs: system calls that may block, each on a thread of its own.
 */
#include "job.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"
#include "buf.h"

#define STACK_SIZE (128u << 10)
#define KICK_EVERY 50000000	/* ns: a signal may come just before the system call begins */
#define KICK_SIGNAL (SIGRTMAX - 1)

static void finished_ready(void *arg, uint32_t events);
static void kick(void *arg);

/* Made at the first job: most executors never have one. */
struct jobs {
	struct ev *ev;
	struct ev_io io;	/* an eventfd; -1: not made yet */
	pthread_mutex_t lock;
	struct job *finished;	/* under the lock */
};

struct jobs *jobs_new(struct ev *ev)
{
	struct jobs *js = xcalloc(1, sizeof(*js));

	js->ev = ev;
	js->io.fd = -1;
	pthread_mutex_init(&js->lock, NULL);
	return js;
}

static void ignore_signal(int sig)
{
	(void)sig;
}

static int prepare(struct jobs *js)
{
	struct sigaction sa = {.sa_handler = ignore_signal};
	int fd;

	if (js->io.fd >= 0)
		return 0;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	sigaction(KICK_SIGNAL, &sa, NULL);
	ev_io_init(&js->io, agent_high_fd(fd), finished_ready, js);
	return ev_io_set(js->ev, &js->io, EPOLLIN);
}

static void *run_thread(void *arg)
{
	struct job *j = arg;
	struct jobs *js = j->all;
	uint64_t one = 1;

	atomic_store(&j->tid, (pid_t)syscall(SYS_gettid));
	j->run(j);
	pthread_mutex_lock(&js->lock);
	j->next = js->finished;
	js->finished = j;
	pthread_mutex_unlock(&js->lock);
	if (write(js->io.fd, &one, sizeof(one)) < 0)
		return NULL;
	return NULL;
}

int job_start(struct jobs *js, struct job *j)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err = prepare(js);

	if (err)
		return err;
	j->all = js;
	atomic_store(&j->tid, 0);
	ev_timer_init(&j->kick, kick, j);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attr, run_thread, j);
	pthread_attr_destroy(&attr);
	return -err;
}

static void finished_ready(void *arg, uint32_t events)
{
	struct jobs *js = arg;
	struct job *j, *next;
	uint64_t n;

	(void)events;
	if (read(js->io.fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&js->lock);
	j = js->finished;
	js->finished = NULL;
	pthread_mutex_unlock(&js->lock);
	for (; j; j = next) {
		next = j->next;
		ev_timer_clear(&j->kick);
		j->done(j);
	}
}

static void kick(void *arg)
{
	struct job *j = arg;
	pid_t tid = atomic_load(&j->tid);

	if (tid)
		syscall(SYS_tgkill, getpid(), tid, KICK_SIGNAL);
	ev_timer_set(j->all->ev, &j->kick, KICK_EVERY);
}

void job_abandon(struct job *j)
{
	kick(j);
}
