/*
 * Boot options as JSON and back. Bytes that need not be UTF-8 (a file's content, a path) are base64.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/base64.h>

#include "vmm/optionsjson.h"

static json_t *bytes_json(const void *data, size_t len)
{
	char *text = xmalloc(BASE64_ENCODE_RAW_LENGTH(len) + 1);
	json_t *j;

	base64_encode_raw(text, len, data);
	j = json_stringn(text, BASE64_ENCODE_RAW_LENGTH(len));
	free(text);
	return j;
}

/* malloc'ed with a NUL behind it, NULL when it is none. */
static char *json_bytes(const json_t *j, size_t *len)
{
	size_t n = json_string_length(j);
	struct base64_decode_ctx ctx;
	uint8_t *out;

	if (!json_is_string(j))
		return NULL;
	out = xmalloc(BASE64_DECODE_LENGTH(n) + 1);
	base64_decode_init(&ctx);
	*len = 0;
	if (!base64_decode_update(&ctx, len, out, n, json_string_value(j)) || !base64_decode_final(&ctx)) {
		free(out);
		return NULL;
	}
	out[*len] = 0;
	return (char *)out;
}

static void set_text(json_t *o, const char *key, const char *text)
{
	if (text)
		json_object_set_new(o, key, bytes_json(text, strlen(text)));
}

static char *get_text(const json_t *o, const char *key)
{
	size_t len;

	return json_bytes(json_object_get(o, key), &len);
}

static void set_integer(json_t *o, const char *key, uint64_t n)
{
	if (n)
		json_object_set_new(o, key, json_integer((json_int_t)n));
}

static uint64_t get_integer(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static json_t *files_json(const struct file_spec *files, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *f = json_object();

		set_text(f, "path", files[i].path);
		set_text(f, "host", files[i].host);
		set_integer(f, "mode", files[i].mode);
		if (files[i].content)
			json_object_set_new(f, "content", bytes_json(files[i].content, files[i].content_len));
		json_array_append_new(list, f);
	}
	return list;
}

static json_t *disks_json(const struct disk_spec *disks, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *d = json_object();

		set_text(d, "id", disks[i].id);
		set_text(d, "path", disks[i].path);
		set_text(d, "template", disks[i].template);
		set_text(d, "format", disks[i].format);
		set_integer(d, "scratch", disks[i].scratch);
		json_object_set_new(d, "readonly", json_boolean(disks[i].readonly));
		json_object_set_new(d, "direct", json_boolean(disks[i].direct));
		json_array_append_new(list, d);
	}
	return list;
}

json_t *options_to_json(const struct vm_options *o)
{
	json_t *j = json_object();

	set_integer(j, "memory", o->memory);
	set_integer(j, "cpus", o->cpus);
	set_text(j, "cmdline", o->cmdline);
	set_text(j, "cmdline_append", o->cmdline_append);
	if (o->has_rng_seed)	/* the bits of it: JSON's integers are signed */
		json_object_set_new(j, "rng_seed", json_integer((json_int_t)o->rng_seed));
	if (o->has_initial_time)
		json_object_set_new(j, "initial_time", json_real(o->initial_time));
	if (o->nfiles)
		json_object_set_new(j, "files", files_json(o->files, o->nfiles));
	if (o->ndisks)
		json_object_set_new(j, "disks", disks_json(o->disks, o->ndisks));
	set_integer(j, "agent_timeout", (uint64_t)o->agent_timeout);
	set_text(j, "expect", o->expect);
	set_text(j, "machine", o->machine);
	if (o->qemu_args) {
		json_t *list = json_array();

		for (char **a = o->qemu_args; *a; a++)
			json_array_append_new(list, bytes_json(*a, strlen(*a)));
		json_object_set_new(j, "qemu_args", list);
	}
	return j;
}

static int files_from_json(struct vm_options *o, const json_t *list, struct err *e)
{
	size_t i;
	json_t *f;

	o->files = xcalloc(json_array_size(list) + 1, sizeof(*o->files));
	json_array_foreach(list, i, f) {
		struct file_spec *s = &o->files[o->nfiles++];

		s->path = get_text(f, "path");
		s->host = get_text(f, "host");
		s->mode = (unsigned)get_integer(f, "mode");
		if (json_object_get(f, "content"))
			s->content = json_bytes(json_object_get(f, "content"), &s->content_len);
		if (!s->path || (!s->host && !s->content))
			return err_set(e, EINVAL, "a file of its boot options is damaged");
	}
	return 0;
}

static int disks_from_json(struct vm_options *o, const json_t *list, struct err *e)
{
	size_t i;
	json_t *d;

	o->disks = xcalloc(json_array_size(list) + 1, sizeof(*o->disks));
	json_array_foreach(list, i, d) {
		struct disk_spec *s = &o->disks[o->ndisks++];

		s->id = get_text(d, "id");
		s->path = get_text(d, "path");
		s->template = get_text(d, "template");
		s->format = get_text(d, "format");
		s->scratch = get_integer(d, "scratch");
		s->readonly = json_is_true(json_object_get(d, "readonly"));
		s->direct = json_is_true(json_object_get(d, "direct"));
		if (!s->path && !s->template && !s->scratch)
			return err_set(e, EINVAL, "a disk of its boot options is damaged");
	}
	return 0;
}

int options_from_json(struct vm_options *o, const json_t *j, struct err *e)
{
	const json_t *args = json_object_get(j, "qemu_args"), *item;
	size_t i;

	if (!json_is_object(j))
		return err_set(e, EINVAL, "its boot options are missing");
	o->memory = get_integer(j, "memory");
	o->cpus = (unsigned)get_integer(j, "cpus");
	o->cmdline = get_text(j, "cmdline");
	o->cmdline_append = get_text(j, "cmdline_append");
	o->has_rng_seed = json_object_get(j, "rng_seed") != NULL;
	o->rng_seed = get_integer(j, "rng_seed");
	o->has_initial_time = json_object_get(j, "initial_time") != NULL;
	o->initial_time = json_number_value(json_object_get(j, "initial_time"));
	o->agent_timeout = (int64_t)get_integer(j, "agent_timeout");
	o->expect = get_text(j, "expect");
	o->machine = get_text(j, "machine");
	if (args) {
		o->qemu_args = xcalloc(json_array_size(args) + 1, sizeof(*o->qemu_args));
		json_array_foreach(args, i, item) {
			size_t len;

			o->qemu_args[i] = json_bytes(item, &len);
			if (!o->qemu_args[i])
				return err_set(e, EINVAL, "an argument for QEMU in its boot options is damaged");
		}
	}
	if (files_from_json(o, json_object_get(j, "files"), e) < 0)
		return e->code;
	return disks_from_json(o, json_object_get(j, "disks"), e);
}
