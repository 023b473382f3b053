/*
 * Raw system calls with buffers: syscall and ioctl.
 *
 * They run on the executor's one thread, so that what they change stays; an asynchronous one has a thread of
 * its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "executor.h"
#include "job.h"
#include "ops.h"
#include "rawcall.h"

#define ALIGN_DEFAULT 16
#define ALIGN_MAX (2u << 20)

static void async_run(struct job *j);
static void async_done(struct job *j);
static void async_timeout(void *arg);
static void async_cancel(struct call *c);

static const struct call_cbs async_cbs;

struct request {
	struct job job;
	struct call *c;		/* NULL: nobody waits any more */
	struct arena arena;
	long nr, args[6], ret;
	uint32_t first;		/* the reply's bufs begin here: an ioctl's data comes before them */
	bool is_ioctl, has_data;
	struct ev_timer timeout;
};

static void request_free(struct request *r)
{
	arena_free(&r->arena);
	free(r);
}

static void reply(struct request *r)
{
	struct call *c = r->c;
	bool failed = r->ret < 0 && r->ret >= -4095;
	msgpack_packer *pk = call_reply(c, r->is_ioctl ? 4 : 3);

	pack_str(pk, "ret");
	msgpack_pack_int64(pk, failed ? -1 : r->ret);
	pack_str(pk, "errno");
	msgpack_pack_int64(pk, failed ? -r->ret : 0);
	if (r->is_ioctl) {
		pack_str(pk, "data");
		if (r->has_data)
			pack_bin(pk, arena_buf(&r->arena, 0), r->arena.len[0]);
		else
			msgpack_pack_nil(pk);
	}
	pack_str(pk, "bufs");
	msgpack_pack_array(pk, r->arena.n - r->first);
	for (uint32_t i = r->first; i < r->arena.n; i++)
		pack_bin(pk, arena_buf(&r->arena, i), r->arena.len[i]);
	request_free(r);
	call_reply_end(c);
}

/* ---- parameters ---- */

static const msgpack_object *const *list_items(struct args *a, const msgpack_object *first,
	const msgpack_object_array *bufs, uint32_t *n)
{
	uint32_t k = 0, size = bufs ? bufs->size : 0;
	const msgpack_object **items = msgpack_zone_malloc(a->zone, (size + 1) * sizeof(*items));

	if (!items) {
		args_refuse(a, "`bufs`: no memory for so many");
		*n = 0;
		return NULL;
	}
	if (first)
		items[k++] = first;
	for (uint32_t i = 0; i < size; i++)
		items[k++] = &bufs->ptr[i];
	*n = k;
	return items;
}

static size_t parse_align(struct args *a)
{
	int64_t align = args_opt_int(a, "align", ALIGN_DEFAULT, 1, ALIGN_MAX);

	if (align & (align - 1))
		args_refuse(a, "`align` should be a power of two, it is %lld", (long long)align);
	return (size_t)align;
}

/* Writes the address of one buffer into another. */
static void patch(struct request *r, struct args *a, const char *what, uint64_t parent, uint64_t child,
	uint64_t off)
{
	uintptr_t addr;

	if (parent >= r->arena.n || child >= r->arena.n) {
		args_refuse(a, "`%s`: there is no such buffer", what);
		return;
	}
	if (off > r->arena.len[parent] || r->arena.len[parent] - off < sizeof(addr)) {
		args_refuse(a, "`%s`: no room for an address at offset %llu of a buffer of %zu bytes", what,
			(unsigned long long)off, r->arena.len[parent]);
		return;
	}
	addr = (uintptr_t)arena_buf(&r->arena, (uint32_t)child);
	memcpy(arena_buf(&r->arena, (uint32_t)parent) + off, &addr, sizeof(addr));
}

static void parse_nested(struct request *r, struct args *a)
{
	const msgpack_object_array *list = args_opt_array(a, "nested");
	const msgpack_object_array *t;

	for (uint32_t i = 0; list && i < list->size; i++) {
		t = &list->ptr[i].via.array;
		if (list->ptr[i].type != MSGPACK_OBJECT_ARRAY || t->size != 3) {
			args_refuse(a, "`nested`: each should be [parent, child, offset]");
			return;
		}
		patch(r, a, "nested", args_as_word(a, &t->ptr[0], "nested"),
			args_as_word(a, &t->ptr[1], "nested"), args_as_word(a, &t->ptr[2], "nested"));
	}
}

static void parse_ptrs(struct request *r, struct args *a)
{
	const msgpack_object_array *ptrs = args_opt_array(a, "ptrs");
	int64_t slot;

	if (ptrs && ptrs->size > r->arena.n)
		args_refuse(a, "`ptrs` has more elements than `bufs`");
	for (uint32_t i = 0; ptrs && i < ptrs->size && !a->problem[0]; i++) {
		slot = (int64_t)args_as_word(a, &ptrs->ptr[i], "ptrs");
		if (slot < -1 || slot > 5)
			args_refuse(a, "`ptrs`: a slot is 0 to 5, or -1 for none");
		else if (slot >= 0)
			r->args[slot] = (long)arena_buf(&r->arena, i);
	}
}

