/*
 * Loading a snapshot: QEMU's version is compared, changed pages are put in place, then the devices are loaded.
 *
 * Devices are last, because loading some of them looks into memory (virtio's queues). The commands are sent
 * without waiting for one another where nothing depends on their answers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/incoming.h"
#include "vmm/ramimage.h"

static void version_cb(void *arg, const json_t *result, const struct err *e);
static void capabilities_cb(void *arg, const json_t *result, const struct err *e);
static void applied_cb(void *arg, const struct err *e);
static void begun_cb(void *arg, const json_t *result, const struct err *e);
static void running_cb(void *arg, const json_t *result, const struct err *e);

/* Owned by its machine. */
struct incoming {
	struct incoming_spec spec;
	struct qmp_call *version, *capabilities, *begin, *cont;
	struct helper *helper;
	bool failed;
};

static void fail(struct incoming *i, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void fail(struct incoming *i, int code, const char *fmt, ...)
{
	struct err e = ERR_INIT;
	va_list ap;
	char *text;

	if (i->failed)
		return;
	i->failed = true;
	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	err_set(&e, code, "snapshot `%s`: %s", i->spec.image->pub.dir, text);
	free(text);
	i->spec.done(i->spec.arg, &e);
	err_release(&e);
}

static void apply_changes(struct incoming *i)
{
	char *file = image_path(i->spec.image->pub.dir, "changes"), ram[32];
	const char *argv[] = { "ram-apply", file, NULL };
	struct child_fd fds[] = { { -1, RAM_FD }, { -1, RAM_MEM_FD }, { -1, RAM_APPLY_MAPS_FD } };
	struct err e = ERR_INIT;

	snprintf(ram, sizeof(ram), "fd/%d", i->spec.ram_fd);
	fds[0].fd = ram_open_proc(i->spec.pid, ram, O_RDONLY, &e);
	fds[1].fd = ram_open_proc(i->spec.pid, "mem", O_RDWR, &e);
	fds[2].fd = ram_open_proc(i->spec.pid, "maps", O_RDONLY, &e);
	if (!err_is_set(&e))
		i->helper = helper_start_fds(i->spec.loop, argv, fds, 3, applied_cb, i, &e);
	if (!i->helper)
		fail(i, e.code, "%s", e.msg);
	for (size_t n = 0; n < 3; n++)
		if (fds[n].fd >= 0)
			close(fds[n].fd);
	err_release(&e);
	free(file);
}

static void begin(struct incoming *i)
{
	char uri[32];

	snprintf(uri, sizeof(uri), "fd:%d", i->spec.state_fd);
	i->begin = qmp_execute(i->spec.qmp, "migrate-incoming", json_pack("{s:s}", "uri", uri), begun_cb, i);
}

static void applied_cb(void *arg, const struct err *e)
{
	struct incoming *i = arg;

	i->helper = NULL;
	if (e)
		fail(i, ESTALE, "%s", e->msg);
	else
		begin(i);
}

static void version_cb(void *arg, const json_t *result, const struct err *e)
{
	struct incoming *i = arg;
	char *here = e ? NULL : image_qemu_version(result);

	i->version = NULL;
	if (e)
		fail(i, e->code, "%s", e->msg);
	else if (strcmp(here, i->spec.image->pub.qemu_version) != 0)
		fail(i, ESTALE, "it was made by QEMU %s, this is %s", i->spec.image->pub.qemu_version, here);
	else if (i->spec.image->changes)
		apply_changes(i);
	else
		begin(i);
	free(here);
}

static void capabilities_cb(void *arg, const json_t *result, const struct err *e)
{
	struct incoming *i = arg;

	(void)result;
	i->capabilities = NULL;
	if (e)
		fail(i, e->code, "%s", e->msg);
}

static void begun_cb(void *arg, const json_t *result, const struct err *e)
{
	struct incoming *i = arg;

	(void)result;
	i->begin = NULL;
	if (e)
		fail(i, ESTALE, "%s", e->msg);
}

static void running_cb(void *arg, const json_t *result, const struct err *e)
{
	struct incoming *i = arg;

	(void)result;
	i->cont = NULL;
	if (e)
		fail(i, e->code, "%s", e->msg);
	else
		i->spec.done(i->spec.arg, NULL);
}

void incoming_event(struct incoming *i, const char *name, const json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));

	if (strcmp(name, "MIGRATION") != 0 || !status || i->failed || i->cont)
		return;
	if (strcmp(status, "failed") == 0)
		fail(i, EIO, "QEMU could not load it");
	else if (strcmp(status, "completed") != 0)
		return;
	else if (i->spec.image->paused || i->spec.hold)
		i->spec.done(i->spec.arg, NULL);
	else
		i->cont = qmp_execute(i->spec.qmp, "cont", NULL, running_cb, i);
}

struct incoming *incoming_start(const struct incoming_spec *s)
{
	struct incoming *i = xcalloc(1, sizeof(*i));

	i->spec = *s;
	i->version = qmp_execute(s->qmp, "query-version", NULL, version_cb, i);
	i->capabilities = qmp_execute(s->qmp, "migrate-set-capabilities",
		json_pack("{s:[{s:s s:b}]}", "capabilities", "capability", "events", "state", 1),
		capabilities_cb, i);
	return i;
}

void incoming_free(struct incoming *i)
{
	if (!i)
		return;
	qmp_cancel(i->version);
	qmp_cancel(i->capabilities);
	qmp_cancel(i->begin);
	qmp_cancel(i->cont);
	helper_cancel(i->helper);
	loop_defer(i->spec.loop, free, i);
}
