/*
 * The real agent as a child of a test, and a blocking client that speaks frames with it.
 */
#include "agent_rig.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "agent/wire.h"

#define PATIENCE 30	/* seconds that an answer may take */

/* A frame that came while another one was waited for. */
struct rig_frame {
	struct rig_frame *next;
	msgpack_unpacked u;
};

const char *agent_rig_program(void)
{
	const char *path = getenv("PROVIUM_AGENT");

	return path && access(path, X_OK) == 0 ? path : NULL;
}

static void run_agent(int fd, const char *const *args)
{
	const char *argv[16] = {agent_rig_program(), "--fd", NULL};
	char number[16];
	int n = 3;

	snprintf(number, sizeof(number), "%d", fd);
	argv[2] = number;
	while (args && *args)
		argv[n++] = *args++;
	argv[n] = NULL;
	fcntl(fd, F_SETFD, 0);
	execv(argv[0], (char **)argv);
	_exit(127);
}

struct agent_rig *agent_rig_new(const char *const *args)
{
	struct timeval limit = {.tv_sec = PATIENCE};
	struct agent_rig *a = calloc(1, sizeof(*a));
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	a->pid = fork();
	if (a->pid == 0)
		run_agent(sv[1], args);
	close(sv[1]);
	a->fd = sv[0];
	setsockopt(a->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	agent_rig_sync(a);
	return a;
}

static void clear_streams(struct agent_rig *a)
{
	for (unsigned i = 0; i < 3; i++) {
		free(a->out[i].data);
		a->out[i] = (struct rig_stream){.data = calloc(1, 1)};
	}
}

int agent_rig_free(struct agent_rig *a)
{
	struct rig_frame *f;
	int wstatus;

	close(a->fd);
	assert_int_equal(waitpid(a->pid, &wstatus, 0), a->pid);
	while ((f = a->kept)) {
		a->kept = f->next;
		msgpack_unpacked_destroy(&f->u);
		free(f);
	}
	for (unsigned i = 0; i < 3; i++)
		free(a->out[i].data);
	free(a->in);
	free(a->text);
	free(a);
	return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : 128 + WTERMSIG(wstatus);
}

/* ---- to the agent ---- */

void agent_rig_raw(struct agent_rig *a, const void *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(a->fd, data, len, MSG_NOSIGNAL);

		assert_true(n > 0);
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

static void pack_json(msgpack_packer *pk, json_t *v)
{
	const char *key;
	json_t *child;
	size_t i;

	if (json_is_object(v)) {
		msgpack_pack_map(pk, json_object_size(v));
		json_object_foreach(v, key, child) {
			msgpack_pack_str_with_body(pk, key, strlen(key));
			pack_json(pk, child);
		}
	} else if (json_is_array(v)) {
		msgpack_pack_array(pk, json_array_size(v));
		json_array_foreach(v, i, child)
			pack_json(pk, child);
	} else if (json_is_string(v)) {
		msgpack_pack_str_with_body(pk, json_string_value(v), json_string_length(v));
	} else if (json_is_integer(v)) {
		msgpack_pack_int64(pk, json_integer_value(v));
	} else if (json_is_real(v)) {
		msgpack_pack_double(pk, json_real_value(v));
	} else if (json_is_boolean(v)) {
		json_is_true(v) ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	} else {
		msgpack_pack_nil(pk);
	}
}

static void pack_text(msgpack_packer *pk, const char *text)
{
	char *copy = strdup(text);
	json_error_t e;
	json_t *v;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	v = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
	if (!v)
		fail_msg("%s: %s", text, e.text);
	pack_json(pk, v);
	json_decref(v);
	free(copy);
}

static void begin(msgpack_packer *pk, msgpack_sbuffer *b, unsigned type, unsigned channel, uint32_t id)
{
	msgpack_sbuffer_init(b);
	msgpack_packer_init(pk, b, msgpack_sbuffer_write);
	msgpack_pack_array(pk, 4);
	msgpack_pack_uint32(pk, type);
	msgpack_pack_uint32(pk, channel);
	msgpack_pack_uint32(pk, id);
}

static void finish(struct agent_rig *a, msgpack_sbuffer *b)
{
	uint8_t length[4];

	wire_put_u32(length, (uint32_t)b->size);
	agent_rig_raw(a, length, 4);
	agent_rig_raw(a, b->data, b->size);
	msgpack_sbuffer_destroy(b);
}

void agent_rig_frame(struct agent_rig *a, unsigned type, unsigned channel, uint32_t id, const char *json)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	begin(&pk, &b, type, channel, id);
	pack_text(&pk, json);
	finish(a, &b);
}

void agent_rig_event(struct agent_rig *a, uint32_t id, const void *data, size_t len)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	begin(&pk, &b, WIRE_EVENT, WIRE_MAIN, id);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_int(&pk, 0);
	if (data)
		msgpack_pack_bin_with_body(&pk, data, len);
	else
		msgpack_pack_nil(&pk);
	finish(a, &b);
}

