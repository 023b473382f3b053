/*
 * What files hold: hashes remembered by device, inode, size and mtime, made in a helper.
 *
 * The memory is a text file, one line "DEVICE INODE SIZE MTIME_NS SHA256" for each file, those used last at
 * the end. The helper verb `contents PATH...` answers with lines of the same form on descriptor 3, or "-
 * REASON", one for each PATH.
 */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/priv.h"

static void hashed_cb(void *arg, const struct err *e);
static void tell_cb(evutil_socket_t fd, short what, void *arg);

#define MEMORY_MAX ((size_t)4096)	/* files */
#define REMEMBER_AFTER 2		/* seconds since a file's last change */
#define ANSWER_FD 3

struct known {
	unsigned long long dev, ino, size;
	long long mtime_ns;
	char sha[KEY_SIZE];
};

struct contents {
	struct loop *loop;
	char *memory;
	bool loaded;
	struct known *v;	/* those used last at the end */
	size_t n;
};

/* Freed by its owner. */
struct contents_job {
	struct contents *contents;
	char **paths, **results;
	size_t n;
	struct helper *helper;
	int answer;		/* memfd of the helper's answers, -1 without helper */
	struct event *tell;
	struct err err;
	void (*cb)(void *arg, const struct err *e);
	void *arg;
};

struct contents *contents_new(struct loop *l, const char *memory)
{
	struct contents *c = xcalloc(1, sizeof(*c));

	c->loop = l;
	c->memory = xstrdup(memory);
	return c;
}

void contents_free(struct contents *c)
{
	if (!c)
		return;
	free(c->memory);
	free(c->v);
	free(c);
}

/* ---- the memory ---- */

