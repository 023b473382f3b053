/*
 * --json: one file's result as one object on one line.
 */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "run/render.h"

/* Messages may quote a guest's bytes; JSON strings are UTF-8, so what is not is shown as escapes. */
static json_t *text_or_null(const char *s)
{
	json_t *j;
	char *shown, *p;

	if (!s)
		return json_null();
	j = json_string(s);
	if (j)
		return j;
	p = shown = xmalloc(strlen(s) * 4 + 1);
	for (; *s; s++)
		if ((unsigned char)*s < 0x80)
			*p++ = *s;
		else
			p += sprintf(p, "\\x%02x", (unsigned char)*s);
	*p = '\0';
	j = json_string(shown);
	free(shown);
	return j;
}

static json_t *test_object(const struct test_result *t)
{
	static const char *const names[] = { "passed", "failed", "skipped" };
	json_t *log = json_array();

	for (size_t i = 0; i < t->nlog; i++)
		json_array_append_new(log, text_or_null(t->log[i]));
	return json_pack("{so ss so so sI}", "name", text_or_null(t->name), "status", names[t->status],
		"message", text_or_null(t->reason), "log", log, "duration_ms", (json_int_t)(t->duration_ns / 1000000));
}

void render_json_file(FILE *out, const struct file_result *f)
{
	json_t *tests = json_array(), *o;
	char *text;

	for (size_t i = 0; i < f->ntests; i++)
		if (f->tests[i].over)
			json_array_append_new(tests, test_object(&f->tests[i]));
	o = json_pack("{so ss sb so so sI}", "path", text_or_null(f->path), "timeout",
		f->timed_out ? "timed_out" : "in_time", "passed", !file_result_failed(f),
		"chunk_error", text_or_null(f->chunk_error), "tests", tests,
		"duration_ms", (json_int_t)(f->duration_ns / 1000000));
	text = json_dumps(o, JSON_COMPACT);
	fprintf(out, "%s\n", text);
	free(text);
	json_decref(o);
}
