/*
 * The marked block in /etc/hosts.
 */
#ifndef PROVIUM_AGENT_HOSTS_H
#define PROVIUM_AGENT_HOSTS_H

/* Replaces the block, or appends it; what is outside of it stays. 0 or -errno. */
int hosts_write(const char *block);

#endif