static long long mtime_ns(const struct stat *st)
{
	return (long long)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static bool parse_known(const char *line, struct known *k)
{
	return sscanf(line, "%llu %llu %llu %lld %64[0-9a-f]", &k->dev, &k->ino, &k->size, &k->mtime_ns,
		k->sha) == 5 && strlen(k->sha) == KEY_SIZE - 1;
}

static bool same_file(const struct known *a, const struct known *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

/* Replaces what was known of the file before. */
static void remember(struct contents *c, const struct known *k)
{
	for (size_t i = 0; i < c->n; i++) {
		if (!same_file(&c->v[i], k))
			continue;
		memmove(&c->v[i], &c->v[i + 1], (c->n - i - 1) * sizeof(*c->v));
		c->n--;
		break;
	}
	c->v = xrealloc(c->v, (c->n + 1) * sizeof(*c->v));
	c->v[c->n++] = *k;
}

static void load(struct contents *c)
{
	FILE *f = c->memory ? fopen(c->memory, "re") : NULL;
	struct known k;
	char line[256];

	c->n = 0;
	while (f && fgets(line, sizeof(line), f))
		if (parse_known(line, &k)) {
			c->v = xrealloc(c->v, (c->n + 1) * sizeof(*c->v));
			c->v[c->n++] = k;
		}
	if (f)
		fclose(f);
	c->loaded = true;
}

/* What other processes have learnt meanwhile is kept. A memory that cannot be written costs time, nothing
 * else. */
static void save(struct contents *c, const struct known *news, size_t n)
{
	struct outfile *o;
	char *line, *dir, *slash;
	struct err e = ERR_INIT;
	int r = 0;

	load(c);
	for (size_t i = 0; i < n; i++)
		remember(c, &news[i]);
	if (!c->memory || n == 0)
		return;
	dir = xstrdup(c->memory);
	slash = strrchr(dir, '/');
	if (slash && slash > dir) {
		*slash = '\0';
		make_dirs(dir, 0755, NULL);
	}
	free(dir);
	o = outfile_open(c->memory, 0, &e);
	for (size_t i = c->n > MEMORY_MAX ? c->n - MEMORY_MAX : 0; o && r == 0 && i < c->n; i++) {
		const struct known *k = &c->v[i];

		line = xasprintf("%llu %llu %llu %lld %s\n", k->dev, k->ino, k->size, k->mtime_ns, k->sha);
		r = outfile_write(o, line, strlen(line), &e);
		free(line);
	}
	if (o && r == 0)
		outfile_commit(o, false, &e);
	outfile_free(o);
	if (err_is_set(&e))
		log_debug("contents", "%s", e.msg);
	err_release(&e);
}

static const char *recall(const struct contents *c, const struct stat *st)
{
	for (size_t i = c->n; i-- > 0; ) {
		const struct known *k = &c->v[i];

		if (k->ino == st->st_ino && k->dev == st->st_dev && k->size == (unsigned long long)st->st_size &&
		    k->mtime_ns == mtime_ns(st))
			return k->sha;
	}
	return NULL;
}

/* ---- a job ---- */

/* Fills in what needs no reading; returns how many files are left. */
static size_t look_up(struct contents_job *j)
{
	size_t left = 0;

	for (size_t i = 0; i < j->n; i++) {
		const char *sha;
		struct stat st;

		if (stat(j->paths[i], &st) < 0) {
			j->results[i] = xstrdup(strerror(errno));
		} else if (!S_ISREG(st.st_mode)) {
			j->results[i] = xstrdup("not a regular file");
		} else if ((sha = recall(j->contents, &st))) {
			j->results[i] = xstrdup(sha);
		} else {
			left++;
		}
	}
	return left;
}

static void start_helper(struct contents_job *j, size_t left)
{
	const char **argv = xcalloc(left + 2, sizeof(*argv));
	struct child_fd answer = { 0, ANSWER_FD };
	size_t n = 0;

	argv[n++] = "contents";
	for (size_t i = 0; i < j->n; i++)
		if (!j->results[i])
			argv[n++] = j->paths[i];
	j->answer = memfd_create("contents", MFD_CLOEXEC);
	answer.fd = j->answer;
	if (j->answer < 0)
		err_set(&j->err, errno, "memfd_create: %s", strerror(errno));
	else
		j->helper = helper_start_fds(j->contents->loop, argv, &answer, 1, hashed_cb, j, &j->err);
	free(argv);
}

struct contents_job *contents_look(struct contents *c, const char *const *paths, size_t n,
	void (*cb)(void *arg, const struct err *e), void *arg)
{
	struct contents_job *j = xcalloc(1, sizeof(*j));
	size_t left;

	j->contents = c;
	j->cb = cb;
	j->arg = arg;
	j->answer = -1;
	j->n = n;
	j->paths = xcalloc(n + 1, sizeof(*j->paths));
	j->results = xcalloc(n + 1, sizeof(*j->results));
	for (size_t i = 0; i < n; i++)
		j->paths[i] = xstrdup(paths[i]);
	if (!c->loaded)
		load(c);
	left = look_up(j);
	if (left > 0)
		start_helper(j, left);
	if (!j->helper)
		timer_start(c->loop, &j->tell, 0, tell_cb, j);
	return j;
}

static void tell_cb(evutil_socket_t fd, short what, void *arg)
{
	struct contents_job *j = arg;

	(void)fd, (void)what;
	timer_stop(&j->tell);
	j->cb(j->arg, err_is_set(&j->err) ? &j->err : NULL);
}

/* The answers come in the order of the paths that had no result. */
static void read_answers(struct contents_job *j)
{
	int fd = dup(j->answer);
	FILE *f = fd >= 0 && lseek(fd, 0, SEEK_SET) == 0 ? fdopen(fd, "r") : NULL;
	struct known *news = xcalloc(j->n + 1, sizeof(*news)), k;
	size_t nnews = 0;
	char line[512];

	for (size_t i = 0; i < j->n; i++) {
		if (j->results[i])
			continue;
		if (!f || !fgets(line, sizeof(line), f))
			break;
		line[strcspn(line, "\n")] = '\0';
		if (!parse_known(line, &k)) {
			j->results[i] = xstrdup(strncmp(line, "- ", 2) == 0 ? line + 2 : line);
			continue;
		}
		j->results[i] = xstrdup(k.sha);
		if (time(NULL) - k.mtime_ns / 1000000000 > REMEMBER_AFTER)
			news[nnews++] = k;
	}
	if (f)
		fclose(f);
	else if (fd >= 0)
		close(fd);
	save(j->contents, news, nnews);
	free(news);
}

static void hashed_cb(void *arg, const struct err *e)
{
	struct contents_job *j = arg;

	j->helper = NULL;
	if (!e)
		read_answers(j);
	j->cb(j->arg, e);
}

const char *contents_of(const struct contents_job *j, size_t i)
{
	return j->results[i] ? j->results[i] : "unknown";
}

void contents_job_free(struct contents_job *j)
{
	if (!j)
		return;
	timer_stop(&j->tell);
	helper_cancel(j->helper);
	if (j->answer >= 0)
		close(j->answer);
	for (size_t i = 0; i < j->n; i++) {
		free(j->paths[i]);
		free(j->results[i]);
	}
	free(j->paths);
	free(j->results);
	err_release(&j->err);
	free(j);
}

/* ---- the other end ---- */

static int hash_fd(int fd, char sha[KEY_SIZE])
{
	uint8_t digest[SHA256_DIGEST_SIZE], *buf = xmalloc(1 << 20);
	struct sha256_ctx ctx;
	ssize_t n;

	sha256_init(&ctx);
	while ((n = read(fd, buf, 1 << 20)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			sha256_update(&ctx, n, buf);
	free(buf);
	sha256_digest(&ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(sha + 2 * i, 3, "%02x", digest[i]);
	return n < 0 ? -1 : 0;
}

/* One that changes while it is read is known by its state before: the next look reads it again. */
static void answer(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char sha[KEY_SIZE];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || hash_fd(fd, sha) < 0)
		dprintf(ANSWER_FD, "- %s\n", strerror(errno));
	else
		dprintf(ANSWER_FD, "%llu %llu %llu %lld %s\n", (unsigned long long)st.st_dev,
			(unsigned long long)st.st_ino, (unsigned long long)st.st_size, mtime_ns(&st), sha);
	if (fd >= 0)
		close(fd);
}

int verb_contents(int argc, char **argv, struct err *e)
{
	(void)e;
	for (int i = 1; i < argc; i++)
		answer(argv[i]);
	return 0;
}
