/*
 * The file with what failed last time: a JSON array of canonical paths.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run/rerun.h"

char *rerun_path(void)
{
	const char *given = getenv("PROVIUM_RERUN_STATE"), *home = getenv("HOME");

	if (given && *given)
		return xstrdup(given);
	if (home && *home)
		return xasprintf("%s/.cache/provium/rerun.json", home);
	return xstrdup("/tmp/provium-rerun.json");
}

static int not_a_state(const char *path, const char *why, struct err *e)
{
	return err_set(e, EINVAL, "read `%s`: expected a JSON array of paths: %s; remove it to begin anew",
		path, why);
}

static int take_paths(const json_t *array, const char *path, char ***paths, size_t *n, struct err *e)
{
	const json_t *item;
	size_t i;

	*paths = xcalloc(json_array_size(array) + 1, sizeof(**paths));
	json_array_foreach(array, i, item) {
		if (!json_is_string(item)) {
			rerun_free(*paths, *n);
			*paths = NULL;
			*n = 0;
			return not_a_state(path, "it holds something else", e);
		}
		(*paths)[(*n)++] = xstrdup(json_string_value(item));
	}
	return 1;
}

static int read_state(int fd, const char *path, char ***paths, size_t *n, struct err *e)
{
	json_error_t problem;
	struct stat st;
	json_t *array;
	char *why;
	int rc;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return not_a_state(path, "not a regular file", e);
	array = json_loadfd(fd, 0, &problem);
	if (!array) {
		why = xasprintf("line %d: %s", problem.line, problem.text);
		rc = not_a_state(path, why, e);
		free(why);
		return rc;
	}
	rc = json_is_array(array) ? take_paths(array, path, paths, n, e) : not_a_state(path, "it is none", e);
	json_decref(array);
	return rc;
}

int rerun_load(char ***paths, size_t *n, struct err *e)
{
	char *path = rerun_path();
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;

	*paths = NULL;
	*n = 0;
	if (fd >= 0)
		rc = read_state(fd, path, paths, n, e);
	else if (errno != ENOENT)
		rc = err_set(e, errno, "read `%s`: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	free(path);
	return rc;
}

void rerun_free(char **paths, size_t n)
{
	while (n > 0)
		free(paths[--n]);
	free(paths);
}

static int write_state(const char *path, const char *text, struct err *e)
{
	char *dir = xstrdup(path), *slash = strrchr(dir, '/');
	struct outfile *o = NULL;
	int rc = 0;

	if (slash && slash != dir) {
		*slash = '\0';
		rc = make_dirs(dir, 0755, e);
	}
	if (!rc) {
		o = outfile_open(path, strlen(text) + 1, e);
		rc = o ? outfile_write(o, text, strlen(text), e) : -1;
	}
	if (!rc)
		rc = outfile_write(o, "\n", 1, e);
	if (!rc)
		rc = outfile_commit(o, false, e);
	outfile_free(o);
	free(dir);
	return rc;
}

int rerun_save(const char *const *paths, size_t n, struct err *e)
{
	const char *odd = NULL;
	char *path, *text;
	json_t *array;
	size_t i;
	int rc;

	if (n == 0)
		return 0;
	array = json_array();
	for (i = 0; i < n; i++) {
		json_t *item = json_string(paths[i]);

		if (item)
			json_array_append_new(array, item);
		else
			odd = paths[i];
	}
	text = json_dumps(array, JSON_INDENT(2));
	json_decref(array);
	path = rerun_path();
	rc = write_state(path, text, e);
	if (!rc && odd)
		rc = err_set(e, EILSEQ, "write `%s`: `%s` is left out, its name is not UTF-8", path, odd);
	free(text);
	free(path);
	return rc;
}
