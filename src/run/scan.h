/*
 * What a Lua source names in literals, found without running it: a lexer that knows comments and strings.
 */
#ifndef PROVIUM_RUN_SCAN_H
#define PROVIUM_RUN_SCAN_H

#include "loop/loop.h"

enum scan_kind { SCAN_END, SCAN_NAME, SCAN_STRING, SCAN_NUMBER, SCAN_SYMBOL };

struct scan_token {
	enum scan_kind kind;
	const char *text;	/* as written, in the source */
	size_t len;
	char *string;		/* SCAN_STRING: its value; the scanner's, until the next token */
	size_t string_len;
	int line;
};

/* Reads one source; the text is borrowed. */
struct scan;
struct scan *scan_new(const char *text, size_t len);
void scan_free(struct scan *s);
/* Comments and space are left out. Nothing fails: what cannot be a token is a symbol of one byte. */
const struct scan_token *scan_next(struct scan *s);

/*
 * Which of the known profiles (NULL-terminated) the test files name, themselves or through the modules they
 * require and the fixtures they use, both looked up below roots. Returns a NULL-terminated malloc'ed array of
 * entries of known, in its order, to be freed by the caller; NULL when it cannot be told (a computed name, a
 * file that cannot be read). Blocks for reading the sources: call it before the loop runs.
 */
const char **scan_profiles(const char *const *files, const char *const *roots, const char *const *known);

#endif
