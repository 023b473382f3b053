/*
 * The handlers of all requests that executors carry out, one family a file; ops.c has the table.
 */
#ifndef PROVIUM_AGENT_OPS_H
#define PROVIUM_AGENT_OPS_H

#include "call.h"

/* exec.c */
void op_exec(struct call *c);
void op_spawn(struct call *c);
void op_attach(struct call *c);
void op_wait(struct call *c);
void op_signal(struct call *c);
void op_stdin(struct call *c);
void op_status(struct call *c);
void op_release(struct call *c);
void op_unsubscribe(struct call *c);
/* file.c */
void op_open(struct call *c);
void op_read(struct call *c);
void op_write(struct call *c);
void op_pread(struct call *c);
void op_pwrite(struct call *c);
void op_seek(struct call *c);
void op_truncate(struct call *c);
void op_sync(struct call *c);
void op_close(struct call *c);
/* transfer.c */
void op_get_file(struct call *c);
void op_put_file(struct call *c);
/* fs.c */
void op_stat(struct call *c);
void op_listdir(struct call *c);
void op_mkdir(struct call *c);
void op_unlink(struct call *c);
void op_rename(struct call *c);
void op_chmod(struct call *c);
/* syscall.c */
void op_syscall(struct call *c);
void op_ioctl(struct call *c);
/* memory.c */
void op_read_mem(struct call *c);
void op_write_mem(struct call *c);
/* clock.c */
void op_clock_get(struct call *c);
void op_clock_set(struct call *c);
void op_sleep(struct call *c);
/* netconf.c */
void op_net_configure(struct call *c);
void op_net_names(struct call *c);
/* module.c */
void op_load_module(struct call *c);
/* tail.c */
void op_tail(struct call *c);
/* batch.c */
void op_batch(struct call *c);

#endif
