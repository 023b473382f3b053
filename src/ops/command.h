/*
 * Commands in the guest: their arguments, input and exit, for run and run_async. Private to src/ops/.
 */
#ifndef PROVIUM_COMMAND_H
#define PROVIUM_COMMAND_H

#include "ops/target.h"

/* A checked command. Everything is borrowed from the Lua stack, where a userdata holds the packed request. */
struct command {
	const char *text;		/* the command as a person would write it */
	const msgpack_sbuffer *params;
	const char *stdin_data;		/* NULL: none */
	size_t stdin_len;
	bool has_max_output;
	uint64_t max_output;
};

/* Reads the command and its options from stack index 2 on; raises on misuse. what is "vm:run". */
void command_check(lua_State *L, const char *what, bool takes_timeout, struct command *c);

/* Data on its way to a command's stdin. */
struct command_input {
	char *data;
	size_t len, sent;
	bool wanted, ended;
};

void command_input_init(struct command_input *in, const char *data, size_t len);
/* Sends what the credit allows; call again when writable. */
void command_input_feed(struct command_input *in, struct agent_call *call);
void command_input_release(struct command_input *in);

struct command_exit {
	const char *status;		/* "exited", "signalled", "timed_out" */
	int code, signal;
	double duration;		/* seconds */
};

void command_exit_decode(const msgpack_object *o, struct command_exit *ex);
/* Pushes a RunResult without stdout and stderr. */
void command_result_push(lua_State *L, const struct command_exit *ex, const char *text);

#endif
