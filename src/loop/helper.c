/*
 * Heavy file work in a re-executed child of ourselves, so that the loop's thread never waits for a disk.
 *
 * The child is `provium --helper VERB ARGS...`. It says what went wrong as one line on stderr and
 * exits 1; helper_start turns that line into the error of its callback.
 */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop.h"

#define MAX_TABLES 8

static void helper_done(void *arg, const struct child_result *r);
static int verb_copy(int argc, char **argv, struct err *e);
static int verb_hash(int argc, char **argv, struct err *e);
static const struct helper_verb own_verbs[];

/* Owned by who started it until its callback is called or it is cancelled. */
struct helper {
	struct child *child;
	char *verb;
	void (*cb)(void *arg, const struct err *e);
	void *arg;
};

static const char *program = "/proc/self/exe";
static const struct helper_verb *tables[MAX_TABLES] = { own_verbs };
static size_t ntables = 1;

void helper_set_program(const char *path)
{
	program = path;
}

void helper_register(const struct helper_verb *verbs)
{
	size_t i;

	for (i = 0; i < ntables; i++)
		if (tables[i] == verbs)
			return;
	INVARIANT(ntables < MAX_TABLES);
	tables[ntables++] = verbs;
}

/* ---- our end ---- */

struct helper *helper_start(struct loop *l, const char *const *argv,
	void (*cb)(void *arg, const struct err *e), void *arg, struct err *e)
{
	return helper_start_fds(l, argv, NULL, 0, cb, arg, e);
}

struct helper *helper_start_fds(struct loop *l, const char *const *argv, const struct child_fd *fds, size_t nfds,
	void (*cb)(void *arg, const struct err *e), void *arg, struct err *e)
{
	struct helper *h = xcalloc(1, sizeof(*h));
	struct child_spec spec = { .fds = fds, .nfds = nfds, .capture_err = true, .own_group = true, .batch = true };
	const char **full;
	size_t n;

	for (n = 0; argv[n]; n++)
		;
	full = xcalloc(n + 3, sizeof(*full));
	full[0] = program;
	full[1] = "--helper";
	memcpy(full + 2, argv, n * sizeof(*full));

	h->verb = xstrdup(argv[0]);
	h->cb = cb;
	h->arg = arg;
	spec.argv = full;
	spec.done = helper_done;
	spec.arg = h;
	h->child = child_spawn(l, &spec, e);
	free(full);
	if (!h->child) {
		err_prefix(e, "helper `%s`", h->verb);
		free(h->verb);
		free(h);
		return NULL;
	}
	log_debug("helper", "arm %s pid %d", h->verb, (int)child_pid(h->child));
	return h;
}

static void helper_free(struct helper *h)
{
	child_free(h->child);
	free(h->verb);
	free(h);
}

void helper_cancel(struct helper *h)
{
	if (!h)
		return;
	log_debug("helper", "cancel %s", h->verb);
	helper_free(h);
}

static void helper_done(void *arg, const struct child_result *r)
{
	struct helper *h = arg;
	void (*cb)(void *, const struct err *) = h->cb;
	void *cb_arg = h->arg;
	struct err e = ERR_INIT;
	char text[64];
	size_t len = evbuffer_get_length(r->err);
	char *said = xstrndup(len ? (char *)evbuffer_pullup(r->err, -1) : "", len);

	said[strcspn(said, "\n")] = '\0';
	if (!r->signalled && r->code == 1 && *said)
		err_set(&e, EIO, "%s", said);
	else if (r->signalled || r->code)
		err_set(&e, EIO, "helper `%s` ended with %s%s%s", h->verb,
			child_result_text(r, text, sizeof(text)), *said ? ": " : "", said);
	log_debug("helper", "finish %s%s%s", h->verb, e.msg ? ": " : "", e.msg ? e.msg : "");
	helper_free(h);
	cb(cb_arg, err_is_set(&e) ? &e : NULL);
	err_release(&e);
	free(said);
}

/* ---- the other end ---- */

static const struct helper_verb *find_verb(const char *name)
{
	const struct helper_verb *v;
	size_t i;

	for (i = 0; i < ntables; i++)
		for (v = tables[i]; v->name; v++)
			if (!strcmp(v->name, name))
				return v;
	return NULL;
}

int helper_main(int argc, char **argv)
{
	const struct helper_verb *v = argc > 2 ? find_verb(argv[2]) : NULL;
	struct err e = ERR_INIT;
	char *p;

	if (!v) {
		fprintf(stderr, "provium: --helper: no verb `%s`\n", argc > 2 ? argv[2] : "");
		return 2;
	}
	if (v->run(argc - 2, argv + 2, &e) >= 0)
		return 0;
	for (p = e.msg; p && *p; p++)
		if (*p == '\n')
			*p = ' ';
	fprintf(stderr, "%s\n", e.msg ? e.msg : "it failed without saying why");
	err_release(&e);
	return 1;
}

/* copy SRC DST: DST becomes a whole, private, writable copy of SRC; holes stay holes. */
static int verb_copy(int argc, char **argv, struct err *e)
{
	struct outfile *o = NULL;
	struct stat st;
	int fd, rc;

	if (argc != 3)
		return err_set(e, EINVAL, "expected copy SRC DST");
	fd = open(argv[1], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st)) {
		rc = err_set(e, errno, "read `%s`: %s", argv[1], strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = err_set(e, EINVAL, "read `%s`: not a regular file", argv[1]);
		goto out;
	}
	o = outfile_open(argv[2], (uint64_t)st.st_blocks * 512, e);
	rc = o ? outfile_append(o, fd, argv[1], e) : e->code;
	if (rc)
		goto out;
	fchmod(outfile_fd(o), (st.st_mode & 0777) | 0600);
	rc = outfile_commit(o, false, e);
out:
	outfile_free(o);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int hash_file(const char *path, char *hex, struct err *e)
{
	uint8_t digest[SHA256_DIGEST_SIZE], *buf = xmalloc(1 << 20);
	struct sha256_ctx ctx;
	int i, rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	sha256_init(&ctx);
	while (fd >= 0 && ((n = read(fd, buf, 1 << 20)) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0)
			sha256_update(&ctx, n, buf);
	if (n < 0)
		rc = err_set(e, errno, "read `%s`: %s", path, strerror(errno));
	sha256_digest(&ctx, sizeof(digest), digest);
	for (i = 0; i < SHA256_DIGEST_SIZE; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	if (fd >= 0)
		close(fd);
	free(buf);
	return rc;
}

/* hash OUT FILE...: one line "SHA256  FILE" for each into the file OUT; "-" is stdout. */
static int verb_hash(int argc, char **argv, struct err *e)
{
	struct outfile *o = NULL;
	char hex[2 * SHA256_DIGEST_SIZE + 1];
	int i, rc = 0;

	if (argc < 2)
		return err_set(e, EINVAL, "expected hash OUT FILE...");
	if (strcmp(argv[1], "-") && !(o = outfile_open(argv[1], 0, e)))
		return e->code;
	for (i = 2; i < argc && !rc; i++) {
		char *line;

		rc = hash_file(argv[i], hex, e);
		if (rc)
			break;
		line = xasprintf("%s  %s\n", hex, argv[i]);
		if (o)
			rc = outfile_write(o, line, strlen(line), e);
		else
			fputs(line, stdout);
		free(line);
	}
	if (o && !rc)
		rc = outfile_commit(o, false, e);
	outfile_free(o);
	return rc;
}

static const struct helper_verb own_verbs[] = {
	{ "copy", verb_copy },
	{ "hash", verb_hash },
	{ NULL, NULL },
};
