/*
 * A fixture's key: from its sources, the profiles it can name and the files it depends on.
 */
#ifndef PROVIUM_RUN_FIXTUREKEY_H
#define PROVIUM_RUN_FIXTUREKEY_H

#include "run/config.h"
#include "run/keyjob.h"

/* The file of a fixture below the first root that has it; malloc'ed. NULL and *e, with the nearest names,
 * when there is none. */
char *fixture_find(const struct config *c, const char *name, struct err *e);

/* Starts to make the key: adds everything that is known without reading big files. The caller asks for it
 * with key_job_end. NULL and *e: a fixture is missing or cannot be read, or fixtures need one another in a
 * circle. Blocks for reading sources. */
struct key_job *fixture_key_new(const struct config *c, struct vmm *v, struct contents *contents,
	const char *name, struct err *e);

#endif
