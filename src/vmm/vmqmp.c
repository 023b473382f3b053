/*
 * vm:qmp(), the escape hatch: any command, as JSON text in and out.
 */
#include <errno.h>
#include <stdlib.h>

#include "vmm/vmpriv.h"

static void done_cb(void *arg, const json_t *result, const struct err *e);

/* Freed after its callback, or by vm_qmp_cancel. */
struct vm_qmp_call {
	struct qmp_call *call;
	vm_qmp_fn *cb;
	void *arg;
};

static void done_cb(void *arg, const json_t *result, const struct err *e)
{
	struct vm_qmp_call *c = arg;
	char *text = e ? NULL : json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);

	c->cb(c->arg, text, e);
	free(text);
	free(c);
}

struct vm_qmp_call *vm_qmp(struct vm *vm, const char *command, const char *args, vm_qmp_fn *cb, void *arg,
	struct err *e)
{
	struct qmp *q = vm_qmp_connection(vm, e);
	struct vm_qmp_call *c;
	json_error_t je;
	json_t *o = NULL;

	if (!q)
		return NULL;
	if (args) {
		o = json_loads(args, 0, &je);
		if (!json_is_object(o)) {
			err_set(e, EINVAL, "qmp `%s`: the arguments are not a JSON object: %s", command,
				args);
			json_decref(o);
			return NULL;
		}
	}
	c = xcalloc(1, sizeof(*c));
	c->cb = cb;
	c->arg = arg;
	c->call = qmp_execute(q, command, o, done_cb, c);
	return c;
}

void vm_qmp_cancel(struct vm_qmp_call *c)
{
	if (!c)
		return;
	qmp_cancel(c->call);
	free(c);
}
