/*
 * A fake QMP server at one end of a socketpair, in the loop of the test.
 */
#include <stdlib.h>
#include <string.h>

#include <event2/bufferevent.h>
#include <jansson.h>

#include "fake_qmp.h"

struct fake_qmp {
	struct bufferevent *bev;
	size_t commands;
	json_int_t held;
	struct { const char *command, *answer; } on[16];
	void (*watch)(void *arg, const char *command, const json_t *args);
	void *watch_arg;
};

void fake_qmp_on(struct fake_qmp *s, const char *command, const char *answer)
{
	size_t i = 0;

	while (s->on[i].command && strcmp(s->on[i].command, command) != 0)
		i++;
	INVARIANT(i < 16);
	s->on[i].command = command;
	s->on[i].answer = answer;
}

void fake_qmp_watch(struct fake_qmp *s, void (*fn)(void *arg, const char *command, const json_t *args), void *arg)
{
	s->watch = fn;
	s->watch_arg = arg;
}

void fake_qmp_hang_up(struct fake_qmp *s)
{
	if (s->bev)
		bufferevent_free(s->bev);
	s->bev = NULL;
}

void fake_qmp_send(struct fake_qmp *s, const char *text)
{
	bufferevent_write(s->bev, text, strlen(text));
}

static void answer(struct fake_qmp *s, json_int_t id, json_t *result)
{
	json_t *o = json_pack("{s:o, s:I}", "return", result, "id", id);
	char *text = json_dumps(o, 0);

	fake_qmp_send(s, text);
	fake_qmp_send(s, "\r\n");
	free(text);
	json_decref(o);
}

static const char *scripted(const struct fake_qmp *s, const char *name)
{
	for (size_t i = 0; i < 16 && s->on[i].command; i++)
		if (strcmp(s->on[i].command, name) == 0)
			return s->on[i].answer;
	return name;
}

static void execute(struct fake_qmp *s, const char *command, json_int_t id, json_t *args)
{
	const char *name = scripted(s, command);

	if (s->watch)
		s->watch(s->watch_arg, command, args);
	if (!s->bev)
		return;
	if (*name == '{') {
		answer(s, id, json_loads(name, 0, NULL));
		return;
	}
	if (strcmp(name, "hold") == 0) {
		s->held = id;
	} else if (strcmp(name, "garbage") == 0) {
		fake_qmp_send(s, "what?\n");
	} else if (strcmp(name, "hang-up") == 0) {
		fake_qmp_hang_up(s);
	} else if (strcmp(name, "fail") == 0) {
		char *text = xasprintf("{\"error\": {\"class\": \"DeviceNotFound\", "
			"\"desc\": \"no such device\"}, \"id\": %lld}\n", (long long)id);

		fake_qmp_send(s, text);
		free(text);
	} else {
		if (strcmp(name, "event") == 0)
			fake_qmp_send(s,
				"{\"event\": \"TEST\", \"data\": {\"n\": 7}, \"timestamp\": {}}\r\n");
		answer(s, id, args ? json_incref(args) : json_object());
		if (strcmp(name, "release") == 0)
			answer(s, s->held, json_string("held"));
	}
}

static void read_cb(struct bufferevent *bev, void *arg)
{
	struct fake_qmp *s = arg;
	char *line;

	while (s->bev && (line = evbuffer_readln(bufferevent_get_input(bev), NULL, EVBUFFER_EOL_LF))) {
		json_t *o = json_loads(line, 0, NULL);

		INVARIANT(o);
		s->commands++;
		execute(s, json_string_value(json_object_get(o, "execute")),
			json_integer_value(json_object_get(o, "id")), json_object_get(o, "arguments"));
		json_decref(o);
		free(line);
	}
}

struct fake_qmp *fake_qmp_new(struct loop *l, int fd, bool greet)
{
	struct fake_qmp *s = xcalloc(1, sizeof(*s));

	evutil_make_socket_nonblocking(fd);
	s->bev = bufferevent_socket_new(loop_base(l), fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_setcb(s->bev, read_cb, NULL, NULL, s);
	bufferevent_enable(s->bev, EV_READ | EV_WRITE);
	if (greet)
		fake_qmp_send(s, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
	return s;
}

size_t fake_qmp_commands(const struct fake_qmp *s)
{
	return s->commands;
}

void fake_qmp_free(struct fake_qmp *s)
{
	if (s->bev)
		bufferevent_free(s->bev);
	free(s);
}
