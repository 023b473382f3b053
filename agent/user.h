/*
 * Users and groups as the guest's /etc/passwd and /etc/group have them.
 */
#ifndef PROVIUM_AGENT_USER_H
#define PROVIUM_AGENT_USER_H

#include <sys/types.h>

#define USER_GROUPS_MAX 64

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_GROUPS_MAX];
	size_t ngroups;
	char name[64], home[256], shell[256];	/* "" when not known */
};

/* spec: a name, or uid[:gid] in digits. 0, or -ENOENT when there is no such user. */
int user_find(const char *spec, struct user *u);

#endif
