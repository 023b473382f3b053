/*
 * The one table of requests that executors carry out.
 */
#include "ops.h"

const struct op op_table[] = {
	{.name = "syscall", .start = op_syscall},	/* first: there are most of these */
	{.name = "exec", .start = op_exec, .input = "stdin", .output = {NULL, "stdout", "stderr"}},
	{.name = "stat", .start = op_stat},
	{.name = "get_file", .start = op_get_file, .output = {"data"}},
	{.name = "put_file", .start = op_put_file, .input = "data"},
	{.name = "read", .start = op_read},
	{.name = "write", .start = op_write},
	{.name = "ioctl", .start = op_ioctl},
	{.name = "read_mem", .start = op_read_mem},
	{.name = "write_mem", .start = op_write_mem},
	{.name = "spawn", .start = op_spawn, .no_batch = true},
	{.name = "attach", .start = op_attach, .no_batch = true},
	{.name = "wait", .start = op_wait},
	{.name = "signal", .start = op_signal},
	{.name = "stdin", .start = op_stdin},
	{.name = "status", .start = op_status},
	{.name = "release", .start = op_release},
	{.name = "open", .start = op_open},
	{.name = "pread", .start = op_pread},
	{.name = "pwrite", .start = op_pwrite},
	{.name = "seek", .start = op_seek},
	{.name = "truncate", .start = op_truncate},
	{.name = "sync", .start = op_sync},
	{.name = "close", .start = op_close},
	{.name = "listdir", .start = op_listdir},
	{.name = "mkdir", .start = op_mkdir},
	{.name = "unlink", .start = op_unlink},
	{.name = "rename", .start = op_rename},
	{.name = "chmod", .start = op_chmod},
	{.name = "clock_get", .start = op_clock_get},
	{.name = "clock_set", .start = op_clock_set},
	{.name = "sleep", .start = op_sleep},
	{.name = "net_configure", .start = op_net_configure},
	{.name = "net_names", .start = op_net_names},
	{.name = "load_module", .start = op_load_module},
	{.name = "tail", .start = op_tail, .no_batch = true},
	{.name = "unsubscribe", .start = op_unsubscribe},
	{.name = "batch", .start = op_batch, .no_batch = true},
	{.name = NULL}
};
