/*
 * The local backend: the agent as a child of ours in namespaces of its own, instead of a guest.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/host.h"
#include "vmm/machine.h"

#define AGENT_FD 3
#define EXIT_NS (1500 * INT64_C(1000000))
#define UNLINKED_NS (300 * INT64_C(1000000))

static void begin(void *arg);
static void child_cb(void *arg, const struct child_result *r);
static void unlinked_cb(evutil_socket_t fd, short what, void *arg);
static void tell_over(void *arg);

/* One run of the agent. Owned by its VM, freed at the end of the turn in which free was called. */
struct local {
	struct machine m;		/* first: what vm.c holds */
	struct machine_spec spec;
	struct loop *loop;
	struct child *child;
	struct event *unlinked;
	char *argv[8];
	char *private_tmp;
	bool fated, ended, told, freed;
	enum machine_end end;
	struct err why;
};

static const struct machine_kind local_kind;

static struct local *self(const struct machine *m)
{
	return (struct local *)m;
}

struct machine *local_new(const struct machine_spec *s)
{
	struct local *l = xcalloc(1, sizeof(*l));

	l->m.kind = &local_kind;
	l->spec = *s;
	l->loop = vmm_loop(s->vmm);
	loop_defer(l->loop, begin, l);
	return &l->m;
}

static void tell_over(void *arg)
{
	struct local *l = arg;

	if (l->told || l->freed)
		return;
	l->told = true;
	l->spec.ev->over(l->spec.arg, l->end, &l->why);
}

static void set_fate(struct local *l, enum machine_end end, const struct err *why)
{
	if (l->fated)
		return;
	l->fated = true;
	l->end = end;
	err_copy(&l->why, why);
}

static void end_early(struct local *l, enum machine_end end, const struct err *why)
{
	set_fate(l, end, why);
	l->ended = true;
	loop_defer(l->loop, tell_over, l);
}

/* The agent ends by itself with status 0 when it was asked to shut down. */
static void child_cb(void *arg, const struct child_result *r)
{
	struct local *l = arg;
	struct err e = ERR_INIT;
	size_t n = evbuffer_get_length(r->err);
	char text[64];

	timer_stop(&l->unlinked);
	if (!r->signalled && r->code == 0) {
		err_set(&e, ECONNRESET, "agent ended");
		set_fate(l, MACHINE_POWERED_OFF, &e);
	} else {
		err_set(&e, ECONNRESET, "agent died: %s", child_result_text(r, text, sizeof(text)));
		if (n > 0)
			err_append(&e, ": %.*s", (int)n, (char *)evbuffer_pullup(r->err, -1));
		while (e.msg[0] && e.msg[strlen(e.msg) - 1] == '\n')
			e.msg[strlen(e.msg) - 1] = 0;
		set_fate(l, MACHINE_DIED, &e);
	}
	err_release(&e);
	l->ended = true;
	tell_over(l);
}

static int check_options(const struct vm_options *o, const struct profile *p, struct err *e)
{
	const char *what = o->ndisks + p->ndisks > 0 ? "disks" : o->nfiles > 0 ? "files" :
		o->expect ? "expect" : NULL;

	return what ? err_set(e, ENOTSUP, "%s: not supported by --vmm local", what) : 0;
}

