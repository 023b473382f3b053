/*
 * Requests to the mux itself: hello, reseed, shutdown and the workers.
 */
#include "mux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"

#define ENTROPY_MAX 4096
#define SHUTDOWN_DELAY 10000000		/* ns for the answer to get out */

struct muxop {
	struct mux *mux;
	struct peers *peers;
	uint32_t id;
	struct args args;
	struct frame reply;
};

struct mux_entry {
	const char *name;
	void (*run)(struct muxop *o);
};

static const struct mux_entry table[7];
static const char *const features[10];
static const char *const hows[4];

static void fail_kind(struct muxop *o, const char *kind, const char *message)
{
	mux_send(o->mux, frame_error(WIRE_MUX, o->id, kind, message), CONN_EXPRESS);
}

static void fail_errno(struct muxop *o, int err)
{
	mux_send(o->mux, frame_errno(WIRE_MUX, o->id, err), CONN_EXPRESS);
}

static bool refused(struct muxop *o)
{
	if (!o->args.problem[0])
		return false;
	fail_kind(o, WIRE_BAD_REQUEST, o->args.problem);
	return true;
}

static msgpack_packer *reply(struct muxop *o, unsigned fields)
{
	frame_begin(&o->reply, WIRE_REPLY, WIRE_MUX, o->id);
	msgpack_pack_map(&o->reply.pk, fields);
	return &o->reply.pk;
}

static void reply_send(struct muxop *o)
{
	mux_send(o->mux, frame_end(&o->reply), CONN_EXPRESS);
}

static void read_boot_id(char *id, size_t size)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, id, size - 1);

	if (fd >= 0)
		close(fd);
	id[n > 0 ? n : 0] = '\0';
	id[strcspn(id, "\n")] = '\0';
}

static void op_hello(struct muxop *o)
{
	int64_t version = args_int(&o->args, "protocol_version", 0, UINT32_MAX);
	struct bytes nonce = args_bytes(&o->args, "nonce");
	struct utsname u = {0};
	msgpack_packer *pk;
	char boot_id[64], *message;
	size_t n = 0;

	if (refused(o))
		return;
	if (version != PROTOCOL_VERSION) {
		message = xasprintf("the host speaks protocol version %lld, this agent (%s) speaks %d: "
			"use the agent that came with the host's Provium",
			(long long)version, PACKAGE_VERSION, PROTOCOL_VERSION);
		fail_kind(o, WIRE_UNSUPPORTED, message);
		free(message);
		return;
	}
	uname(&u);
	read_boot_id(boot_id, sizeof(boot_id));
	while (features[n])
		n++;
	pk = reply(o, 7);
	pack_str(pk, "protocol_version");
	msgpack_pack_int(pk, PROTOCOL_VERSION);
	pack_str(pk, "agent_version");
	pack_str(pk, PACKAGE_VERSION);
	pack_str(pk, "kernel");
	pack_str(pk, u.release);
	pack_str(pk, "arch");
	pack_str(pk, u.machine);
	pack_str(pk, "features");
	msgpack_pack_array(pk, n);
	for (size_t i = 0; i < n; i++)
		pack_str(pk, features[i]);
	pack_str(pk, "boot_id");
	pack_str(pk, boot_id);
	pack_str(pk, "nonce");
	pack_bin(pk, nonce.p, nonce.n);
	reply_send(o);
}

/* The bytes are credited in full: the host took them from its own pool. */
static int add_entropy(const void *p, size_t n)
{
	struct rand_pool_info *info = xmalloc(sizeof(*info) + n);
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC), err = 0;

	info->entropy_count = (int)n * 8;
	info->buf_size = (int)n;
	memcpy(info->buf, p, n);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, info) < 0)
		err = -errno;
#ifdef RNDRESEEDCRNG
	else if (ioctl(fd, RNDRESEEDCRNG) < 0)
		errno = 0;	/* older kernels reseed by themselves, a little later */
#endif
	if (fd >= 0)
		close(fd);
	free(info);
	return err;
}

static void op_reseed(struct muxop *o)
{
	struct bytes entropy = args_bytes(&o->args, "entropy");
	int err = 0;

	if (entropy.n > ENTROPY_MAX)
		args_refuse(&o->args, "`entropy` is longer than %d bytes", ENTROPY_MAX);
	if (refused(o))
		return;
	if (!agent_env.local)
		err = add_entropy(entropy.p, entropy.n);
	if (err) {
		fail_errno(o, -err);
		return;
	}
	reply(o, 0);
	reply_send(o);
}

