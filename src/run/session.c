/*
 * What runs share: how a session gets its VMs and fixtures.
 */
#include <stdio.h>
#include <stdlib.h>

#include "run/hostlimits.h"
#include "run/testfile.h"

#define SPARES 4	/* QEMUs started ahead, for snapshots that are restored again and again */

static void notice(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "provium: %s\n", text);
}

/* They wait in what nobody else wants: a spare holds no share, and takes little before it is used. */
static bool has_room(void *arg, uint64_t memory, unsigned cpus)
{
	struct session *s = arg;
	struct amount left = { 0 };

	if (s->pool)
		left = pool_left(s->pool);
	return left.memory >= memory && left.cpus >= cpus;
}

/* $PROVIUM_SPARES, 0 to have none. */
static unsigned spares_wanted(void)
{
	const char *text = getenv("PROVIUM_SPARES");

	return text && *text ? (unsigned)strtoul(text, NULL, 10) : SPARES;
}

int session_start_vmm(struct session *s, enum vmm_kind kind, enum accel accel, struct err *e)
{
	char *cache = config_cache_home(), *dir = xasprintf("%s/provium", cache), *agent = host_agent_path();
	struct vmm_config c = {
		.kind = kind, .accel = accel, .qemu = getenv("PROVIUM_QEMU"), .cache_dir = dir, .agent = agent,
		.notice = notice, .spares = spares_wanted(), .spare_room = has_room, .arg = s,
	};

	s->vmm = vmm_new(s->loop, &c, e);
	if (s->vmm)
		s->fixtures = fixtures_new(s);
	free(agent);
	free(dir);
	free(cache);
	return s->vmm ? 0 : e->code;
}

void session_release(struct session *s)
{
	fixtures_free(s->fixtures);
	pool_free(s->pool);
	vmm_free(s->vmm);
	filter_free(s->filter);
}
