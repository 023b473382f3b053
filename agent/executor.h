/*
 * An executor: a process with one epoll loop that carries out requests of one channel.
 */
#ifndef PROVIUM_AGENT_EXECUTOR_H
#define PROVIUM_AGENT_EXECUTOR_H

#include <stdint.h>

struct executor;
struct ev;

/* Serves the channel over fd until the mux closes it; returns the exit status. Its handles are above `handles`: one
 * that replaces a dead executor must not give a meaning to the handles of that. */
int executor_main(int fd, uint32_t channel, uint32_t handles);
struct ev *executor_ev(const struct executor *x);

/* Things with handles that belong to an executor: processes and open files share one numbering. */
uint32_t executor_new_handle(struct executor *x);

/* What the families of requests keep for an executor (created in executor_main, never freed). */
struct processes;
struct files;
struct jobs;
struct processes *executor_processes(const struct executor *x);
struct files *executor_files(const struct executor *x);
struct jobs *executor_jobs(const struct executor *x);

#endif