static int spawn(struct local *l, int theirs, struct err *e)
{
	struct child_fd fds[] = { { theirs, AGENT_FD } };
	struct child_spec c = {
		.argv = (const char *const *)l->argv, .fds = fds, .nfds = 1, .capture_err = true,
		.capture_max = 4096, .own_group = true, .done = child_cb, .arg = l,
	};

	if (!l->argv[0])
		return err_set(e, ENOENT, "--vmm local needs the program provium-agent, which was not found");
	if (mkdir(l->spec.dir, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "cannot make `%s`: %s", l->spec.dir, strerror(errno));
	if (mkdir(l->private_tmp, 0700) < 0 && errno != EEXIST)
		return err_set(e, errno, "cannot make `%s`: %s", l->private_tmp, strerror(errno));
	l->child = child_spawn(l->loop, &c, e);
	return l->child ? 0 : e->code;
}

static void begin(void *arg)
{
	struct local *l = arg;
	struct err e = ERR_INIT;
	int sv[2] = { -1, -1 }, i = 0;

	if (l->freed || l->ended)
		return;
	l->spec.ev->stage(l->spec.arg, "starting the local agent");
	l->private_tmp = xasprintf("%s/tmp", l->spec.dir);
	l->argv[i++] = (char *)vmm_agent_program(l->spec.vmm);
	l->argv[i++] = (char *)"--fd";
	l->argv[i++] = (char *)"3";
	l->argv[i++] = (char *)"--local";
	l->argv[i++] = (char *)"--private-tmp";
	l->argv[i++] = l->private_tmp;

	if (check_options(l->spec.options, l->spec.profile, &e) < 0)
		goto out;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		err_set(&e, errno, "cannot make a socket pair for the agent: %s", strerror(errno));
	else
		spawn(l, sv[1], &e);
	if (sv[1] >= 0)
		close(sv[1]);
	if (!err_is_set(&e)) {
		l->spec.ev->started(l->spec.arg);
		l->spec.ev->linked(l->spec.arg, sv[0]);
		return;
	}
	if (sv[0] >= 0)
		close(sv[0]);
out:
	end_early(l, MACHINE_FAILED, &e);
	err_release(&e);
}

static void lm_fail(struct machine *m, const struct err *why)
{
	struct local *l = self(m);

	set_fate(l, MACHINE_DIED, why);
	if (l->child && !l->ended)
		child_signal(l->child, SIGKILL);
	else if (!l->ended)
		end_early(l, MACHINE_DIED, why);
}

static void lm_kill(struct machine *m)
{
	struct local *l = self(m);
	struct err e = ERR_INIT;

	err_set(&e, ECANCELED, "killed");
	set_fate(l, MACHINE_KILLED, &e);
	lm_fail(m, &e);
	err_release(&e);
}

static void lm_quit(struct machine *m)
{
	struct local *l = self(m);

	if (l->child && !l->ended)
		child_stop(l->child, EXIT_NS);
	else
		lm_kill(m);
}

static void unlinked_cb(evutil_socket_t fd, short what, void *arg)
{
	struct local *l = arg;
	struct err e = ERR_INIT;

	(void)fd, (void)what;
	err_set(&e, ECONNRESET, "the local agent closed its connection");
	lm_fail(&l->m, &e);
	err_release(&e);
}

/* Its one connection is its life. Mostly it has died and is about to be reaped, with a better reason. */
static void lm_unlink(struct machine *m)
{
	struct local *l = self(m);

	timer_start(l->loop, &l->unlinked, UNLINKED_NS, unlinked_cb, l);
}

static struct qmp *lm_qmp(struct machine *m)
{
	(void)m;
	return NULL;
}

static pid_t lm_pid(const struct machine *m)
{
	const struct local *l = self(m);

	return l->child && !l->ended ? child_pid(l->child) : 0;
}

static uint32_t lm_cid(const struct machine *m)
{
	(void)m;
	return 0;
}

static const char *const *lm_argv(const struct machine *m)
{
	return self(m)->argv[0] ? (const char *const *)self(m)->argv : NULL;
}

static void free_now(void *arg)
{
	struct local *l = arg;

	free(l->private_tmp);
	err_release(&l->why);
	free(l);
}

static void lm_free(struct machine *m)
{
	struct local *l = self(m);

	l->freed = true;
	timer_stop(&l->unlinked);
	child_free(l->child);
	loop_defer(l->loop, free_now, l);
}

static const struct machine_kind local_kind = {
	.kill = lm_kill, .quit = lm_quit, .fail = lm_fail, .unlink = lm_unlink, .qmp = lm_qmp, .pid = lm_pid,
	.cid = lm_cid, .argv = lm_argv, .free = lm_free,
};