static void parse_syscall(struct request *r, struct args *a, int *err)
{
	const msgpack_object_array *args = args_opt_array(a, "args"), *bufs = args_opt_array(a, "bufs");
	const msgpack_object *const *items;
	size_t align = parse_align(a);
	uint32_t n;

	r->nr = (long)args_word(a, "nr");
	if (args && args->size > 6)
		args_refuse(a, "`args`: a system call has at most six");
	for (uint32_t i = 0; args && i < args->size && i < 6; i++)
		r->args[i] = (long)args_as_word(a, &args->ptr[i], "args");
	items = list_items(a, NULL, bufs, &n);
	if (a->problem[0])
		return;
	*err = arena_build(&r->arena, a, items, n, align);
	if (*err || a->problem[0])
		return;
	parse_nested(r, a);
	parse_ptrs(r, a);
}

/* True when it may run; else the call is over. */
static bool parsed(struct request *r, int err)
{
	struct call *c = r->c;

	if (!err && !c->args.problem[0])
		return true;
	request_free(r);
	if (!call_refused(c))
		call_errno(c, err);
	return false;
}

/* ---- syscall ---- */

static void start_async(struct request *r, int64_t timeout)
{
	struct call *c = r->c;
	int err;

	r->job.run = async_run;
	r->job.done = async_done;
	ev_timer_init(&r->timeout, async_timeout, r);
	err = job_start(executor_jobs(c->x), &r->job);
	if (err) {
		request_free(r);
		call_errno(c, err);
		return;
	}
	c->state = r;
	c->cbs = &async_cbs;
	if (timeout)
		ev_timer_set(call_ev(c), &r->timeout, timeout);
}

static void async_run(struct job *j)
{
	struct request *r = (struct request *)j;

	r->ret = raw_call(r->nr, r->args);
}

static void async_done(struct job *j)
{
	struct request *r = (struct request *)j;

	ev_timer_clear(&r->timeout);
	if (r->c)
		reply(r);
	else
		request_free(r);
}

static void async_timeout(void *arg)
{
	struct request *r = arg;
	struct call *c = r->c;

	r->c = NULL;
	job_abandon(&r->job);
	call_errno(c, ETIMEDOUT);
}

static void async_cancel(struct call *c)
{
	struct request *r = c->state;

	r->c = NULL;
	ev_timer_clear(&r->timeout);
	job_abandon(&r->job);
}

void op_syscall(struct call *c)
{
	struct request *r = xcalloc(1, sizeof(*r));
	bool async = args_flag(&c->args, "async");
	int64_t timeout = args_opt_int(&c->args, "timeout", 0, 1, INT64_MAX);
	int err = 0;

	r->c = c;
	if (timeout && !async)
		args_refuse(&c->args,
			"`timeout` needs `async`: nothing can stop a call on the executor's own thread");
	parse_syscall(r, &c->args, &err);
	if (!parsed(r, err))
		return;
	if (async) {
		start_async(r, timeout);
		return;
	}
	r->ret = raw_call(r->nr, r->args);
	reply(r);
}

/* ---- ioctl ---- */

static void parse_ioctl(struct request *r, struct args *a, int *err)
{
	const msgpack_object_array *bufs = args_opt_array(a, "bufs");
	const msgpack_object_array *offsets = args_opt_array(a, "ptr_offsets");
	const msgpack_object *data = args_find(a, "data");
	const msgpack_object *const *items;
	uint32_t n;

	r->is_ioctl = true;
	r->nr = SYS_ioctl;
	r->args[0] = (long)args_int(a, "fd", -1, INT32_MAX);
	r->args[1] = (long)args_word(a, "cmd");
	r->has_data = data && (data->type == MSGPACK_OBJECT_BIN || data->type == MSGPACK_OBJECT_STR);
	r->first = r->has_data;
	if (data && !r->has_data)
		r->args[2] = (long)args_as_word(a, data, "data");
	if (offsets && (!r->has_data || !bufs || offsets->size > bufs->size))
		args_refuse(a, "`ptr_offsets` needs `data` as bytes and as many `bufs`");
	items = list_items(a, r->has_data ? data : NULL, bufs, &n);
	if (a->problem[0])
		return;
	*err = arena_build(&r->arena, a, items, n, ALIGN_DEFAULT);
	if (*err || a->problem[0])
		return;
	if (r->has_data)
		r->args[2] = (long)arena_buf(&r->arena, 0);
	for (uint32_t i = 0; offsets && i < offsets->size; i++)
		patch(r, a, "ptr_offsets", 0, i + 1, args_as_word(a, &offsets->ptr[i], "ptr_offsets"));
}

void op_ioctl(struct call *c)
{
	struct request *r = xcalloc(1, sizeof(*r));
	int err = 0;

	r->c = c;
	parse_ioctl(r, &c->args, &err);
	if (!parsed(r, err))
		return;
	r->ret = raw_call(r->nr, r->args);
	reply(r);
}

static const struct call_cbs async_cbs = {.cancel = async_cancel};
