/*
 * provium list and provium prepare: what needs no VM.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "run/build.h"
#include "run/commands.h"
#include "run/discover.h"

static void built_cb(void *arg, const struct err *e);
static void interrupted_cb(evutil_socket_t sig, short what, void *arg);

static void print_names(const struct args *a, const struct found_files *found)
{
	json_t *list = json_array();
	size_t n = 0;
	char *text;

	for (size_t i = 0; i < found->n; i++) {
		if (a->filter && !strstr(found->v[i].rel, a->filter))
			continue;
		n++;
		if (a->json)
			json_array_append_new(list, json_string(found->v[i].shown));
		else
			printf("%s\n", found->v[i].shown);
	}
	if (a->json) {
		text = json_dumps(list, JSON_COMPACT);
		printf("%s\n", text);
		free(text);
	} else {
		printf("%zu %s%s\n", n, a->fixtures ? "fixture" : "test file", n == 1 ? "" : "s");
	}
	json_decref(list);
}

int command_list(const struct args *a)
{
	struct found_files found = { 0 };
	struct err e = ERR_INIT;
	struct config *c = config_load(a->config, &e);

	if (c && discover_files(a->paths.v, config_roots(c), a->fixtures ? FIXTURE_SUFFIX : TEST_SUFFIX,
			&found, &e) == 0)
		print_names(a, &found);
	found_files_release(&found);
	config_free(c);
	return err_is_set(&e) ? command_fail(&e) : EXIT_OK;
}

/* ---- prepare ---- */

struct preparation {
	struct loop *loop;
	struct build *build;
	struct err err;
	int signal;
};

static void built_cb(void *arg, const struct err *e)
{
	struct preparation *p = arg;

	p->build = NULL;
	err_copy(&p->err, e);
	loop_stop(p->loop);
}

static void interrupted_cb(evutil_socket_t sig, short what, void *arg)
{
	struct preparation *p = arg;

	(void)what;
	p->signal = (int)sig;
	build_cancel(p->build);
	loop_stop(p->loop);
}

static int check_profile_name(const struct config *c, const char *name, struct err *e)
{
	const char *const *known = config_profile_names(c);
	const char *near = nearest_name(name, known);

	if (config_profile(c, name))
		return 0;
	return err_set(e, ENOENT, "no profile named `%s`%s%s%s", name, near ? ", did you mean `" : "", near ? near : "",
		near ? "`?" : "");
}

int command_prepare(const struct args *a)
{
	struct preparation p = { 0 };
	struct err e = ERR_INIT;
	struct config *c = config_load(a->config, &e);
	struct event *sigint, *sigterm;

	if (!c)
		return command_fail(&e);
	if (a->paths.n > 0 && check_profile_name(c, a->paths.v[0], &e) < 0) {
		config_free(c);
		return command_fail(&e);
	}
	p.loop = loop_new();
	sigint = evsignal_new(loop_base(p.loop), SIGINT, interrupted_cb, &p);
	sigterm = evsignal_new(loop_base(p.loop), SIGTERM, interrupted_cb, &p);
	evsignal_add(sigint, NULL);
	evsignal_add(sigterm, NULL);
	p.build = build_start(p.loop, c, a->paths.n ? a->paths.v : NULL, (a->quiet ? BUILD_QUIET : 0) | BUILD_VERBOSE,
		built_cb, &p);
	loop_run(p.loop);
	event_free(sigint);
	event_free(sigterm);
	loop_free(p.loop);
	config_free(c);
	if (p.signal)
		return 128 + p.signal;
	return err_is_set(&p.err) ? command_fail(&p.err) : EXIT_OK;
}