uint32_t agent_rig_request(struct agent_rig *a, unsigned channel, const char *op, const char *json)
{
	msgpack_sbuffer b;
	msgpack_packer pk;

	begin(&pk, &b, WIRE_REQUEST, channel, ++a->last_id);
	msgpack_pack_array(&pk, 2);
	msgpack_pack_str_with_body(&pk, op, strlen(op));
	pack_text(&pk, json);
	finish(a, &b);
	return a->last_id;
}

static void give_credit(struct agent_rig *a, uint32_t id, unsigned channel, unsigned stream, size_t n)
{
	char body[64];

	snprintf(body, sizeof(body), "[%u,%zu]", stream, n);
	if (!a->no_credit && n)
		agent_rig_frame(a, WIRE_CREDIT, channel, id, body);
}

/* ---- from the agent ---- */

/* False at the end of the connection. */
static bool read_more(struct agent_rig *a)
{
	ssize_t n;

	if (a->in_cap - a->in_len < 65536) {
		a->in_cap += 1 << 20;
		a->in = realloc(a->in, a->in_cap);
	}
	n = recv(a->fd, a->in + a->in_len, a->in_cap - a->in_len, 0);
	if (n < 0)
		fail_msg("the agent has been silent for %d s", PATIENCE);
	a->in_len += (size_t)n;
	return n > 0;
}

static void consume(struct agent_rig *a, size_t n)
{
	memmove(a->in, a->in + n, a->in_len - n);
	a->in_len -= n;
}

void agent_rig_sync(struct agent_rig *a)
{
	agent_rig_sync_after(a, "", 0);
}

void agent_rig_sync_after(struct agent_rig *a, const void *data, size_t len)
{
	static unsigned count;
	char mark[WIRE_SYNC_LEN + 1], all[256];
	uint8_t *p;

	memcpy(mark, WIRE_SYNC_MAGIC, WIRE_SYNC_MAGIC_LEN);
	snprintf(mark + WIRE_SYNC_MAGIC_LEN, 17, "mark %10u!", ++count);
	assert_true(len + WIRE_SYNC_LEN <= sizeof(all));
	memcpy(all, data, len);
	memcpy(all + len, mark, WIRE_SYNC_LEN);
	agent_rig_raw(a, all, len + WIRE_SYNC_LEN);
	while (!(p = a->in_len ? memmem(a->in, a->in_len, mark, WIRE_SYNC_LEN) : NULL))
		assert_true(read_more(a));
	consume(a, (size_t)(p - a->in) + WIRE_SYNC_LEN);
	clear_streams(a);
}

static bool read_frame(struct agent_rig *a, msgpack_unpacked *u)
{
	const char *why;
	uint32_t n;
	char *copy;

	while (a->in_len < 4 || a->in_len < 4 + (size_t)wire_get_u32(a->in))
		if (!read_more(a))
			return false;
	n = wire_get_u32(a->in);
	if (wire_check_frame(a->in + 4, n, &why) < 0)
		fail_msg("the agent sent a bad frame: %s", why);
	copy = malloc(n);	/* strings stay where they were found */
	memcpy(copy, a->in + 4, n);
	consume(a, 4 + n);
	msgpack_unpacked_init(u);
	assert_int_equal(msgpack_unpack_next(u, copy, n, NULL), MSGPACK_UNPACK_SUCCESS);
	assert_true(msgpack_zone_push_finalizer(u->zone, free, copy));
	return true;
}

/* ---- rendering ---- */

static void render_bytes(FILE *f, char quote, const char *p, size_t n)
{
	fputc(quote, f);
	for (size_t i = 0; i < n; i++) {
		if (p[i] >= ' ' && p[i] < 127 && p[i] != '\\')
			fputc(p[i], f);
		else
			fprintf(f, "\\x%02x", (unsigned char)p[i]);
	}
	fputc(quote, f);
}

