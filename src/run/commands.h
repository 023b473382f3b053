/*
 * The subcommands: each returns the exit code.
 */
#ifndef PROVIUM_RUN_COMMANDS_H
#define PROVIUM_RUN_COMMANDS_H

#include "run/args.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_BROKEN = 2 };

int command_run(const struct args *a);
int command_list(const struct args *a);
int command_prepare(const struct args *a);
int command_fixture(const struct args *a);

/* Prints "provium: MESSAGE" on stderr, releases e and returns EXIT_BROKEN. */
int command_fail(struct err *e);

#endif
