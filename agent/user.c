/*
 * Users and groups as the guest's /etc/passwd and /etc/group have them.
 *
 * Read by hand: a static program cannot use the C library's name services.
 */
#include "user.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 7

/* Cuts a line at its colons; returns how many fields there are. */
static unsigned split(char *line, char *fields[FIELDS_MAX])
{
	unsigned n = 0;

	line[strcspn(line, "\n")] = '\0';
	while (n < FIELDS_MAX) {
		fields[n++] = line;
		line = strchr(line, ':');
		if (!line)
			break;
		*line++ = '\0';
	}
	return n;
}

static bool parse_id(const char *s, unsigned *id)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	v = strtoul(s, &end, 10);
	*id = (unsigned)v;
	return *end == '\0' && errno == 0 && v < 0xffffffffu;
}

static bool find_passwd(const char *name, const unsigned *uid, struct user *u)
{
	FILE *f = fopen("/etc/passwd", "re");
	char line[1024], *fields[FIELDS_MAX];
	unsigned line_uid, line_gid;
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (split(line, fields) < FIELDS_MAX || !parse_id(fields[2], &line_uid) ||
		    !parse_id(fields[3], &line_gid))
			continue;
		if (name ? strcmp(fields[0], name) != 0 : line_uid != *uid)
			continue;
		found = true;
		u->uid = line_uid;
		u->gid = line_gid;
		snprintf(u->name, sizeof(u->name), "%s", fields[0]);
		snprintf(u->home, sizeof(u->home), "%s", fields[5]);
		snprintf(u->shell, sizeof(u->shell), "%s", fields[6]);
	}
	if (f)
		fclose(f);
	return found;
}

static bool list_has(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (; *list; list += strcspn(list, ","), list += *list == ',')
		if (strcspn(list, ",") == n && strncmp(list, name, n) == 0)
			return true;
	return false;
}

static void find_groups(struct user *u)
{
	FILE *f = fopen("/etc/group", "re");
	char line[4096], *fields[FIELDS_MAX];
	unsigned gid;

	u->groups[u->ngroups++] = u->gid;
	while (f && fgets(line, sizeof(line), f)) {
		if (split(line, fields) < 4 || !parse_id(fields[2], &gid) || gid == u->gid)
			continue;
		if (list_has(fields[3], u->name) && u->ngroups < USER_GROUPS_MAX)
			u->groups[u->ngroups++] = gid;
	}
	if (f)
		fclose(f);
}

int user_find(const char *spec, struct user *u)
{
	char digits[32];
	const char *colon = strchr(spec, ':');
	unsigned uid, gid = 0;

	memset(u, 0, sizeof(*u));
	snprintf(digits, sizeof(digits), "%.*s", (int)(colon ? colon - spec : (long)strlen(spec)), spec);
	if (!parse_id(digits, &uid)) {
		if (!find_passwd(spec, NULL, u))
			return -ENOENT;
	} else {
		if (colon && !parse_id(colon + 1, &gid))
			return -ENOENT;
		u->uid = uid;
		u->gid = uid;
		find_passwd(NULL, &uid, u);
		if (colon)
			u->gid = gid;
	}
	find_groups(u);
	return 0;
}
