/*
 * The marked blocks in files of /etc that tell names: hosts and resolv.conf.
 */
#ifndef PROVIUM_AGENT_HOSTS_H
#define PROVIUM_AGENT_HOSTS_H

/* Each replaces the block of its file, or makes it; "" takes it out. What is outside of it stays. 0 or -errno. */
int hosts_write(const char *block);
int resolv_write(const char *block);

#endif
