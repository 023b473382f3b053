/*
 * Loading kernel modules.
 */
#ifndef PROVIUM_AGENT_MODULE_H
#define PROVIUM_AGENT_MODULE_H

/* 0 (also when it is loaded already) or -errno. */
int module_load(const char *path, const char *params);

#endif
