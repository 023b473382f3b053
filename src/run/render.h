/*
 * What a run prints: plain text or one JSON object a line.
 */
#ifndef PROVIUM_RUN_RENDER_H
#define PROVIUM_RUN_RENDER_H

#include <stdio.h>

#include "run/args.h"
#include "run/result.h"

/* Counts over all files, for the summary and the exit code. */
struct totals {
	unsigned files, passed, failed, skipped, failed_files;
};

struct render;

/* args is borrowed; expected is the number of files, in whose order results are printed unless out is a terminal or
 * -v is given: then they are printed as they come. */
struct render *render_new(FILE *out, const struct args *args, size_t expected);
void render_free(struct render *r);
/* index: of the file in the order of input. r's strings are read now, or kept until their turn: ownership moves. */
void render_file(struct render *r, size_t index, struct file_result *result);
/* Prints what is still held back, and the summary. */
void render_end(struct render *r, int64_t duration_ns);
const struct totals *render_totals(const struct render *r);
/* No file was found. */
void render_nothing(FILE *out, const struct args *args);

/* One file as the JSON object of --json (renderjson.c). */
void render_json_file(FILE *out, const struct file_result *f);

#endif