static void power_off(void *arg)
{
	static const int commands[] = {RB_POWER_OFF, RB_AUTOBOOT, RB_HALT_SYSTEM};

	/* In a child: writing back to a dead disk may take for ever, and the host may still want to know. */
	if (fork() == 0) {
		sync();
		reboot(commands[(intptr_t)arg]);
		_exit(1);
	}
}

static void stop_agent(void *arg)
{
	ev_stop(arg);
}

static void op_shutdown(struct muxop *o)
{
	static struct ev_timer timer;
	int how = args_choice(&o->args, "how", hows, -1);

	if (refused(o))
		return;
	reply(o, 0);
	reply_send(o);
	if (agent_env.local)
		ev_timer_init(&timer, stop_agent, mux_ev(o->mux));
	else
		ev_timer_init(&timer, power_off, (void *)(intptr_t)how);
	ev_timer_set(mux_ev(o->mux), &timer, SHUTDOWN_DELAY);
}

static void op_worker_spawn(struct muxop *o)
{
	uint32_t channel;
	pid_t pid;
	int err;
	msgpack_packer *pk;

	if (refused(o))
		return;
	err = peers_spawn_worker(o->peers, &channel, &pid);
	if (err) {
		fail_errno(o, -err);
		return;
	}
	pk = reply(o, 2);
	pack_str(pk, "channel");
	msgpack_pack_uint32(pk, channel);
	pack_str(pk, "pid");
	msgpack_pack_int(pk, pid);
	reply_send(o);
}

static void op_worker_join(struct muxop *o)
{
	uint32_t channel = (uint32_t)args_int(&o->args, "channel", 0, UINT32_MAX);

	if (!refused(o) && peers_join(o->peers, channel, o->id) < 0)
		fail_kind(o, WIRE_UNKNOWN_HANDLE, "no worker has this channel");
}

static void op_worker_signal(struct muxop *o)
{
	uint32_t channel = (uint32_t)args_int(&o->args, "channel", 0, UINT32_MAX);
	int sig = (int)args_opt_int(&o->args, "signal", SIGKILL, 0, 64), err;

	if (refused(o))
		return;
	err = peers_signal(o->peers, channel, sig);
	if (err == -ENOENT) {
		fail_kind(o, WIRE_UNKNOWN_HANDLE, "no worker has this channel");
	} else if (err) {
		fail_errno(o, -err);
	} else {
		reply(o, 0);
		reply_send(o);
	}
}

static void run(struct muxop *o, const msgpack_object *body)
{
	const msgpack_object_str *name;
	char *message;

	if (body->type != MSGPACK_OBJECT_ARRAY || body->via.array.size != 2 ||
	    body->via.array.ptr[0].type != MSGPACK_OBJECT_STR) {
		fail_kind(o, WIRE_BAD_REQUEST, "a request's body should be [op, {params}]");
		return;
	}
	name = &body->via.array.ptr[0].via.str;
	args_init(&o->args, &body->via.array.ptr[1], o->args.zone);
	for (const struct mux_entry *e = table; e->name; e++) {
		if (strlen(e->name) == name->size && memcmp(e->name, name->ptr, name->size) == 0) {
			e->run(o);
			return;
		}
	}
	message = xasprintf("the mux knows no request `%.*s`", (int)(name->size < 64 ? name->size : 64),
		name->ptr);
	fail_kind(o, WIRE_UNSUPPORTED, message);
	free(message);
}

void mux_request(struct mux *m, struct peers *ps, uint32_t id, const uint8_t *p, size_t n)
{
	struct muxop o = {.mux = m, .peers = ps, .id = id};
	msgpack_object body;
	size_t off = 0;

	o.args.zone = msgpack_zone_new(1024);
	if (o.args.zone &&
	    msgpack_unpack((const char *)p, n, &off, o.args.zone, &body) == MSGPACK_UNPACK_SUCCESS)
		run(&o, &body);
	else
		fail_kind(&o, WIRE_INTERNAL, "the request cannot be decoded");
	if (o.args.zone)
		msgpack_zone_free(o.args.zone);
}

static const struct mux_entry table[7] = {
	{"hello", op_hello},
	{"reseed", op_reseed},
	{"shutdown", op_shutdown},
	{"worker_spawn", op_worker_spawn},
	{"worker_join", op_worker_join},
	{"worker_signal", op_worker_signal},
	{NULL, NULL}
};

static const char *const features[10] = {
	"exec", "spawn", "files", "syscall", "workers", "tail", "batch", "net", "clock", NULL
};

static const char *const hows[4] = {"poweroff", "reboot", "halt", NULL};
