/*
 * Which tests of a file run: the per-test flags of the command line against a test's meta table.
 */
#ifndef PROVIUM_RUN_FILTER_H
#define PROVIUM_RUN_FILTER_H

#include "run/args.h"

struct filter;

/* args is borrowed for the filter's life. */
struct filter *filter_new(const struct args *args);
void filter_free(struct filter *f);
/*
 * Why the test is left out, valid until the next call; NULL when it runs. meta is the stack index of a table
 * or nil. In order: meta.skip, slow, --no-tag, --tag, --no-tag-meta, --tag-meta, --test. Never raises, leaves
 * the stack as it was.
 */
const char *filter_reason(struct filter *f, lua_State *L, const char *name, int meta);
/* Sets PROVIUM_TEST_FILTER for child tools: a JSON object with include_slow, tags, no_tags, tag_meta,
 * no_tag_meta (arrays of values by key) and tests. */
void filter_export(const struct args *args);

#endif
