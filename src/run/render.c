/*
 * The plain output: a line for each file, its failures below, a summary.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run/render.h"

struct render {
	FILE *out;
	const struct args *args;
	bool color, as_they_come;
	struct file_result **held;	/* by input index, until their turn */
	size_t expected, next;
	struct totals totals;
};

static bool want_color(FILE *out, const struct args *args)
{
	const char *no_color = getenv("NO_COLOR"), *clicolor = getenv("CLICOLOR");

	return !args->no_color && !(no_color && *no_color) && !(clicolor && strcmp(clicolor, "0") == 0) &&
		isatty(fileno(out));
}

struct render *render_new(FILE *out, const struct args *args, size_t expected)
{
	struct render *r = xcalloc(1, sizeof(*r));

	r->out = out;
	r->args = args;
	r->color = want_color(out, args);
	r->as_they_come = args->verbose || isatty(fileno(out));
	r->expected = expected;
	r->held = xcalloc(expected + 1, sizeof(*r->held));
	return r;
}

void render_free(struct render *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->expected; i++)
		file_result_free(r->held[i]);
	free(r->held);
	free(r);
}

/* "PASS" and the like, coloured where that is wanted. */
static void print_word(struct render *r, const char *word)
{
	const char *color = strcmp(word, "PASS") == 0 ? "\033[32m" : strcmp(word, "SKIP") == 0 ? "\033[33m" : "\033[31m";

	if (r->color)
		fprintf(r->out, "%s%s\033[0m", color, word);
	else
		fputs(word, r->out);
}

static void print_indented(struct render *r, const char *text, const char *indent)
{
	while (text && *text) {
		size_t n = strcspn(text, "\n");

		fprintf(r->out, "%s%.*s\n", n ? indent : "", (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static void print_failure(struct render *r, const struct test_result *t)
{
	fputs("    ", r->out);
	print_word(r, "FAIL");
	fprintf(r->out, " %s\n", t->name);
	print_indented(r, t->reason, "        ");
	print_indented(r, t->where, "        ");
	for (size_t i = 0; i < t->nlog; i++)
		print_indented(r, t->log[i], "        | ");
	if (r->args->verbose) {
		print_indented(r, t->traceback, "          ");
		print_indented(r, t->console, "        > ");
	}
	if (t->artifacts_dir)
		fprintf(r->out, "        artifacts: %s\n", t->artifacts_dir);
}

static void print_test(struct render *r, const struct test_result *t)
{
	if (!t->over)
		return;
	switch (t->status) {
	case TEST_FAILED:
		print_failure(r, t);
		break;
	case TEST_PASSED:
		if (!r->args->verbose && !(t->flaky && !r->args->quiet))
			break;
		fputs("    ", r->out);
		print_word(r, "PASS");
		fprintf(r->out, " %s (%.2fs)%s\n", t->name, (double)t->duration_ns / 1e9,
			t->flaky ? " flaky: it failed before it passed" : "");
		break;
	case TEST_SKIPPED:
		if (!r->args->verbose)
			break;
		fputs("    ", r->out);
		print_word(r, "SKIP");
		fprintf(r->out, " %s (%s)\n", t->name, t->reason ? t->reason : "");
		break;
	}
}

static void print_plain(struct render *r, const struct file_result *f)
{
	bool failed = file_result_failed(f);

	if (r->args->quiet && !failed)
		return;
	print_word(r, f->timed_out ? "TIME" : failed ? "FAIL" : "PASS");
	if (f->chunk_error && f->ntests == 0)
		fprintf(r->out, " %s\n", f->path);
	else
		fprintf(r->out, " %s (%u passed, %u failed, %u skipped)\n", f->path,
			file_result_count(f, TEST_PASSED), file_result_count(f, TEST_FAILED),
			file_result_count(f, TEST_SKIPPED));
	print_indented(r, f->chunk_error, "    ");
	for (size_t i = 0; i < f->ntests; i++)
		print_test(r, &f->tests[i]);
}

static void print_file(struct render *r, const struct file_result *f)
{
	if (r->args->json)
		render_json_file(r->out, f);
	else
		print_plain(r, f);
	fflush(r->out);
}

void render_file(struct render *r, size_t index, struct file_result *f)
{
	r->totals.files++;
	r->totals.passed += file_result_count(f, TEST_PASSED);
	r->totals.failed += file_result_count(f, TEST_FAILED);
	r->totals.skipped += file_result_count(f, TEST_SKIPPED);
	r->totals.failed_files += file_result_failed(f);
	if (r->as_they_come) {
		print_file(r, f);
		file_result_free(f);
		return;
	}
	r->held[index] = f;
	while (r->next < r->expected && r->held[r->next]) {
		print_file(r, r->held[r->next]);
		file_result_free(r->held[r->next]);
		r->held[r->next++] = NULL;
	}
}

void render_end(struct render *r, int64_t duration_ns)
{
	for (size_t i = r->next; i < r->expected; i++)
		if (r->held[i])
			print_file(r, r->held[i]);
	if (!r->args->json)
		fprintf(r->out, "\n%u file(s); %u passed, %u failed, %u skipped; %.2fs\n", r->totals.files,
			r->totals.passed, r->totals.failed, r->totals.skipped, (double)duration_ns / 1e9);
	fflush(r->out);
}

const struct totals *render_totals(const struct render *r)
{
	return &r->totals;
}

void render_nothing(FILE *out, const struct args *args)
{
	if (args->json)
		fputs("{\"type\":\"no_files\",\"message\":\"no *.test.lua files found\"}\n", out);
	else
		fputs("provium: no *.test.lua files found\n", out);
	fflush(out);
}
