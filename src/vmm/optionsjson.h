/*
 * Boot options as JSON, for a snapshot's meta.json.
 */
#ifndef PROVIUM_VMM_OPTIONSJSON_H
#define PROVIUM_VMM_OPTIONSJSON_H

#include <jansson.h>

#include "vmm/vmm.h"

/* A new reference. What is unset is left out. */
json_t *options_to_json(const struct vm_options *o);
/* Fills *o, which must be empty; release it also after a failure. */
int options_from_json(struct vm_options *o, const json_t *j, struct err *e);

#endif
