/*
 * The real agent as a child of a test, and a blocking client that speaks frames with it.
 *
 * Parameters and bodies are written as JSON with single quotes. What the agent sends is rendered as text that
 * tells the types apart: (1,'text',b"bytes",{key:nil}).
 */
#ifndef PROVIUM_AGENT_RIG_H
#define PROVIUM_AGENT_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct rig_stream {
	char *data;		/* NUL-terminated for convenience */
	size_t len;
	bool ended;
};

struct agent_rig {
	int fd;
	pid_t pid;
	uint32_t last_id;
	bool no_credit;		/* answer() returns none */
	struct rig_stream out[3];	/* what the last answer() gathered */
	struct rig_frame *kept;
	uint8_t *in;
	size_t in_len, in_cap;
	char *text;		/* what was returned last */
};

/* $PROVIUM_AGENT, or NULL when there is none to test. */
const char *agent_rig_program(void);
/* Starts the agent on a socketpair and syncs. args: more options, NULL-terminated, or NULL. */
struct agent_rig *agent_rig_new(const char *const *args);
/* Hangs up. Returns the agent's exit status. */
int agent_rig_free(struct agent_rig *a);

void agent_rig_raw(struct agent_rig *a, const void *data, size_t len);
void agent_rig_sync(struct agent_rig *a);
/* The mark comes in one write with what is before it. */
void agent_rig_sync_after(struct agent_rig *a, const void *data, size_t len);
/* Sends [type, channel, id, body]. */
void agent_rig_frame(struct agent_rig *a, unsigned type, unsigned channel, uint32_t id, const char *json);
/* An event of stream 0; data NULL ends it. */
void agent_rig_event(struct agent_rig *a, uint32_t id, const void *data, size_t len);
/* A request; returns its id. */
uint32_t agent_rig_request(struct agent_rig *a, unsigned channel, const char *op, const char *json);

/* The next frame, whatever it is. NULL at the end of the connection. Valid until the next call. */
const char *agent_rig_next(struct agent_rig *a);
/* "ok BODY" or "error BODY" of this request; its streams are in a->out. Others' frames are kept. */
const char *agent_rig_answer(struct agent_rig *a, uint32_t id);
/* request and answer on channel 1. */
const char *agent_rig_call(struct agent_rig *a, const char *op, const char *json);
/* Waits for more of a stream of a request that was answered; false when it ended instead. */
bool agent_rig_more(struct agent_rig *a, uint32_t id, unsigned stream);

/* Fails the test unless the text matches the pattern, where * stands for anything. */
void agent_rig_expect(const char *text, const char *pattern);

#endif
