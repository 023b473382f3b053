/*
 * provium: argument parsing, subcommand dispatch, exit codes.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/build.h"
#include "run/commands.h"
#include "store/store.h"
#include "vmm/vmm.h"

#if LUA_VERSION_NUM < 504
#include <luajit.h>
#define LUA_NAME LUAJIT_VERSION
#else
#define LUA_NAME LUA_RELEASE
#endif

static int print_version(void)
{
	printf("provium %s (%s, libevent %s)\n", PACKAGE_VERSION, LUA_NAME, event_get_version());
	return EXIT_OK;
}

static int dispatch(const struct args *a)
{
	switch (a->command) {
	case CMD_LIST:
		return command_list(a);
	case CMD_PREPARE:
		return command_prepare(a);
	case CMD_FIXTURE:
		return command_fixture(a);
	case CMD_VERSION:
		return print_version();
	case CMD_HELP:
		args_usage(stdout, a->topic);
		return EXIT_OK;
	default:
		return command_run(a);
	}
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	struct args a;
	int r;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && strcmp(argv[1], "--helper") == 0) {
		helper_register(vmm_helper_verbs);
		helper_register(run_helper_verbs);
		helper_register(store_helper_verbs);
		return helper_main(argc, argv);
	}
	log_open(getenv("PROVIUM_LOG"));
	if (args_parse(argc, argv, &a, &e) < 0) {
		args_release(&a);
		return command_fail(&e);
	}
	if (a.note)
		fprintf(stderr, "provium: %s\n", a.note);
	r = dispatch(&a);
	args_release(&a);
	if (fflush(stdout) != 0 && r == EXIT_OK)
		r = EXIT_BROKEN;
	return r;
}