static void render(FILE *f, const msgpack_object *o)
{
	switch (o->type) {
	case MSGPACK_OBJECT_BIN:
		fputc('b', f);
		render_bytes(f, '"', o->via.bin.ptr, o->via.bin.size);
		break;
	case MSGPACK_OBJECT_STR:
		render_bytes(f, '\'', o->via.str.ptr, o->via.str.size);
		break;
	case MSGPACK_OBJECT_ARRAY:
		for (uint32_t i = 0; i < o->via.array.size; i++) {
			fputc(i ? ',' : '(', f);
			render(f, &o->via.array.ptr[i]);
		}
		fputs(o->via.array.size ? ")" : "()", f);
		break;
	case MSGPACK_OBJECT_MAP:
		fputc('{', f);
		for (uint32_t i = 0; i < o->via.map.size; i++) {
			const msgpack_object_str *key = &o->via.map.ptr[i].key.via.str;

			fprintf(f, "%s%.*s:", i ? "," : "", (int)key->size, key->ptr);
			render(f, &o->via.map.ptr[i].val);
		}
		fputc('}', f);
		break;
	default:
		msgpack_object_print(f, *o);
	}
}

static const char *show(struct agent_rig *a, const char *prefix, const msgpack_object *o)
{
	size_t size;
	FILE *f;

	free(a->text);
	f = open_memstream(&a->text, &size);
	fputs(prefix, f);
	render(f, o);
	fclose(f);
	return a->text;
}

const char *agent_rig_next(struct agent_rig *a)
{
	struct rig_frame *f = a->kept;
	msgpack_unpacked u;

	if (f) {
		a->kept = f->next;
		u = f->u;
		free(f);
	} else if (!read_frame(a, &u)) {
		return NULL;
	}
	show(a, "", &u.data);
	msgpack_unpacked_destroy(&u);
	return a->text;
}

/* Puts an event into a->out. True when it was one. */
static bool gather(struct agent_rig *a, const msgpack_object *frame)
{
	const msgpack_object *body = &frame[3].via.array.ptr[0];
	unsigned stream;

	if (frame[0].via.u64 != WIRE_EVENT)
		return frame[0].via.u64 == WIRE_CREDIT;
	stream = (unsigned)body[0].via.u64;
	assert_in_range(stream, 0, 2);
	assert_false(a->out[stream].ended);
	if (body[1].type == MSGPACK_OBJECT_NIL) {
		a->out[stream].ended = true;
		return true;
	}
	struct rig_stream *s = &a->out[stream];

	s->data = realloc(s->data, s->len + body[1].via.bin.size + 1);
	memcpy(s->data + s->len, body[1].via.bin.ptr, body[1].via.bin.size);
	s->len += body[1].via.bin.size;
	s->data[s->len] = '\0';
	give_credit(a, (uint32_t)frame[2].via.u64, (unsigned)frame[1].via.u64, stream, body[1].via.bin.size);
	return true;
}

/* The next frame of this request: a kept one, or one from the connection. */
static bool take(struct agent_rig *a, uint32_t id, msgpack_unpacked *u)
{
	struct rig_frame **p, *f;

	for (p = &a->kept; (f = *p); p = &f->next) {
		if (f->u.data.via.array.ptr[2].via.u64 != id)
			continue;
		*p = f->next;
		*u = f->u;
		free(f);
		return true;
	}
	while (read_frame(a, u)) {
		if (u->data.via.array.ptr[2].via.u64 == id)
			return true;
		f = calloc(1, sizeof(*f));
		f->u = *u;
		*p = f;
		p = &f->next;
	}
	return false;
}

const char *agent_rig_answer(struct agent_rig *a, uint32_t id)
{
	const msgpack_object *frame;
	msgpack_unpacked u;

	clear_streams(a);
	for (;;) {
		if (!take(a, id, &u))
			fail_msg("the agent hung up");
		frame = u.data.via.array.ptr;
		if (!gather(a, frame))
			break;
		msgpack_unpacked_destroy(&u);
	}
	show(a, frame[0].via.u64 == WIRE_REPLY ? "ok " : "error ", &frame[3]);
	msgpack_unpacked_destroy(&u);
	return a->text;
}

const char *agent_rig_call(struct agent_rig *a, const char *op, const char *json)
{
	return agent_rig_answer(a, agent_rig_request(a, WIRE_MAIN, op, json));
}

bool agent_rig_more(struct agent_rig *a, uint32_t id, unsigned stream)
{
	size_t before = a->out[stream].len;
	msgpack_unpacked u;

	while (a->out[stream].len == before && !a->out[stream].ended) {
		if (!take(a, id, &u))
			fail_msg("the agent hung up");
		assert_true(gather(a, u.data.via.array.ptr));
		msgpack_unpacked_destroy(&u);
	}
	return a->out[stream].len > before;
}

void agent_rig_expect(const char *text, const char *pattern)
{
	if (!text)
		fail_msg("the agent hung up, expected %s", pattern);
	if (fnmatch(pattern, text, FNM_NOESCAPE) != 0)
		fail_msg("got      %s\nexpected %s", text, pattern);
}
