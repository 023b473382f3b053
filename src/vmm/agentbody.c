/*
 * Reading the bodies of the agent's frames: text and errors.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/protocol.h"
#include "loop/pack.h"
#include "vmm/agentcall.h"

#define MESSAGE_MAX 4096
#define KIND_MAX 64
#define ERRNO_MAX 4095

char *body_text(const msgpack_object *o, size_t max)
{
	size_t len;
	char *s;

	/* str and bin are laid out alike in msgpack_object. */
	if (!o || (o->type != MSGPACK_OBJECT_STR && o->type != MSGPACK_OBJECT_BIN))
		return NULL;
	len = o->via.str.size < max ? o->via.str.size : max;
	s = xmalloc(len + 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)o->via.str.ptr[i];

		s[i] = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : (char)c;
	}
	s[len] = '\0';
	return s;
}

static bool is_errno(const msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 > 0 && o->via.u64 <= ERRNO_MAX;
}

int body_error(const msgpack_object *body, struct err *failure, struct err *breach)
{
	const msgpack_object *number = map_get(body, "errno");
	char *message = body_text(map_get(body, "message"), MESSAGE_MAX);
	char *kind = body_text(map_get(body, "kind"), KIND_MAX);
	int r = 0;

	if (!message)
		r = err_set(breach, EPROTO, "an error without a message");
	else if (is_errno(number))
		err_set(failure, (int)number->via.u64, "os: %s (errno %d)", message, (int)number->via.u64);
	else if (number || !kind)
		r = err_set(breach, EPROTO, "an error with neither a valid errno nor a kind");
	else
		err_set(failure, strcmp(kind, WIRE_UNSUPPORTED) == 0 ? ENOTSUP : EPROTO, "agent: %s",
			message);
	free(message);
	free(kind);
	return r;
}
